"""The operator's speed, size and number of requests, against a real API server of its own on this machine.

  hack/bench.sh operator [--parts idle,burst,limit,steady,life,settled] [OPTION...]

  idle      no job at all: resident memory
  burst     1,000 TrainJobs applied at once: until every Secret, Service, NetworkPolicy and Deployment exists
  limit     the same objects made by a plain load without an operator: what the API server here can take
  steady    20 TrainJobs a second: from each one's POST until its last child is there
  life      API requests for a whole job of 5 epochs, and for one after it has ended
  settled   10,000 TrainJobs that have ended: memory, CPU time, requests, and how long a restart takes

burst, limit, steady and settled have an API server and etcd, no controllers, so no pods but the shard 0 of each job that
the bench itself makes in `settled`; life has the controller manager, the scheduler and nodes played by kwok. Jobs live
by coordinators that speak the real protocol and train nothing (e2e/support/coordinators.py). Of the settled jobs a fifth
lives here so (--lived 1: all, which takes some minutes more); the others are written as copies of one that has ended,
while no operator runs. The load generator shares the machine's cores with all of these. Times are taken by the arrival
of watch events in this process.
The whole run takes about ten minutes. --scale 0.1 makes everything ten times smaller, to see whether it works.
"""

import argparse
import asyncio
import contextlib
import json
import math
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
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "e2e"))

from support.coordinators import Script, Troupe  # noqa: E402
from support.rest import Object, Rest, path_of  # noqa: E402

NAMESPACE = "bench"
KEY = b"the key of a benchmark, not of a cluster"
CHILDREN = {"v1/secrets": 1, "v1/services": 1, "networking.k8s.io/v1/networkpolicies": 1, "apps/v1/deployments": 2}
JOBS = "thole.dev/v1alpha1/trainjobs"
HANG_SECONDS = 900

DATASET = {"apiVersion": "thole.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "digits"},
           "spec": {"format": "IDX", "source": {"hostPath": {"path": "/data/digits"}},
                    "train": {"features": "train-images.gz", "labels": "train-labels.gz"},
                    "test": {"features": "test-images.gz", "labels": "test-labels.gz"}, "shape": [1, 28, 28],
                    "classes": 10}}


def job(name: str, epochs: int = 5) -> bytes:
    return json.dumps({
        "apiVersion": "thole.dev/v1alpha1", "kind": "TrainJob", "metadata": {"name": name},
        "spec": {"datasetRef": {"name": "digits"}, "model": {"zoo": "lenet"}, "parameterServers": {"shards": 1},
                 "training": {"epochs": epochs, "batchSize": 128, "seed": 1,
                              "optimizer": {"type": "SGD", "learningRate": 0.05, "momentum": 0.9}},
                 "workers": {"replicas": 2}}}).encode()


def job_name(number: int) -> str:
    return f"j{number:05}"


# ---- processes --------------------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> dict[str, float]:
    """Resident, the most so far, and the part that is no file's, in MiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    value = lambda name: int(re.search(rf"{name}:\s+(\d+)", text).group(1)) / 1024
    return {"rss": value("VmRSS"), "peak": value("VmHWM"), "anonymous": value("RssAnon")}


def api_pid() -> int:
    return int((Path(os.environ["THOLE_TEST_DIRECTORY"]) / "api.pid").read_text())


class Operator:
    """The operator as a process beside us."""

    def __init__(self, binary: Path, directory: Path):
        self._binary, self._directory = binary, directory
        (directory / "key").write_bytes(KEY)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = "127.0.0.1:%d" % free.getsockname()[1]
        self.url = f"http://{self._address}"
        self._log = open(directory / "operator.log", "ab")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self) -> float:
        """Seconds until it has seen everything and works."""
        begin = time.monotonic()
        self._process = subprocess.Popen(
            [self._binary, "--kubeconfig", os.environ["THOLE_TEST_KUBECONFIG"], "--context", "admin", "--trainer-image",
             "registry.example/trainer:1", "--allowed-host-paths", "/data", "--key-file", self._directory / "key",
             "--listen", self._address, "--advertise-address", self._address], stderr=self._log)
        while not self._answers("/readyz"):
            if self._process.poll() is not None or time.monotonic() - begin > 120:
                raise SystemExit("the operator does not become ready:\n" + self.log()[-2000:])
            await asyncio.sleep(0.01)
        return time.monotonic() - begin

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(30)

    def log(self) -> str:
        return (self._directory / "operator.log").read_text(errors="replace")

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5):
                return True
        except OSError:
            return False

    def requests(self) -> Counter[str]:
        """How many requests it has sent, by method and code."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(r'^rest_client_requests_total\{(.*)\} (\d+)', text, re.MULTILINE)
        counts: Counter[str] = Counter()
        for labels, value in found:
            names = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            counts[f"{names['method']} {names['code']}"] += int(value)
        return counts


# ---- the stage of one part --------------------------------------------------------------------------------------------


@dataclass
class Stage:
    api: Rest
    operator: Operator
    scale: float
    lived: float

    def count(self, full: int) -> int:
        return max(round(full * self.scale), 1)

    async def apply(self, names: list[str], sent: dict[str, float] | None = None) -> None:
        async def one(name: str) -> None:
            if sent is not None:
                sent[name] = time.monotonic()
            await self.api.create(JOBS, NAMESPACE, job(name))

        await asyncio.gather(*(one(name) for name in names))

    async def clear(self) -> None:
        """As the garbage collector would; nothing else deletes here."""
        for resource in (JOBS, *CHILDREN, "events.k8s.io/v1/events", "v1/pods"):
            with contextlib.suppress(Exception):
                await self.api.request("DELETE", path_of(resource, NAMESPACE),
                                       {"gracePeriodSeconds": 0, "propagationPolicy": "Background"})


class Children:
    """When the last child of each job was seen, by watches."""

    def __init__(self, api: Rest):
        self._api = api
        self._missing: dict[str, int] = defaultdict(lambda: sum(CHILDREN.values()))
        self.complete: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> "Children":
        self._tasks = [asyncio.create_task(self._watch(resource)) for resource in CHILDREN]
        await asyncio.sleep(0.5)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, resource: str) -> None:
        name = re.compile(rb'"metadata":\{"name":"(j\d+)')
        async for line in self._api.watch_lines(resource, NAMESPACE, "labelSelector=thole.dev/job"):
            if line.startswith(b'{"type":"ADDED"'):
                self._see(name.search(line).group(1).decode())

    def _see(self, name: str) -> None:
        self._missing[name] -= 1
        if self._missing[name] == 0:
            self.complete[name] = time.monotonic()
            self._changed.set()

    async def wait(self, names: list[str]) -> None:
        async with asyncio.timeout(HANG_SECONDS):
            while not all(name in self.complete for name in names):
                self._changed.clear()
                await self._changed.wait()


class Meter:
    """CPU seconds of the operator and of the API server, and the operator's requests, since it was made."""

    def __init__(self, operator: Operator):
        self._operator = operator
        self._api = api_pid()
        self._before = self._now()
        self._requests = operator.requests()

    def _now(self) -> tuple[float, float, float]:
        return time.monotonic(), cpu_seconds(self._operator.pid), cpu_seconds(self._api)

    def read(self) -> dict[str, Any]:
        now = [after - before for after, before in zip(self._now(), self._before)]
        # Its own counters first: reading them is no request of its.
        return {"seconds": now[0], "operator_cpu": now[1], "api_cpu": now[2],
                "requests": dict(self._operator.requests() - self._requests)}


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]


# ---- parts ------------------------------------------------------------------------------------------------------------


async def idle(stage: Stage) -> Object:
    await asyncio.sleep(15)
    return memory_mb(stage.operator.pid)


async def burst(stage: Stage) -> Object:
    async with Children(stage.api) as children:
        names = [job_name(number) for number in range(stage.count(1000))]
        sent: dict[str, float] = {}
        meter = Meter(stage.operator)
        begin = time.monotonic()
        await stage.apply(names, sent)
        applied = time.monotonic() - begin
        await children.wait(names)
        complete = max(children.complete.values()) - begin
        await asyncio.sleep(1)
        latencies = [children.complete[name] - sent[name] for name in names]
        await asyncio.sleep(4)
        return {"jobs": len(names), "applied": applied, "complete": complete, "rate": len(names) / complete,
                "p50": quantile(latencies, 0.5), "p99": quantile(latencies, 0.99), **meter.read(),
                **memory_mb(stage.operator.pid)}


async def limit(stage: Stage) -> Object:
    """Takes one job's children from the operator, stops it, and makes the same for as many jobs."""
    async with Children(stage.api) as children:
        await stage.apply(["j99999"])
        await children.wait(["j99999"])
    patterns = []
    for resource in CHILDREN:
        for item in await stage.api.list(resource, NAMESPACE, "labelSelector=thole.dev/job=j99999"):
            patterns.append((resource, json.dumps(without_life(item))))
    stage.operator.stop()
    names = [job_name(number) for number in range(stage.count(1000))]
    room = asyncio.Semaphore(16)

    async def one(name: str) -> None:
        async with room:
            await stage.api.create(JOBS, NAMESPACE, job(name))
            await asyncio.gather(*(stage.api.create(resource, NAMESPACE, text.replace("j99999", name).encode())
                                   for resource, text in patterns))

    begin, cpu = time.monotonic(), cpu_seconds(api_pid())
    await asyncio.gather(*(one(name) for name in names))
    seconds = time.monotonic() - begin
    return {"jobs": len(names), "seconds": seconds, "rate": len(names) / seconds, "api_cpu": cpu_seconds(api_pid()) - cpu}


async def steady(stage: Stage) -> Object:
    rate, names = 20, [job_name(number) for number in range(stage.count(600))]
    async with Children(stage.api) as children:
        sent: dict[str, float] = {}
        meter = Meter(stage.operator)
        begin = time.monotonic()
        tasks = []
        for number, name in enumerate(names):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            tasks.append(asyncio.create_task(stage.apply([name], sent)))
        await asyncio.gather(*tasks)
        await children.wait(names)
        latencies = [children.complete[name] - sent[name] for name in names]
        return {"jobs": len(names), "p50": quantile(latencies, 0.5), "p99": quantile(latencies, 0.99),
                "most": max(latencies), **meter.read(), **memory_mb(stage.operator.pid)}


async def wait_over(stage: Stage, count: int) -> None:
    """Until so many jobs have succeeded, as the operator counts them."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            over = phases(stage.operator)
            if over.get("Succeeded", 0) >= count:
                return
            if over.get("Failed", 0):
                raise SystemExit("jobs have failed:\n" + stage.operator.log()[-3000:])
            await asyncio.sleep(0.5)


def phases(operator: Operator) -> dict[str, int]:
    with urllib.request.urlopen(operator.url + "/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {phase: int(value) for phase, value in re.findall(r'^thole_trainjobs\{phase="(\w+)"\} (\d+)', text, re.MULTILINE)}


async def quiet(operator: Operator, seconds: float = 3) -> None:
    """Until it has sent nothing for a while."""
    before, since = operator.requests(), time.monotonic()
    while time.monotonic() - since < seconds:
        await asyncio.sleep(0.5)
        now = operator.requests()
        if now != before:
            before, since = now, time.monotonic()


async def life(stage: Stage) -> Object:
    names = [job_name(number) for number in range(stage.count(100))]
    await quiet(stage.operator)
    meter = Meter(stage.operator)
    async with Troupe(stage.api, stage.operator.url, KEY, Script(epochs=5, pause=1.0), NAMESPACE) as troupe:
        for name in names:
            await stage.apply([name])
            await asyncio.sleep(0.1)
        await wait_over(stage, len(names))
        troupe.check()
        await quiet(stage.operator, 10)
    read = meter.read()
    return {"jobs": len(names), "requests_a_job": sum(read["requests"].values()) / len(names), **read}


class Shards:
    """What a Deployment and a ReplicaSet would do for shard 0 of every job: its one pod, while there is a replica."""

    def __init__(self, api: Rest):
        self._api = api
        self._pods: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Shards":
        self._watch = asyncio.create_task(self._api.follow("apps/v1/deployments", self._on_deployment, NAMESPACE,
                                                           "labelSelector=thole.dev/shard=0"))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        await asyncio.gather(self._watch, *self._tasks, return_exceptions=True)

    def _on_deployment(self, kind: str, deployment: Object) -> None:
        name, wanted = deployment["metadata"]["name"], kind != "DELETED" and deployment["spec"]["replicas"] > 0
        if self._pods.get(name, False) == wanted:
            return
        self._pods[name] = wanted
        task = asyncio.create_task(self._make(deployment) if wanted else self._remove(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        spec = {"nodeName": "bench", "containers": [{"name": "trainer", "image": "registry.example/trainer:1"}]}
        await self._api.create("v1/pods", NAMESPACE, {
            "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {"name": deployment["metadata"]["name"], "labels": template["metadata"]["labels"]}})

    async def _remove(self, name: str) -> None:
        await self._api.delete(path_of("v1/pods", NAMESPACE, name), gracePeriodSeconds=0)


class Copies:
    """Jobs that have ended, written as one that has ended here looks; while no operator runs."""

    def __init__(self, api: Rest, pattern: Object, deployments: list[Object]):
        self._api, self._name, self._uid = api, pattern["metadata"]["name"], pattern["metadata"]["uid"]
        self._spec, self._status = pattern["spec"], json.dumps({"status": pattern["status"]})
        self._deployments = json.dumps([without_life(deployment) for deployment in deployments])

    @classmethod
    async def of(cls, api: Rest, name: str) -> "Copies":
        pattern = await api.get(path_of(JOBS, NAMESPACE, name))
        return cls(api, pattern, await api.list("apps/v1/deployments", NAMESPACE, f"labelSelector=thole.dev/job={name}"))

    async def write(self, names: list[str]) -> None:
        room = asyncio.Semaphore(16)

        async def one(name: str) -> None:
            async with room:
                metadata = {"name": name}
                made = await self._api.create(JOBS, NAMESPACE, {"apiVersion": "thole.dev/v1alpha1", "kind": "TrainJob",
                                                                "metadata": metadata, "spec": self._spec})
                own = lambda text: json.loads(text.replace(self._name, name).replace(self._uid, made["metadata"]["uid"]))
                await self._api.patch(path_of(JOBS, NAMESPACE, name, "status"), own(self._status))
                for deployment in own(self._deployments):
                    await self._api.create("apps/v1/deployments", NAMESPACE, deployment)

        await asyncio.gather(*(one(name) for name in names))


def without_life(item: Object) -> Object:
    """As it could be created."""
    for member in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
        item["metadata"].pop(member, None)
    for member in ("clusterIP", "clusterIPs"):
        item.get("spec", {}).pop(member, None)
    item.pop("status", None)
    return item


async def settled(stage: Stage) -> Object:
    names = [job_name(number) for number in range(stage.count(10000))]
    lived = names[:max(round(stage.lived * len(names)), 1)]
    begin = time.monotonic()
    async with Shards(stage.api), Troupe(stage.api, stage.operator.url, KEY, Script(epochs=5), NAMESPACE) as troupe:
        await stage.apply(lived)
        await wait_over(stage, len(lived))
        troupe.check()
        await quiet(stage.operator)
    ended = time.monotonic() - begin
    live_peak = memory_mb(stage.operator.pid)["peak"]
    if len(lived) < len(names):
        copies = await Copies.of(stage.api, lived[0])
        stage.operator.stop()
        await copies.write(names[len(lived):])
        await stage.operator.start()
        await quiet(stage.operator)
    await asyncio.sleep(75)  # what has not changed for a minute is compressed
    memory = memory_mb(stage.operator.pid)
    meter = Meter(stage.operator)
    await asyncio.sleep(60 if stage.scale >= 1 else 15)
    rest = meter.read()
    stage.operator.stop()
    restart = await stage.operator.start()
    await quiet(stage.operator, 2)
    return {"jobs": len(names), "lived": len(lived), "ended": ended, "live_peak": live_peak, "rss": memory["rss"],
            "anonymous": memory["anonymous"], "cpu_percent": 100 * rest["operator_cpu"] / rest["seconds"],
            "requests": rest["requests"], "seconds": rest["seconds"], "restart": restart,
            "restart_cpu": cpu_seconds(stage.operator.pid), "restart_peak": memory_mb(stage.operator.pid)["peak"],
            "restart_requests": dict(stage.operator.requests())}


PARTS: dict[str, tuple[Callable[[Stage], Any], list[str]]] = {
    "idle": (idle, []), "burst": (burst, []), "limit": (limit, []), "steady": (steady, []),
    "life": (life, ["--nodes", "2"]), "settled": (settled, []),
}


async def play(part: str, options: argparse.Namespace) -> Object:
    """One part, in the control plane that was started for it."""
    kubeconfig = os.environ["THOLE_TEST_KUBECONFIG"]
    subprocess.run([Path(os.environ["THOLE_TEST_KUBERNETES"]) / "kubectl", "--kubeconfig", kubeconfig, "apply", "-f",
                    ROOT / "crds/trainjob.yaml", "-f", ROOT / "crds/dataset.yaml"], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as directory:
        operator = Operator(options.binary, Path(directory))
        async with Rest(kubeconfig, connections=16) as api:
            try:
                await api.create("v1/namespaces", None, {"metadata": {"name": NAMESPACE}})
                await until_served(api)
                await api.create("thole.dev/v1alpha1/datasets", NAMESPACE, DATASET)
                await operator.start()
                return await PARTS[part][0](Stage(api, operator, options.scale, options.lived))
            finally:
                operator.stop()


async def until_served(api: Rest) -> None:
    """The kinds are known, and their rules compiled: that takes the API server seconds, once."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Exception):
                await api.request("POST", path_of(JOBS, NAMESPACE) + "?dryRun=All", job("warm"))
                await api.list("thole.dev/v1alpha1/datasets", NAMESPACE)
                return
            await asyncio.sleep(0.1)


# ---- the whole --------------------------------------------------------------------------------------------------------


def run_part(part: str, options: argparse.Namespace) -> Object:
    command = [ROOT / "hack/control-plane.sh", *PARTS[part][1], sys.executable, __file__, "--binary", options.binary,
               "--play", part, "--scale", str(options.scale), "--lived", str(options.lived)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"{part} failed")
    return json.loads(result.stdout.splitlines()[-1])


def median_of(results: list[Object]) -> Object:
    """Of every number; all else from the first."""
    return {name: statistics.median(result[name] for result in results) if isinstance(value, (int, float)) else value
            for name, value in results[0].items()}


def rows_of(part: str, r: Object) -> Iterator[tuple[str, str, str]]:
    """What was measured, its value, and what is to be reached."""
    asked = lambda: sum(r["requests"].values())
    if part == "idle":
        yield "no job: resident memory", f"{r['rss']:.1f} MiB ({r['anonymous']:.1f} no file's)", "< 10 MiB"
    elif part == "burst":
        yield f"{r['jobs']} jobs at once: all children exist", f"{r['complete']:.1f} s", "≤ 20 s"
        yield "  jobs a second", f"{r['rate']:.0f}", "≥ 50"
        yield "  a job, from its POST: p50, p99", f"{r['p50']:.2f} s, {r['p99']:.2f} s", "< 20 s"
        yield "  resident memory: most, afterwards", f"{r['peak']:.1f}, {r['rss']:.1f} MiB", "< 32 MiB"
        yield ("  CPU seconds: operator, API server; requests a job",
               f"{r['operator_cpu']:.1f}, {r['api_cpu']:.1f}; {asked() / r['jobs']:.1f}", "")
    elif part == "limit":
        yield (f"{r['jobs']} jobs with children, by a plain load",
               f"{r['rate']:.0f} jobs/s, {r['api_cpu']:.1f} CPU s of the API server", "the limit here")
    elif part == "steady":
        yield (f"20 jobs/s, {r['jobs']} jobs: p50, p99, most",
               f"{1000 * r['p50']:.0f}, {1000 * r['p99']:.0f}, {1000 * r['most']:.0f} ms", "< 100, < 500 ms")
        yield "  CPU seconds: operator, API server", f"{r['operator_cpu']:.1f}, {r['api_cpu']:.1f}", ""
    elif part == "life":
        by_method = ", ".join(f"{count / r['jobs']:.1f} {name}" for name, count in sorted(r["requests"].items()))
        yield f"API requests a job of 5 epochs ({r['jobs']} jobs)", f"{r['requests_a_job']:.1f}", "≤ 25"
        yield "  of these", by_method, ""
    elif part == "settled":
        yield f"{r['jobs']} settled jobs: resident memory", f"{r['rss']:.1f} MiB", "< 64 MiB"
        yield (f"  {r['lived']} of them lived here, in {r['ended']:.0f} s: the most then", f"{r['live_peak']:.1f} MiB", "")
        yield f"  requests in {r['seconds']:.0f} s of rest", json.dumps(r["requests"]), "renewed watches only"
        yield "  CPU", f"{r['cpu_percent']:.2f} %", "< 1 %"
        yield ("  restart until synced", f"{r['restart']:.1f} s ({r['restart_cpu']:.1f} CPU s, {r['restart_peak']:.0f} MiB, "
               f"then {sum(r['restart_requests'].values())} requests)", "< 10 s")


def print_table(results: dict[str, Object]) -> None:
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        model = re.search(r"model name\s*: (.*)", cpuinfo.read())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
          f"{platform.platform()}; load before: {os.getloadavg()[0]:.1f}\n")
    rows = [row for part, result in results.items() for row in rows_of(part, result)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for what, value, goal in rows:
        print(f"{what:<{widths[0]}}  {value:<{widths[1]}}  {goal}".rstrip())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hack/bench.sh operator", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=2, help="of burst and limit, medians of which are shown")
    parser.add_argument("--scale", type=float, default=1.0, help="how many jobs, as a part of the whole")
    parser.add_argument("--binary", type=Path, default=ROOT / "build/release/thole-operator")
    parser.add_argument("--lived", type=float, default=0.2, help="of the settled jobs, the part that lives here")
    parser.add_argument("--json", type=Path, help="also write every figure there")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.parts = options.parts.split(",")
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    return options


def main() -> None:
    options = parse()
    if options.play:
        print(json.dumps(asyncio.run(play(options.play, options))))
        return
    results = {}
    for part in options.parts:
        rounds = 1 if options.scale < 1 or part not in ("burst", "limit") else options.rounds
        print(f"{part} …", file=sys.stderr, flush=True)
        results[part] = median_of([run_part(part, options) for _ in range(rounds)])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print_table(results)


if __name__ == "__main__":
    main()
