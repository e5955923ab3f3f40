"""The operator dies at random moments, again and again, while jobs come, change, go and train: whatever it was doing,
the next one goes on from what the API server and the coordinators say.

By default a few deaths, for every run of the tests; all that the project promises with
THOLE_TEST_KILLS=50 THOLE_TEST_KILL_JOBS=200.
"""

import asyncio
import collections
import os
import random
import socket

import pytest

from support import manifests
from support.coordinators import Part, Script, Troupe, epoch_message
from support.plane import Operator
from support.rest import Refused, Rest, path_of

KILLS = int(os.environ.get("THOLE_TEST_KILLS", "8"))
JOBS = int(os.environ.get("THOLE_TEST_KILL_JOBS", "30"))
SEED = int(os.environ.get("THOLE_TEST_KILL_SEED", "1"))
EPOCHS = 3
KEY = b"0123456789abcdef0123456789abcdef"

TRAINJOBS = "thole.dev/v1alpha1/trainjobs"
CHILDREN = ("v1/secrets", "v1/services", "networking.k8s.io/v1/networkpolicies", "apps/v1/deployments")
OURS = "labelSelector=app.kubernetes.io/managed-by=thole-operator"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Story:
    """One namespace, its jobs, and the operators that live and die beside them."""

    def __init__(self, plane, api, namespace, directory, binary):
        self.plane, self.api, self.namespace, self.directory, self.binary = plane, api, namespace, directory, binary
        self.random = random.Random(SEED)
        self.port = free_port()
        self.operator = None
        self.started = 0
        self.incarnations = collections.defaultdict(list)  # a job's name → the UIDs it has had
        self.left = None  # what is waited for, to be said when it is in vain

    async def within(self, seconds, waiting):
        try:
            return await asyncio.wait_for(waiting, seconds)
        except asyncio.TimeoutError:
            pytest.fail(self.operator.complaint(f"waited {seconds} s in vain; left: {self.left}"))

    # ---- jobs

    async def make(self, name):
        created = await self.api.create(TRAINJOBS, self.namespace,
                                        manifests.trainjob(name, training={"epochs": EPOCHS}))
        self.incarnations[name].append(created["metadata"]["uid"])

    async def make_again(self, name):
        """Deleted while it runs, and made again under its name at once."""
        await self.api.delete(path_of(TRAINJOBS, self.namespace, name), propagationPolicy="Background")
        while True:
            try:
                return await self.make(name)
            except Refused as refused:
                assert refused.code == 409, refused
                await asyncio.sleep(0.1)

    async def scale(self, name, replicas):
        await self.api.patch(path_of(TRAINJOBS, self.namespace, name), {"spec": {"workers": {"replicas": replicas}}})

    async def churn(self, names, until_killed):
        """Makes all jobs, spread over the time of the killing; some are made again, and some scaled."""
        for number, name in enumerate(names):
            await self.make(name)
            earlier = names[number - 3]
            if number >= 3 and number % 5 == 0:
                await self.make_again(earlier)
            elif number >= 3 and number % 7 == 0:
                await self.scale(earlier, 3)
            while not until_killed.is_set() and self.started <= KILLS * number / len(names):
                await asyncio.sleep(0.05)

    # ---- operators

    def start(self):
        self.started += 1
        address = f"127.0.0.1:{self.port}"
        self.operator = Operator(self.plane, self.directory / f"operator-{self.started}", f"--listen={address}",
                                 f"--advertise-address={address}", "--log-level=info", binary=self.binary)

    async def is_ready(self):
        await asyncio.to_thread(self.operator.ready, 180)

    async def kill_again_and_again(self, done):
        """Half of them die at any moment of their first second, the others at any moment after they were ready."""
        for number in range(KILLS):
            self.start()
            if number % 2:
                await self.is_ready()
            await asyncio.sleep(self.random.uniform(0, 1 if number % 2 == 0 else 2))
            await asyncio.to_thread(self.operator.kill)
            assert "Sanitizer:" not in self.operator.log(), self.operator.complaint("a sanitizer's report")
        done.set()
        self.start()
        await self.is_ready()

    # ---- what must be true at the end

    async def all_over(self, troupe):
        while True:
            troupe.check()
            jobs = await self.api.list(TRAINJOBS, self.namespace)
            failed = [(job["metadata"]["name"], job["status"]["message"]) for job in jobs
                      if job.get("status", {}).get("phase") == "Failed"]
            assert not failed, failed
            self.left = {job["metadata"]["name"]: job.get("status", {}).get("message") for job in jobs
                         if job.get("status", {}).get("phase") != "Succeeded"}
            if not self.left:
                return jobs
            await asyncio.sleep(0.5)

    def check_status(self, job):
        name, status = job["metadata"]["name"], job["status"]
        part = Part(self.namespace, name, job["metadata"]["uid"], "", "")
        assert job["metadata"]["uid"] == self.incarnations[name][-1], name
        assert [epoch["epoch"] for epoch in status["history"]] == list(range(1, EPOCHS + 1)), (name, status["history"])
        for number, epoch in enumerate(status["history"], 1):
            said = epoch_message(part, number)
            for member in ("trainLoss", "validationLoss", "accuracy", "parallelism", "durationSeconds", "term"):
                assert epoch[member] == said[member], (name, number, member)
        assert status["model"]["path"].split("/")[1:3] == [name, part.job_uid], name

    async def settled(self, jobs):
        """Exactly what a finished job keeps, of jobs that exist: waits, as deleted jobs' children go by and by."""
        uids = {job["metadata"]["uid"]: job["metadata"]["name"] for job in jobs}
        wanted = sorted([(uid, kind) for uid in uids for kind in ("Secret", "Deployment", "Deployment")])
        while True:
            found, running = [], 0
            for resource, kind in (("v1/secrets", "Secret"), ("v1/services", "Service"),
                                   ("networking.k8s.io/v1/networkpolicies", "NetworkPolicy"),
                                   ("apps/v1/deployments", "Deployment"), ("v1/pods", "Pod")):
                query = "labelSelector=thole.dev/job-uid" if kind == "Pod" else OURS
                for item in await self.api.list(resource, self.namespace, query):
                    found.append((item["metadata"]["labels"]["thole.dev/job-uid"], kind))
                    running += kind == "Deployment" and item["spec"]["replicas"] > 0
            if sorted(found) == wanted and running == 0:
                return
            self.left = {"too many": collections.Counter(found) - collections.Counter(wanted),
                         "too few": collections.Counter(wanted) - collections.Counter(found),
                         "Deployments with replicas": running}
            await asyncio.sleep(0.5)

    def check_nothing_made_twice(self, since):
        """By the API server's own record: of each name no more creations than jobs of that name have lived."""
        made = collections.Counter()
        for request in self.plane.audited(since):
            reference = request.get("objectRef", {})
            if (request["verb"] == "create" and request["responseStatus"]["code"] == 201
                    and request["userAgent"].startswith("thole-operator")
                    and reference.get("namespace") == self.namespace and reference["resource"] != "events"):
                made[reference["resource"], reference["name"]] += 1
        assert len({kind for kind, _ in made}) == len(CHILDREN), f"the audit log lacks the children: {made}"
        for (kind, name), count in made.items():
            job = next(job for job in self.incarnations if name == job or name.startswith(job + "-"))
            most = 1 if kind == "secrets" else len(self.incarnations[job])  # a Secret is named after the UID too
            assert count <= most, f"{kind} '{name}' was made {count} times for {most} jobs"

    async def nothing_left(self):
        for name in self.incarnations:
            await self.api.delete(path_of(TRAINJOBS, self.namespace, name), propagationPolicy="Background")
        while True:
            self.left = [item["metadata"]["name"] for resource in (TRAINJOBS, *CHILDREN)
                    for item in await self.api.list(resource, self.namespace, "" if resource == TRAINJOBS else OURS)]
            if not self.left:
                return
            await asyncio.sleep(0.5)


async def play(plane, namespace, directory, binary):
    (directory / "key").write_bytes(KEY)
    since = plane.audit_position()
    async with Rest(plane.kubeconfig) as api:
        story = Story(plane, api, namespace, directory, binary)
        await api.create("thole.dev/v1alpha1/datasets", namespace, manifests.dataset("/data/fashion-mnist"))
        script = Script(epochs=EPOCHS, pause=0.7, slow=lambda part: story.random.uniform(0, 2))
        try:
            async with Troupe(api, f"http://127.0.0.1:{story.port}", KEY, script, namespace) as troupe:
                killed = asyncio.Event()
                names = [f"job-{number:03}" for number in range(JOBS)]
                await asyncio.gather(story.kill_again_and_again(killed), story.churn(names, killed))
                jobs = await story.within(120 + 3 * JOBS, story.all_over(troupe))
            assert len(jobs) == JOBS
            for job in jobs:
                story.check_status(job)
            await story.within(120 + JOBS, story.settled(jobs))
            story.check_nothing_made_twice(since)
            await story.within(120 + JOBS, story.nothing_left())
        finally:
            if story.operator is not None:
                story.operator.stop()


@pytest.mark.timeout(600 + 10 * KILLS + 6 * JOBS)
def test_every_job_ends_right_however_often_the_operator_is_killed(plane, cluster, namespace, tmp_path, operator_binary):
    asyncio.run(play(plane, namespace, tmp_path, operator_binary))


@pytest.fixture
def operator_binary():
    from support.plane import OPERATOR

    return os.environ.get("THOLE_TEST_KILL_BINARY", str(OPERATOR))
