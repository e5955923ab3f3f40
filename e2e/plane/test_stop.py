"""The operator is told to end (SIGTERM): what is under way is finished within a bound, and nothing is lost."""

import asyncio
import json
import signal
import socket
import subprocess
import urllib.request

import pytest

from support import manifests
from support.api import Api
from support.cluster import status_of
from support.coordinators import Script, Troupe
from support.election import LEASE, PATIENT, leads
from support.plane import ROOT, until
from support.rest import Rest

KEY = b"0123456789abcdef0123456789abcdef"
EPOCHS = 3


@pytest.fixture
def operator(start_operator, namespace):
    def start(*flags):
        return start_operator(*PATIENT, f"--namespace={namespace}", f"--leader-elect-resource-namespace={namespace}",
                              *flags).ready()

    return start


def leading(operator):
    until(lambda: leads(operator), 60, lambda: operator.complaint("the operator to lead"))
    return operator


def holder(plane, namespace):
    path = f"apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"
    return Api(plane.kubeconfig).request("GET", path).object["spec"]["holderIdentity"]


def test_work_under_way_is_finished_and_the_lease_given_back(plane, cluster, namespace, operator):
    first = leading(operator())
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    for number in range(30):
        cluster.create(manifests.trainjob(f"job-{number}"), namespace)
    until(lambda: cluster.list("Deployment", namespace), 60, "the first Deployment")
    first.stop()
    assert holder(plane, namespace) == ""
    said = {line["message"] for line in first.lines()}
    assert not [text for text in said if "requests under way" in text], first.complaint("requests were left behind")
    leading(operator())
    until(lambda: len(cluster.list("Deployment", namespace)) == 60, 60, "all Deployments, from the next operator")


def test_two_signals_end_it_at_once(plane, operator):
    """For whoever is in a hurry."""
    first = leading(operator())
    plane.control("freeze-api")
    try:
        first.process.send_signal(signal.SIGTERM)
        until(lambda: any(line["message"] == "ending" for line in first.lines()), 60, "the first to be heard")
        first.process.send_signal(signal.SIGINT)
        first.process.wait(60)
    finally:
        plane.control("thaw-api")
    assert first.process.returncode == 0


def test_an_api_server_that_does_not_answer_does_not_keep_it(plane, operator):
    first = leading(operator())
    plane.control("freeze-api")
    try:
        first.process.send_signal(signal.SIGTERM)
        first.process.wait(60)
    finally:
        plane.control("thaw-api")
    assert first.process.returncode == 0, first.complaint("it did not end well")


def test_the_lease_is_kept_while_a_write_may_land(plane, cluster, namespace, operator):
    """What hangs does not keep the operator from ending, but another leads only when the Lease has run out."""
    first = leading(operator("--context=toxic"))
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.wait("Dataset", "fashion-mnist", namespace, lambda found: status_of(found).get("phase"), 60, "looked at")
    with plane.holding_back():
        cluster.create(manifests.trainjob("one"), namespace)
        until(lambda: first.metric("controller_runtime_active_workers", controller="trainjob") > 0, 60, "its write")
        first.process.send_signal(signal.SIGTERM)
        first.process.wait(60)
        assert holder(plane, namespace) != ""
    assert first.process.returncode == 0, first.complaint("it did not end well")
    assert "requests under way" in first.log()
    assert holder(plane, namespace) != ""


# ------------------------------------------------------------------------------------------------------- the history


@pytest.fixture
def mongodb(plane, tmp_path):
    """A MongoDB (FerretDB) far away: (its address by way of a proxy where all takes a second more, its own address)."""
    program = subprocess.run([ROOT / "hack" / "tools.sh", "--where", "ferretdb"], check=True, capture_output=True,
                             text=True).stdout.strip()
    own = f"127.0.0.1:{free_port()}"
    with (tmp_path / "ferretdb.log").open("wb") as log:
        server = subprocess.Popen([f"{program}/ferretdb", "--listen", own, "--dir", tmp_path], stdout=log, stderr=log)
    try:
        until(lambda: answers(own), 60, "FerretDB")
        far = f"127.0.0.1:{free_port()}"
        proxies = f"{plane.toxiproxy}/proxies"
        post(proxies, {"name": "mongodb", "listen": far, "upstream": own})
        post(f"{proxies}/mongodb/toxics", {"type": "latency", "stream": "downstream", "attributes": {"latency": 1000}})
        yield far, own
        urllib.request.urlopen(urllib.request.Request(f"{proxies}/mongodb", method="DELETE")).close()
    finally:
        server.terminate()
        server.wait(30)


def post(url, body):
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), method="POST")).close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(address):
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    except OSError:
        return False


def test_the_history_is_written_before_the_end(plane, cluster, namespace, operator, mongodb):
    """MongoDB takes seconds for what came last: the operator stays until it is written, and only then ends."""
    import pymongo

    far, own = mongodb
    first = leading(operator(f"--mongodb-uri=mongodb://{far}"))
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(manifests.trainjob("one"), namespace)

    async def report():
        async with Rest(plane.kubeconfig) as api, Troupe(api, first.url, KEY, Script(epochs=EPOCHS), namespace):
            while len(status_of(cluster.get("TrainJob", "one", namespace)).get("history", [])) < EPOCHS:
                await asyncio.sleep(0.02)
            first.process.send_signal(signal.SIGTERM)
            await asyncio.get_running_loop().run_in_executor(None, first.process.wait, 60)

    asyncio.run(report())
    assert first.process.returncode == 0, first.complaint("it did not end well")
    assert not any("still owed" in line["message"] for line in first.lines()), first.complaint("history was left")
    uid = cluster.get("TrainJob", "one", namespace)["metadata"]["uid"]
    with pymongo.MongoClient(f"mongodb://{own}") as client:
        document = client["thole"]["history"].find_one({"_id": uid})
    assert document and [entry["epoch"] for entry in document["epochs"]] == list(range(1, EPOCHS + 1)), document
    leading(operator(f"--mongodb-uri=mongodb://{far}"))  # it releases the job's finalizer in the end
    cluster.delete("TrainJob", "one", namespace)
    cluster.wait("TrainJob", "one", namespace, lambda found: found is None, 60, "gone")
