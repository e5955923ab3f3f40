"""The main job: kubectl apply, watch, and a model that does what the status says."""

import pathlib

import pytest
import yaml

from support import idx, local, reference
from support.cluster import condition_of, status_of
from support.manifests import dataset, merged

SAMPLES = pathlib.Path(__file__).resolve().parents[1] / "config/samples"
PHASES = ["Pending", "Starting", "Running", "Succeeded"]


def sample(name):
    return yaml.safe_load((SAMPLES / name).read_text())


def test_lenet_trains(cluster, submit, kubectl, history, trainer, tmp_path):
    """LeNet, 5 epochs, 2 workers, 1 parameter server: at least 87 %, told in every place, in the same numbers."""
    told = []
    job = submit(sample("trainjob.yaml"), sample("dataset.yaml"))

    def note(found):
        phase = status_of(found).get("phase")
        if phase and phase not in told:
            told.append(phase)
        return phase == "Running" and len(status_of(found).get("history", [])) >= 1

    running = job.wait(note, 60, "running, with one epoch done")
    assert told == PHASES[PHASES.index(told[0]) : 3], "phases in their order"
    look_at_children(job)
    look_at_columns(kubectl, job, "Running")
    assert condition_of(running, "Ready")[0] == "True"

    done = job.succeeded()
    status = status_of(done)
    assert status["accuracy"] >= 87
    assert status["epoch"] == 5 and status["progressPercent"] == 100
    assert [entry["epoch"] for entry in status["history"]] == [1, 2, 3, 4, 5]
    assert status["history"][-1]["accuracy"] == pytest.approx(status["accuracy"], abs=1e-4)
    assert all(entry["parallelism"] == 2 for entry in status["history"][1:])
    assert status["completionTime"] >= status["startTime"]
    assert status.get("restarts", {}).get("workers", 0) == 0
    look_at_conditions(done)
    look_at_columns(kubectl, job, "Succeeded")
    look_at_mongo(history, job, done)
    look_at_model(job, done)

    # The same job as processes of this machine, as a laptop would run it.
    run = local.run(tmp_path, sample("dataset.yaml"), sample("trainjob.yaml"))
    assert run.returncode == 0, run
    assert run.sha256 == status["model"]["sha256"]
    for here, there in zip(run.history, status["history"], strict=True):
        assert [here[n] for n in ("trainLoss", "validationLoss", "accuracy")] == pytest.approx(
            [there[n] for n in ("trainLoss", "validationLoss", "accuracy")], rel=1e-12)

    job.cluster.wait_list("Deployment", job.namespace,
                          lambda found: [d["spec"]["replicas"] for d in found] == [0] * len(found) and found, 30,
                          "at 0 replicas, since the job is done")
    job.cluster.wait_list("Pod", job.namespace, lambda found: not found, 60, "gone, since the job is done")
    job.cluster.wait_list("Service", job.namespace, lambda found: not found, 10, "gone, since the job is done")


def look_at_children(job):
    """What the operator made is named, labelled and restricted as it says it is."""
    names = {kind: sorted(item["metadata"]["name"] for item in job.cluster.list(kind, job.namespace))
             for kind in ("Deployment", "Service", "NetworkPolicy", "Secret")}
    assert names == {"Deployment": ["lenet-ps-0", "lenet-worker"], "Service": ["lenet"], "NetworkPolicy": ["lenet"],
                     "Secret": [f"lenet-job-{job.uid[:8]}"]}
    assert len(job.pods("worker")) == 2 and len(job.pods("ps")) == 1
    for pod in job.pods("worker") + job.pods("ps"):
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "thole-operator"
        assert labels["app.kubernetes.io/instance"] == "lenet"
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        security = merged(spec["securityContext"], spec["containers"][0]["securityContext"])
        assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
        assert security["seccompProfile"]["type"] == "RuntimeDefault"


def look_at_conditions(done):
    assert condition_of(done, "Succeeded")[0] == "True"
    assert condition_of(done, "Ready")[0] == "True"
    for kind in ("Failed", "Stalled", "Reconciling"):
        assert condition_of(done, kind)[0] in (None, "False"), kind
    assert status_of(done)["observedGeneration"] == done["metadata"]["generation"]


def look_at_columns(kubectl, job, state):
    for name in ("trainjobs.thole.dev", "tj.thole.dev"):
        header, row = kubectl("-n", job.namespace, "get", name).splitlines()
        assert header.split() == ["NAME", "STATE", "EPOCH", "LOSS", "ACC", "WORKERS", "AGE"]
        assert row.split()[:2] == ["lenet", state]
        assert "<none>" not in row, row
    header = kubectl("-n", job.namespace, "get", "trainjobs.thole.dev", "-o", "wide").splitlines()[0]
    assert header.split()[-5:] == ["PS", "SYNC", "PROGRESS", "STARTED", "DURATION"]
    header, row = kubectl("-n", job.namespace, "get", "dset").splitlines()
    assert header.split()[:3] == ["NAME", "STATE", "FORMAT"]
    assert row.split()[:3] == ["fashion-mnist", "Ready", "IDX"]
    assert "trainjob.thole.dev/lenet" in kubectl("-n", job.namespace, "get", "all")


def look_at_mongo(history, job, done):
    """KubeML's names inside `task` and `data`, and the numbers of the status."""
    document = history(job.uid)
    assert document, f"MongoDB has no document {job.uid}"
    assert (document["namespace"], document["name"]) == (job.namespace, job.name)
    data, entries = document["data"], status_of(done)["history"]
    names = {"train_loss": "trainLoss", "validation_loss": "validationLoss", "accuracy": "accuracy",
             "parallelism": "parallelism", "epoch_duration": "durationSeconds"}
    for theirs, ours in names.items():
        assert data[theirs] == pytest.approx([entry[ours] for entry in entries], rel=1e-9), theirs
    # Each epoch's own seconds, not those since the start: all of them fit into the job's duration.
    assert 0 < sum(data["epoch_duration"]) <= status_of(done)["durationSeconds"] + 1
    task = document["task"]
    assert (task["batch_size"], task["epochs"], task["lr"], task["dataset"]) == (128, 5, 0.05, "fashion-mnist")
    assert task["model_type"] == "lenet"


def look_at_model(job, done):
    """The file is the one whose hash is told, and its accuracy, computed anew, the one that is told."""
    status, file = status_of(done), job.model(done)
    assert f"{job.namespace}/{job.name}/{job.uid}/" in str(file)
    assert reference.sha256(file) == status["model"]["sha256"]
    assert file.stat().st_size == status["model"]["bytes"]
    assert status["model"]["step"] == status["step"] == 5 * 469

    data = pathlib.Path(sample("dataset.yaml")["spec"]["source"]["hostPath"]["path"])
    images, labels = (idx.read(data / f"{name}.gz") for name in idx.FILES["test"])
    judgement = reference.judge(file, images, labels, dataset()["spec"]["normalize"])
    assert judgement.least <= round(status["accuracy"], 6) <= judgement.most
    assert status["history"][-1]["validationLoss"] == pytest.approx(judgement.loss, rel=1e-5)


def test_kubectl_wait_tells_the_end(submit, kubectl, small_hosted):
    job = submit(merged(sample("trainjob.yaml"), {"spec": {"model": {"zoo": "mlp"}, "training": {"epochs": 1}}}),
                 dataset(small_hosted))
    kubectl("-n", job.namespace, "wait", "--for=condition=Succeeded", "trainjobs.thole.dev/lenet", "--timeout=50s")
    kubectl("-n", job.namespace, "wait", "--for=jsonpath={.status.phase}=Succeeded", "tj.thole.dev/lenet", "--timeout=5s")
