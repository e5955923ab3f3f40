"""Fixtures of all tests. Only those that need a cluster touch one: `pytest e2e/local` runs without."""

import fcntl
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from support import idx, local, machine, manifests  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--keep", action="store_true", help="leave the tests' namespaces and files, to look at them")


@pytest.fixture(scope="session")
def trainer():
    """The trainer's program on this machine."""
    if not local.TRAINER.is_file():
        pytest.fail(f"{local.TRAINER} does not exist: cmake --preset release && cmake --build --preset release")
    return local.TRAINER


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """A data set of 1500 + 500 images: steps of 100, of which 8 blocks are unequal."""
    return idx.write(tmp_path_factory.mktemp("small"))


# ---------------------------------------------------------------------------------------------------------- cluster


@pytest.fixture(scope="session")
def kubeconfig():
    path = os.environ.get("KUBECONFIG")
    if not path:
        pytest.skip('KUBECONFIG is not set: ./hack/cluster.sh up && eval "$(./hack/cluster.sh env)"')
    return path


@pytest.fixture(scope="session")
def cluster(kubeconfig):
    from kubernetes import client, config

    from support.cluster import GROUP, SYSTEM, Cluster

    config.load_kube_config(kubeconfig)
    with open(pathlib.Path(tempfile.gettempdir()) / "thole-e2e.lock", "w") as lock, client.ApiClient() as api_client:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.exit("another run of these tests uses the cluster, and some of them stop the operator or cut a node "
                        "off: wait for its end", returncode=1)
        cluster = Cluster(api_client)
        try:
            cluster.resource("TrainJob")
        except Exception as error:  # whatever the client makes of an absent kind
            pytest.fail(f"the cluster does not know {GROUP} TrainJob ({error}): install Thole first, ./hack/install.sh")
        cluster.wait("Deployment", "thole-operator", SYSTEM,
                     lambda d: d and d.get("status", {}).get("availableReplicas"), 60, "available")
        yield cluster


@pytest.fixture
def namespace(request, cluster):
    """A namespace of the test's own. Not waited for when it goes: the next test need not stand still for it."""
    short = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")[:40].strip("-")
    name = f"e2e-{short}-{secrets.token_hex(2)}"
    cluster.core.create_namespace({"metadata": {"name": name, "labels": {"thole.dev/e2e": "true"}}})
    yield name
    if not request.config.getoption("--keep"):
        cluster.delete("Namespace", name)


@pytest.fixture
def kubectl(kubeconfig):
    """kubectl as a user runs it; returns what it printed. `fails=True` expects an error and returns that; with
    `fails=None` either will do."""

    def run(*arguments, input=None, fails=False):
        done = subprocess.run(["kubectl", *arguments], input=input, capture_output=True, text=True, timeout=60)
        if fails:
            assert done.returncode != 0, f"kubectl {' '.join(arguments)} succeeded: {done.stdout}"
            return done.stderr
        assert done.returncode == 0 or fails is None, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def our_machine(kubeconfig):
    """For tests that kill processes or cut nodes off: the nodes must be processes of this machine."""
    if not machine.is_ours(kubeconfig):
        pytest.skip("needs the cluster of hack/cluster.sh on this machine")


# ------------------------------------------------------------------------------------------------------------- jobs


@pytest.fixture(scope="session")
def storage(cluster):
    """A directory for the tests' data and models, below a path that the operator allows."""
    from support.cluster import SYSTEM

    pod = cluster.get("Deployment", "thole-operator", SYSTEM)["spec"]["template"]["spec"]
    arguments = [*pod["containers"][0].get("command", []), *pod["containers"][0].get("args", [])]
    allowed = [path for a in arguments if a.startswith("--allowed-host-paths=") for path in a.split("=", 1)[1].split(",")]
    writable = [path for path in allowed if not path.startswith("/usr") and os.access(path, os.W_OK)]
    if not writable:
        pytest.fail(f"of the operator's --allowed-host-paths {allowed} none can be written to on this machine")
    directory = pathlib.Path(writable[0]) / f"e2e-{secrets.token_hex(4)}"
    directory.mkdir()
    directory.chmod(0o777)  # trainers run as nobody in particular
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def host(storage):
    """host(name, train=…, test=…): a small data set where pods see it, readable for their user."""

    def write(name, **sizes):
        directory = idx.write(storage / name, **sizes)
        directory.chmod(0o755)
        for file in directory.iterdir():
            file.chmod(0o644)
        return directory

    return write


@pytest.fixture(scope="session")
def small_hosted(host):
    return host("small")


@pytest.fixture
def submit(cluster, namespace, storage):
    """submit(trainjob, dataset): creates both and returns a Job. The model goes to this run's storage, unless the
    job `keeps_output` of its own."""
    from support.jobs import Job

    def create(trainjob, dataset=None, keeps_output=False):
        if dataset is not None:
            cluster.create(dataset, namespace)
        volume = {"output": {"volume": {"hostPath": {"path": str(storage)}}}}
        spec = trainjob["spec"] if keeps_output else manifests.merged(trainjob["spec"], volume)
        created = cluster.create({**trainjob, "spec": spec}, namespace)
        return Job(cluster, namespace, created, storage)

    return create


@pytest.fixture(scope="session")
def history(kubeconfig, cluster):
    """history(uid): the job's document in MongoDB, or None. Through a port of this machine, anew every time, because
    a test may have moved MongoDB to another pod meanwhile."""
    import pymongo

    from support.cluster import SYSTEM

    def document(uid):
        cluster.wait("Deployment", "mongodb", SYSTEM, lambda d: d and d.get("status", {}).get("availableReplicas"), 60,
                     "available")
        forward = subprocess.Popen(
            ["kubectl", "-n", SYSTEM, "port-forward", "deployment/mongodb", ":27017", "--address", "127.0.0.1"],
            stdout=subprocess.PIPE, text=True)
        with forward:
            try:
                line = forward.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 27017
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                assert found, f"kubectl port-forward said '{line}'"
                with pymongo.MongoClient("127.0.0.1", int(found[1]), serverSelectionTimeoutMS=5000) as mongo:
                    return mongo["thole"]["history"].find_one({"_id": uid})
            finally:
                forward.terminate()

    return document


# ------------------------------------------------------------------------------------------------------- references


@pytest.fixture(scope="session")
def endurance():
    """The job that tests interfere with: LeNet on Fashion-MNIST, 5 epochs, in steps of 100 that 8 does not divide."""
    return manifests.trainjob("endurance", training={"batchSize": 100, "seed": 3})


@pytest.fixture(scope="session")
def endurance_sha256(trainer, endurance, tmp_path_factory):
    """What that job's model must be: trained here, by one worker whom nobody disturbs."""
    run = local.run(tmp_path_factory.mktemp("endurance"), manifests.dataset(), endurance, options=("--workers", 1))
    assert run.returncode == 0, run
    return run.sha256
