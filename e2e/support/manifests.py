"""Datasets and TrainJobs as users write them, with what a test wants otherwise."""

import copy

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def merged(base, changes):
    """`base` with `changes` laid over it; None removes a member."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def dataset(path=FASHION_MNIST, name="fashion-mnist", **changes):
    return {
        "apiVersion": "thole.dev/v1alpha1",
        "kind": "Dataset",
        "metadata": {"name": name},
        "spec": merged(
            {
                "format": "IDX",
                "source": {"hostPath": {"path": str(path)}},
                "train": {"features": "train-images-idx3-ubyte.gz", "labels": "train-labels-idx1-ubyte.gz"},
                "test": {"features": "t10k-images-idx3-ubyte.gz", "labels": "t10k-labels-idx1-ubyte.gz"},
                "shape": [1, 28, 28],
                "classes": 10,
                "normalize": {"scale": 0.00392156862, "mean": [0.2860], "std": [0.3530]},
            },
            changes,
        ),
    }


def trainjob(name="lenet", **changes):
    """The sample's job: LeNet, 5 epochs, batch 128, 2 workers, 1 parameter server."""
    return {
        "apiVersion": "thole.dev/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": merged(
            {
                "datasetRef": {"name": "fashion-mnist"},
                "model": {"zoo": "lenet"},
                "training": {
                    "epochs": 5,
                    "batchSize": 128,
                    "optimizer": {"type": "SGD", "learningRate": 0.05, "momentum": 0.9},
                    "seed": 1,
                },
                "parameterServers": {"shards": 1},
                "workers": {"replicas": 2},
            },
            changes,
        ),
    }
