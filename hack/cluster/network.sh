# shellcheck shell=bash disable=SC2154
# The cluster's network: one bridge, one network namespace for the control plane and one for each node, each with a veth.
#
#   host 10.77.0.1 ── bridge thole0 ─┬─ thole-control 10.77.0.2
#                                    ├─ thole-node-1  10.77.0.11   pods 10.244.1.0/24
#                                    └─ thole-node-2  10.77.0.12   pods 10.244.2.0/24
#
# Every function brings about a state and may be called again. It is a closed network: nothing in it reaches beyond this
# machine, and the machine sends nothing meant for a Service or a pod out of its own door.

# sysctls that the bring-up or kubelet changes on the machine: remembered before, put back after.
network_sysctls=(net.ipv4.ip_forward vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
    kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

inside() {
    local space=$1
    shift
    nsenter --net="/run/netns/$space" -- "$@"
}

network_host() {
    local taken
    taken=$(ip -4 -o address show | awk -v bridge="$bridge" '$2 != bridge && $4 ~ /^10\.77\.0\./ { print $2; exit }')
    [[ -z $taken ]] || die "$taken already uses $node_range, which the cluster's network needs"
    [[ -f $cluster/sysctls ]] || sysctl "${network_sysctls[@]}" >"$cluster/sysctls" 2>/dev/null || true

    ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
    ip address replace "$host_address/24" dev "$bridge"
    ip link set "$bridge" up
    ip route replace blackhole "$service_range"
    sysctl -q -w net.ipv4.ip_forward=1
    network_firewall
}

# Between the nodes everything passes, whatever Docker or a firewall have made the default; beyond the bridge nothing does.
network_firewall() {
    local iptables=(iptables -w 10)
    "${iptables[@]}" -N THOLE 2>/dev/null || "${iptables[@]}" -F THOLE
    "${iptables[@]}" -A THOLE -o "$bridge" -j ACCEPT
    "${iptables[@]}" -A THOLE -j REJECT
    "${iptables[@]}" -C FORWARD -i "$bridge" -j THOLE 2>/dev/null || "${iptables[@]}" -I FORWARD -i "$bridge" -j THOLE
}

# network_space NAME ADDRESS: a namespace with eth0 on the bridge.
network_space() {
    local name=$1 address=$2
    if ! ip -n "$name" link show lo >/dev/null 2>&1; then
        network_remove_space "$name"
        ip netns add "$name"
    fi
    if ! ip -n "$name" link show eth0 >/dev/null 2>&1 || ! ip link show "$name" >/dev/null 2>&1; then
        ip link delete "$name" 2>/dev/null || true
        ip link add "$name" type veth peer name eth0 netns "$name"
    fi
    ip link set "$name" master "$bridge" up
    ip -n "$name" -batch - <<-END
		address replace $address/24 dev eth0
		link set lo up
		link set eth0 up
		route replace default via $host_address
	END
    inside "$name" sysctl -q -w net.ipv4.ip_forward=1
}

# A route to every node's pods, in every namespace and on the host.
network_routes() {
    local there to
    for there in '' "$control_space" $(node_numbers); do
        for to in $(node_numbers); do
            [[ $there == "$to" ]] || echo "route replace $(node_pods "$to") via $(node_address "$to")"
        done | case $there in
            '') ip -batch - ;;
            [0-9]*) ip -n "$(node_space "$there")" -batch - ;;
            *) ip -n "$there" -batch - ;;
        esac
    done
}

network_remove_space() {
    ip link delete "$1" 2>/dev/null || true
    ip netns delete "$1" 2>/dev/null || true
    rm -f "/run/netns/$1"
}

network_remove_node_routes() {
    local there to=$1
    ip route delete "$(node_pods "$to")" 2>/dev/null || true
    for there in "$control_space" $(node_numbers | sed 's/^/thole-node-/'); do
        ip -n "$there" route delete "$(node_pods "$to")" 2>/dev/null || true
    done
}

network_clean() {
    local space iptables=(iptables -w 10)
    for space in $(network_spaces); do network_remove_space "$space"; done
    for space in $(ip -o link show type veth | sed -n 's/^[0-9]*: \(thole-[^@:]*\).*/\1/p'); do
        ip link delete "$space" 2>/dev/null || true
    done
    ip link delete "$bridge" 2>/dev/null || true
    ip route delete blackhole "$service_range" 2>/dev/null || true
    if have iptables; then
        while "${iptables[@]}" -D FORWARD -i "$bridge" -j THOLE 2>/dev/null; do :; done
        if "${iptables[@]}" -F THOLE 2>/dev/null; then "${iptables[@]}" -X THOLE; fi
    fi
    [[ ! -s $cluster/sysctls ]] || sysctl -q -p "$cluster/sysctls" >/dev/null 2>&1 || true
}

# The cluster's namespaces by name, whoever made them.
network_spaces() {
    local path
    for path in /run/netns/thole-control /run/netns/thole-node-*; do
        [[ ! -e $path ]] || printf '%s\n' "${path##*/}"
    done
}
