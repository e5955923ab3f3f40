"""An API server that is hard to reach, and one that dies: whatever the operator missed meanwhile, jobs have their
children in the end, nobody else's are left, and the server was not flooded with lists.
"""

import collections

import pytest

from support import manifests
from support.children import amiss, whole
from support.plane import until

LISTS_MOST = 12  # of a kind for one fault: more is a frenzy

TOXICS = (
    ("latency", {"latency": 200, "jitter": 200}),
    ("slicer", {"average_size": 30, "size_variation": 29, "delay": 10}),
    ("bandwidth", {"rate": 50}),
    ("reset_peer", {"timeout": 100}),
    ("limit_data", {"bytes": 20000}),
    ("timeout", {"timeout": 0}),
    ("timeout", {"timeout": 500}),
)


@pytest.fixture
def operator(namespace, start_operator):
    def start(**options):
        return start_operator(f"--namespace={namespace}", **options).ready()

    return start


class Jobs:
    """The jobs of a namespace, which come, change and go."""

    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace
        self.names = []
        self.made = 0
        cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)

    def make(self, count):
        for _ in range(count):
            self.made += 1
            self.names.append(f"job-{self.made}")
            self.cluster.create(manifests.trainjob(self.names[-1]), self.namespace)

    def change(self):
        """One more, one less, and another number of workers."""
        self.make(1)
        self.cluster.delete("TrainJob", self.names.pop(0), self.namespace)
        self.cluster.patch("TrainJob", self.names[0], self.namespace,
                           {"spec": {"workers": {"replicas": 1 + self.made % 2}}})

    def whole(self):
        whole(self.cluster, self.namespace, 120)
        there = {job["metadata"]["name"] for job in self.cluster.list("TrainJob", self.namespace)}
        assert there == set(self.names)


def lists(plane, since, running, least):
    """How many lists the operator has asked for, of each kind. It is ended for that: only requests that are over are in
    the audit log, and a streaming list goes on as a watch (of which a killed API server tells nothing)."""
    running.stop()

    def counted():
        asked = {event["auditID"]: event["objectRef"]["resource"] for event in plane.audited(since)
                 if event["userAgent"].startswith("thole-operator")
                 and ("sendInitialEvents" in event["requestURI"] or "limit=" in event["requestURI"])}
        return collections.Counter(asked.values())

    until(lambda: counted()["deployments"] >= least, 60, lambda: f"lists in the audit log; there are {counted()}")
    return counted()


def test_jobs_come_and_go_behind_a_broken_connection(cluster, namespace, operator, plane):
    since = plane.audit_position()
    running = operator(context="toxic")
    jobs = Jobs(cluster, namespace)
    jobs.make(3)
    jobs.whole()
    for kind, attributes in TOXICS:
        with plane.toxic(kind, **attributes):
            jobs.change()
            jobs.change()
        jobs.whole()
    counted = lists(plane, since, running, least=1)
    assert max(counted.values()) <= LISTS_MOST * len(TOXICS), counted


def test_what_vanished_with_the_server_and_its_history_is_made_again(cluster, namespace, operator, plane):
    running = operator()
    jobs = Jobs(cluster, namespace)
    jobs.make(3)
    jobs.whole()
    gone = {}
    for kind, resource, name in (("Deployment", "deployments", "job-1-worker"), ("Service", "services/specs", "job-2"),
                                 ("NetworkPolicy", "networkpolicies", "job-3")):
        gone[kind, name, resource] = cluster.get(kind, name, namespace)["metadata"]["uid"]
    since = plane.audit_position()
    plane.control("kill-api")
    for _, name, resource in gone:
        plane.control("delete-key", f"/registry/{resource}/{namespace}/{name}")
    plane.control("compact")
    plane.control("start-api")
    for (kind, name, _), uid in gone.items():
        cluster.wait(kind, name, namespace, lambda found: found and found["metadata"]["uid"] != uid, 120, "made again")
    jobs.whole()
    counted = lists(plane, since, running, least=1)  # because the history was compacted
    assert max(counted.values()) <= LISTS_MOST, counted


def test_a_job_that_vanished_without_a_word_is_forgotten(cluster, namespace, operator, plane):
    """Nobody tells of its end: the list behind the compaction does not name it, and its children go with it."""
    running = operator()
    jobs = Jobs(cluster, namespace)
    jobs.make(2)
    jobs.whole()
    until(lambda: running.metric("thole_cache_objects", resource="trainjobs") == 2, 60, "two jobs in the cache")
    plane.control("kill-api")
    plane.control("delete-key", f"/registry/thole.dev/trainjobs/{namespace}/{jobs.names.pop(0)}")
    plane.control("compact")
    plane.control("start-api")
    until(lambda: running.metric("thole_cache_objects", resource="trainjobs") == 1, 120, "one job in the cache")
    until(lambda: not amiss(cluster, namespace), 120, lambda: amiss(cluster, namespace))
