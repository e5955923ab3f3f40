"""One process of PyTorch's side of hack/bench.sh train: prints seconds of each epoch, loss, and accuracy as JSON.

Data parallel over gloo where there are several. Models are those of Thole's zoo, layer by layer.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import torch
from torch import distributed, nn

MEAN, STD = 0.2860, 0.3530


def read_idx(path, header):
    with gzip.open(path) as file:
        return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)


def load(folder, part):
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 16).view(-1, 1, 28, 28).float()
    return (images / 255 - MEAN) / STD, read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8).long()


class Residual(nn.Module):
    """He et al. 2015, with a projection where the shape changes."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
            nn.Conv2d(filters, filters, 3, 1, 1, bias=False), nn.BatchNorm2d(filters),
        )  # fmt: skip
        self.short = nn.Identity()
        if stride != 1 or channels != filters:
            self.short = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.body(x) + self.short(x))


def resnet(blocks):
    layers = [nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for stage, filters in enumerate((16, 32, 64)):
        for block in range(blocks):
            layers.append(Residual(channels, filters, 2 if stage > 0 and block == 0 else 1))
            channels = filters
    return layers + [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]


def zoo(name):
    if name == "mlp":
        return [nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    if name == "lenet":
        return [
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        ]  # fmt: skip
    return resnet({"resnet8": 1, "resnet20": 3}[name])


def accuracy(model, images, labels, rank, world):
    """Percent of all samples; every process looks at its part of them."""
    model.eval()
    correct = torch.zeros(1)
    with torch.no_grad():
        for first in range(rank * 500, len(labels), world * 500):
            correct += (model(images[first : first + 500]).argmax(1) == labels[first : first + 500]).sum()
    model.train()
    if world > 1:
        distributed.all_reduce(correct)
    return 100 * correct.item() / len(labels)


def train(options, model, data, report):
    images, labels = data
    rank, world = options.rank, options.world
    optimizer = torch.optim.SGD(model.parameters(), lr=options.rate, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    for _ in range(options.epochs):
        begin = time.perf_counter()
        order = torch.randperm(len(labels))  # the same in every process, as they have the same seed
        loss_sum = 0.0
        for first in range(0, len(labels), options.batch):
            own = order[first : first + options.batch][rank::world]
            optimizer.zero_grad()
            loss = criterion(model(images[own]), labels[own])
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(own)
        if not report(begin, loss_sum / len(labels) * world):
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True, help="of the whole step, over all processes")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--goal", type=float, help="percent: validate after every epoch, and stop there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    data = load(options.data, "train")
    test = load(options.data, "t10k") if options.goal else None
    model = nn.Sequential(*zoo(options.model))
    if options.world > 1:
        distributed.init_process_group("gloo", rank=options.rank, world_size=options.world)
        model = nn.parallel.DistributedDataParallel(model)
    result = {"seconds": [], "loss": 0.0, "accuracy": []}

    def report(begin, loss):
        if test is not None:
            result["accuracy"].append(accuracy(model, *test, options.rank, options.world))
        result["seconds"].append(time.perf_counter() - begin)
        result["loss"] = loss
        return test is None or result["accuracy"][-1] < options.goal

    train(options, model, data, report)
    print(json.dumps(result))
    if options.world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
