# shellcheck shell=bash
# A node's cgroup, in each hierarchy of cgroup v1 or in the one of v2.

# cgroup_roots NAME: the folders of that cgroup which exist or would.
cgroup_roots() {
    local hierarchy
    if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
        printf '%s\n' "/sys/fs/cgroup/$1"
        return
    fi
    for hierarchy in /sys/fs/cgroup/*/; do
        hierarchy=${hierarchy%/}
        [[ -L $hierarchy || ! -f $hierarchy/cgroup.procs ]] || printf '%s\n' "$hierarchy/$1"
    done
}

# A new cpuset of cgroup v1 is empty and takes no process; in v2 the controllers must be handed down from the root.
cgroups_make() {
    local group file controller
    if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
        for controller in $(</sys/fs/cgroup/cgroup.controllers); do
            { echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control; } 2>/dev/null || true
        done
    fi
    for group in $(cgroup_roots "$1"); do
        mkdir -p "$group"
        for file in cpuset.cpus cpuset.mems; do
            if [[ $group == */cpuset/* && -z $(<"$group/$file") ]]; then
                cat "${group%/*}/$file" >"$group/$file"
            fi
        done
    done
}

cgroups_remove() { wait_for 30 "the end of cgroup $1" cgroups_removed "$1"; }

cgroups_removed() {
    local group
    for group in $(cgroup_roots "$1"); do
        [[ ! -d $group ]] || find "$group" -depth -type d -exec rmdir {} + || return 1
    done
}
