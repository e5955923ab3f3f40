"""The cluster of hack/cluster.sh from below: the processes and network of its nodes, which this machine runs."""

import os
import pathlib
import signal
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLUSTER = pathlib.Path(os.environ.get("THOLE_CLUSTER_DIR", "/var/lib/thole-cluster"))


def is_ours(kubeconfig):
    """Is the cluster that the tests were given the one that runs on this machine?"""
    mine = CLUSTER / "admin.kubeconfig"
    return bool(kubeconfig) and mine.is_file() and pathlib.Path(kubeconfig).resolve() == mine.resolve()


def pod_processes(pod_uid, program):
    """The pids of a program's processes in a pod. Its cgroups carry the pod's UID; `pause` is in them too."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name = (directory / "cmdline").read_bytes().split(b"\0")[0].decode()
            if pathlib.Path(name).name == program and f"pod{pod_uid}" in (directory / "cgroup").read_text():
                found.append(int(directory.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def kill_pod_process(pod, program):
    """SIGKILL, as the kernel's OOM killer or a power cut would do: no handler runs."""
    pids = pod_processes(pod["metadata"]["uid"], program)
    assert pids, f"pod {pod['metadata']['name']} has no process '{program}'"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def cut_node(name):
    subprocess.run([ROOT / "hack/cluster.sh", "node-down", name], check=True, capture_output=True, text=True)


def join_node(name):
    subprocess.run([ROOT / "hack/cluster.sh", "node-up", name], check=True, capture_output=True, text=True)
