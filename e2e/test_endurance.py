"""Processes, nodes and the operator go away in the middle: the job goes on, and the model is the same, bit for bit."""

import random
import socket

import pytest

from support import machine
from support.cluster import SYSTEM, condition_of, leading_operator, status_of
from support.manifests import dataset, merged

TRAINER = "thole-trainer"


@pytest.fixture
def running(submit, endurance):
    """The endurance job after its first epoch: running(changes) → Job."""

    def start(changes=None):
        job = submit(merged(endurance, {"spec": changes or {}}), dataset())
        job.epoch(1)
        return job

    return start


def whole(job, sha256):
    """It succeeded with all its history and the same bits."""
    done = job.succeeded(120)
    status = status_of(done)
    assert [entry["epoch"] for entry in status["history"]] == [1, 2, 3, 4, 5]
    assert status["model"]["sha256"] == sha256
    return status


def test_a_worker_is_killed(our_machine, running, history, endurance_sha256):
    """With three workers and two shards: the others take its blocks; it is counted, said, and replaced."""
    job = running({"workers": {"replicas": 3}, "parameterServers": {"shards": 2}})
    victim = job.pods("worker")[0]
    machine.kill_pod_process(victim, TRAINER)
    status = whole(job, endurance_sha256)
    assert status["restarts"]["workers"] == 1
    assert status["restarts"].get("parameterServers", 0) == 0
    assert status["lastFailure"]["pod"] == victim["metadata"]["name"]
    assert (status["lastFailure"].get("signal"), status["lastFailure"]["exitCode"]) in ((9, 137), (None, 137), (9, None))
    assert history(job.uid)["data"]["accuracy"] == pytest.approx(
        [entry["accuracy"] for entry in status["history"]])


def test_the_last_worker_is_killed(our_machine, running, endurance_sha256):
    """The job waits until a worker is back."""
    job = running({"workers": {"replicas": 1}})
    machine.kill_pod_process(job.pods("worker")[0], TRAINER)
    assert whole(job, endurance_sha256)["restarts"]["workers"] == 1


def test_a_worker_pod_is_deleted(running, cluster, endurance_sha256):
    """As a drained node or an impatient person does it: the worker leaves of its own will."""
    job = running()
    victim = job.pods("worker")[0]["metadata"]
    cluster.delete("Pod", victim["name"], job.namespace)
    whole(job, endurance_sha256)


def test_workers_come_and_go(running, kubectl, endurance_sha256):
    """kubectl scale in the middle: up to more than there are cores, down to one."""
    job = running({"workers": {"replicas": 2}})
    kubectl("-n", job.namespace, "scale", f"trainjobs.thole.dev/{job.name}", "--replicas=4")

    def four_at_work(found):
        status = status_of(found)
        assert status["phase"] == "Running", f"{status['phase']} before there was an epoch of four workers"
        return any(entry["parallelism"] == 4 for entry in status["history"])

    job.wait(four_at_work, 60, "an epoch of four workers")
    kubectl("-n", job.namespace, "scale", f"trainjobs.thole.dev/{job.name}", "--replicas=1")
    status = whole(job, endurance_sha256)
    assert status.get("restarts", {}).get("workers", 0) == 0, "who leaves as asked has not failed"


@pytest.fixture
def spare_node(our_machine, cluster):
    """A node that nothing but workers needs, so that it may be cut off. It gets no new pods (it is cordoned), and is
    as it was afterwards whatever happens."""
    holds_data = {pod["spec"]["nodeName"] for pod in cluster.list("Pod", SYSTEM, label_selector="app.kubernetes.io/name=mongodb")}
    names = [node["metadata"]["name"] for node in cluster.list("Node")]
    spare = [name for name in names if name not in holds_data and (machine.CLUSTER / name).is_dir()]
    if not spare:
        pytest.skip(f"there is no node but MongoDB's: {names}")
    cluster.patch("Node", spare[0], None, {"spec": {"unschedulable": True}})
    yield vacate(cluster, spare[0])
    machine.join_node(spare[0])
    cluster.patch("Node", spare[0], None, {"spec": {"unschedulable": None}})
    cluster.wait("Node", spare[0], None, is_ready, 60, "ready again")


def vacate(cluster, node):
    """Moves operator and DNS to where they will not be missed."""
    for namespace in (SYSTEM, "kube-system"):
        for pod in cluster.list("Pod", namespace, field_selector=f"spec.nodeName={node}"):
            cluster.delete("Pod", pod["metadata"]["name"], namespace)
        cluster.wait_list("Pod", namespace, lambda pods: all(pod["spec"].get("nodeName") not in (None, node) and pod["status"][
            "phase"] == "Running" and pod["status"]["containerStatuses"][0]["ready"] for pod in pods), 60, f"all elsewhere than on {node}")
    return node


def is_ready(node):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]) and not any(
        taint["key"].startswith("node.kubernetes.io/") for taint in node["spec"].get("taints", []))


def test_a_workers_node_is_cut_off(spare_node, cluster, submit, endurance, kubectl, endurance_sha256):
    """No connection closes: the members tell by silence. Nobody waits for Kubernetes to notice."""
    job = submit(merged(endurance, {"spec": {"workers": {"replicas": 1}}}), dataset())
    cluster.wait_list("Pod", job.namespace, lambda pods: len(pods) == 2 and all(p["spec"].get("nodeName") for p in pods),
                      30, "a parameter server and a worker on a node that stays")
    cluster.patch("Node", spare_node, None, {"spec": {"unschedulable": None}})
    kubectl("-n", job.namespace, "scale", f"trainjobs.thole.dev/{job.name}", "--replicas=3")

    def both_nodes(found):
        status = status_of(found)
        return status.get("phase") == "Running" and status["workers"]["ready"] == 3 and status.get("epoch", 0) >= 1

    job.wait(both_nodes, 60, "3 workers at work")
    lost = [pod for pod in job.pods("worker") if pod["spec"]["nodeName"] == spare_node]
    assert lost, f"the scheduler put no worker on {spare_node}"

    machine.cut_node(spare_node)
    status = whole(job, endurance_sha256)
    assert status["history"][-1]["parallelism"] == 3 - len(lost)


def test_the_operator_is_killed(our_machine, cluster, running, history, endurance_sha256):
    """SIGKILL in the middle; then the whole pod of whoever leads next. No trainer notices, and no epoch is missing in the
    end."""
    job = running()
    before = {pod["metadata"]["uid"] for pod in job.pods("worker") + job.pods("ps")}
    machine.kill_pod_process(leading_operator(cluster), "thole-operator")
    job.epoch(2, running=False)
    cluster.delete("Pod", leading_operator(cluster)["metadata"]["name"], SYSTEM, gracePeriodSeconds=0)
    job.epoch(4, running=False)
    assert {pod["metadata"]["uid"] for pod in job.pods("worker") + job.pods("ps")} <= before  # it may be over
    status = whole(job, endurance_sha256)
    assert status.get("restarts", {}).get("workers", 0) == 0
    in_history(history, job, status)


def test_the_operator_hands_over(cluster, running, history, endurance_sha256):
    """As when a node is drained: the other operator leads, the coordinators' Service leads to it, and training goes on."""
    job = running()
    before = {pod["metadata"]["uid"] for pod in job.pods("worker") + job.pods("ps")}
    first = leading_operator(cluster)
    cluster.delete("Pod", first["metadata"]["name"], SYSTEM)
    second = leading_operator(cluster, other_than=first["metadata"]["name"])
    address = second["status"]["podIP"]
    cluster.wait("EndpointSlice", "thole-operator", SYSTEM,
                 lambda found: [endpoint["addresses"] for endpoint in found["endpoints"]] == [[address]], 30,
                 f"the new leader's address, {address}")
    job.epoch(4, running=False)
    assert {pod["metadata"]["uid"] for pod in job.pods("worker") + job.pods("ps")} <= before  # it may be over
    in_history(history, job, whole(job, endurance_sha256))


def in_history(history, job, status):
    data = history(job.uid)["data"]
    assert data["train_loss"] == pytest.approx([entry["trainLoss"] for entry in status["history"]])
    assert data["accuracy"] == pytest.approx([entry["accuracy"] for entry in status["history"]])


@pytest.fixture
def scaled_to_zero(cluster):
    """scaled_to_zero(deployment): takes it away; returns what brings it back, which happens anyway in the end."""
    replicas = {}

    def back(name):
        cluster.patch("Deployment", name, SYSTEM, {"spec": {"replicas": replicas[name]}})
        cluster.wait("Deployment", name, SYSTEM, lambda d: d["status"].get("availableReplicas") == replicas[name], 60,
                     "available")

    def away(name):
        replicas[name] = cluster.get("Deployment", name, SYSTEM)["spec"]["replicas"]
        cluster.patch("Deployment", name, SYSTEM, {"spec": {"replicas": 0}})
        cluster.wait_list("Pod", SYSTEM, lambda pods: not pods, 60, "gone", label_selector=f"app.kubernetes.io/name={name}")
        return lambda: back(name)

    yield away
    for name in replicas:
        back(name)


def test_nobody_operates_while_the_job_ends(cluster, running, scaled_to_zero, history, endurance_sha256):
    """The coordinator keeps what it could not tell, and shard 0 stays until it is durable."""
    job = running()
    shard = job.pods("ps")[0]["metadata"]["name"]
    back = scaled_to_zero("thole-operator")
    follow(cluster, shard, job.namespace, "model.safetensors")
    assert status_of(job.get())["phase"] == "Running", "nobody was there to say otherwise"
    back()
    in_history(history, job, whole(job, endurance_sha256))


def follow(cluster, pod, namespace, words):
    """Reads a pod's log as it is written, until a line has the words."""
    log = cluster.core.read_namespaced_pod_log(pod, namespace, follow=True, _preload_content=False, _request_timeout=90)
    seen = []
    with log:
        for line in log:
            seen.append(line.decode())
            if words in seen[-1]:
                return seen[-1]
    raise AssertionError(f"the log of {pod} ended without '{words}':\n{''.join(seen[-20:])}")


def test_mongodb_is_away(cluster, submit, scaled_to_zero, endurance, history):
    """The status moves and the job succeeds; what is owed to MongoDB is written when it is back."""
    back = scaled_to_zero("mongodb")
    job = submit(merged(endurance, {"spec": {"training": {"epochs": 2}}}), dataset())
    done = job.wait(lambda found: status_of(found).get("phase") == "Succeeded", 90, "succeeded without MongoDB")
    assert len(status_of(done)["history"]) == 2
    back()
    job.succeeded(60)


def test_garbage_at_the_parameter_server(our_machine, cluster, running, endurance_sha256):
    """Strangers at its port: each is told of in the log and sent away, and the job is not disturbed."""
    job = running()
    shard = job.pods("ps")[0]
    address = (shard["status"]["podIP"], port_of(shard))
    noise = random.Random(1).randbytes(100_000)
    strangers = [
        b"GET / HTTP/1.1\r\nHost: thole\r\n\r\n",
        noise,
        b"THLE",  # and then nothing more
        b"THLE\x01\x01" + b"\xff" * 58 + noise,  # a header that promises 4 GiB
        b"THLE\x01\x01" + b"\x00" * 58,
        b"",
    ]
    open_ones = [talk(address, words) for words in strangers]
    # Many who say nothing must not keep workers from joining.
    open_ones += [talk(address, b"") for _ in range(200)]
    mine = {sock.getsockname()[1] for sock in open_ones[:2]}
    for port in mine:
        follow(cluster, shard["metadata"]["name"], job.namespace, f":{port}")
    status = whole(job, endurance_sha256)
    for sock in open_ones:
        sock.close()
    assert status.get("restarts", {}).get("parameterServers", 0) == 0
    assert status.get("restarts", {}).get("workers", 0) == 0


def port_of(pod):
    return pod["spec"]["containers"][0]["ports"][0]["containerPort"]


def talk(address, words):
    sock = socket.create_connection(address, timeout=5)
    try:
        sock.sendall(words)
    except (BrokenPipeError, ConnectionResetError):
        pass  # sent away in the middle of a word
    return sock


def test_the_parameter_server_is_killed(our_machine, running, history):
    """Not yet survived, but said clearly; what was reached before stays in the history."""
    job = running()
    machine.kill_pod_process(job.pods("ps")[0], TRAINER)
    failed = job.failed()
    status = status_of(failed)
    assert condition_of(failed, "Failed")[:2] == ("True", "ParameterServerLost")
    assert f"{job.name}-ps-0" in status["message"]
    assert len(status["history"]) >= 1
    job.wait(lambda found: condition_of(found, "HistorySynced")[0] == "True", 30, "its history in MongoDB")
    in_history(history, job, status)
    job.cluster.wait_list("Pod", job.namespace, lambda pods: not pods, 60, "gone, since the job failed")
