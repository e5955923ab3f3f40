"""What keeps a job's objects as they should be: looked at again without a cause, deleted in each of Kubernetes' ways,
and never taken from anybody else."""

import collections
import re

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError

from support import manifests, stage
from support.cluster import condition_of, status_of
from support.coordinators import Script
from support.plane import until

CHILDREN = ("Deployment", "Service", "NetworkPolicy", "Secret")
NO_MONGODB = "--mongodb-uri=mongodb://127.0.0.1:9"  # nothing listens there: records stay owed
HISTORY = "thole.dev/history"


@pytest.fixture
def dataset(cluster, namespace):
    return cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)


def children(cluster, namespace):
    return [child for kind in CHILDREN for child in cluster.list(kind, namespace)]


def owners(cluster, namespace):
    """The UIDs of the owners of all children; "" for one that has none."""
    return [owner["uid"] for child in children(cluster, namespace)
            for owner in child["metadata"].get("ownerReferences", [{"uid": ""}])]


def has_its_children(cluster, namespace, job, others=0):
    """Whether Secret, Service, NetworkPolicy and two Deployments are this job's, and so many objects are not."""
    found = collections.Counter(owners(cluster, namespace))
    return found[job["metadata"]["uid"]] == 5 and sum(found.values()) == 5 + others


def start_job(cluster, namespace, name="tiny"):
    job = cluster.create(manifests.trainjob(name), namespace)
    until(lambda: has_its_children(cluster, namespace, job), 60, lambda: cluster.describe(namespace))
    return job


def forgo_history(cluster, namespace, name="tiny"):
    """Takes the operator's finalizer away, whoever takes away others at the same moment."""

    def forgone():
        job = cluster.get("TrainJob", name, namespace)
        finalizers = job["metadata"].get("finalizers", []) if job else []
        if HISTORY not in finalizers:
            return True
        kept = [finalizer for finalizer in finalizers if finalizer != HISTORY]
        version = job["metadata"]["resourceVersion"]
        try:
            cluster.patch("TrainJob", name, namespace, {"metadata": {"finalizers": kept, "resourceVersion": version}})
        except DynamicApiError as error:
            assert error.status in (404, 409, 422), error
        return False

    until(forgone, 60, "the finalizer to go")


def requests_of(plane, since, namespace):
    """What operators asked of the API server in this namespace, without what only opens or closes a watch."""
    return [(entry["verb"], entry["objectRef"]["resource"], entry["objectRef"].get("name"),
             entry.get("responseStatus", {}).get("code", 0))
            for entry in plane.audited(since)
            if entry["userAgent"].startswith("thole-operator") and entry["verb"] != "watch"
            and entry.get("objectRef", {}).get("namespace") == namespace]


# ----------------------------------------------------------------------------------------------------------- resync


def test_looking_again_at_settled_jobs_asks_nothing_of_the_api_server(plane, cluster, namespace, start_operator, dataset):
    operator = start_operator(f"--namespace={namespace}", "--resync-period=1s").ready()
    for number in range(5):
        cluster.create(manifests.trainjob(f"done-{number}", training={"epochs": 1}), namespace)
    with stage.played(plane, operator, namespace, Script(epochs=1)):
        cluster.wait_list("TrainJob", namespace,
                          lambda jobs: all(status_of(job).get("phase") == "Succeeded" for job in jobs), 120, "over")
    for number in range(20):
        cluster.create(manifests.trainjob(f"waits-{number}", datasetRef={"name": "absent"}), namespace)
    for number in range(5):
        cluster.create(manifests.trainjob(f"runs-{number}"), namespace)
    settled = lambda job: job["status"]["phase"] == "Starting" and job["status"]["workers"]["ready"] == 2  # noqa: E731
    cluster.wait_list("TrainJob", namespace,
                      lambda jobs: sum("conditions" in status_of(job) for job in jobs) == 30
                      and sum(settled(job) for job in jobs) == 5, 120, "settled")

    def rounds():
        return operator.metric("thole_resynced_total", controller="trainjob") / 30

    def quiet_for_three_rounds():
        """Three rounds in which nothing was asked, by either side's count; there may be some that still settle."""
        begin, asked, since = rounds(), operator.metric("rest_client_requests_total"), plane.audit_position()
        until(lambda: rounds() >= begin + 3, 120, "three rounds")
        more = operator.metric("rest_client_requests_total") - asked
        return (more, requests_of(plane, since, namespace)) == (0, [])

    until(quiet_for_three_rounds, 120, lambda: "quiet; lately there were: "
          f"{requests_of(plane, 0, namespace)[-10:]}\n{cluster.describe(namespace)}")
    assert operator.metric("controller_runtime_reconcile_errors_total") == 0


def test_nothing_is_made_twice(plane, cluster, namespace, start_operator, dataset):
    """Every write's answer counts before the watch shows it: no object is asked for a second time, none in vain."""
    since = plane.audit_position()
    start_operator(f"--namespace={namespace}").ready()
    for number in range(20):
        cluster.create(manifests.trainjob(f"job-{number}"), namespace)
    cluster.wait_list("TrainJob", namespace,
                      lambda jobs: sum(status_of(job).get("workers", {}).get("ready") == 2 for job in jobs) == 20, 120,
                      "all with two workers")
    made = collections.Counter((resource, code) for verb, resource, _, code in requests_of(plane, since, namespace)
                               if verb == "create" and resource != "events")
    assert made == {("secrets", 201): 20, ("services", 201): 20, ("networkpolicies", 201): 20, ("deployments", 201): 40}


# --------------------------------------------------------------------------------------------------------- deletion


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
@pytest.mark.parametrize("history", [False, True], ids=["status", "history"])
def test_children_go_with_their_job(cluster, namespace, start_operator, dataset, policy, history):
    start_operator(f"--namespace={namespace}", *([NO_MONGODB] if history else [])).ready()
    job = start_job(cluster, namespace)
    if history:
        job = cluster.get("TrainJob", "tiny", namespace)
        assert HISTORY in job["metadata"]["finalizers"]
    cluster.delete("TrainJob", "tiny", namespace, propagationPolicy=policy)
    if history:  # the record is owed for ten minutes, but no pod runs for it
        cluster.wait_list("Deployment", namespace, lambda found: not found, 60, "none left")
        job = cluster.get("TrainJob", "tiny", namespace)
        assert "deletionTimestamp" in job["metadata"] and HISTORY in job["metadata"]["finalizers"]
        forgo_history(cluster, namespace)
    for kind in ("TrainJob", *CHILDREN, "Pod"):
        cluster.wait_list(kind, namespace, lambda found: not found, 120, "none left")


@pytest.mark.parametrize("history", [False, True], ids=["status", "history"])
def test_orphans_are_left_alone_and_in_the_way(plane, cluster, namespace, start_operator, dataset, history):
    operator = start_operator(f"--namespace={namespace}", *([NO_MONGODB] if history else [])).ready()
    start_job(cluster, namespace)
    before = {(c["kind"], c["metadata"]["name"]): c["metadata"]["uid"] for c in children(cluster, namespace)}
    since = plane.audit_position()
    cluster.delete("TrainJob", "tiny", namespace, propagationPolicy="Orphan")
    until(lambda: owners(cluster, namespace) == [""] * 5, 60, lambda: cluster.describe(namespace))
    if history:
        job = cluster.wait("TrainJob", "tiny", namespace, lambda j: "orphan" not in j["metadata"]["finalizers"], 30, "")
        assert job["metadata"]["finalizers"] == [HISTORY]
        forgo_history(cluster, namespace)
    cluster.wait("TrainJob", "tiny", namespace, lambda job: job is None, 60, "gone")

    again = cluster.create(manifests.trainjob("tiny"), namespace)
    stalled = lambda job: condition_of(job, "Stalled")[:2] == ("True", "NameConflict")  # noqa: E731
    job = cluster.wait("TrainJob", "tiny", namespace, stalled, 60, "a conflict")
    assert re.fullmatch(rf"\w+ 'tiny[\w-]*' in namespace '{namespace}' exists and is not this job's; delete it, or make the "
                        "job under another name", job["status"]["message"]), "of whichever was refused first"
    assert not changed_children(plane, since, namespace), "orphans are nobody's to change"
    left = {(c["kind"], c["metadata"]["name"]): c["metadata"]["uid"] for c in children(cluster, namespace)
            if not c["metadata"].get("ownerReferences")}
    assert left == before

    for kind, name in before:
        cluster.delete(kind, name, namespace)
    until(lambda: has_its_children(cluster, namespace, again), 60, lambda: cluster.describe(namespace))
    cluster.wait("TrainJob", "tiny", namespace, lambda j: condition_of(j, "Stalled")[0] == "False", 60, "going on")
    assert operator.alive()


def changed_children(plane, since, namespace):
    """Changes and deletions of children that operators brought about. (One that is refused, because it was for a version
    of the child that still had its owner, is none.)"""
    return [request for request in requests_of(plane, since, namespace)
            if request[3] == 200 and request[0] in ("delete", "patch", "update") and request[1] not in ("trainjobs", "datasets", "events")]


def test_a_job_made_again_waits_for_what_the_one_before_leaves(cluster, namespace, start_operator, dataset):
    start_operator(f"--namespace={namespace}").ready()
    first = start_job(cluster, namespace)
    cluster.delete("TrainJob", "tiny", namespace)
    again = cluster.create(manifests.trainjob("tiny"), namespace)
    assert first["metadata"]["uid"] != again["metadata"]["uid"]
    until(lambda: has_its_children(cluster, namespace, again), 120, lambda: cluster.describe(namespace))
    told = {event["reason"] for event in cluster.list("Event", namespace)
            if event["involvedObject"]["kind"] == "TrainJob"}
    assert "NameConflict" not in told, "what goes away by itself is no conflict"


@pytest.mark.parametrize("kind, name", [("Service", "tiny"), ("Deployment", "tiny-worker"), ("NetworkPolicy", "tiny")])
def test_what_is_somebody_elses_is_not_taken(plane, cluster, namespace, start_operator, dataset, kind, name):
    pod = {"metadata": {"labels": {"app": "other"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    specs = {"Service": {"selector": {"app": "other"}, "ports": [{"port": 80}]},
             "Deployment": {"replicas": 0, "selector": {"matchLabels": {"app": "other"}}, "template": pod},
             "NetworkPolicy": {"podSelector": {"matchLabels": {"app": "other"}}}}
    versions = {"Service": "v1", "Deployment": "apps/v1", "NetworkPolicy": "networking.k8s.io/v1"}
    theirs = cluster.create({"apiVersion": versions[kind], "kind": kind, "metadata": {"name": name},
                             "spec": specs[kind]}, namespace)
    since = plane.audit_position()
    start_operator(f"--namespace={namespace}").ready()
    job = cluster.create(manifests.trainjob("tiny"), namespace)
    found = cluster.wait("TrainJob", "tiny", namespace, lambda j: condition_of(j, "Stalled")[1] == "NameConflict", 60,
                         "a conflict")
    assert found["status"]["message"].startswith(f"{kind} '{name}' in namespace '{namespace}' exists")
    assert cluster.get(kind, name, namespace)["metadata"]["uid"] == theirs["metadata"]["uid"]
    assert not changed_children(plane, since, namespace)
    cluster.delete(kind, name, namespace)
    until(lambda: has_its_children(cluster, namespace, job), 60, lambda: cluster.describe(namespace))
