#!/usr/bin/env bash
# Thole in one command: a Kubernetes on this machine, the operator in it, and a LeNet that two workers and a parameter
# server train on Fashion-MNIST, with its progress as it goes, its history, and where its model is.
#
#   hack/demo.sh                                           everything, on a fresh Debian or Ubuntu too
#   hack/demo.sh --existing --context NAME [--registry R]  in a cluster that you have (see hack/install.sh --help)
#
# Needs: root, 6 GiB of memory, 12 GiB of disk. Five minutes; the first time fifteen more, to build Kubernetes.
# It installs the Debian packages that are missing. May be interrupted and repeated at any moment; afterwards,
# ./hack/cluster.sh down removes the cluster.

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=hack/lib.sh
source "$here/lib.sh"
# shellcheck source=hack/target.sh
source "$here/target.sh"

requirements() {
    step "what this needs"
    if [[ -n $context ]]; then
        say "your cluster '$context', two of its CPUs, and five minutes; Thole is installed into namespace thole-system"
        return
    fi
    say "root, 6 GiB of memory, 12 GiB of disk, and about five minutes"
    [[ -d $("$here/tools.sh" --where kubernetes) ]] || say "and about fifteen minutes more, this first time, to build Kubernetes"
    need_root "hack/demo.sh"
}

# The sample job of an earlier run is deleted; its models stay.
submit() {
    local samples=$THOLE_ROOT/config/samples
    step "applying config/samples: Dataset fashion-mnist, TrainJob lenet"
    kube -n default delete trainjobs.thole.dev lenet --ignore-not-found --timeout 120s >&2
    kube -n default apply -f "$samples/dataset.yaml" -f "$samples/trainjob.yaml" >&2
}

farewell() {
    step "to look around"
    # shellcheck disable=SC2016
    [[ -n $context ]] || say 'eval "$(./hack/cluster.sh env)"'
    say "kubectl get trainjobs.thole.dev,datasets.thole.dev"
    say "kubectl describe trainjobs.thole.dev lenet"
    say "kubectl -n thole-system logs -l app.kubernetes.io/name=thole-operator --prefix"
    step "to tear down"
    if [[ -z $context ]]; then
        say "./hack/cluster.sh down"
    else
        say "kubectl --context $context -n default delete trainjobs.thole.dev,datasets.thole.dev --all"
        say "kubectl --context $context delete -k config/mongodb/mongo"
        say "kubectl --context $context delete -k config/default"
    fi
}

target_arguments "$0" "$@"
((${#target_rest[@]} == 0)) || die "demo.sh does not know '${target_rest[0]}'; see --help"
requirements
if [[ -z $context ]]; then
    ensure_packages "${packages_build[@]}" "${packages_cluster[@]}" "${packages_samples[@]}"
    "$here/cluster.sh" up
else
    ensure_packages "${packages_build[@]}" python3-venv jq
fi
python=$(ensure_venv demo -r "$here/demo/requirements.txt")/bin/python
"$here/install.sh" ${context:+--existing --context "$context"} ${registry:+--registry "$registry"}
target_kubectl
if [[ -n $context ]]; then
    target_load samples
    "$here/demo/files.sh" "$context" "$(target_image samples)"
fi
submit
step "training (Ctrl-C leaves it running)"
"$python" "$here/demo/follow.py" ${context:+--context "$context"} default lenet
farewell
