"""The systems that hack/bench.sh train measures: each runs once and returns what it printed of itself."""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "release"
MEAN, STD = 0.2860, 0.3530
BLOCKS = 8

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
    optimizer: {{type: SGD, learningRate: {rate}, momentum: {momentum}{schedule}}}
    seed: {seed}
    validateEveryEpochs: {validate}
{goal}  sync: {sync}
  parameterServers: {{shards: 1}}
  workers: {{replicas: 2}}
"""


class Failed(Exception):
    """A run that did not work; its text says which and why."""


@dataclass
class Result:
    """Of one run: seconds of each epoch, the last one's mean training loss, accuracies in percent where validated."""

    seconds: list[float]
    loss: float
    accuracy: list[float] = field(default_factory=list)


@dataclass
class Job:
    """What is trained; the batch is of the whole step, over all processes."""

    data: Path
    model: str
    batch: int
    epochs: int
    seed: int = 1
    rate: float = 0.05
    momentum: float = 0.9
    cosine: bool = False
    goal: float | None = None
    sync: str = f"{{type: Synchronous, synchronous: {{blocks: {BLOCKS}}}}}"
    validate: bool = False


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


def run_with_others(command, environment, others):
    """The output of `command`, beside others that are one system with it and differ in their environment or arguments."""
    running = []
    try:
        for arguments, own in others:
            running.append(subprocess.Popen(arguments, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return run(command, env=environment)
    finally:
        for process in running:
            process.kill()
            process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def part_of(data, samples, folder):
    """A data set of the first `samples` training samples, in `folder`."""
    for name, header, size in (("train-images-idx3-ubyte.gz", 16, 784), ("train-labels-idx1-ubyte.gz", 8, 1)):
        with gzip.open(Path(data, name)) as file:
            content = bytearray(file.read(header + samples * size))
        struct.pack_into(">I", content, 4, samples)
        with gzip.open(Path(folder, name), "wb", compresslevel=1) as file:
            file.write(content)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        shutil.copy(Path(data, name), folder)  # a link would lead out of the data set's root, which is refused
    return Path(folder)


def samples_of(data):
    """How many there are to train on."""
    with gzip.open(Path(data, "train-labels-idx1-ubyte.gz")) as file:
        return struct.unpack(">II", file.read(8))[1]


def run_alone(job):
    """One process of Thole, without servers."""
    options = ["--data", job.data, "--epochs", str(job.epochs)]
    command = [BUILD / "train_bench", *options, job.model, str(job.batch), str(BLOCKS)]
    text = run(command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    samples = samples_of(job.data)
    rates = [float(rate) for rate in re.findall(r"epoch \d+: (\d+) samples/s", text)]
    return Result([samples / rate for rate in rates], float(re.findall(r"train loss ([\d.]+)", text)[-1]))


def run_job(job):
    """thole-trainer local: two workers and a parameter server."""
    with tempfile.TemporaryDirectory(prefix="thole-bench-") as folder:
        yaml = Path(folder, "job.yaml")
        goal = f"    goalAccuracy: {job.goal}\n" if job.goal else ""
        dataset = DATASET.format(data=job.data, mean=MEAN, std=STD)
        # Validation belongs to its epoch's time; the one after the last epoch must not: that epoch is left out.
        validate = bool(job.goal) or job.validate
        text = TRAINJOB.format(
            model=job.model, batch=job.batch, epochs=job.epochs + (not validate), rate=job.rate, seed=job.seed,
            momentum=job.momentum, schedule=", schedule: {type: Cosine}" if job.cosine else "",
            validate=int(validate), goal=goal, sync=job.sync,
        )  # fmt: skip
        yaml.write_text(dataset + "---\n" + text)
        run([BUILD / "thole-trainer", "local", "-f", yaml, "--output", folder])
        history = json.loads(Path(folder, "history.json").read_text())
    epochs = history if validate else history[:-1]
    return Result(
        [epoch["durationSeconds"] for epoch in epochs],
        epochs[-1]["trainLoss"],
        [epoch["accuracy"] for epoch in epochs if "accuracy" in epoch],
    )


def run_torch(job, world=1):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, HERE / "peer_torch.py", "--data", job.data, "--model", job.model]
    command += ["--batch", str(job.batch), "--epochs", str(job.epochs), "--seed", str(job.seed), "--world", str(world)]
    command += ["--rate", str(job.rate)]
    if job.goal:
        command += ["--goal", str(job.goal)]
    others = [([*command, "--rank", str(rank)], environment) for rank in range(1, world)]
    result = json.loads(run_with_others(command, environment, others).splitlines()[-1])
    return Result(result["seconds"], result["loss"], result["accuracy"])


def run_ddp(job):
    """PyTorch DistributedDataParallel: two processes over gloo."""
    return run_torch(job, world=2)


def run_kvstore(job, python):
    """MXNet's kvstore dist_sync, which is ps-lite: one server and two workers."""
    common = os.environ | {
        "OMP_NUM_THREADS": "1",
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": str(free_port()),
        "DMLC_NODE_HOST": "127.0.0.1",
        "DMLC_NUM_SERVER": "1",
        "DMLC_NUM_WORKER": "2",
    }
    command = [python, HERE / "peer_mxnet.py", "--data", job.data, "--model", job.model]
    command += ["--batch", str(job.batch), "--epochs", str(job.epochs)]
    roles = {role: common | {"DMLC_ROLE": role} for role in ("scheduler", "server", "worker")}
    # Whichever worker is rank 0 prints: both write to the same file.
    with tempfile.TemporaryFile("w+") as out:
        workers = [subprocess.Popen(command, env=roles["worker"], stdout=out, stderr=subprocess.DEVNULL)]
        try:
            others = [(command, roles["scheduler"]), (command, roles["server"])]
            text = run_with_others(command, roles["worker"], others)
            workers[0].wait()
        finally:
            workers[0].kill()
            workers[0].wait()
        out.seek(0)
        lines = (text + out.read()).splitlines()
    if not lines:
        raise Failed("MXNet's workers printed nothing")
    result = json.loads(lines[-1])
    return Result(result["seconds"], result["loss"])
