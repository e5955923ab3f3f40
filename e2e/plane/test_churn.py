"""Memory is flat however many jobs come and go: what is kept of a job goes with it.

The sanitizers' build shows by its own counts that nothing is left (and by its end that nothing leaked); a release build,
where there is one, by the heap and the pages it holds. By default some rounds, for every run of the tests; a long churn
is THOLE_TEST_CHURN_ROUNDS=50 THOLE_TEST_CHURN_JOBS=200. With THOLE_TEST_MONGODB_URI the history is written too.
"""

import asyncio
import os
import random

import pytest

from support import manifests
from support.coordinators import Script, Troupe
from support.plane import OPERATOR, ROOT, until
from support.rest import Rest, path_of
from support.stage import KEY

ROUNDS = int(os.environ.get("THOLE_TEST_CHURN_ROUNDS", "4"))
JOBS = int(os.environ.get("THOLE_TEST_CHURN_JOBS", "25"))
TRAINJOBS = "thole.dev/v1alpha1/trainjobs"
LEFTOVERS = (TRAINJOBS, "apps/v1/deployments", "v1/pods", "v1/services", "networking.k8s.io/v1/networkpolicies")
HISTORY = [f"--mongodb-uri={uri}" for uri in [os.environ.get("THOLE_TEST_MONGODB_URI")] if uri]
RELEASE = ROOT / "build" / os.environ.get("THOLE_TEST_RELEASE_PRESET", "release") / "thole-operator"


async def churn(api, troupe, namespace, number, draw):
    """Makes jobs, deletes them at any moment of their lives, and waits until nothing is left of them."""
    names = [f"job-{number}-{job}" for job in range(JOBS)]

    async def live(name):
        await api.create(TRAINJOBS, namespace, manifests.trainjob(name, training={"epochs": 2}))
        if draw.random() < 0.5:
            while name not in troupe.finished:
                troupe.check()
                await asyncio.sleep(0.1)
        else:
            await asyncio.sleep(draw.uniform(0, 2))
        await api.delete(path_of(TRAINJOBS, namespace, name), propagationPolicy="Background")

    await asyncio.gather(*(live(name) for name in names))
    for resource in LEFTOVERS:
        while await api.list(resource, namespace, "limit=1"):
            await asyncio.sleep(0.2)


async def look_on(operator, namespace):
    """Asks all the while for everything that the server serves."""
    while True:
        for path in ("/metrics", "/healthz", "/readyz", f"/debug/trainjob?key={namespace}/job-0-0"):
            status, text = await asyncio.to_thread(operator.get, path)
            assert status == 200, f"{path}: {status} {text}"
        await asyncio.sleep(0.2)


def left(operator):
    """What the operator still holds of jobs, by its own counts; all 0 when they are gone."""
    metrics = operator.metrics()
    held = {name + "".join(value for _, value in sorted(labels)): number for (name, labels), number in metrics.items()
            if name in ("thole_trainjobs", "thole_cache_objects", "thole_workqueue_keys", "thole_events_waiting",
                        "thole_coordinator_connections", "workqueue_depth")}
    return {name: number for name, number in held.items() if number and not name.endswith("datasets")}


def sizes(operator):
    """Bytes of heap in use, without what Events that may be repeated are allowed to take, and of resident memory."""
    remembered = operator.metric("thole_events_remembered") * 600
    return operator.metric("thole_heap_bytes") - remembered, operator.metric("process_resident_memory_bytes")


@pytest.mark.parametrize("binary", [OPERATOR, RELEASE], ids=["sanitized", "release"])
def test_what_is_kept_of_a_job_goes_with_it(plane, cluster, namespace, start_operator, binary):
    if not binary.is_file():
        pytest.skip(f"{binary} does not exist")
    operator = start_operator(f"--namespace={namespace}", "--log-level=info", "--debug", *HISTORY, binary=binary).ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    until(lambda: not left(operator), 60, "an operator that holds nothing")
    descriptors = operator.metric("process_open_fds")
    draw, after = random.Random(1), []

    async def story():
        async with Rest(plane.kubeconfig) as api, Troupe(api, operator.url, KEY, Script(2), namespace) as troupe:
            onlooker = asyncio.create_task(look_on(operator, namespace))
            for number in range(ROUNDS):
                await churn(api, troupe, namespace, number, draw)
                await asyncio.to_thread(until, lambda: not left(operator), 120,
                                        lambda: f"nothing to be left, but there is {left(operator)}")
                after.append(sizes(operator))
                assert not onlooker.done(), onlooker.exception()
            onlooker.cancel()
        await asyncio.sleep(0.25)  # see support/stage.py

    asyncio.run(story())
    until(lambda: operator.metric("process_open_fds") <= descriptors + 2, 60, "descriptors to be given back")
    if binary == RELEASE:
        heaps = [heap for heap, _ in after]
        assert heaps[-1] <= heaps[1] + 256 * 1024, f"the heap grows: {heaps}"
        resident = after[1][1]
        until(lambda: sizes(operator)[1] <= resident + 4 * 1024 * 1024, 90, lambda: f"{sizes(operator)[1]} ≤ {resident} + 4 MiB")
