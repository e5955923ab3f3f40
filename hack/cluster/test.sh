#!/usr/bin/env bash
# Tests hack/cluster.sh: it comes up after anything, keeps what is in it, and leaves nothing behind.
#
#   hack/cluster/test.sh        about two minutes; needs root, and that no cluster is up
#
# hack/test.sh runs this when it brings up the cluster itself.

here=$(dirname "${BASH_SOURCE[0]}")/..
# shellcheck source=hack/lib.sh
source "$here/lib.sh"
# shellcheck source=hack/cluster/state.sh
source "$here/cluster/state.sh"
# shellcheck source=hack/cluster/process.sh
source "$here/cluster/process.sh"

case ${1:-} in -h | --help) usage "$0" && exit ;; esac
[[ ! -e $cluster ]] || die "a cluster is up, which these tests would take down: ./hack/cluster.sh down"

need_root "hack/cluster/test.sh"
ensure_packages "${packages_cluster[@]}"
passed=0
log=$(mktemp)
up() { "$here/cluster.sh" up "$@" 2>"$log" || die "not ok - cluster.sh up $*: $(<"$log")"; }
kubectl() { "$("$here/tools.sh" --where kubernetes)/kubectl" --kubeconfig "$cluster/admin.kubeconfig" "$@"; }
ok() {
    passed=$((passed + 1))
    printf 'ok %s - %s\n' "$passed" "$1"
}
check() {
    local what=$1 complaint
    shift
    complaint=$("$@" 2>&1) || die "not ok - $what: $complaint"
    ok "$what"
}

# What the machine has that a cluster could leave behind.
traces() {
    ip -o link | cut -d: -f2
    ip netns
    ip route
    findmnt -rno TARGET | grep -v '^/run/netns$' # which "ip netns" makes and keeps
    iptables -S
    sysctl net.ipv4.ip_forward vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
    find /sys/fs/cgroup -maxdepth 2 -name 'thole*'
    ls -d /var/lib/cni /var/lib/kubelet /var/log/containers /run/containerd /run/netns/* "$cluster" 2>/dev/null || true
    { grep -lzsF "$cluster" /proc/[0-9]*/cmdline || true; } | wc -l
}

kill_daemons() {
    local name pid
    for name in "$@"; do
        pid=$(daemon_pid "$name") || die "$name does not run"
        kill -KILL "$pid"
    done
}

nodes_are() { [[ $(kubectl get nodes --no-headers | awk '$2 == "Ready"' | wc -l) == "$1" ]]; }
resolves() {
    kubectl -n kube-system rollout status deployment/coredns --timeout 60s &&
        wait_for 30 "DNS" nsenter --net=/run/netns/thole-node-2 -- timeout 2 bash -c '</dev/tcp/10.96.0.10/53'
}

before=$(traces)
trap '"$here/cluster.sh" down 2>/dev/null; rm -f "$log"' EXIT

up
check "two nodes are Ready" wait_for 30 "two nodes" nodes_are 2
check "a Service is reached from a node" resolves
kubectl create configmap witness >/dev/null

kill_daemons etcd kube-apiserver kubelet-1 containerd-2
up
check "a cluster whose daemons were killed is mended" kubectl get configmap witness
check "its nodes are Ready" wait_for 60 "two nodes" nodes_are 2

{ grep -lzsxF "$(node_socket 2)" /proc/[0-9]*/cmdline || true; } | cut -d/ -f3 | xargs --no-run-if-empty kill -KILL
kill_daemons kubelet-2 kube-proxy-2
up
check "a node that lost its power comes back" wait_for 60 "two nodes" nodes_are 2

ip link delete "$(node_space 2)"
up
check "a node whose network was deleted comes back" wait_for 90 "two nodes" nodes_are 2

up --nodes 3
check "a third node joins" wait_for 60 "three nodes" nodes_are 3
up --nodes 2
check "and leaves" wait_for 60 "two nodes" nodes_are 2
check "without anybody losing anything" kubectl get configmap witness

"$here/cluster.sh" down 2>/dev/null
check "down leaves nothing" diff <(printf '%s\n' "$before") <(traces)

for seconds in 0.5 1 2 4; do
    timeout --signal KILL "$seconds" "$here/cluster.sh" up || true
done 2>/dev/null
up
check "up after runs that were killed in the middle" wait_for 30 "two nodes" nodes_are 2

rm -rf "$cluster/run" "$cluster/pki"
"$here/cluster.sh" down 2>/dev/null
check "down without its records leaves nothing" diff <(printf '%s\n' "$before") <(traces)
printf '%s passed\n' "$passed"
