"""Several operators, of which one acts: whoever holds the Lease, and nobody who held it."""

import asyncio
import itertools
import random
import signal
import threading
import time

import aiohttp
import pytest

from support import manifests
from support.api import Api
from support.children import amiss, whole
from support.coordinators import Coordinator, Part, Refusal, Script
from support.election import (LASTING, LEASE, PATIENT, QUICK, accepted, administrator, describe, leads, taken_over,
                              when)
from support.plane import until

KEY = b"0123456789abcdef0123456789abcdef"
ROUNDS = 5
LEASES = "apis/coordination.k8s.io/v1/namespaces/{}/leases"
SLICES = "apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@pytest.fixture
def api(plane):
    return Api(plane.kubeconfig)


@pytest.fixture
def candidate(plane, namespace, start_operator, tmp_path):
    """candidate(name, *flags): an operator whose user has this name, for this namespace's jobs and Lease."""

    def start(name, *flags, server="admin", **environment):
        kubeconfig = administrator(plane, tmp_path, name, server)
        return start_operator(*flags, f"--kubeconfig={kubeconfig}", "--context=", f"--namespace={namespace}",
                              f"--leader-elect-resource-namespace={namespace}",
                              environment={"POD_NAME": name, **environment})

    return start


def leading(operator, seconds=60):
    until(lambda: leads(operator), seconds, lambda: operator.complaint("the operator to lead"))
    return operator


def holder(api, namespace):
    """The pod's name of the Lease's holder."""
    lease = api.request("GET", f"{LEASES.format(namespace)}/{LEASE}").object
    return lease.get("spec", {}).get("holderIdentity", "").rsplit("_", 1)[0]


# ----------------------------------------------------------------------------------------------- standing by, and after


def refusal(operator, namespace):
    """What an operator says to a coordinator that knows its job's token."""
    part = Part(namespace, "any", "c0ffee00-0000-4000-8000-000000000001", "pod", "c0ffee00-0000-4000-8000-000000000002")

    async def greet():
        async with aiohttp.ClientSession() as session:
            coordinator = Coordinator(part, Script(), session, operator.url, KEY)
            async with session.ws_connect(f"{operator.url}/v1/coordinator", protocols=("thole-report.v1",)) as socket:
                await coordinator._greet(socket)

    with pytest.raises(Refusal) as refused:
        asyncio.run(greet())
    return str(refused.value)


def test_one_acts_and_the_other_is_ready_to(api, candidate, cluster, namespace):
    first = leading(candidate("first", *PATIENT).ready())
    second = candidate("second", *PATIENT).ready()
    assert holder(api, namespace) == "first"
    assert not leads(second)
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(manifests.trainjob("one"), namespace)
    whole(cluster, namespace)
    until(lambda: second.metric("thole_cache_objects", resource="deployments") == 2, 60, "what the standby keeps")
    assert second.metric("rest_client_requests_total", method="POST") == 0
    assert second.metric("rest_client_requests_total", method="PATCH") == 0
    said = refusal(second, namespace)
    assert said.startswith("this operator stands by, 'first_") and said.endswith("' leads: come back later")
    assert refusal(first, namespace) == "there is no TrainJob of this name and UID"


def test_a_leader_that_is_told_to_end_hands_over(api, candidate, cluster, namespace):
    """At once: this Lease would not run out within an hour."""
    first = leading(candidate("first", *PATIENT).ready())
    second = candidate("second", *PATIENT).ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(manifests.trainjob("before"), namespace)
    first.stop()
    leading(second)
    lease = api.request("GET", f"{LEASES.format(namespace)}/{LEASE}").object["spec"]
    assert lease["holderIdentity"].startswith("second_") and lease["leaseTransitions"] == 1
    cluster.create(manifests.trainjob("after"), namespace)
    whole(cluster, namespace)


def test_a_leader_that_is_killed_is_replaced_when_its_time_is_over(plane, candidate):
    since = plane.audit_position()
    first = leading(candidate("first", *QUICK).ready())
    second = candidate("second", *QUICK).ready()
    first.kill()
    leading(second)
    events = plane.audited(since)
    renewed = max(when(event, "requestReceivedTimestamp") for event in accepted(events, "first", "leases"))
    assert (taken_over(events, "second") - renewed).total_seconds() >= 6


def test_a_leader_that_cannot_renew_ends(plane, candidate):
    """It ends before anybody may take its Lease, and with an error."""
    first = leading(candidate("first", *QUICK).ready())
    plane.control("freeze-api")
    try:
        first.resigned()
    finally:
        plane.control("thaw-api")
    assert any("could not be renewed for 4 seconds" in line.get("reason", "") for line in first.lines())
    leading(candidate("second", *QUICK).ready())


def test_a_leader_whose_lease_is_given_to_another_ends(api, candidate, namespace):
    first = leading(candidate("first", *PATIENT).ready())
    lease = f"{LEASES.format(namespace)}/{LEASE}"
    answer = api.request("PATCH", lease, {"spec": {"holderIdentity": "somebody"}}, "application/merge-patch+json")
    assert answer.ok, answer.message
    first.resigned()
    assert any(line.get("reason") == f"'somebody' has taken the Lease '{LEASE}'" for line in first.lines())


def test_the_coordinators_service_follows_the_leader(api, candidate):
    """By its EndpointSlice, which is made again as it should be whoever changes it."""

    def addresses():
        found = api.request("GET", f"{SLICES}/thole-operator").object.get("endpoints") or []
        return [address for endpoint in found for address in endpoint["addresses"]]

    first = leading(candidate("first", *PATIENT, POD_IP="10.1.1.1").ready())
    until(lambda: addresses() == ["10.1.1.1"], 60, "the first's address")
    second = candidate("second", *PATIENT, POD_IP="10.1.1.2").ready()
    assert addresses() == ["10.1.1.1"]
    slice_ = api.request("GET", f"{SLICES}/thole-operator").object
    assert slice_["metadata"]["labels"]["kubernetes.io/service-name"] == "thole-operator"
    assert slice_["ports"][0]["port"] == int(first.url.rsplit(":", 1)[1])
    other = {"endpoints": [{"addresses": ["10.9.9.9"]}]}
    assert api.request("PATCH", f"{SLICES}/thole-operator", other, "application/merge-patch+json").ok
    until(lambda: addresses() == ["10.1.1.1"], 60, "the first's address again")
    assert api.request("DELETE", f"{SLICES}/thole-operator").ok
    until(lambda: addresses() == ["10.1.1.1"], 60, "the slice again")
    first.stop()
    leading(second)
    until(lambda: addresses() == ["10.1.1.2"], 60, "the second's address")


# ----------------------------------------------------------------------------------------------------------- fencing


class Churn:
    """Users who apply, scale and delete jobs all the time, until they are told to stop."""

    def __init__(self, api, namespace, seed):
        self._path = f"apis/thole.dev/v1alpha1/namespaces/{namespace}/trainjobs"
        self._api, self._random = api, random.Random(seed)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()

    def _run(self):
        names = []
        for number in itertools.count():
            if self._stopping.wait(self._random.uniform(0, 0.1)):
                return
            self._step(names, f"job-{number}")

    def _step(self, names, fresh):
        if len(names) < 5 or (len(names) < 20 and self._random.random() < 0.5):
            if self._api.request("POST", self._path, manifests.trainjob(fresh)).ok:
                names.append(fresh)
        elif self._random.random() < 0.6:
            replicas = {"spec": {"workers": {"replicas": self._random.randint(1, 4)}}}
            name = self._random.choice(names)
            self._api.request("PATCH", f"{self._path}/{name}", replicas, "application/merge-patch+json")
        else:
            name = names.pop(self._random.randrange(len(names)))
            self._api.request("DELETE", f"{self._path}/{name}")


def late_writes(events, old, new):
    """What the old leader wrote after the new one had the Lease. An Event is made under a name of its own and only says
    what had happened: it changes nothing."""
    since = taken_over(events, new)
    assert since is not None, f"{new} never got the Lease"
    return [describe(event) for event in accepted(events, old)
            if when(event, "requestReceivedTimestamp") > since and event["objectRef"]["resource"] != "events"]


def test_no_write_of_a_leader_that_was_paused_lands(plane, api, candidate, cluster, namespace):
    """Stopped (SIGSTOP) at random moments of its work, replaced, and continued: it does nothing but end."""
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    print(f"seed {seed}")
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    since = plane.audit_position()
    old = leading(candidate("operator-0", *QUICK).ready())
    with Churn(api, namespace, seed):
        for number in range(1, ROUNDS + 1):
            new = candidate(f"operator-{number}", *QUICK).ready()
            time.sleep(moments.uniform(0, 0.5))
            old.process.send_signal(signal.SIGSTOP)
            leading(new)
            time.sleep(moments.uniform(0, 0.5))
            old.process.send_signal(signal.SIGCONT)
            old.resigned()
            late = late_writes(plane.audited(since), f"operator-{number - 1}", f"operator-{number}")
            assert not late, "\n".join(late)
            old = new
    assert any(accepted(plane.audited(since), f"operator-{number}") for number in range(ROUNDS)), "nobody had work"
    whole(cluster, namespace)


def test_bytes_that_were_under_way_change_nothing(plane, api, candidate, cluster, namespace):
    """Requests of the old leader that were sent, but reach the API server when another leads: all are refused."""
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    since = plane.audit_position()
    old = leading(candidate("old", *LASTING, server="toxic").ready())
    new = candidate("new", *LASTING).ready()
    for number in range(8):
        cluster.create(manifests.trainjob(f"job-{number}"), namespace)
    whole(cluster, namespace)
    with plane.holding_back():
        # The old leader hears of these, and what it makes of them stays in the proxy.
        for number in range(8):
            cluster.patch("TrainJob", f"job-{number}", namespace, {"spec": {"workers": {"replicas": 3}}})
            cluster.create(manifests.trainjob(f"late-{number}"), namespace)
        heard = "thole_cache_objects"
        until(lambda: old.metric(heard, resource="trainjobs") == 16, 30, lambda: old.complaint("it to hear of all"))
        until(lambda: old.metric("controller_runtime_active_workers", controller="trainjob") >= 8, 30, "its requests")
        old.process.send_signal(signal.SIGSTOP)
        leading(new)
        whole(cluster, namespace)
        # A user changes their mind meanwhile: the old leader's 3 must not come back.
        for number in range(8):
            cluster.patch("TrainJob", f"job-{number}", namespace, {"spec": {"workers": {"replicas": 2}}})
        whole(cluster, namespace)
        held = plane.audit_position()
    mine = lambda: [event for event in plane.audited(held) if event["user"]["username"] == "old"]  # noqa: E731
    until(lambda: any(event["verb"] in ("create", "patch") for event in mine()), 60, "what was held back to arrive")
    old.process.send_signal(signal.SIGCONT)
    old.resigned()
    refused = [event for event in mine() if event.get("responseStatus", {}).get("code") == 409]
    assert refused, "\n".join(map(describe, mine()))
    late = late_writes(plane.audited(since), "old", "new")
    assert not late, "\n".join(late)
    assert not amiss(cluster, namespace)
