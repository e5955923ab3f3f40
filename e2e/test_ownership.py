"""What belongs to a job, what does not, and what is left when it goes."""

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError

from support.cluster import condition_of, status_of
from support.manifests import dataset, merged, trainjob

QUICK = trainjob("quick", model={"zoo": "mlp"}, training={"epochs": 1, "batchSize": 100}, workers={"replicas": 1})
CHILDREN = ("Deployment", "Pod", "Service", "Secret", "NetworkPolicy")


def foreign(kind, name):
    """Somebody else's object that happens to be named like a child of job `quick`."""
    labels = {"app": "somebody-elses"}
    specs = {
        "Service": {"spec": {"selector": labels, "ports": [{"port": 80}]}},
        "NetworkPolicy": {"spec": {"podSelector": {"matchLabels": labels}}},
        "Deployment": {"spec": {
            "replicas": 0, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nothing"}]}},
        }},
    }
    versions = {"Deployment": "apps/v1", "NetworkPolicy": "networking.k8s.io/v1"}
    return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": {"name": name, "labels": labels}, **specs[kind]}


@pytest.mark.parametrize("kind, name", [("Service", "quick"), ("NetworkPolicy", "quick"), ("Deployment", "quick-ps-0"),
                                        ("Deployment", "quick-worker")])
def test_a_foreign_object_in_a_childs_name(cluster, namespace, submit, small_hosted, kind, name):
    """Never adopted, never touched: the job says what stands in its way, and goes on when it is gone."""
    stranger = cluster.create(foreign(kind, name), namespace)
    job = submit(QUICK, dataset(small_hosted))
    stalled = job.wait(lambda found: condition_of(found, "Stalled")[:2] == ("True", "NameConflict"), 30, "stalled")
    message = condition_of(stalled, "Stalled")[2]
    assert kind in message and name in message, message
    assert cluster.get(kind, name, namespace)["metadata"].get("ownerReferences") is None
    assert cluster.get(kind, name, namespace)["metadata"]["labels"] == stranger["metadata"]["labels"]
    cluster.delete(kind, name, namespace)
    done = job.succeeded(60)
    assert condition_of(done, "Stalled")[0] in (None, "False")


def delete(cluster, job):
    """As kubectl does it: until the object is gone, which waits for its history to be written."""
    cluster.delete("TrainJob", job.name, job.namespace)
    cluster.wait("TrainJob", job.name, job.namespace, lambda found: found is None, 30, "gone")


def nothing_left(cluster, namespace):
    for kind in CHILDREN:
        cluster.wait_list(kind, namespace, lambda found: not found, 60, "gone with the job")


def test_deleting_a_running_job_leaves_nothing(cluster, submit, history, endurance):
    """But its history, as far as it had come."""
    job = submit(endurance, dataset())
    job.epoch(2)
    delete(cluster, job)
    nothing_left(cluster, job.namespace)
    assert len(history(job.uid)["data"]["accuracy"]) >= 2


def test_deleting_a_finished_job_leaves_nothing(cluster, submit, history, small_hosted):
    job = submit(QUICK, dataset(small_hosted))
    model = job.model(job.succeeded(60))
    delete(cluster, job)
    nothing_left(cluster, job.namespace)
    assert len(history(job.uid)["data"]["accuracy"]) == 1
    assert model.is_file(), "the model is the user's"


def test_a_job_deleted_and_applied_again_is_another(cluster, submit, history, small_hosted):
    first = submit(QUICK, dataset(small_hosted))
    ended = first.succeeded(60)
    delete(cluster, first)
    second = submit(QUICK)
    done = second.succeeded(60)
    assert second.model(done) != first.model(ended)
    assert history(first.uid) and history(second.uid)


def test_two_jobs_side_by_side(cluster, submit, endurance, small_hosted):
    """Two names, one Dataset: neither knows of the other, and equal jobs have equal models."""
    one = submit(merged(QUICK, {"metadata": {"name": "one"}}), dataset(small_hosted))
    two = submit(merged(QUICK, {"metadata": {"name": "two"}, "spec": {"workers": {"replicas": 2}}}))
    assert status_of(one.succeeded(60))["model"]["sha256"] == status_of(two.succeeded(60))["model"]["sha256"]


FROZEN = [
    ("training.epochs", {"training": {"epochs": 50}}),
    ("model", {"model": {"zoo": "mlp"}}),
    ("datasetRef", {"datasetRef": {"name": "another"}}),
    ("shards", {"parameterServers": {"shards": 2}}),
    ("blocks", {"sync": {"synchronous": {"blocks": 16}}}),
    ("template", {"template": {"spec": {"nodeSelector": {"a": "b"}}}}),
    ("output", {"output": None}),
]


def test_a_started_job_is_frozen(cluster, submit, endurance, endurance_sha256):
    """All but the number of workers and the run policy; the refusal says so and names the mend."""
    job = submit(endurance, dataset())
    job.wait(lambda found: status_of(found).get("startTime"), 30, "started")
    for what, change in FROZEN:
        with pytest.raises(DynamicApiError) as refusal:
            cluster.patch("TrainJob", job.name, job.namespace, {"spec": change})
        assert refusal.value.status == 422, f"{what}: {refusal.value.body}"
        assert "after the job has started only" in refusal.value.body, what
        assert "make another TrainJob" in refusal.value.body, what
    cluster.patch("TrainJob", job.name, job.namespace, {"spec": {"runPolicy": {"backoffLimit": 3}}})
    cluster.patch("TrainJob", job.name, job.namespace, {"spec": {"workers": {"replicas": 3}}})
    assert status_of(job.succeeded())["model"]["sha256"] == endurance_sha256


def test_a_dataset_cannot_change(cluster, namespace):
    cluster.create(dataset(), namespace)
    with pytest.raises(DynamicApiError) as refusal:
        cluster.patch("Dataset", "fashion-mnist", namespace, {"spec": {"classes": 11}})
    assert refusal.value.status == 422
    assert "make another Dataset" in refusal.value.body


def test_somebody_scales_a_deployment(cluster, submit, endurance, endurance_sha256):
    """What a job's children are is the job's to say: a change by another hand is put right."""
    job = submit(endurance, dataset())
    job.epoch(1)
    cluster.patch("Deployment", f"{job.name}-worker", job.namespace, {"spec": {"replicas": 0}})
    cluster.wait("Deployment", f"{job.name}-worker", job.namespace, lambda d: d["spec"]["replicas"] == 2, 30,
                 "2 replicas again")
    assert status_of(job.succeeded())["model"]["sha256"] == endurance_sha256


def test_no_workers_wanted(cluster, submit, kubectl, small_hosted):
    """At 0 the job waits and says so; with one it goes on."""
    job = submit(merged(QUICK, {"spec": {"workers": {"replicas": 0}}}), dataset(small_hosted))
    job.says("worker", seconds=30)
    job.wait(lambda found: status_of(found).get("parameterServers", {}).get("ready") == 1, 30, "its parameter server")
    kubectl("-n", job.namespace, "scale", "trainjobs.thole.dev/quick", "--replicas=1")
    job.succeeded(60)
