"""Training speed in samples per second, side by side on this machine.

  hack/bench.sh train [--torch] [--rounds N] [--models mlp,lenet] [--batches 128,32] [--data DIR]

Fashion-MNIST, SGD with momentum 0.9, one thread a process, of every run the second epoch on:
  alone      thole, one process without servers (model_bench)
  job        thole-trainer local: 2 workers, 1 parameter server, Synchronous, 8 blocks, float32 over loopback TCP
  torch      PyTorch, one process
  ddp        PyTorch DistributedDataParallel over gloo, 2 processes
Batches are of the whole step, over all processes. Runs take turns, so that what the machine does besides falls on all
alike; the table has medians, with the least and the most. PyTorch's rows need PyTorch: --torch fetches it (gigabytes).
"""

import argparse
import gzip
import importlib.util
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
SAMPLES = 60000
EPOCHS = 3
MEAN, STD = 0.2860, 0.3530
ROWS = {
    "alone": "thole, 1 process, no servers",
    "job": "thole, 2 workers + 1 shard",
    "torch": "PyTorch, 1 process",
    "ddp": "PyTorch DDP gloo, 2 processes",
}

DATASET = """\
apiVersion: thole.dev/v1alpha1
kind: Dataset
metadata: {{name: fashion-mnist}}
spec:
  format: IDX
  source: {{hostPath: {{path: {data}}}}}
  train: {{features: train-images-idx3-ubyte.gz, labels: train-labels-idx1-ubyte.gz}}
  test: {{features: t10k-images-idx3-ubyte.gz, labels: t10k-labels-idx1-ubyte.gz}}
  shape: [1, 28, 28]
  classes: 10
  normalize: {{mean: [{mean}], std: [{std}]}}
"""

TRAINJOB = """\
apiVersion: thole.dev/v1alpha1
kind: TrainJob
metadata: {{name: bench}}
spec:
  datasetRef: {{name: fashion-mnist}}
  model: {{zoo: {model}}}
  training:
    epochs: {epochs}
    batchSize: {batch}
    optimizer: {{type: SGD, learningRate: 0.05, momentum: 0.9}}
    seed: 1
    validateEveryEpochs: 0
  parameterServers: {{shards: 1}}
  workers: {{replicas: 2}}
"""


class Failed(Exception):
    """A run that did not work; its text says which and why."""


def run(command, **options):
    """The command's output; killed with us, and with its children."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        out, err = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0:
        raise Failed(f"{command[0]} ended with {process.returncode}: {err.strip() or out.strip()}")
    return out


# ---- The systems. Each returns (samples/s of each epoch from the second on, train loss of the last). ----


def run_alone(options, model, batch):
    command = [BUILD / "model_bench", "--data", options.data, "--epochs", str(EPOCHS), model, str(batch), "8"]
    text = run(command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    rates = [float(rate) for rate in re.findall(r"epoch \d+: (\d+) samples/s", text)]
    losses = re.findall(r"train loss ([\d.]+)", text)
    return rates[1:], float(losses[-1])


def run_job(options, model, batch):
    with tempfile.TemporaryDirectory(prefix="thole-bench-") as folder:
        yaml = Path(folder, "job.yaml")
        dataset = DATASET.format(data=options.data, mean=MEAN, std=STD)
        # Validation belongs to its epoch's time; it comes after the last epoch, which is therefore left out.
        yaml.write_text(dataset + "---\n" + TRAINJOB.format(model=model, batch=batch, epochs=EPOCHS + 1))
        run([BUILD / "thole-trainer", "local", "-f", yaml, "--output", folder])
        history = json.loads(Path(folder, "history.json").read_text())
    epochs = history[1:-1]
    return [SAMPLES / epoch["durationSeconds"] for epoch in epochs], epochs[-1]["trainLoss"]


def run_torch(options, model, batch):
    return torch_processes(options, model, batch, 1)


def run_ddp(options, model, batch):
    return torch_processes(options, model, batch, 2)


def torch_processes(options, model, batch, world):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, __file__, "--data", options.data, "--torch-rank"]
    others = []
    try:
        for rank in range(1, world):
            arguments = [str(rank), str(world), model, str(batch)]
            others.append(subprocess.Popen(command + arguments, env=environment, stdout=subprocess.DEVNULL))
        result = json.loads(run(command + ["0", str(world), model, str(batch)], env=environment).splitlines()[-1])
    finally:
        for process in others:
            process.kill()
            process.wait()
    return [SAMPLES / seconds for seconds in result["seconds"][1:]], result["loss"]


# ---- PyTorch's side: one process of `world` ----


def read_idx(path, header):
    with gzip.open(path) as file:
        return bytearray(file.read()[header:])


def torch_model(nn, name):
    if name == "mlp":
        layers = [nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)]
    else:
        layers = [
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        ]  # fmt: skip
    return nn.Sequential(*layers)


def torch_rank(options):
    import torch
    from torch import distributed, nn

    rank, world, name, batch = options.torch_rank
    rank, world, batch = int(rank), int(world), int(batch)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    folder = Path(options.data)
    images = torch.frombuffer(read_idx(folder / "train-images-idx3-ubyte.gz", 16), dtype=torch.uint8)
    labels = torch.frombuffer(read_idx(folder / "train-labels-idx1-ubyte.gz", 8), dtype=torch.uint8).long()
    images = ((images.view(-1, 1, 28, 28).float() / 255) - MEAN) / STD

    model = torch_model(nn, name)
    if world > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=world)
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    seconds, loss_sum = [], 0.0
    for _ in range(EPOCHS):
        begin = time.perf_counter()
        order = torch.randperm(SAMPLES)  # the same in every process, as they have the same seed
        loss_sum = 0.0
        for first in range(0, SAMPLES, batch):
            own = order[first : first + batch][rank::world]
            optimizer.zero_grad()
            loss = criterion(model(images[own]), labels[own])
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(own)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": seconds, "loss": loss_sum / SAMPLES * world}))
    if world > 1:
        distributed.destroy_process_group()


# ---- The table ----


def machine():
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    kernel = run([BUILD / "thole-trainer", "--version"]).strip()
    return f"{model}, {os.cpu_count()} cores, {system}; {kernel}"


def cell(rates):
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} – {max(rates):,.0f})" if rates else "–"


def print_table(columns, rows, figures, losses):
    titles = [f"{model}, batch {batch}" for model, batch in columns]
    width = max(len(ROWS[row]) for row in rows)
    print(f"\n| {'samples/s':<{width}} | " + " | ".join(f"{title:>26}" for title in titles) + " |")
    print(f"|{'-' * (width + 2)}|" + "|".join("-" * 27 + ":" for _ in titles) + "|")
    for row in rows:
        cells = [cell(figures.get((row, column), [])) for column in columns]
        print(f"| {ROWS[row]:<{width}} | " + " | ".join(f"{text:>26}" for text in cells) + " |")
    for title, above, below in (("job / ddp", "job", "ddp"), ("alone / torch", "alone", "torch")):
        if above in rows and below in rows:
            ratios = []
            for column in columns:
                pair = [figures.get((row, column)) for row in (above, below)]
                ratios.append("–" if None in pair else f"{statistics.median(pair[0]) / statistics.median(pair[1]):.2f}×")
            print(f"| {title:<{width}} | " + " | ".join(f"{text:>26}" for text in ratios) + " |")
    shown = (f"{model} {batch} {row} {losses[row, (model, batch)]:.3f}" for model, batch in columns for row in rows)
    print(f"\nMean training loss in epoch {EPOCHS}, for whether all learn alike: " + ", ".join(shown))


def arguments():
    parser = argparse.ArgumentParser(
        prog="hack/bench.sh train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", action="store_true", help="fetch PyTorch into the cache, and run it too")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each system [3]")
    parser.add_argument("--models", default="mlp,lenet")
    parser.add_argument("--batches", default="128,32")
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of the four files [%(default)s]")
    parser.add_argument("--torch-rank", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = arguments()
    if options.torch_rank:
        return torch_rank(options)
    has_torch = importlib.util.find_spec("torch") is not None
    rows = [row for row in ROWS if has_torch or row in ("alone", "job")]
    columns = [(model, int(batch)) for model in options.models.split(",") for batch in options.batches.split(",")]
    print(machine())
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the machine is busy (load {load:.1f}): these are not its best figures", file=sys.stderr)
    if not has_torch:
        print("PyTorch is not installed: its rows are left out (--torch fetches it)")

    figures, losses = {}, {}
    total = options.rounds * len(columns) * len(rows)
    done = 0
    for _ in range(options.rounds):
        for column in columns:
            for row in rows:
                done += 1
                print(f"    {done} of {total}: {ROWS[row]}, {column[0]}, batch {column[1]}", file=sys.stderr)
                rates, loss = globals()[f"run_{row}"](options, *column)
                figures.setdefault((row, column), []).extend(rates)
                losses[row, column] = loss
    print_table(columns, rows, figures, losses)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
