# shellcheck shell=bash
#
# Completion for thole-trainer in bash: source this file, or install it (cmake --install --component completion).
# Roles and options are what the program's own help names.

# What follows option $1 in the help on standard input, such as FILE; nothing where nothing does.
_thole_trainer_takes() {
    awk -v option="$1" '/^  -/ {
        found = 0
        for (i = 1; $i ~ /^-/; i++) {
            sub(/,$/, "", $i)
            found = found || $i == option
        }
        if (found && $i ~ /^[A-Z=]+$/) print $i
    }'
}

_thole_trainer() {
    local program=$1 word=$2 previous=$3 help takes words=''
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        help=$("$program" --help 2>/dev/null) || return 0
        words="$(sed -nE 's/^  ([a-z]+) .*/\1/p' <<<"$help") --help --version"
    else
        help=$("$program" "${COMP_WORDS[1]}" --help 2>/dev/null) || return 0
        takes=$(_thole_trainer_takes "$previous" <<<"$help")
        [[ $previous == = || ${COMP_WORDS[COMP_CWORD]} == = ]] && takes=DIR && word=${word#=} # NAME=DIR comes as three words
        case $takes in
            '') words="$(grep -oE '^  (-[a-z], )?--[a-z0-9-]+' <<<"$help" | grep -oE -- '--.*') --help" ;;
            FILE) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
            DIR) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
            LEVEL) words='debug info warn error' ;;
            FORMAT) words='text json' ;;
        esac
    fi
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    else
        compopt -o filenames 2>/dev/null
    fi
}

complete -F _thole_trainer thole-trainer
