# shellcheck shell=bash disable=SC2034
# Which cluster a script means: the local one, or, when it is named, one that the user has. Sourced after hack/lib.sh.

context='' registry='' target_rest=()

# target_arguments SCRIPT ARGUMENT...: takes --existing, --context and --registry; the rest goes to target_rest.
target_arguments() {
    local script=$1 existing=''
    shift
    while (($#)); do
        case $1 in
            -h | --help) usage "$script" && exit ;;
            --existing) existing=yes ;;
            --context) context=${2:-} && shift ;;
            --context=*) context=${1#*=} ;;
            --registry) registry=${2:-} && shift ;;
            --registry=*) registry=${1#*=} ;;
            *) target_rest+=("$1") ;;
        esac
        shift || die "the last option wants a value; see --help"
    done
    [[ -n $context || -z $existing ]] || die "--existing wants to be told which cluster: --context NAME"
    [[ -n $existing || -z $context ]] || die "--context is for --existing; the local cluster needs none"
}

# target_kubectl: from here on, kubectl and kube talk to that cluster.
target_kubectl() {
    if [[ -z $context ]]; then
        local settings
        settings=$("$THOLE_ROOT/hack/cluster.sh" env)
        eval "$settings"
        return
    fi
    have kubectl || die "kubectl is not there: install it to talk to your cluster"
    kubectl --context "$context" get --raw /readyz --request-timeout 10s >/dev/null ||
        die "the cluster of context '$context' does not answer"
}

kube() { kubectl ${context:+--context "$context"} "$@"; }

# target_image NAME: how the cluster's pods address that image of ours.
target_image() { printf '%s/thole-%s:dev' "${registry:-docker.io/library}" "$1"; }

# target_load NAME...: builds these images and gives them to the cluster.
target_load() {
    local image=$THOLE_ROOT/hack/image.sh archives=$THOLE_ROOT/build/images/saved name
    if [[ -z $context ]]; then
        "$image" all "$@"
    elif [[ -n $registry ]]; then
        "$image" push "$registry" "$@"
    else
        "$image" save "$archives" "$@"
        for name in "$@"; do
            case $context in
                kind-*) kind load image-archive --name "${context#kind-}" "$archives/thole-$name.tar" ;;
                k3d-*) k3d image import --cluster "${context#k3d-}" "$archives/thole-$name.tar" ;;
                minikube*) minikube --profile "$context" image load "$archives/thole-$name.tar" ;;
                *) die "how does the cluster of context '$context' get images? Name a registry: --registry R" ;;
            esac
        done >&2
    fi
}
