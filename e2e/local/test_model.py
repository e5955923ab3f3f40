"""What a run leaves is what it says: the model file judged again by plain numpy."""

import json

import pytest
from safetensors import safe_open

from support import idx, local, reference
from support.manifests import dataset, trainjob

SHAPES = {
    "mlp": {"fc1.weight": (256, 784), "fc2.weight": (128, 256), "fc3.weight": (10, 128)},
    "lenet": {"conv1.weight": (6, 1, 5, 5), "conv2.weight": (16, 6, 5, 5), "fc1.weight": (120, 400),
              "fc2.weight": (84, 120), "fc3.weight": (10, 84)},
}


@pytest.mark.parametrize("zoo, epochs", [("mlp", 1), ("lenet", 4)])
def test_accuracy_and_loss_are_what_numpy_finds(trainer, small_data, tmp_path, zoo, epochs):
    """After so many epochs that it is good, and not so many that it makes no mistake any more."""
    job = trainjob(model={"zoo": zoo},
                   training={"epochs": epochs, "batchSize": 50, "optimizer": {"learningRate": 0.02}})
    manifest = dataset(small_data)
    run = local.run(tmp_path, manifest, job)
    assert run.returncode == 0, run

    images, labels = (idx.read(small_data / f"{name}.gz") for name in idx.FILES["test"])
    judgement = reference.judge(run.model, images, labels, manifest["spec"]["normalize"])
    last = run.history[-1]
    assert judgement.least <= round(last["accuracy"], 6) <= judgement.most
    assert last["validationLoss"] == pytest.approx(judgement.loss, rel=1e-5)
    assert 50 < last["accuracy"] < 100


@pytest.mark.parametrize("zoo", ["mlp", "lenet"])
def test_the_file_describes_itself(trainer, small_data, tmp_path, zoo):
    run = local.run(tmp_path, dataset(small_data), trainjob(model={"zoo": zoo}, training={"epochs": 1}))
    assert run.returncode == 0, run
    with safe_open(run.model, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    assert {name: t.shape for name, t in tensors.items() if name.endswith("weight")} == SHAPES[zoo]
    assert {t.dtype.name for t in tensors.values()} == {"float32"}
    assert metadata["model"] == zoo
    assert metadata["seed"] == "1"
    assert json.loads(metadata["normalize"])["mean"] == [0.286]
    assert metadata["kernel"]


def test_history_says_what_happened(trainer, small_data, tmp_path):
    job = trainjob(model={"zoo": "mlp"}, training={"epochs": 5, "batchSize": 50, "validateEveryEpochs": 2})
    run = local.run(tmp_path, dataset(small_data), job, options=("--workers", 2))
    assert run.returncode == 0, run
    assert [entry["epoch"] for entry in run.history] == [1, 2, 3, 4, 5]
    assert ["accuracy" in entry for entry in run.history] == [False, True, False, True, True], "every second and the last"
    assert all(entry["durationSeconds"] > 0 and entry["parallelism"] in (1, 2) for entry in run.history)
    assert run.history[-1]["trainLoss"] < run.history[0]["trainLoss"]


def test_goal_accuracy_ends_the_job(trainer, small_data, tmp_path):
    job = trainjob(model={"zoo": "mlp"}, training={"epochs": 50, "batchSize": 50, "goalAccuracy": 60})
    run = local.run(tmp_path, dataset(small_data), job)
    assert run.returncode == 0, run
    assert len(run.history) < 50
    assert run.history[-1]["accuracy"] >= 60
    assert all(entry["accuracy"] < 60 for entry in run.history[:-1])
