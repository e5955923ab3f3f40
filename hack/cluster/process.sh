# shellcheck shell=bash disable=SC2154
# The cluster's daemons: started so that they outlive the script, found again by pid and start time, ended for certain.
# A pid alone may have been given to somebody else since.

# process_identity PID: prints "PID STARTTIME" of a living process, nothing for a dead one or a zombie.
process_identity() {
    local stat fields
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} == [ZX] ]] || printf '%s %s\n' "$1" "${fields[19]}"
}

daemon_file() { printf '%s/run/%s.pid' "$cluster" "$1"; }

# daemon_pid NAME: prints its pid while it runs; fails otherwise.
daemon_pid() {
    local file recorded
    file=$(daemon_file "$1")
    [[ -s $file ]] || return 1
    recorded=$(<"$file")
    [[ $(process_identity "${recorded%% *}") == "$recorded" ]] || return 1
    printf '%s' "${recorded%% *}"
}

# daemon_ensure NAME NAMESPACE COMMAND...: starts it in that network namespace unless it runs.
# Both sides record the new process: itself, so that it never runs unrecorded, should this script be killed now; and this
# script, so that it does not take a daemon that has not come to it yet for one that has ended.
daemon_ensure() {
    local name=$1 space=$2
    shift 2
    if daemon_pid "$name" >/dev/null; then return; fi
    mkdir -p "$cluster/run" "$logs"
    printf '\n---- %s: %s\n' "$(date --iso-8601=seconds)" "$*" >>"$logs/$name.log"
    (
        cd /
        daemon_record "$name" "$BASHPID"
        exec setsid nsenter --net="/run/netns/$space" -- "$@"
    ) </dev/null >>"$logs/$name.log" 2>&1 &
    daemon_record "$name" "$!"
    disown
}

daemon_record() {
    local file
    file=$(daemon_file "$1")
    process_identity "$2" >"$file.$BASHPID"
    mv "$file.$BASHPID" "$file"
}

# daemon_wait SECONDS NAME COMMAND...: until COMMAND succeeds; gives up at once when the daemon has died.
daemon_wait() {
    local seconds=$1 name=$2
    shift 2
    if wait_for "$seconds" "$name" daemon_answers "$name" "$@" && daemon_pid "$name" >/dev/null; then return; fi
    daemon_pid "$name" >/dev/null || warn "$name has ended"
    printf '%s\n' "the end of $logs/$name.log:" >&2
    tail -n 15 "$logs/$name.log" >&2 || true
    return 1
}

daemon_answers() {
    local name=$1
    shift
    daemon_pid "$name" >/dev/null || return 0
    "$@"
}

# daemon_stop NAME...: ends it and returns when it is gone.
daemon_stop() {
    local name pid
    for name in "$@"; do
        if pid=$(daemon_pid "$name"); then end_processes "$pid"; fi
        rm -f "$(daemon_file "$name")"
    done
}

# end_processes PID...: SIGKILL, and back when none of them lives any more.
end_processes() {
    local pid identity identities=()
    for pid in "$@"; do
        identity=$(process_identity "$pid")
        [[ -z $identity ]] || identities+=("$identity")
    done
    for identity in "${identities[@]}"; do kill -KILL "${identity%% *}" 2>/dev/null || true; done
    ((${#identities[@]} == 0)) || wait_for 30 "the end of processes ${identities[*]%% *}" processes_ended "${identities[@]}"
}

processes_ended() {
    local identity
    for identity in "$@"; do
        [[ $(process_identity "${identity%% *}") != "$identity" ]] || return 1
    done
}
