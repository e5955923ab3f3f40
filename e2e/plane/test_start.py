"""Jobs that begin from another job's model, and what asynchronous ones say of themselves, without a node of this machine."""

import hashlib
import json

from support import manifests, stage
from support.cluster import condition_of, status_of
from support.coordinators import Script

OUTPUT = {"volume": {"hostPath": {"path": "/data/models"}}}


def student(name="student", teacher="teacher", **changes):
    return manifests.trainjob(name, model={"zoo": None, "trainJobRef": {"name": teacher}}, **changes)


def waits(cluster, namespace, reason, *words, name="student"):
    job = cluster.wait("TrainJob", name, namespace, lambda j: condition_of(j, "Ready")[1] == reason, 60, reason)
    for word in words:
        assert word in status_of(job)["message"], status_of(job)["message"]
    assert "startTime" not in status_of(job)
    return job


def started(cluster, namespace, name="student"):
    return cluster.wait("TrainJob", name, namespace, lambda j: status_of(j).get("startTime"), 60, "started")


def ended(cluster, namespace, name):
    return cluster.wait("TrainJob", name, namespace, lambda j: status_of(j).get("phase") in ("Succeeded", "Failed"), 120,
                        "its end")


def test_a_job_waits_for_another_and_begins_from_its_model(plane, cluster, namespace, start_operator):
    operator = start_operator("--allowed-host-paths=/data", "--debug").ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(student(), namespace)
    waits(cluster, namespace, "StartMissing", "TrainJob 'teacher'", "correct spec.model.trainJobRef.name")
    shown = json.loads(operator.get(f"/debug/trainjob?key={namespace}/student")[1])
    assert shown["memory"]["awaits"] == f"{namespace}/teacher"
    teacher = cluster.create(manifests.trainjob("teacher", output=OUTPUT, training={"epochs": 2}), namespace)
    waits(cluster, namespace, "StartNotReady", "TrainJob 'teacher'", "it is ")
    assert not cluster.list("Deployment", namespace, label_selector="thole.dev/job=student")
    with stage.played(plane, operator, namespace, Script(epochs=2)):
        ended(cluster, namespace, "teacher")
        job = started(cluster, namespace)
        uid = teacher["metadata"]["uid"]
        assert status_of(job)["start"] == {"trainJob": "teacher", "uid": uid, "volume": OUTPUT["volume"],
                                           "sha256": hashlib.sha256(b"teacher").hexdigest()}
        deployments = cluster.wait_list("Deployment", namespace, lambda found: len(found) == 2, 60, "its Deployments",
                                        label_selector="thole.dev/job=student")
        for deployment in deployments:
            pod = deployment["spec"]["template"]["spec"]
            mount = next(m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "start")
            assert mount == {"name": "start", "mountPath": "/start", "readOnly": True,
                             "subPath": f"{namespace}/teacher/{uid}"}
            assert pod["containers"][0]["args"][-2:] == ["--start-sha256", status_of(job)["start"]["sha256"]]
            volume = next(v for v in pod["volumes"] if v["name"] == "start")
            assert volume["hostPath"] == {"path": "/data/models", "type": "Directory"}
        cluster.delete("TrainJob", "teacher", namespace)  # what has begun does not need it any more
        assert status_of(ended(cluster, namespace, "student"))["phase"] == "Succeeded"


def test_what_no_job_can_begin_from(plane, cluster, namespace, start_operator):
    operator = start_operator("--allowed-host-paths=/data").ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(student("student", "unkept"), namespace)
    cluster.create(manifests.trainjob("unkept", training={"epochs": 1}), namespace)
    cluster.create(manifests.trainjob("file", model={"zoo": None, "file": {
        "path": "a/model.safetensors", "volume": {"hostPath": {"path": "/etc"}}}}), namespace)
    waits(cluster, namespace, "InvalidSpec", "spec.model.file.volume.hostPath.path: '/etc'", name="file")
    with stage.played(plane, operator, namespace, Script(epochs=1)):
        job = waits(cluster, namespace, "StartUnusable", "it was not kept, for want of spec.output")
    assert condition_of(job, "Stalled")[0] == "True"


def test_jobs_that_wait_for_each_other_say_so(plane, cluster, namespace, start_operator):
    """Whichever of them closes the circle, all of them hear of it, and that it is open again."""
    operator = start_operator("--allowed-host-paths=/data").ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    for name, teacher in [("d", "a"), ("a", "b"), ("b", "c")]:
        cluster.create(student(name, teacher, output=OUTPUT), namespace)
    waits(cluster, namespace, "StartMissing", "TrainJob 'c'", name="b")
    for name in "da":
        waits(cluster, namespace, "StartNotReady", "it is Pending", name=name)
    cluster.create(student("c", "a", output=OUTPUT), namespace)
    for name, circle in [("a", "a → b → c → a"), ("b", "b → c → a → b"), ("c", "c → a → b → c")]:
        job = waits(cluster, namespace, "StartUnusable", "wait for each other for ever", circle, name=name)
        assert condition_of(job, "Stalled")[0] == "True"
    waits(cluster, namespace, "StartUnusable", "that one waits in a circle", "a → b → c → a", name="d")
    cluster.patch("TrainJob", "c", namespace, {"spec": {"model": {"zoo": "mlp", "trainJobRef": None}}})
    for name in "bad":
        waits(cluster, namespace, "StartNotReady", "whose model is the start: it is ", name=name)
    with stage.played(plane, operator, namespace, Script(epochs=1)):
        for name in "cbad":
            assert status_of(ended(cluster, namespace, name))["phase"] == "Succeeded"


def test_a_job_begins_from_a_file(plane, cluster, namespace, start_operator):
    start_operator("--allowed-host-paths=/data").ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(manifests.trainjob("student", model={"zoo": None, "file": {
        "path": "old/net.safetensors", "volume": {"persistentVolumeClaim": {"claimName": "models"}}}}), namespace)
    started(cluster, namespace)
    for deployment in cluster.wait_list("Deployment", namespace, lambda found: len(found) == 2, 60, "its Deployments"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["containers"][0]["args"][-2:] == ["--start", "/start/old/net.safetensors"]
        assert next(v for v in pod["volumes"] if v["name"] == "start")["persistentVolumeClaim"] == {
            "claimName": "models", "readOnly": True}


def test_an_asynchronous_training_of_values_says_what_it_does(plane, cluster, namespace, start_operator):
    operator = start_operator().ready()
    cluster.create(manifests.dataset("/data/table", name="table", format="CSV", train={"features": "a.csv", "labels": None},
                                     test=None, shape=None, classes=None, normalize=None,
                                     csv={"labelColumn": "price"}), namespace)
    cluster.create(manifests.trainjob("values", datasetRef={"name": "table"}, model={"zoo": "linear"},
                                      training={"epochs": 2}, sync={"type": "Asynchronous"}), namespace)
    sync = {"steps": 100, "duplicates": 3, "stale": 2, "staleness": [80, 15, 0, 5]}
    with stage.played(plane, operator, namespace, Script(epochs=2, sync=sync, values=True)):
        status = status_of(ended(cluster, namespace, "values"))
    assert status["sync"] == sync
    assert "accuracy" not in status
    assert [sorted(epoch) for epoch in status["history"]] == 2 * [
        ["durationSeconds", "epoch", "parallelism", "term", "trainLoss", "validationLoss"]]
    assert operator.metric("thole_sync_steps_total") == 100
    assert operator.metric("thole_sync_duplicates_total") == 3
    assert operator.metric("thole_sync_staleness_bucket", le="1") == 95
    assert operator.metric("thole_sync_staleness_count") == 100
