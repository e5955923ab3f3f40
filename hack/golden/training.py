#!/usr/bin/env python3
"""Trains a network of the zoo in PyTorch as a job does, from the job's own first parameters, beside train_bench: the
losses of the first steps and the parameters after them must agree as far as float32 does.

    python hack/golden/training.py --bench build/release/train_bench

Every step's batch is computed block by block, so that batch norm sees what a worker sees: the gradients are added, the
running statistics become the blocks' means by samples. Needs PyTorch (written with 2.15) and Fashion-MNIST's files.
"""

import argparse
import gzip
import json
import pathlib
import re
import struct
import subprocess
import tempfile

import torch
import torch.nn.functional as F
from torch import nn

SEED, MEAN, STD, RATE, MOMENTUM, NORM_MOMENTUM = 1, 0.2860, 0.3530, 0.05, 0.9, 0.1  # train_bench's


# ---- The order of an epoch: numerics/philox.c and permutation.c ----

def philox(counter, key):
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def order_of_epoch(n, epoch):
    key = philox((epoch, 0, 0, 2 << 24), (SEED, 0))[:2]
    left_side = next(side for side in range(1, n + 1) if side * side >= n)
    right_side = (n - 1) // left_side + 1

    def value(round_number, half, side):
        low, high, _, _ = philox((half, 0, round_number, 0), key)
        return ((high << 32 | low) * side) >> 64

    def at(index):
        while True:
            left, right = divmod(index, right_side)
            for i in range(0, 6, 2):
                left = (left + value(i, right, left_side)) % left_side
                right = (right + value(i + 1, left, right_side)) % right_side
            index = left * right_side + right
            if index < n:
                return index

    return [at(i) for i in range(n)]


# ---- Networks: common/network/zoo.c ----

class Block(nn.Module):
    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = nn.Sequential()
        if channels != filters:
            self.downsample = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False),
                                            nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage in (1, 2, 3):
            filters = 8 << stage
            blocks = [Block(filters // 2 if stage > 1 and i == 0 else filters, filters, 2 if stage > 1 and i == 0 else 1)
                      for i in range(n)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


# ---- Files ----

def read_idx(path, count):
    with gzip.open(path) as file:
        rank = file.read(4)[3]
        dims = struct.unpack(f">{rank}I", file.read(4 * rank))
        size = torch.Size(dims[1:]).numel()
        return bytearray(file.read(count * size)), dims[1:]


def write_idx(path, content, count, dims):
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(f">4B{len(dims) + 1}I", 0, 0, 8, len(dims) + 1, count, *dims) + content)


def read_model(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = torch.frombuffer(bytearray(content[begin:end]), dtype=torch.float32).reshape(entry["shape"])
    return tensors


# ---- Training ----

def step(model, optimizer, x, targets, blocks):
    """One update of the model from a batch in blocks; the sum of the losses."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    running = [(m.running_mean.clone(), m.running_var.clone()) for m in norms]
    sums = [(torch.zeros_like(mean), torch.zeros_like(var)) for mean, var in running]
    optimizer.zero_grad()
    total, n = 0.0, len(x)
    for b in range(blocks):
        begin, end = b * n // blocks, (b + 1) * n // blocks
        for m in norms:
            m.momentum = 1.0  # leaves the block's own statistics
        loss = F.cross_entropy(model(x[begin:end]), targets[begin:end], reduction="sum")
        loss.backward()
        total += loss.item()
        for m, (mean, var) in zip(norms, sums):
            mean += (end - begin) * m.running_mean
            var += (end - begin) * m.running_var
    for p in model.parameters():
        p.grad /= n
    optimizer.step()
    for m, (mean, var), (mean_sum, var_sum) in zip(norms, running, sums):
        m.running_mean = mean + NORM_MOMENTUM * (mean_sum / n - mean)
        m.running_var = var + NORM_MOMENTUM * (var_sum / n - var)
    return total


def train(model, images, labels, arguments, dtype):
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    x = ((images.double() / 255 - MEAN) / STD).to(dtype)
    losses = []
    for epoch in range(arguments.epochs):
        order = order_of_epoch(len(x), epoch)
        total = sum(step(model, optimizer, x[order[at:at + arguments.batch]], labels[order[at:at + arguments.batch]],
                         arguments.blocks) for at in range(0, len(x), arguments.batch))
        losses.append(total / len(x))
    return losses


def distance(state, parameters):
    """The largest difference, of trained parameters and of running statistics."""
    far = {False: 0.0, True: 0.0}
    for name, values in parameters.items():
        statistic = "running_" in name
        far[statistic] = max(far[statistic], (state[name].double() - values.double()).abs().max().item())
    return far[False], far[True]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True, type=pathlib.Path, help="train_bench")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", type=pathlib.Path)
    parser.add_argument("--model", default="resnet8", choices=["resnet8", "resnet20"])
    parser.add_argument("--samples", default=256, type=int, help="the first so many of the training set")
    parser.add_argument("--batch", default=64, type=int)
    parser.add_argument("--blocks", default=8, type=int)
    parser.add_argument("--epochs", default=4, type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    images, image_dims = read_idx(arguments.data / "train-images-idx3-ubyte.gz", arguments.samples)
    labels, label_dims = read_idx(arguments.data / "train-labels-idx1-ubyte.gz", arguments.samples)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_idx(folder / "train-images-idx3-ubyte.gz", images, arguments.samples, image_dims)
        write_idx(folder / "train-labels-idx1-ubyte.gz", labels, arguments.samples, label_dims)

        def bench(epochs, name):
            out = subprocess.run([arguments.bench, "--data", folder, "--epochs", str(epochs), "--model-file",
                                  folder / name, arguments.model, str(arguments.batch), str(arguments.blocks)],
                                 check=True, capture_output=True, text=True).stdout
            return [float(loss) for loss in re.findall(r"train loss ([0-9.]+)", out)], read_model(folder / name)

        _, first = bench(0, "first")
        ours, last = bench(arguments.epochs, "last")

    images = torch.frombuffer(images, dtype=torch.uint8).reshape(arguments.samples, 1, *image_dims)
    labels = torch.frombuffer(labels, dtype=torch.uint8).long()
    theirs, ends = {}, {}
    for dtype in (torch.float32, torch.float64):
        model = ResNet({"resnet8": 1, "resnet20": 3}[arguments.model])
        missing = [name for name in model.load_state_dict(first, strict=False).missing_keys if "num_batches" not in name]
        assert not missing and first.keys() <= model.state_dict().keys(), missing
        model.to(dtype)
        theirs[dtype] = train(model, images, labels, arguments, dtype)
        ends[dtype] = model.state_dict()
    print(f"{arguments.model}, {arguments.samples} samples, batch {arguments.batch} in {arguments.blocks} blocks; mean "
          "loss of an epoch")
    print("epoch  ours      PyTorch float32 (difference)  PyTorch float64 (difference)")
    for i, loss in enumerate(ours):
        print(f"{i + 1:5}  {loss:.6f}" +
              "".join(f"  {losses[i]:.6f} ({abs(loss - losses[i]):.1e})" for losses in theirs.values()))
    for dtype, state in ends.items():
        print("parameters in the end differ from {} by at most {:.1e}, statistics by {:.1e}".format(
            dtype, *distance(state, last)))
    print("PyTorch's float32 from its float64: {:.1e}, {:.1e}".format(
        *distance(ends[torch.float32], {name: ends[torch.float64][name] for name in last})))


if __name__ == "__main__":
    main()
