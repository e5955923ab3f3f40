"""Runs of `thole-trainer local`: the same job as processes on this machine."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading

import yaml

from support.reference import sha256

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAINER = pathlib.Path(os.environ.get("THOLE_TRAINER", ROOT / "build/release/thole-trainer"))


class Run:
    """What a finished run left."""

    def __init__(self, returncode, stdout, stderr, output):
        self.returncode, self.stdout, self.stderr, self.output = returncode, stdout, stderr, output
        self.model = output / "model.safetensors"

    @property
    def sha256(self):
        return sha256(self.model)

    @property
    def history(self):
        return json.loads((self.output / "history.json").read_text())

    def __repr__(self):
        return f"exit {self.returncode}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def write_manifests(directory, *manifests):
    """Each manifest (an object, or text as it is) in a file of its own."""
    paths = []
    for manifest in manifests:
        text = manifest if isinstance(manifest, str) else yaml.safe_dump(manifest, sort_keys=False)
        path = directory / f"{len(list(directory.glob('*.yaml')))}.yaml"
        path.write_text(text)
        paths.append(path)
    return paths


def command(directory, *manifests, options=()):
    files = [argument for path in write_manifests(directory, *manifests) for argument in ("-f", str(path))]
    return [str(TRAINER), "local", *files, *map(str, options)]


def run(directory, *manifests, options=(), seconds=120):
    output = directory / "output"
    arguments = command(directory, *manifests, options=(*options, "--output", output))
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
    return Run(done.returncode, done.stdout, done.stderr, output)


def run_with_kills(directory, *manifests, options=(), after=("epoch 1/",), seconds=120):
    """As run(), but of the workers that there are behind each line that begins so, every second one is killed."""
    output = directory / "output"
    arguments = command(directory, *manifests, options=(*options, "--output", output))
    said = []
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        watch = threading.Timer(seconds, running.kill)
        watch.start()
        for line in running.stdout:
            said.append(line)
            if line.startswith(tuple(after)):
                for pid in workers_of(running.pid)[1::2]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        watch.cancel()
    return Run(running.returncode, "".join(said), "", output)


def workers_of(pid):
    """Those of a running `thole-trainer local`; one that is just ending may be gone."""
    found = []
    for child in children(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if "worker" in arguments_of(child):
                found.append(child)
    return found


def children(pid):
    """The pids of a process's children."""
    listed = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()]


def arguments_of(pid):
    return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
