"""The model is the same, bit for bit, however many took part and whatever happened to them."""

import pytest

from support import local
from support.manifests import dataset, trainjob

# 1500 images in steps of 100: the blocks of a step are of 12 and 13 samples.
JOB = {"model": {"zoo": "lenet"}, "training": {"epochs": 3, "batchSize": 100, "seed": 5}}


@pytest.fixture(scope="module")
def undisturbed(trainer, small_data, tmp_path_factory):
    run = local.run(tmp_path_factory.mktemp("undisturbed"), dataset(small_data), trainjob(**JOB), options=("--workers", 1))
    assert run.returncode == 0, run
    return run


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("shards", [1, 2])
def test_same_bits_whoever_trains(undisturbed, small_data, tmp_path, workers, shards):
    run = local.run(tmp_path, dataset(small_data), trainjob(**JOB), options=("--workers", workers, "--shards", shards))
    assert run.returncode == 0, run
    assert run.sha256 == undisturbed.sha256
    for epoch, expected in zip(run.history, undisturbed.history, strict=True):
        assert 1 <= epoch["parallelism"] <= workers  # one that is slow to start joins later
        for name in ("trainLoss", "validationLoss", "accuracy"):
            assert epoch[name] == expected[name], f"{name} of epoch {epoch['epoch']}"


def test_who_leaves_after_a_good_end_is_not_lost(trainer, small_data, tmp_path):
    job = trainjob(model={"zoo": "mlp"}, training={"epochs": 2, "batchSize": 100})
    for name in "abcd":
        (tmp_path / name).mkdir()
        run = local.run(tmp_path / name, dataset(small_data), job, options=("--workers", 5, "--shards", 3))
        assert run.returncode == 0 and "lost" not in run.stderr, run


@pytest.mark.parametrize(
    "batch, blocks, samples",
    [(100, 8, 1500), (7, 8, 150), (1, 8, 60), (64, 5, 1001), (1500, 8, 1500), (4000, 8, 1500), (33, 1, 500)],
    ids=lambda value: str(value),
)
def test_same_bits_whatever_the_batch(trainer, small_data, tmp_path, batch, blocks, samples):
    """Blocks may be empty, steps short, an epoch one step."""
    from support import idx

    data = small_data if samples == 1500 else idx.write(tmp_path / "data", train=samples, test=50)
    job = trainjob(model={"zoo": "mlp"}, training={"epochs": 2, "batchSize": batch},
                   sync={"type": "Synchronous", "synchronous": {"blocks": blocks}}, workers={"replicas": 1})
    runs = []
    for workers, shards in ((1, 1), (min(3, blocks), 3)):
        (tmp_path / str(workers + 10 * shards)).mkdir()
        run = local.run(tmp_path / str(workers + 10 * shards), dataset(data), job,
                        options=("--workers", workers, "--shards", shards))
        assert run.returncode == 0, run
        runs.append(run)
    assert runs[0].sha256 == runs[1].sha256


def test_another_seed_is_another_model(undisturbed, small_data, tmp_path):
    job = trainjob(**{**JOB, "training": {**JOB["training"], "seed": 6}})
    run = local.run(tmp_path, dataset(small_data), job, options=("--workers", 1))
    assert run.returncode == 0, run
    assert run.sha256 != undisturbed.sha256


def test_a_killed_worker_changes_nothing(trainer, small_data, tmp_path):
    """SIGKILL in the middle: its blocks go to the other, and the bits stay."""
    job = trainjob(**{**JOB, "training": {**JOB["training"], "epochs": 12}})
    (tmp_path / "whole").mkdir()
    whole = local.run(tmp_path / "whole", dataset(small_data), job, options=("--workers", 1))
    assert whole.returncode == 0, whole

    run = local.run_with_kills(tmp_path, dataset(small_data), job, options=("--workers", 2), after=("epoch 2/",))
    assert run.returncode == 0, run
    assert run.sha256 == whole.sha256, run
    assert len(run.history) == 12
    assert "signal 9" in run.stdout or "SIGKILL" in run.stdout, "it says what happened"
