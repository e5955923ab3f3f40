# shellcheck shell=bash disable=SC2034
# Names, addresses and folders of the local cluster: what every part must agree on. Sourced after hack/lib.sh.

cluster=${THOLE_CLUSTER_DIR:-/var/lib/thole-cluster}
logs=$cluster/logs

bridge=thole0
host_address=10.77.0.1
control_address=10.77.0.2
node_range=10.77.0.0/24
pod_range=10.244.0.0/16
service_range=10.96.0.0/16
dns_address=10.96.0.10
api_service_address=10.96.0.1
api_url=https://$control_address:6443
control_space=thole-control      # network namespace and veth of the control plane

# What outlives a pod but not the cluster (MongoDB), and what outlives both (models). Trainer and MongoDB pods are not root.
mongodb_directory=/var/lib/thole/mongodb
models_directory=/var/lib/thole/models
pod_user=65532

node_name() { printf 'node-%s' "$1"; }
node_space() { printf 'thole-node-%s' "$1"; }      # network namespace, veth and cgroup of node number $1
node_address() { printf '10.77.0.%s' "$((10 + $1))"; }
node_pods() { printf '10.244.%s.0/24' "$1"; }
node_directory() { printf '%s/node-%s' "$cluster" "$1"; }
node_socket() { printf '%s/node-%s/containerd.sock' "$cluster" "$1"; }

# node_numbers: the numbers of the nodes that this cluster has, one a line.
node_numbers() {
    local directory
    for directory in "$cluster"/node-*/; do
        [[ -d $directory ]] || continue
        directory=${directory%/}
        printf '%s\n' "${directory##*/node-}"
    done | sort -n
}

# node_number NAME: node-3 or 3 → 3; an error names the nodes there are.
node_number() {
    local number=${1#node-}
    [[ $number =~ ^[0-9]+$ && -d $(node_directory "$number") ]] ||
        die "there is no node '$1'; there are: $(node_numbers | sed 's/^/node-/' | paste -sd ' ')"
    printf '%s' "$number"
}

tools_path=''
set_tools_path() { tools_path=$(tool_directory kubernetes); }
kube() { "$tools_path/kubectl" --kubeconfig "$cluster/admin.kubeconfig" "$@"; }
