"""An upgrade of the operator restarts nothing: what runs keeps what it was started with."""

import pytest
import yaml

from support import manifests
from support.cluster import status_of
from support.election import PATIENT, leads
from support.plane import OPERATOR, ROOT, until

LATER = OPERATOR.with_name("thole-operator-later")
MARK = "example.com/made-by"
JOBS = {"one": {}, "sharded": {"parameterServers": {"shards": 2}}, "wide": {"workers": {"replicas": 4}}}


def running(cluster, namespace, name, workers=None):
    """Waits until a job has all its pods; returns it."""

    def complete(job):
        wanted = workers or job["spec"]["workers"]["replicas"]
        parts = status_of(job).get("parameterServers", {})
        return status_of(job).get("workers", {}).get("ready") == wanted and parts.get("ready") == parts.get("desired")

    return cluster.wait("TrainJob", name, namespace, complete, 60, "all pods ready")


def image_of(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0]["image"]


def snapshot(cluster, namespace):
    """All that a restart or a change would show in, of every job: by kind and name."""
    kept = {}
    for kind in ("Deployment", "Service", "NetworkPolicy", "Secret", "Pod"):
        for item in cluster.list(kind, namespace):
            meta = item["metadata"]
            kept[kind, meta["name"]] = {
                "uid": meta["uid"], "generation": meta.get("generation"), "labels": meta.get("labels"),
                "template": item.get("spec", {}).get("template"), "data": item.get("data"),
                "restarts": [c["restartCount"] for c in item.get("status", {}).get("containerStatuses", [])]}
    for job in cluster.list("TrainJob", namespace):
        status = status_of(job)
        kept["TrainJob", job["metadata"]["name"]] = {
            "generation": job["metadata"]["generation"],
            **{name: status.get(name)
               for name in ("trainerImage", "plan", "startTime", "dataset", "phase", "restarts")}}
    return kept


def unchanged(before, after):
    changed = {key: (value, after.get(key)) for key, value in before.items() if after.get(key) != value}
    assert not changed, "\n".join(f"{' '.join(key)}:\n  {was}\n  {is_}" for key, (was, is_) in changed.items())


def looked_at_all(operator, count):
    """Waits until the operator has looked at every job, and does no more."""

    def quiet():
        return (leads(operator)
                and operator.metric("controller_runtime_reconcile_total", controller="trainjob") >= count
                and operator.metric("workqueue_depth", controller="trainjob") == 0
                and operator.metric("controller_runtime_active_workers", controller="trainjob") == 0)

    until(quiet, 60, lambda: operator.complaint("the operator to have looked at all jobs"))


@pytest.fixture
def operator(start_operator, namespace):
    """operator(image, …): an operator of this version, or another, for this namespace."""

    def start(image, **options):
        return start_operator(*PATIENT, f"--trainer-image={image}", f"--namespace={namespace}",
                              f"--leader-elect-resource-namespace={namespace}", **options).ready()

    return start


@pytest.fixture
def jobs(cluster, namespace):
    def start():
        cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
        for name, spec in JOBS.items():
            cluster.create(manifests.trainjob(name, **spec), namespace)
        for name in JOBS:
            running(cluster, namespace, name)

    return start


def test_a_later_version_leaves_running_jobs_alone(cluster, namespace, operator, jobs):
    """Rolled as a Deployment does it: the new one is ready, then the old one ends. Images and templates differ."""
    old = operator("trainer:1")
    jobs()
    before = snapshot(cluster, namespace)
    new = operator("trainer:2", binary=LATER)
    old.stop()
    looked_at_all(new, len(JOBS))
    cluster.create(manifests.trainjob("after"), namespace)
    running(cluster, namespace, "after")
    unchanged(before, snapshot(cluster, namespace))

    made = {name: cluster.get("Deployment", f"{name}-worker", namespace) for name in ("one", "after")}
    assert image_of(made["one"]) == "trainer:1" and MARK not in str(made["one"])
    assert image_of(made["after"]) == "trainer:2" and MARK in str(made["after"]["spec"]["template"]["metadata"])


def test_users_go_on_with_jobs_of_an_earlier_version(cluster, namespace, operator, jobs):
    """Scaling adds pods of the job's own template. A Deployment that is gone is made anew with the job's own image."""
    old = operator("trainer:1")
    jobs()
    template = cluster.get("Deployment", "one-worker", namespace)["spec"]["template"]
    new = operator("trainer:2", binary=LATER)
    old.stop()
    looked_at_all(new, len(JOBS))
    cluster.patch("TrainJob", "one", namespace, {"spec": {"workers": {"replicas": 3}}})
    running(cluster, namespace, "one", 3)
    assert cluster.get("Deployment", "one-worker", namespace)["spec"]["template"] == template
    hashes = {pod["metadata"]["labels"]["pod-template-hash"] for pod in cluster.list(
        "Pod", namespace, label_selector="thole.dev/job=one,thole.dev/role=worker")}
    assert len(hashes) == 1

    gone = cluster.get("Deployment", "wide-worker", namespace)
    cluster.delete("Deployment", "wide-worker", namespace)
    again = cluster.wait("Deployment", "wide-worker", namespace,
                         lambda found: found and found["metadata"]["uid"] != gone["metadata"]["uid"], 60, "made anew")
    assert image_of(again) == "trainer:1"


@pytest.fixture
def changed_defaults(plane):
    """changed_defaults(): the TrainJob's schema as a later version may have it, until the end of the test."""
    file = ROOT / "crds" / "trainjob.yaml"

    def apply(text):
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)

    def change():
        crd = yaml.safe_load(file.read_text())
        spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        training = spec["training"]["properties"]
        training["seed"]["default"] = 4711
        training["clipNorm"] = {"type": "integer", "default": 5}  # a member that did not exist before
        spec["workers"]["properties"]["replicas"]["default"] = 3
        apply(yaml.safe_dump(crd))

    yield change
    apply(file.read_text())


def test_new_defaults_are_for_new_jobs(cluster, namespace, operator, changed_defaults):
    """What a job did not say is what it meant when it was applied."""
    old = operator("trainer:1")
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    job = manifests.trainjob("one", training={"seed": None}, workers=None)
    cluster.create(job, namespace)
    running(cluster, namespace, "one")
    before = snapshot(cluster, namespace)
    spec = cluster.get("TrainJob", "one", namespace)["spec"]
    changed_defaults()
    until(lambda: cluster.get("TrainJob", "one", namespace)["spec"]["training"].get("clipNorm") == 5, 60,
          "the new schema to be in use")
    new = operator("trainer:2", binary=LATER)
    old.stop()
    looked_at_all(new, 1)
    cluster.create(manifests.merged(job, {"metadata": {"name": "after"}}), namespace)
    after = running(cluster, namespace, "after")
    assert (spec["training"]["seed"], after["spec"]["training"]["seed"]) == (1, 4711)
    assert (spec["workers"]["replicas"], after["spec"]["workers"]["replicas"]) == (1, 3)
    unchanged(before, snapshot(cluster, namespace))
