"""One process of MXNet's side of hack/bench.sh train: scheduler, server or worker of its parameter server (ps-lite).

The role is in DMLC_ROLE, as ps-lite has it. Rank 0's worker prints seconds of each epoch and the loss as JSON.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.gluon import nn

MEAN, STD = 0.2860, 0.3530


def read_idx(path, header):
    with gzip.open(path) as file:
        return np.frombuffer(file.read()[header:], dtype=np.uint8)


def zoo(name):
    net = nn.HybridSequential()
    if name == "mlp":
        net.add(nn.Dense(256, activation="relu"), nn.Dense(128, activation="relu"), nn.Dense(10))
    else:
        net.add(
            nn.Conv2D(6, 5, padding=2, activation="relu"), nn.MaxPool2D(2), nn.Conv2D(16, 5, activation="relu"),
            nn.MaxPool2D(2), nn.Dense(120, activation="relu"), nn.Dense(84, activation="relu"), nn.Dense(10),
        )  # fmt: skip
    net.hybridize()
    return net


def train_epoch(net, trainer, store, data, batch, order):
    images, labels = data
    criterion = gluon.loss.SoftmaxCrossEntropyLoss()
    losses = []
    for first in range(0, len(order), batch):
        own = order[first : first + batch][store.rank :: store.num_workers]
        x, y = images[own], labels[own]
        with autograd.record():
            loss = criterion(net(x), y)
        loss.backward()
        trainer.step(batch)  # a server's factor is fixed at its first step: a short last batch counts a little less
        losses.append(loss.sum())
    return sum(float(loss.asscalar()) for loss in losses)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True, help="of the whole step, over all workers")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    store = mx.kv.create("dist_sync")  # a server's process does not return from here
    mx.random.seed(1)
    images = read_idx(options.data / "train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28).astype(np.float32)
    data = mx.nd.array((images / 255 - MEAN) / STD), mx.nd.array(read_idx(options.data / "train-labels-idx1-ubyte.gz", 8))
    net = zoo(options.model)
    net.initialize(mx.init.Xavier())
    settings = {"learning_rate": 0.05, "momentum": 0.9}
    trainer = gluon.Trainer(net.collect_params(), "sgd", settings, kvstore=store, update_on_kvstore=True)
    result = {"seconds": [], "loss": 0.0}
    shuffle = np.random.RandomState(1)
    for _ in range(options.epochs):
        begin = time.perf_counter()
        loss = train_epoch(net, trainer, store, data, options.batch, shuffle.permutation(len(images)))
        mx.nd.waitall()
        result["seconds"].append(time.perf_counter() - begin)
        result["loss"] = loss / len(images) * store.num_workers
    if store.rank == 0:
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
