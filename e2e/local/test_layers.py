"""Models of one's own: spec.model.layers, checked before anything starts."""

import json
import struct

import numpy
import pytest

from support import local
from support.manifests import dataset, trainjob

LENET = [
    {"name": "conv1", "type": "Conv2D", "filters": 6, "kernel": 5, "padding": 2},
    {"name": "pool1", "type": "MaxPool", "kernel": 2},
    {"name": "relu1", "type": "ReLU"},
    {"name": "conv2", "type": "Conv2D", "filters": 16, "kernel": 5},
    {"name": "pool2", "type": "MaxPool", "kernel": 2},
    {"name": "relu2", "type": "ReLU"},
    {"name": "flatten", "type": "Flatten"},
    {"name": "fc1", "type": "Dense", "units": 120},
    {"name": "relu3", "type": "ReLU"},
    {"name": "fc2", "type": "Dense", "units": 84},
    {"name": "relu4", "type": "ReLU"},
    {"name": "fc3", "type": "Dense"},
]
BRANCHES = [
    {"name": "stem", "type": "Conv2D", "filters": 4, "kernel": 3, "padding": 1, "stride": 2},
    {"name": "norm", "type": "BatchNorm"},
    {"name": "left", "type": "Conv2D", "filters": 4, "kernel": 3, "padding": 1, "stride": 2, "groups": 2,
     "inputs": ["norm"]},
    {"name": "leftgelu", "type": "GELU"},
    {"name": "right", "type": "AvgPool", "kernel": 2, "inputs": ["norm"]},
    {"name": "sum", "type": "Add", "inputs": ["leftgelu", "right"]},
    {"name": "points", "type": "Conv2D", "filters": 4, "kernel": 1, "stride": 2, "bias": False, "inputs": ["stem"]},
    {"name": "both", "type": "Concat", "inputs": ["sum", "points"]},
    {"name": "drop", "type": "Dropout", "rate": 0.2},
    {"name": "flat", "type": "Flatten"},
    {"name": "hidden", "type": "Dense", "units": 24},
    {"name": "tanh", "type": "Tanh"},
    {"name": "layernorm", "type": "LayerNorm"},
    {"name": "out", "type": "Dense"},
]


def tensors_of(path):
    """The model file's tensors, by name."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    return {
        name: numpy.frombuffer(data[8 + length :][slice(*entry["data_offsets"])], numpy.float32)
        for name, entry in header.items()
    }


def train(directory, data, workers, shards=1, **changes):
    directory.mkdir()
    job = trainjob(**{"training": {"epochs": 2, "batchSize": 100, "seed": 5}, **changes})
    run = local.run(directory, dataset(data), job, options=("--workers", workers, "--shards", shards))
    assert run.returncode == 0, run
    return run


def test_the_zoo_is_a_list_of_layers(trainer, small_data, tmp_path):
    """LeNet written out is LeNet."""
    own = train(tmp_path / "own", small_data, 2, model={"zoo": None, "layers": LENET})
    zoo = train(tmp_path / "zoo", small_data, 2, model={"zoo": "lenet"})
    ours, theirs = tensors_of(own.model), tensors_of(zoo.model)
    assert list(ours) == list(theirs)
    for name in ours:
        assert numpy.array_equal(ours[name], theirs[name]), name
    assert own.history[-1]["trainLoss"] == zoo.history[-1]["trainLoss"]


def test_branches_have_the_same_bits_for_all(trainer, small_data, tmp_path):
    """Every kind of layer: groups, strides, norms, dropout, sums and joins."""
    model = {"zoo": None, "layers": BRANCHES}
    alone = train(tmp_path / "alone", small_data, 1, model=model)
    many = train(tmp_path / "many", small_data, 5, shards=3, model=model)
    assert alone.sha256 == many.sha256
    assert alone.history[-1]["trainLoss"] < alone.history[0]["trainLoss"]


MISTAKES = [
    ("a kernel too large", [*LENET[:5], {"name": "big", "type": "Conv2D", "filters": 4, "kernel": 9}], ["big", "9×9", "16×5×5"]),
    ("no flatten", [LENET[0], {"name": "out", "type": "Dense"}], ["out", "6×28×28"]),
    ("unequal sums", [LENET[0], LENET[1], {"name": "sum", "type": "Add", "inputs": ["conv1", "pool1"]}], ["sum", "6×28×28", "6×14×14"]),
    ("no such input", [{"name": "a", "type": "Flatten", "inputs": ["nothing"]}], ["a", "nothing"]),
    ("a later input", [{"name": "a", "type": "Flatten", "inputs": ["b"]}, {"name": "b", "type": "Dense"}], ["a", "b"]),
    ("a name twice", [{"name": "a", "type": "Flatten"}, {"name": "a", "type": "Dense"}], ["a"]),
    ("a member of others", [{"name": "a", "type": "Flatten", "filters": 3}], ["filters"]),
    ("an unknown type", [{"name": "a", "type": "Transformer"}], ["Transformer"]),
    ("wrong number of outputs", [{"name": "flat", "type": "Flatten"}, {"name": "out", "type": "Dense", "units": 7}], ["out", "7", "10"]),
    ("uneven groups", [{"name": "a", "type": "Conv2D", "filters": 4, "kernel": 3, "groups": 3}], ["a", "groups"]),
    ("no layers", [], ["spec.model.layers"]),
]  # fmt: skip


@pytest.mark.parametrize("layers, words", [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_names_the_layer(trainer, small_data, tmp_path, layers, words):
    run = local.run(tmp_path, dataset(small_data), trainjob(model={"zoo": None, "layers": layers}))
    assert run.returncode > 0, run
    for word in words:
        assert word in run.stderr, f"'{word}' is not said: {run}"
    assert "listens" not in run.stderr and "Sanitizer" not in run.stderr, run
