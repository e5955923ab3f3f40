"""Coordinators without trainers: each plays shard 0 of one TrainJob to the operator, in the real dialogue
(common/report/report.h) over real WebSockets, so that jobs run and end by the hundred on a machine that could train
only one.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from support.rest import Object, Rest

SUBPROTOCOL = "thole-report.v1"
REDIAL_SECONDS = 0.3
ANSWER_SECONDS = 60


class Refusal(Exception):
    """The operator does not take this coordinator (yet)."""


@dataclass(frozen=True)
class Part:
    """What a coordinator plays: one pod of shard 0 of one job."""

    namespace: str
    job: str
    job_uid: str
    pod: str
    pod_uid: str

    @classmethod
    def of_pod(cls, pod: Object) -> "Part":
        meta = pod["metadata"]
        labels = meta["labels"]
        return cls(meta["namespace"], labels["thole.dev/job"], labels["thole.dev/job-uid"], meta["name"], meta["uid"])


@dataclass
class Script:
    """What all coordinators do: so many epochs, with a pause after each; `slow` may make some of them wait longer.
    `sync` is what the coordinator of an asynchronous training says of it; with `values` there are no classes."""

    epochs: int = 5
    pause: float = 0.0
    slow: Callable[[Part], float] = field(default=lambda part: 0.0)
    sync: Object | None = None
    values: bool = False


def token_of(key: bytes, job_uid: str) -> bytes:
    return hmac.digest(key, job_uid.encode(), "sha256")


def _mac(token: bytes, word: str, *parts: bytes) -> str:
    return hmac.digest(token, word.encode() + b"\0" + b"".join(parts), "sha256").hex()


def epoch_message(part: Part, number: int) -> Object:
    """An epoch's result: made of the job's name and the number, so that a test can tell whether the right one was kept."""
    draw = int.from_bytes(hashlib.sha256(f"{part.job}/{number}".encode()).digest()[:4], "big") / 2**32
    return {"type": "epoch", "term": 1, "epoch": number, "trainLoss": round(1 / number + draw / 10, 6),
            "validationLoss": round(1.1 / number + draw / 10, 6), "accuracy": round(80 + 10 * draw + number, 4),
            "parallelism": 2, "durationSeconds": round(2.5 + draw, 3)}


class Coordinator:
    """One process of shard 0: dials until it is told that its end is in the status, whatever happens in between."""

    def __init__(self, part: Part, script: Script, session: aiohttp.ClientSession, url: str, key: bytes):
        self.part, self.script = part, script
        self._session, self._url, self._token = session, f"{url}/v1/coordinator", token_of(key, part.job_uid)
        self._boot = secrets.token_hex(8)
        self._done = 0  # epochs that were trained
        self._acknowledged = 0
        self.connections = 0

    async def play(self) -> None:
        await asyncio.sleep(self.script.slow(self.part))
        while True:
            try:
                async with self._session.ws_connect(self._url, protocols=(SUBPROTOCOL,), autoping=True) as socket:
                    await self._greet(socket)
                    self.connections += 1
                    await self._train(socket)
                    return
            except (Refusal, aiohttp.ClientError, OSError, asyncio.TimeoutError):
                await asyncio.sleep(REDIAL_SECONDS)

    async def _hear(self, socket: aiohttp.ClientWebSocketResponse) -> Object:
        message = await socket.receive(timeout=ANSWER_SECONDS)
        if message.type != aiohttp.WSMsgType.TEXT:
            raise Refusal(f"the connection ended: {message.extra or message.type}")
        heard = json.loads(message.data)
        if heard["type"] == "refused":
            raise Refusal(heard["message"])
        return heard

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        part = self.part
        theirs = bytes.fromhex((await self._hear(socket))["nonce"])
        ours = secrets.token_bytes(32)
        said = [text.encode() + b"\0" for text in (part.job_uid, part.pod_uid, self._boot)]
        await socket.send_json({
            "type": "hello", "namespace": part.namespace, "name": part.job, "uid": part.job_uid, "pod": part.pod,
            "podUID": part.pod_uid, "boot": self._boot, "term": 1, "kernel": "Haswell", "nonce": ours.hex(),
            "mac": _mac(self._token, "coordinator", theirs, ours, *said)})
        welcome = await self._hear(socket)
        assert welcome["mac"] == _mac(self._token, "operator", ours, theirs), "the operator does not know the token"
        self._take_ack(welcome)

    def _take_ack(self, heard: Object) -> None:
        self._acknowledged = max(self._acknowledged, min(heard["status"], heard["history"]))

    async def _train(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        for number in range(self._acknowledged + 1, self._done + 1):
            await socket.send_json(self._epoch(number))
        while self._done < self.script.epochs:
            await socket.send_json(self._progress())
            await self._listen(socket, self.script.pause)
            self._done += 1
            await socket.send_json(self._epoch(self._done))
        await socket.send_json(self._finished())
        while (await self._hear(socket))["type"] != "ack-finished":
            pass

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse, seconds: float) -> None:
        """Takes what comes while an epoch is trained; a connection that ends is noticed at once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            try:
                heard = await asyncio.wait_for(self._hear(socket), left)
            except asyncio.TimeoutError:
                return
            if heard["type"] == "ack":
                self._take_ack(heard)

    def _epoch(self, number: int) -> Object:
        message = epoch_message(self.part, number)
        return {name: value for name, value in message.items() if not (self.script.values and name == "accuracy")}

    def _sync(self) -> Object:
        return {"sync": self.script.sync} if self.script.sync else {}

    def _progress(self) -> Object:
        return {"type": "progress", "term": 1, "epoch": self._done + 1, "step": 469 * self._done + 1,
                "steps": 469 * self.script.epochs, "trainLoss": 0.5, "workers": 2, "idleWorkers": 0, "message": "", **self._sync()}

    def _finished(self) -> Object:
        return {"type": "finished", "term": 1, "result": "Succeeded", "reason": "Trained",
                "message": f"Trained {self.script.epochs} epochs",
                "model": {"path": f"{self.part.namespace}/{self.part.job}/{self.part.job_uid}/model.safetensors",
                          "sha256": hashlib.sha256(self.part.job.encode()).hexdigest(), "bytes": 178110,
                          "step": 469 * self.script.epochs}, **self._sync()}


class Troupe:
    """A coordinator for every pod of shard 0 that appears, until the pod goes. `async with` a Rest that is open."""

    def __init__(self, api: Rest, url: str, key: bytes, script: Script, namespace: str | None = None):
        self._api, self._url, self._key, self._script, self._namespace = api, url, key, script, namespace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.finished: dict[str, float] = {}  # job's name → the loop's time of its last word

    async def __aenter__(self) -> "Troupe":
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._watch = asyncio.create_task(self._api.follow(
            "v1/pods", self._on_pod, self._namespace, "labelSelector=thole.dev/role=ps,thole.dev/shard=0"))
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._watch, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def _on_pod(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if kind == "DELETED" or "deletionTimestamp" in pod["metadata"]:
            task = self._tasks.pop(uid, None)
            if task is not None:
                task.cancel()
        elif uid not in self._tasks and pod["spec"].get("nodeName"):
            self._tasks[uid] = asyncio.create_task(self._play(Part.of_pod(pod)))

    async def _play(self, part: Part) -> None:
        await Coordinator(part, self._script, self._session, self._url, self._key).play()
        self.finished[part.job] = asyncio.get_running_loop().time()

    def check(self) -> None:
        """Raises what a coordinator or the watch died of."""
        for task in (self._watch, *self._tasks.values()):
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception()
