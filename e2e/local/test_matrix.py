"""The promise, over the zoo: any model, any optimizer, either wire; any number of workers and shards, and kills.

Every case trains twice: alone, and with many of whom some die. Which cases there are covers all models, all optimizers
with both wires, and all numbers of workers and shards; THOLE_MATRIX=full runs every combination (an hour).
"""

import itertools
import os

import pytest

from support import idx, local, tables
from support.manifests import dataset, trainjob

OPTIMIZERS = {
    "sgd": {"type": "SGD", "learningRate": 0.05},
    "momentum": {"type": "SGD", "learningRate": 0.02, "momentum": 0.9, "weightDecay": 0.0001},
    "nesterov": {"type": "SGD", "learningRate": 0.02, "momentum": 0.9, "nesterov": True},
    "adagrad": {"type": "Adagrad", "learningRate": 0.01},
    "rmsprop": {"type": "RMSProp", "learningRate": 0.001, "momentum": 0.5},
    "adam": {"type": "Adam", "learningRate": 0.001},
    "adamw": {"type": "AdamW", "learningRate": 0.001, "weightDecay": 0.01},
    "amsgrad": {"type": "AMSGrad", "learningRate": 0.001},
    "lamb": {"type": "LAMB", "learningRate": 0.01, "weightDecay": 0.01},
    "lamb-clipped": {"type": "LAMB", "learningRate": 0.01, "clip": {"norm": 0.2}},
    "clipped": {
        "type": "SGD", "learningRate": 0.05, "momentum": 0.9, "clip": {"norm": 0.5, "value": 0.2},
        "schedule": {"type": "Cosine", "warmupSteps": 5},
    },
}  # fmt: skip
MODELS = ("linear", "logistic", "mlp", "lenet", "resnet8", "resnet20", "widedeep")
WIRES = ("Float32", "BFloat16")
SAMPLES = {"resnet8": 200, "resnet20": 72}  # else 1500; with a batch of 128, or of 32 here, the last one is short
TEAMS = [(2, 1), (3, 2), (8, 4), (5, 3), (4, 1), (7, 2), (6, 4), (1, 3)]


def covering():
    cases = list(zip(MODELS, itertools.cycle(("momentum", "adam", "rmsprop")), itertools.cycle(WIRES)))
    cases += [("mlp", optimizer, wire) for optimizer in OPTIMIZERS for wire in WIRES]
    # Norms of what is spread over shards by row, and not by place.
    cases += [("widedeep", optimizer, wire) for optimizer in ("lamb", "clipped", "lamb-clipped") for wire in WIRES]
    return cases


def everything():
    return list(itertools.product(MODELS, OPTIMIZERS, WIRES))


CASES = [(*case, *TEAMS[i % len(TEAMS)])
         for i, case in enumerate(everything() if os.environ.get("THOLE_MATRIX") == "full" else covering())]  # fmt: skip


def data_for(model, directory):
    if model == "linear":
        return tables.dataset(directory)
    if model == "widedeep":
        return tables.dataset(directory, classes=2)
    return dataset(idx.write(directory, train=SAMPLES.get(model, 1500), test=60))


def job_for(model, optimizer, wire, data):
    return trainjob(
        datasetRef={"name": data["metadata"]["name"]},
        model={"zoo": model},
        training={
            "epochs": 2, "batchSize": 32 if model in SAMPLES else 128,
            "optimizer": {"learningRate": None, "momentum": None} | OPTIMIZERS[optimizer], "seed": 3,
        },
        sync={"type": "Synchronous", "synchronous": {"blocks": 8, "wire": wire}},
    )  # fmt: skip


@pytest.mark.parametrize("model, optimizer, wire, workers, shards", CASES, ids=["-".join(map(str, c)) for c in CASES])
def test_same_bits(trainer, tmp_path, model, optimizer, wire, workers, shards):
    data = data_for(model, tmp_path / "data")
    job = job_for(model, optimizer, wire, data)
    for name in ("alone", "many"):
        (tmp_path / name).mkdir()
    alone = local.run(tmp_path / "alone", data, job, options=("--workers", 1, "--shards", 1))
    assert alone.returncode == 0, alone
    many = local.run_with_kills(tmp_path / "many", data, job, options=("--workers", workers, "--shards", shards))
    assert many.returncode == 0, many
    assert many.sha256 == alone.sha256, many
    for epoch, expected in zip(many.history, alone.history, strict=True):
        for name in ("trainLoss", "validationLoss", "accuracy"):
            assert epoch.get(name) == expected.get(name), f"{name} of epoch {epoch['epoch']}"
    assert alone.history[-1]["trainLoss"] < alone.history[0]["trainLoss"], "it does not learn"
