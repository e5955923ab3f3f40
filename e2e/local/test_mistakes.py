"""Mistakes get one sentence that names the field or file and the mend, an exit code, and nothing left behind."""

import gzip
import signal
import subprocess
import time

import pytest

from support import idx, local
from support.manifests import dataset, trainjob

SMALL = {"model": {"zoo": "mlp"}, "training": {"epochs": 1}}


def refused(run, *words):
    assert run.returncode not in (0, None) and run.returncode > 0, f"ended by a signal or without an error: {run}"
    for word in words:
        assert word in run.stderr, f"'{word}' is not said: {run}"
    assert "Sanitizer" not in run.stderr and "Assertion" not in run.stderr, run
    assert not run.model.exists(), "there is a model in spite of the error"


FIELDS = [
    ("unknown zoo model", {"model": {"zoo": "resnet50"}}, ["spec.model.zoo", "lenet", "mlp"]),
    ("no model", {"model": None}, ["spec.model"]),
    ("epochs 0", {"training": {"epochs": 0}}, ["spec.training.epochs"]),
    ("epochs as text", {"training": {"epochs": "5"}}, ["spec.training.epochs"]),
    ("batch 0", {"training": {"batchSize": 0}}, ["spec.training.batchSize"]),
    ("no learning rate", {"training": {"optimizer": {"learningRate": None}}}, ["spec.training.optimizer.learningRate"]),
    ("momentum 1", {"training": {"optimizer": {"momentum": 1}}}, ["spec.training.optimizer.momentum"]),
    ("another optimizer", {"training": {"optimizer": {"type": "Adamax"}}}, ["spec.training.optimizer.type", "SGD"]),
    ("too many shards", {"parameterServers": {"shards": 17}}, ["spec.parameterServers.shards"]),
    ("more workers than blocks", {"workers": {"replicas": 9}}, ["spec.workers.replicas"]),
    ("a typing mistake", {"training": {"epoch": 3}}, ["spec.training.epoch"]),
    ("no such type", {"sync": {"type": "Gossip"}}, ["spec.sync.type"]),
]


@pytest.mark.parametrize("changes, words", [case[1:] for case in FIELDS], ids=[case[0] for case in FIELDS])
def test_a_wrong_field_is_named(trainer, small_data, tmp_path, changes, words):
    refused(local.run(tmp_path, dataset(small_data), trainjob(**changes)), *words)


def test_yaml_mistakes_have_a_line(trainer, small_data, tmp_path):
    run = local.run(tmp_path, dataset(small_data), "apiVersion: thole.dev/v1alpha1\nkind: TrainJob\nspec: [1, 2\n")
    refused(run, "1.yaml", "line")


def test_manifests_must_be_there(trainer, small_data, tmp_path):
    refused(local.run(tmp_path, trainjob(**SMALL)), "fashion-mnist")
    (tmp_path / "b").mkdir()
    refused(local.run(tmp_path / "b", dataset(small_data)), "TrainJob")
    (tmp_path / "c").mkdir()
    refused(local.run(tmp_path / "c", options=("-f", tmp_path / "nothing.yaml")), "nothing.yaml")


@pytest.mark.parametrize("kind", ["Dataset", "TrainJob"])
def test_no_two_objects_have_one_name(trainer, small_data, tmp_path, kind):
    objects = {"Dataset": dataset(small_data), "TrainJob": trainjob(**SMALL)}
    refused(local.run(tmp_path, *objects.values(), objects[kind], options=("--job", "lenet")), "two", kind)


def damage_cut_gzip(path):
    path.write_bytes(path.read_bytes()[:-500])


def damage_cut_inside(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-500]))


def damage_magic(path):
    path.write_bytes(gzip.compress(b"GIF89a" + gzip.decompress(path.read_bytes())[6:]))


def damage_empty(path):
    path.write_bytes(b"")


def damage_remove(path):
    path.unlink()


def damage_longer(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"more"))


@pytest.mark.parametrize("damage", [damage_cut_gzip, damage_cut_inside, damage_magic, damage_empty, damage_remove, damage_longer])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_damaged_file_is_named(trainer, tmp_path, damage, file):
    data = idx.write(tmp_path / "data", train=200, test=1000)
    damage(data / file)
    run = local.run(tmp_path, dataset(data), trainjob(**SMALL))
    refused(run, file)
    assert run.stderr.count(file) == 1, f"to start again is in vain, and once is enough: {run}"


def test_labels_must_be_classes(trainer, small_data, tmp_path):
    run = local.run(tmp_path, dataset(small_data, classes=5), trainjob(**SMALL))
    refused(run, "train-labels-idx1-ubyte.gz", "classes")
    assert run.stderr.count("classes") == 1, run


def test_divergence_is_said_once(trainer, small_data, tmp_path):
    job = trainjob(**SMALL | {"training": {"epochs": 20, "batchSize": 10, "optimizer": {"learningRate": 1000}}})
    run = local.run(tmp_path, dataset(small_data), job)
    refused(run, "diverged", "learningRate")
    assert run.stderr.count("diverged") == 1, run


def test_the_shape_must_be_the_files(trainer, small_data, tmp_path):
    refused(local.run(tmp_path, dataset(small_data, shape=[1, 32, 32]), trainjob(**SMALL)), "shape")


@pytest.mark.parametrize("options, words", [
    (("--workers", "0"), ["--workers"]),
    (("--workers", "many"), ["--workers", "many"]),
    (("--shards", "-1"), ["--shards"]),
    (("--workers", "9"), ["8"]),
    (("--data", "fashion-mnist"), ["--data", "NAME=DIR"]),
    (("--data", "fashion-mnist=/does/not/exist"), ["/does/not/exist"]),
    (("--data", "cifar=/tmp"), ["cifar"]),
    (("--frobnicate",), ["--frobnicate"]),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_wrong_options_are_named(trainer, small_data, tmp_path, options, words):
    refused(local.run(tmp_path, dataset(small_data), trainjob(**SMALL), options=options), *words)


def test_output_that_cannot_be_written(trainer, small_data, tmp_path):
    (tmp_path / "output").write_text("a file stands where the folder should be")
    run = local.run(tmp_path, dataset(small_data), trainjob(**SMALL))
    assert run.returncode > 0, run
    assert str(tmp_path / "output") in run.stderr, run


def test_data_option_replaces_the_source(trainer, small_data, tmp_path):
    """A Dataset that a laptop does not have where the cluster has it."""
    elsewhere = dataset("/only/in/the/cluster")
    run = local.run(tmp_path, elsewhere, trainjob(**SMALL), options=("--data", f"fashion-mnist={small_data}"))
    assert run.returncode == 0, run
    assert len(run.history) == 1


def test_help_and_no_arguments(trainer):
    told = subprocess.run([trainer, "local", "--help"], capture_output=True, text=True, timeout=10)
    assert told.returncode == 0
    for option in ("-f", "--workers", "--shards", "--data", "--output"):
        assert option in told.stdout
    for arguments in ([trainer], [trainer, "frobnicate"], [trainer, "local"]):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=10)
        assert done.returncode > 0 and done.stderr, arguments


def test_interrupt_ends_all_of_it(trainer, small_data, tmp_path):
    """Ctrl-C: no process stays, and no half model."""
    job = trainjob(model={"zoo": "lenet"}, training={"epochs": 500, "batchSize": 50})
    output = tmp_path / "output"
    arguments = local.command(tmp_path, dataset(small_data), job, options=("--output", output))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        for line in running.stdout:
            if line.startswith("epoch 1/"):
                break
        children = local.children(running.pid)
        assert len(children) == 3, "a parameter server and two workers"
        running.send_signal(signal.SIGINT)
        began = time.monotonic()
        running.communicate(timeout=10)
    assert time.monotonic() - began < 5
    assert running.returncode != 0
    for pid in children:
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            local.arguments_of(pid)
    assert not (output / "model.safetensors").exists()
