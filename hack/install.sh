#!/usr/bin/env bash
# Builds operator and trainer, and installs Thole (CRDs, operator, MongoDB) into a cluster.
#
#   hack/install.sh                                            the local cluster of hack/cluster.sh
#   hack/install.sh --existing --context NAME [--registry R]   a cluster that you have: kind, k3d and minikube are given
#                                                              the images; any other pulls them from R/thole-NAME:dev,
#                                                              where they are pushed first
#
# Needs: about two minutes. May be repeated: what has not changed stays as it is.

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=hack/lib.sh
source "$here/lib.sh"
# shellcheck source=hack/target.sh
source "$here/target.sh"

build() {
    step "building operator and trainer"
    (
        cd "$THOLE_ROOT" || exit
        cmake --preset release >/dev/null
        cmake --build --preset release
    ) >&2
}

# Our images are addressed as docker.io/library/thole-NAME:dev and never pulled, unless they went to a registry.
manifests() {
    kubectl kustomize "$THOLE_ROOT/config/overlays/local" | if [[ -n $registry ]]; then
        sed -e "s,docker.io/library/thole-,$registry/thole-,g" -e 's,imagePullPolicy: \(Never\|IfNotPresent\),imagePullPolicy: Always,'
    else
        cat
    fi
}

# The operator's key, made once for each cluster: with another one the jobs that run would no longer be known.
ensure_key() {
    if kube -n thole-system get secret thole-operator-key >/dev/null 2>&1; then return; fi
    head -c 32 /dev/urandom | kube -n thole-system create secret generic thole-operator-key --from-file=key=/dev/stdin >/dev/null
}

# Nobody but the leader says where the coordinators' Service leads: what controllers wrote for one with a selector stays
# for ever otherwise.
drop_foreign_endpoints() {
    kube -n thole-system delete endpoints thole-operator --ignore-not-found
    kube -n thole-system delete endpointslices \
        -l kubernetes.io/service-name=thole-operator,endpointslice.kubernetes.io/managed-by!=thole-operator
}

# A new image under the same name starts nothing anew by itself: its digest in the pod template does.
install() {
    local digest
    step "installing Thole"
    kube apply --server-side --force-conflicts --field-manager hack-install -f - < <(manifests) >/dev/null
    drop_foreign_endpoints >/dev/null 2>&1
    ensure_key
    if [[ -n $context ]]; then kube apply -k "$THOLE_ROOT/config/mongodb/mongo" >/dev/null; fi
    kube wait --for condition=Established --timeout 60s crd/trainjobs.thole.dev crd/datasets.thole.dev >/dev/null
    digest=$(<"$THOLE_ROOT/build/images/operator.digest")
    kube -n thole-system patch deployment thole-operator --type merge --patch \
        "{\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"thole.dev/image-digest\":\"$digest\"}}}}}" >/dev/null
    say "waiting for MongoDB and the operator"
    kube -n thole-system rollout status deployment/mongodb --timeout 300s >/dev/null
    if ! kube -n thole-system rollout status deployment/thole-operator --timeout 120s >/dev/null; then
        kube -n thole-system get pods -o wide >&2 || true
        kube -n thole-system logs -l app.kubernetes.io/name=thole-operator --prefix --tail 20 >&2 || true
        die "the operator does not become ready; above are its pods and its last words"
    fi
}

target_arguments "$0" "$@"
((${#target_rest[@]} == 0)) || die "install.sh does not know '${target_rest[0]}'; see --help"
ensure_packages "${packages_build[@]}" jq
target_kubectl
build
target_load operator trainer
install
say "Thole runs in namespace thole-system of ${context:-the local cluster}"
