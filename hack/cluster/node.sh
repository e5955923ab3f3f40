# shellcheck shell=bash disable=SC2154
# A node: containerd, kubelet and kube-proxy with folders, network namespace and cgroup of their own.
# Functions take the node's number.

node_daemons() { printf 'kubelet-%s\nkube-proxy-%s\ncontainerd-%s\n' "$1" "$1" "$1"; }

node_files() {
    local number=$1 name directory
    name=$(node_name "$number")
    directory=$(node_directory "$number")
    mkdir -p "$directory"/{cni,ipam,kubelet,pod-logs,plugins,images}
    certificate "$name" "/O=system:nodes/CN=system:node:$name" "IP:$(node_address "$number"),DNS:$name"
    kubeconfig "$name" "$directory/kubelet.kubeconfig"
    node_containerd_config "$number" "$directory" | put "$directory/containerd.toml"
    node_cni_config "$number" "$directory" | put "$directory/cni/10-thole.conflist"
    node_kubelet_config "$number" "$directory" | put "$directory/kubelet.yaml"
    node_proxy_config "$number" | put "$directory/kube-proxy.yaml"
}

# restrict_oom_score_adj: without CAP_SYS_RESOURCE runc must not lower it, and fails obscurely when it tries.
node_containerd_config() {
    cat <<END
version = 2
root = "$2/containerd/root"
state = "$2/containerd/state"
oom_score = 0
[grpc]
  address = "$2/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/thole-pause:dev"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$2/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "$2/runc"
END
}

# Pods keep their own addresses from node to node (every namespace has the routes), so nothing is masqueraded.
node_cni_config() {
    cat <<END
{
  "cniVersion": "1.0.0",
  "name": "$(node_space "$1")",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "$2/ipam",
              "ranges": [[{"subnet": "$(node_pods "$1")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
}

# cgroupRoot keeps two kubelets of one machine from ending each other's pods.
node_kubelet_config() {
    cat <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $(node_address "$1")
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $pki/$(node_name "$1").crt
tlsPrivateKeyFile: $pki/$(node_name "$1").key
clusterDomain: cluster.local
clusterDNS: [$dns_address]
resolvConf: /dev/null
containerRuntimeEndpoint: unix://$2/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$(node_space "$1")
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
healthzPort: 0
podLogsDir: $2/pod-logs
volumePluginDir: $2/plugins
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi}
END
}

node_proxy_config() {
    cat <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $(node_name "$1")
clientConnection: {kubeconfig: $cluster/kube-proxy.kubeconfig}
clusterCIDR: $pod_range
conntrack: {maxPerCore: 0, min: 0}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
END
}

node_start_runtime() {
    daemon_ensure "containerd-$1" "$(node_space "$1")" containerd --config "$(node_directory "$1")/containerd.toml"
}

node_wait_runtime() {
    daemon_wait 60 "containerd-$1" ctr --address "$(node_socket "$1")" --timeout 3s version
}

node_start_kubelet() {
    local number=$1 directory
    directory=$(node_directory "$number")
    cgroups_make "$(node_space "$number")"
    daemon_ensure "kubelet-$number" "$(node_space "$number")" "$tools_path/kubelet" \
        --config "$directory/kubelet.yaml" --kubeconfig "$directory/kubelet.kubeconfig" \
        --hostname-override "$(node_name "$number")" --node-ip "$(node_address "$number")" \
        --root-dir "$directory/kubelet" --cert-dir "$directory/kubelet/pki"
    daemon_ensure "kube-proxy-$number" "$(node_space "$number")" "$tools_path/kube-proxy" \
        --config "$directory/kube-proxy.yaml"
}

node_wait_ready() {
    daemon_wait 120 "kubelet-$1" kube wait --for condition=Ready "node/$(node_name "$1")" --timeout 3s
    daemon_wait 60 "kube-proxy-$1" inside "$(node_space "$1")" curl -fsS --max-time 2 http://127.0.0.1:10256/livez
}

# node_remove NUMBER: a node that is not wanted any more; its pods' objects go with it.
node_remove() {
    local number=$1
    say "removing $(node_name "$number")"
    node_end "$number"
    kube delete node "$(node_name "$number")" --ignore-not-found --wait=false >/dev/null || true
    kube delete pods --all-namespaces --field-selector "spec.nodeName=$(node_name "$number")" --force --grace-period 0 \
        --wait=false >/dev/null 2>&1 || true
    network_remove_node_routes "$number"
    network_remove_space "$(node_space "$number")"
    rm -rf "$(node_directory "$number")"
}

# node_end NUMBER: a power cut. kubelet first, so that it starts nothing again; then what the node's processes left.
node_end() {
    local directory space pids
    directory=$(node_directory "$1")
    space=$(node_space "$1")
    mapfile -t pids < <(node_daemons "$1")
    daemon_stop "${pids[@]}"
    # A shim may be about to start a container while we look: go round until nobody is left.
    while mapfile -t pids < <(node_processes "$directory" "$space") && ((${#pids[@]})); do
        end_processes "${pids[@]}"
    done
    shim_sockets "$directory" | xargs --no-run-if-empty -d '\n' rm -f
    unmount_below "$directory"
    cgroups_remove "$space"
}

# Each shim listens in /run/containerd/s, at an address that it wrote down beside its container.
shim_sockets() { find "$1/containerd/state" -name address -exec sed 's,^unix://,,' {} + 2>/dev/null || true; }

# The shims that belong to this node's containerd, what is in its cgroups, and what is in its network namespace.
node_processes() {
    local directory=$1 space=$2 arguments=$1/containerd.sock group
    {
        grep -lzsxF -- "$arguments" /proc/[0-9]*/cmdline | cut -d/ -f3 | while read -r pid; do
            [[ $(readlink "/proc/$pid/exe") != */containerd-shim* ]] || echo "$pid"
        done || true
        for group in $(cgroup_roots "$space"); do find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done
        [[ ! -e /run/netns/$space ]] || ip netns pids "$space" 2>/dev/null || true
    } | sort -un | while read -r pid; do
        [[ -z $(process_identity "$pid") ]] || echo "$pid"
    done
}

unmount_below() {
    local mounts
    mapfile -t mounts < <(mounts_below "$1" | sort -r)
    ((${#mounts[@]})) || return 0
    umount "${mounts[@]}" 2>/dev/null || true
    mapfile -t mounts < <(mounts_below "$1" | sort -r)
    ((${#mounts[@]} == 0)) || umount --lazy "${mounts[@]}"
}

mounts_below() { findmnt -rno TARGET | awk -v top="$1/" 'index($0, top) == 1'; }
