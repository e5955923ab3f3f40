#!/usr/bin/env bash
# Container images of what was built here, as docker.io/library/thole-NAME:dev, and their way into clusters.
#
#   hack/image.sh [all] [NAME...]             build, then load
#   hack/image.sh build [NAME...]             build/images/NAME.tar (the format of `docker save`)
#   hack/image.sh load [NAME...]              into every node of the local cluster (hack/cluster.sh)
#   hack/image.sh save DIRECTORY [NAME...]    build, and copy the archives, for `kind load image-archive` and the like
#   hack/image.sh push REGISTRY [NAME...]     build, and push as REGISTRY/thole-NAME:dev
#   hack/image.sh root NAME DIRECTORY         only the image's files (the Containerfiles use this)
#
# NAME is one of operator, trainer (from build/release), mongo, coredns, pause, and samples (Fashion-MNIST's files, for nodes
# that lack them). Without names: operator and trainer. What is there already is neither built nor loaded again.

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=hack/lib.sh
source "$here/lib.sh"
# shellcheck source=hack/tools.sh
source "$here/tools.sh"
# shellcheck source=hack/cluster/state.sh
source "$here/cluster/state.sh"
# shellcheck source=hack/image/root.sh
source "$here/image/root.sh"

archives=$THOLE_ROOT/build/images

reference() { printf 'docker.io/library/thole-%s:dev' "$1"; }

image_build() {
    local name=$1 inputs work
    inputs=$(image_inputs "$name")
    if [[ -f $archives/$name.tar && -f $archives/$name.inputs && $(<"$archives/$name.inputs") == "$inputs" ]]; then return; fi
    say "image $(reference "$name")"
    work=$(mktemp -d "$archives/$name.XXXXXX")
    mkdir -m 755 "$work/root"
    image_root "$name" "$work/root"
    image_archive "$name" "$work"
    rm -f "$archives/$name.inputs"
    mv "$work/image.tar" "$archives/$name.tar"
    mv "$work/digest" "$archives/$name.digest"
    printf '%s\n' "$inputs" >"$archives/$name.inputs"
    rm -rf "$work"
}

# One layer, a configuration and a manifest. The same files always give the same bytes, and so the same digest.
image_archive() {
    local name=$1 work=$2 layer
    local flat=(tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu)
    mkdir "$work/image"
    "${flat[@]}" -C "$work/root" -cf "$work/image/layer.tar" .
    layer=$(sha256sum <"$work/image/layer.tar")
    jq -n --arg layer "sha256:${layer%% *}" --arg entrypoint "$(image_entrypoint "$name")" --arg machine "$(uname -m)" '{
        architecture: ({x86_64: "amd64", aarch64: "arm64"}[$machine] // $machine), os: "linux",
        config: {User: "65532:65532", Entrypoint: [$entrypoint], WorkingDir: "/", Env: ["PATH=/bin"]},
        rootfs: {type: "layers", diff_ids: [$layer]}}' >"$work/image/config.json"
    jq -n --arg tag "$(reference "$name")" '[{Config: "config.json", RepoTags: [$tag], Layers: ["layer.tar"]}]' \
        >"$work/image/manifest.json"
    sha256sum <"$work/image/config.json" | cut -d ' ' -f 1 >"$work/digest"
    "${flat[@]}" -C "$work/image" -cf "$work/image.tar" manifest.json config.json layer.tar
}

# image_load NAME: into each node that runs, side by side. Each node's folder remembers what its containerd was given.
image_load() {
    local name=$1 number digest marker pid pids=()
    digest=$(<"$archives/$name.digest")
    for number in $(node_numbers); do
        marker=$(node_directory "$number")/images/$name
        if [[ ! -S $(node_socket "$number") ]] || [[ -f $marker && $(<"$marker") == "$digest" ]]; then continue; fi
        say "loading $(reference "$name") into node-$number"
        {
            ctr --address "$(node_socket "$number")" --namespace k8s.io images import "$archives/$name.tar" >/dev/null &&
                printf '%s\n' "$digest" >"$marker"
        } &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || die "containerd did not take $archives/$name.tar"; done
}

build_all() {
    local name
    mkdir -p "$archives"
    # What an interrupted build left; others' builds hold the lock.
    find "$archives" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
    for name in "$@"; do image_build "$name"; done
}

load_all() {
    local name
    [[ -n $(node_numbers) ]] || die "there is no local cluster to load into: ./hack/cluster.sh up"
    for name in "$@"; do
        [[ -f $archives/$name.tar ]] || die "$archives/$name.tar is not there: hack/image.sh build $name"
        image_load "$name"
    done
}

main() {
    local verb=all name
    case " $* " in *" -h "* | *" --help "*) usage "$0" && exit ;; esac
    case ${1:-} in build | load | all | save | push | root) verb=$1 && shift ;; esac
    local target=''
    case $verb in save | push) target=${1:?"$verb: where to?"} && shift ;; esac
    if [[ $verb == root ]]; then
        mkdir -p "$2"
        image_root "$1" "$2"
        return
    fi
    (($#)) || set -- operator trainer
    for name in "$@"; do
        [[ " ${image_names[*]} " == *" $name "* ]] || die "there is no image '$name'; there are: ${image_names[*]}"
    done
    case $verb in load | all) need_root "loading images" ;; esac
    case $verb in build | all | save | push) locked "$archives.lock" build_all "$@" ;; esac
    case $verb in
        load | all) locked "$archives.lock" load_all "$@" ;;
        save)
            mkdir -p "$target"
            for name in "$@"; do cp "$archives/$name.tar" "$target/thole-$name.tar"; done
            ;;
        push)
            ensure_packages skopeo
            for name in "$@"; do skopeo copy "docker-archive:$archives/$name.tar" "docker://$target/thole-$name:dev" >&2; done
            ;;
    esac
}

main "$@"
