#!/usr/bin/env bash
# A real Kubernetes on this machine: etcd, API server, controller manager, scheduler, and nodes with their own containerd,
# kubelet and kube-proxy, with DNS and a MongoDB in it. Throw-away: nothing in it survives `down`.
#
#   hack/cluster.sh up [--nodes N]    bring it up, or mend what is broken, or change the number of nodes (at first: 2)
#   hack/cluster.sh down              end it and remove every trace of it
#   hack/cluster.sh status            nodes, daemons with pids, versions
#   hack/cluster.sh env               shell commands that set KUBECONFIG and PATH:  eval "$(./hack/cluster.sh env)"
#   hack/cluster.sh node-down NAME    cut a node off the network;  node-up NAME  joins it again
#
# Needs: root, 3 GiB of memory, 10 GiB of disk; half a minute, and the first time ten minutes more to build Kubernetes.
# State and logs are in /var/lib/thole-cluster (or $THOLE_CLUSTER_DIR), models in /var/lib/thole/models.
# May be interrupted and repeated at any moment.

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=hack/lib.sh
source "$here/lib.sh"
# shellcheck source=hack/tools.sh
source "$here/tools.sh"
# shellcheck source=hack/cluster/state.sh
source "$here/cluster/state.sh"
# shellcheck source=hack/cluster/process.sh
source "$here/cluster/process.sh"
# shellcheck source=hack/cluster/network.sh
source "$here/cluster/network.sh"
# shellcheck source=hack/cluster/certificates.sh
source "$here/cluster/certificates.sh"
# shellcheck source=hack/cluster/control.sh
source "$here/cluster/control.sh"
# shellcheck source=hack/cluster/cgroups.sh
source "$here/cluster/cgroups.sh"
# shellcheck source=hack/cluster/node.sh
source "$here/cluster/node.sh"

lock_file=/run/lock/thole-cluster.lock
cluster_tools=(kubernetes etcd coredns ferretdb)

# What a cluster was made of: another boot or another version means another cluster.
cluster_identity() {
    local name
    cat /proc/sys/kernel/random/boot_id
    for name in "${cluster_tools[@]}"; do tool_directory "$name"; done
}

cluster_is_whole() { [[ -f $cluster/whole && $(<"$cluster/whole") == "$(cluster_identity)" ]]; }

# A cluster that once was whole is mended, so that what is in it stays; if that does not help it is made anew, as is one
# whose making was interrupted. Mending runs as a program of its own: its first error ends it.
cluster_up() {
    local nodes=$1 began=$SECONDS
    if cluster_is_whole; then
        if bash "$0" converge "${nodes:-$(node_numbers | wc -l)}"; then
            say "the cluster is up ($((SECONDS - began)) s): eval \"\$(./hack/cluster.sh env)\""
            return
        fi
        warn "the cluster could not be mended and is made anew; the logs until now are in $cluster.broken"
        rm -rf "$cluster.broken"
        cp -r "$logs" "$cluster.broken"
    fi
    step "bringing up Kubernetes $(tool_version kubernetes) with ${nodes:-2} nodes"
    cluster_clean
    cluster_converge "${nodes:-2}"
    cluster_identity >"$cluster/whole"
    say "the cluster is up ($((SECONDS - began)) s): eval \"\$(./hack/cluster.sh env)\""
}

# Every part in its order; each does only what is missing.
cluster_converge() {
    local nodes=$1 number
    cluster_directories
    for ((number = 1; number <= nodes; number++)); do mkdir -p "$(node_directory "$number")"; done

    network_host
    network_space "$control_space" "$control_address"
    for number in $(node_numbers); do network_space "$(node_space "$number")" "$(node_address "$number")"; done
    network_routes

    control_files
    for number in $(node_numbers); do
        node_files "$number"
        node_start_runtime "$number"
    done
    control_start
    for number in $(node_numbers); do ((number <= nodes)) || node_remove "$number"; done

    for number in $(node_numbers); do node_wait_runtime "$number"; done
    bash "$here/image.sh" all pause coredns mongo
    for number in $(node_numbers); do node_start_kubelet "$number"; done
    control_wait
    for number in $(node_numbers); do node_wait_ready "$number"; done
    cluster_addons
}

cluster_directories() {
    if [[ -d $cluster && ! -f $cluster/is-thole-cluster && -n $(ls -A "$cluster") ]]; then
        die "$cluster exists and is not a cluster of this script: move it, or set THOLE_CLUSTER_DIR"
    fi
    ((${#cluster} <= 60)) || die "THOLE_CLUSTER_DIR is too long for the sockets below it (60 characters at most): $cluster"
    [[ ! -f /var/lib/kubelet/config.yaml ]] || die "this machine is a node of another Kubernetes (/var/lib/kubelet/config.yaml)"
    mkdir -p "$logs"
    chmod 700 "$cluster"
    touch "$cluster/is-thole-cluster"
    install -d -o "$pod_user" -g "$pod_user" "$models_directory" "$mongodb_directory"
}

# DNS for the pods, and a MongoDB as mongodb.thole-system.svc:27017.
cluster_addons() {
    local addons number
    addons=$(kube kustomize "$THOLE_ROOT/config/dns"; echo ---; kube kustomize "$THOLE_ROOT/config/mongodb/ferretdb")
    kube get namespace thole-system >/dev/null 2>&1 || kube create namespace thole-system --save-config >/dev/null
    kube apply -f - <<<"$addons" >/dev/null
    kube -n kube-system rollout status deployment/coredns --timeout 120s >/dev/null
    kube -n thole-system rollout status deployment/mongodb --timeout 120s >/dev/null
    # A connection that began before kube-proxy knew the Service stays on the wrong way: each try is a new one.
    for number in $(node_numbers); do
        wait_for 60 "DNS on $(node_name "$number")" \
            inside "$(node_space "$number")" timeout 2 bash -c "</dev/tcp/$dns_address/53"
    done
}

cluster_clean() {
    local number space pids
    daemon_stop "${control_daemons[@]}"
    for number in $(node_numbers_left); do node_end "$number"; done
    for space in $(network_spaces); do
        mapfile -t pids < <(ip netns pids "$space")
        ((${#pids[@]} == 0)) || end_processes "${pids[@]}"
    done
    network_clean
    cluster_remove_traces
    [[ -d $cluster ]] || return 0
    [[ -f $cluster/is-thole-cluster || -z $(ls -A "$cluster") ]] || die "$cluster is not a cluster of this script: left alone"
    [[ -z $(mounts_below "$cluster") ]] || die "still mounted below $cluster, nothing removed: $(mounts_below "$cluster")"
    rm -rf "$cluster"
}

# Every node of which there is a folder, a network namespace or a cgroup.
node_numbers_left() {
    {
        node_numbers
        {
            network_spaces
            cgroup_roots 'thole-node-*' | while read -r pattern; do compgen -G "$pattern" || true; done
        } | sed -n 's/.*thole-node-\([0-9]*\)$/\1/p'
    } | sort -un
}

# What kubelet and the CNI library write outside the folders they are given.
cluster_remove_traces() {
    local link
    { grep -lsF "\"$cluster/" /var/lib/cni/results/* || true; } | xargs --no-run-if-empty -d '\n' rm -f
    for link in /var/log/containers/*; do
        [[ $(readlink "$link") != "$cluster"/* ]] || rm -f "$link"
    done
    rm -f /var/lib/kubelet/device-plugins/{kubelet.sock,DEPRECATION}
    rmdir /var/lib/cni/{results,} /var/log/containers /var/lib/kubelet/{device-plugins,} /run/containerd/{s,} 2>/dev/null || true
    rm -rf "$mongodb_directory"
}

cluster_status() {
    local name pid
    if [[ ! -f $cluster/whole ]]; then
        say "there is no cluster; ./hack/cluster.sh up makes one"
        return 1
    fi
    printf 'Kubernetes %s, etcd %s, CoreDNS %s, FerretDB %s; state and logs in %s\n\n' "$(tool_version kubernetes)" \
        "$(tool_version etcd)" "$(tool_version coredns)" "$(tool_version ferretdb)" "$cluster"
    for name in "${control_daemons[@]}" $(for number in $(node_numbers); do node_daemons "$number"; done); do
        pid=$(daemon_pid "$name") || pid='does not run'
        printf '%-26s %s\n' "$name" "$pid"
    done
    echo
    kube get nodes -o wide --request-timeout 5s
}

cluster_env() {
    need_root "the local cluster"
    [[ -f $cluster/admin.kubeconfig ]] || die "there is no cluster; ./hack/cluster.sh up makes one"
    printf 'export KUBECONFIG=%q\n' "$cluster/admin.kubeconfig"
    # shellcheck disable=SC2016
    printf 'case :$PATH: in *:%q:*) ;; *) export PATH=%q:$PATH ;; esac\n' "$tools_path" "$tools_path"
}

cluster_prepare() {
    need_root "hack/cluster.sh"
    ensure_packages "${packages_cluster[@]}" libc6-dev gcc
    need_disk "$(dirname "$cluster")" 3
    tool_ensure "${cluster_tools[@]}"
}

main() {
    local verb=${1:-} nodes=''
    (($# == 0)) || shift
    set_tools_path
    case $verb in
        up)
            while (($#)); do
                case $1 in
                    --nodes) nodes=${2:-} && shift ;;
                    --nodes=*) nodes=${1#*=} ;;
                    *) die "up does not know '$1'; it knows --nodes N" ;;
                esac
                shift
                [[ $nodes =~ ^[1-9][0-9]?$ ]] || die "--nodes wants a number from 1 to 99, not '$nodes'"
            done
            cluster_prepare
            locked "$lock_file" cluster_up "$nodes"
            ;;
        converge) cluster_converge "$1" ;;
        down)
            need_root "hack/cluster.sh"
            locked "$lock_file" cluster_clean
            say "the cluster is gone; models that were trained in it are still in $models_directory"
            ;;
        status) cluster_status ;;
        env) cluster_env ;;
        node-down | node-up)
            local number
            number=$(node_number "${1:-}")
            ip link set "$(node_space "$number")" "${verb#node-}"
            ;;
        '' | -h | --help | help) usage "$0" ;;
        *) die "there is no '$verb'; see hack/cluster.sh --help" ;;
    esac
}

case " $* " in *" --help "* | *" -h "*) usage "$0" && exit ;; esac
main "$@"
