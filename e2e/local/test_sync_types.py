"""Asynchronous, Hogwild and KAverage: they learn as well as Synchronous, and count every sample once, whoever dies."""

import pytest

from support import local
from support.manifests import dataset, trainjob

TYPES = {
    "asynchronous": {"type": "Asynchronous", "asynchronous": {"maxStaleness": 4}},
    "asynchronous-bfloat16": {"type": "Asynchronous", "asynchronous": {"maxStaleness": 2, "wire": "BFloat16"}},
    "hogwild": {"type": "Hogwild"},
    "kaverage": {"type": "KAverage", "kAverage": {"localSteps": 4}},
    "kaverage-epoch": {"type": "KAverage", "kAverage": {}},
    "kaverage": {"type": "KAverage", "kAverage": {"localSteps": 4}},
    "kaverage-epoch-bfloat16": {"type": "KAverage", "kAverage": {"wire": "BFloat16"}},
}
EPOCHS, BATCH, SAMPLES = 10, 50, 1500


def job(sync):
    training = {"epochs": EPOCHS, "batchSize": BATCH, "seed": 5, "optimizer": {"learningRate": 0.03, "momentum": 0.5}}
    return trainjob(model={"zoo": "mlp"}, training=training, sync=TYPES[sync])


@pytest.fixture(scope="module")
def synchronous(trainer, small_data, tmp_path_factory):
    plan = trainjob(model={"zoo": "mlp"}, training={"epochs": EPOCHS, "batchSize": BATCH, "seed": 5,
                                                    "optimizer": {"learningRate": 0.03, "momentum": 0.5}})  # fmt: skip
    run = local.run(tmp_path_factory.mktemp("synchronous"), dataset(small_data), plan, options=("--workers", 2))
    assert run.returncode == 0, run
    return run


def learned(run, synchronous):
    assert run.returncode == 0, run
    assert [epoch["epoch"] for epoch in run.history] == list(range(1, EPOCHS + 1)), run
    assert run.model.is_file()
    best = max(epoch["accuracy"] for epoch in run.history)
    assert best > max(epoch["accuracy"] for epoch in synchronous.history) - 5, run


@pytest.mark.parametrize("sync", TYPES)
@pytest.mark.parametrize("workers, shards", [(1, 1), (3, 2)])
def test_it_learns(synchronous, small_data, tmp_path, sync, workers, shards):
    run = local.run(tmp_path, dataset(small_data), job(sync), options=("--workers", workers, "--shards", shards))
    learned(run, synchronous)


@pytest.mark.parametrize("sync", TYPES)
def test_a_killed_worker_costs_no_sample(synchronous, small_data, tmp_path, sync):
    run = local.run_with_kills(tmp_path, dataset(small_data), job(sync), options=("--workers", 3, "--shards", 2),
                               after=("epoch 1/", "epoch 3/"))  # fmt: skip
    learned(run, synchronous)
    assert f"steps     {EPOCHS * SAMPLES // BATCH} of workers" in run.stdout, run
