"""The operator's rights: none is missing, and none is there that it could do without.

It runs as its ServiceAccount, with the rules that config/ installs, at an API server that asks for every right: lists are
not streamed, so that `list` is needed besides `watch`, and who makes an object's deletion wait must be allowed to.
"""

import asyncio
import pathlib
import time

import aiohttp
import pytest
import yaml

from support.api import MERGE, Api
from support.cluster import condition_of, status_of
from support.coordinators import Coordinator, Part, Script
from support.manifests import dataset, trainjob
from support.plane import ROOT, Operator, stop_all, until

SYSTEM, OPERATOR = "thole-system", "thole-operator"
THOLE = "apis/thole.dev/v1alpha1"
FLOW = "apis/flowcontrol.apiserver.k8s.io/v1"
LEASE = "apis/coordination.k8s.io/v1/namespaces/{}/leases/" + OPERATOR
SLICE = "apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/" + OPERATOR
RBAC = "apis/rbac.authorization.k8s.io/v1"
KEY = b"0123456789abcdef0123456789abcdef"  # what support.plane gives the operator
NOWHERE = "--mongodb-uri=mongodb://127.0.0.1:9/"  # so that jobs have a finalizer, and keep it

ROLES = [role for role in yaml.safe_load_all((ROOT / "config/base/rbac.yaml").read_text())
         if role["kind"] in ("ClusterRole", "Role")]


def rights_of(role):
    """(group, resource, verb) of each of its rules."""
    return [(group, resource, verb) for rule in role["rules"] for group in rule["apiGroups"]
            for resource in rule["resources"] for verb in rule["verbs"]]


RIGHTS = [right for role in ROLES for right in rights_of(role)]
EVENT_AGAIN = ("events.k8s.io", "events", "patch")
FINALIZERS = ("thole.dev", "trainjobs/finalizers", "update")  # asked by admission; no request of the operator's own


# ---- the world


@pytest.fixture(scope="module")
def api(plane):
    plane.control("kill-api")
    plane.control("start-api", "--feature-gates=WatchList=false",
                  "--enable-admission-plugins=OwnerReferencesPermissionEnforcement")
    yield Api(plane.kubeconfig)
    plane.control("kill-api")
    plane.control("start-api")


def install(plane, folder):
    """What the folder says, without the Deployment: the operator is a process here."""
    rendered = plane.kubectl("kustomize", str(ROOT / folder)).stdout
    objects = [item for item in yaml.safe_load_all(rendered) if item["kind"] != "Deployment"]
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=yaml.safe_dump_all(objects))
    return objects


@pytest.fixture(scope="module")
def identity(plane, api, tmp_path_factory):
    """identity(namespace): the path of a kubeconfig of the ServiceAccount that the operator has there."""
    config = yaml.safe_load(pathlib.Path(plane.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["certificate-authority"] = str(plane.directory / "ca.crt")

    def make(namespace):
        path = f"api/v1/namespaces/{namespace}/serviceaccounts/{OPERATOR}/token"
        token = api.request("POST", path, {"spec": {"expirationSeconds": 3600}})
        assert token.ok, token.message
        own = {**config, "users": [{"name": "operator", "user": {"token": token.object["status"]["token"]}}],
               "contexts": [{"name": "operator", "context": {"cluster": config["clusters"][0]["name"],
                                                             "user": "operator", "namespace": namespace}}]}
        path = tmp_path_factory.mktemp("identity") / "kubeconfig"
        path.write_text(yaml.safe_dump(own))
        return path

    return make


def user(namespace):
    return f"system:serviceaccount:{namespace}:{OPERATOR}"


def right_of(entry):
    """Of an audited request."""
    about = entry.get("objectRef", {})
    resource = "/".join(part for part in (about.get("resource"), about.get("subresource")) if part)
    return about.get("apiGroup", ""), resource, entry["verb"]


def requests(plane, since, namespace):
    """(right, code, message, namespace of the object) of every request of the operator of `namespace`."""
    found = [(entry, entry.get("responseStatus", {})) for entry in plane.audited(since)
             if entry["user"]["username"] == user(namespace)]
    return [(right_of(entry), answer.get("code", 0), answer.get("message", ""),
             entry.get("objectRef", {}).get("namespace", "")) for entry, answer in found]


# ---- what happens in a job's life: each part needs some of the rights


class Stage:
    """A namespace where parts are played: the administrator makes objects, the operator does the rest."""

    def __init__(self, cluster, api, namespace):
        self.cluster, self.api, self.namespace = cluster, api, namespace
        self.make(THOLE, "datasets", dataset("/data/x", name="data"))

    def make(self, prefix, plural, body):
        made = self.api.request("POST", f"{prefix}/namespaces/{self.namespace}/{plural}", body)
        assert made.ok, made.message

    def patch(self, prefix, rest, change):
        answer = self.api.request("PATCH", f"{prefix}/namespaces/{self.namespace}/{rest}", change, MERGE)
        assert answer.ok, answer.message

    def job(self, name, **changes):
        self.make(THOLE, "trainjobs", trainjob(name, datasetRef={"name": "data"}, **changes))

    def get(self, kind, name):
        return self.cluster.get(kind, name, self.namespace)

    def status(self, name):
        return status_of(self.get("TrainJob", name))

    def pod(self, job):
        """The job's pod of shard 0, once its node says that it runs."""
        selector = f"thole.dev/job={job},thole.dev/shard=0"
        return until(lambda: [pod for pod in self.cluster.list("Pod", self.namespace, label_selector=selector)
                              if pod["status"].get("podIP")], 60, f"the pod of {job}")[0]

    def play_kubelet(self, pod, restarts, state=None, last=None):
        """What the pod's node says."""
        container = {"name": "trainer", "image": "x", "imageID": "", "ready": False, "started": False,
                     "restartCount": restarts, "state": state or {"running": {"startedAt": NOW}},
                     "lastState": last or {}}
        self.patch("api/v1", f"pods/{pod['metadata']['name']}/status",
                   {"status": {"containerStatuses": [container], "conditions": [{"type": "Ready", "status": "False"}]}})


NOW = "2026-01-01T00:00:00Z"


def ended(second):
    return {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": NOW, "finishedAt": f"2026-01-01T00:00:{second}Z"}}


# Each begins its part, and returns what tells that it came to its good end.


def a_dataset(stage, name):
    stage.make(THOLE, "datasets", dataset("/data/x", name=name))
    return lambda: status_of(stage.get("Dataset", name)).get("phase") == "Ready"


def a_finalizer(stage, name):
    stage.job(name)
    return lambda: stage.get("TrainJob", name)["metadata"].get("finalizers")


def a_start(stage, name):
    stage.job(name)
    return lambda: stage.status(name).get("startTime")


def a_secret(stage, name):
    stage.job(name)
    return lambda: stage.cluster.list("Secret", stage.namespace, label_selector=f"thole.dev/job={name}")


def a_child(kind, suffix=""):
    def begin(stage, name):
        stage.job(name)
        return lambda: stage.get(kind, name + suffix)

    return begin


def more_workers(stage, name):
    stage.job(name)
    until(lambda: stage.get("Deployment", f"{name}-worker"), 60, "the workers' Deployment")
    stage.patch(THOLE, f"trainjobs/{name}", {"spec": {"workers": {"replicas": 3}}})
    return lambda: stage.get("Deployment", f"{name}-worker")["spec"]["replicas"] == 3


def a_taken_name(prefix, plural, suffix, spec):
    """Somebody else's object stands there."""

    def begin(stage, name):
        stage.make(prefix, plural, {"metadata": {"name": name + suffix}, "spec": spec})
        stage.job(name)
        return lambda: condition_of(stage.get("TrainJob", name), "Stalled")[1] == "NameConflict"

    return begin


def an_end(kind):
    """The job fails at once: Kubernetes lets nobody ask for a device without a limit."""

    def begin(stage, name):
        stage.job(name, template={"spec": {"containers": [{"name": "trainer", "resources": {
            "requests": {"example.com/device": 1}}}]}})
        return lambda: stage.status(name).get("phase") == "Failed" and not stage.get(kind, name)

    return begin


def a_deletion(stage, name):
    """MongoDB has not taken its record, so the job stays; its pods go."""
    stage.job(name)
    until(lambda: stage.get("Deployment", f"{name}-worker"), 60, "the workers' Deployment")
    stage.cluster.delete("TrainJob", name, stage.namespace)
    return lambda: not stage.get("Deployment", f"{name}-worker")


def a_crash_loop(stage, name):
    stage.job(name)
    pod = stage.pod(name)
    stage.play_kubelet(pod, 1, {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}, ended("01"))
    gone = lambda now: not now or "deletionTimestamp" in now["metadata"]  # noqa: E731
    return lambda: gone(stage.get("Pod", pod["metadata"]["name"]))


def a_pod_that_does_not_start(stage, name):
    stage.job(name)
    pod = stage.pod(name)
    stage.play_kubelet(pod, 0, {"waiting": {"reason": "ContainerCreating"}})
    about = {"kind": "Pod", "namespace": stage.namespace, "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    stage.make("api/v1", "events", {"metadata": {"generateName": name}, "involvedObject": about, "type": "Warning",
                                    "reason": "FailedMount", "message": "the disk is on fire", "lastTimestamp": NOW})
    return lambda: "the disk is on fire" in stage.status(name).get("message", "")


def events_of(stage, name):
    return [event for event in stage.cluster.list("Event", stage.namespace)
            if event["reason"] == "ProcessEnded" and event["involvedObject"]["name"] == name]


def an_event(stage, name):
    stage.job(name)
    stage.play_kubelet(stage.pod(name), 1, None, ended("01"))
    return lambda: events_of(stage, name)


def an_event_again(stage, name):
    """At least half a minute after the same event: sooner, repetitions are only counted."""
    stage.play_kubelet(stage.pod(name), 2, None, ended("02"))
    return lambda: any(event.get("series") for event in events_of(stage, name))


SELECTOR = {"matchLabels": {"a": "b"}}
FOREIGN = {"replicas": 0, "selector": SELECTOR, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
    "containers": [{"name": "a", "image": "a"}]}}}

PARTS = {
    ("thole.dev", "datasets/status", "patch"): a_dataset,
    ("thole.dev", "trainjobs", "patch"): a_finalizer,
    ("thole.dev", "trainjobs/status", "patch"): a_start,
    FINALIZERS: a_secret,
    ("", "secrets", "create"): a_secret,
    ("", "services", "create"): a_child("Service"),
    ("networking.k8s.io", "networkpolicies", "create"): a_child("NetworkPolicy"),
    ("apps", "deployments", "create"): a_child("Deployment", "-worker"),
    ("apps", "deployments", "patch"): more_workers,
    ("", "services", "get"): a_taken_name("api/v1", "services", "", {"ports": [{"port": 1}]}),
    ("networking.k8s.io", "networkpolicies", "get"): a_taken_name(
        "apis/networking.k8s.io/v1", "networkpolicies", "", {"podSelector": SELECTOR}),
    ("apps", "deployments", "get"): a_taken_name("apis/apps/v1", "deployments", "-worker", FOREIGN),
    ("", "services", "delete"): an_end("Service"),
    ("networking.k8s.io", "networkpolicies", "delete"): an_end("NetworkPolicy"),
    ("apps", "deployments", "delete"): a_deletion,
    ("", "pods", "delete"): a_crash_loop,
    ("", "events", "list"): a_pod_that_does_not_start,
    ("events.k8s.io", "events", "create"): an_event,
    EVENT_AGAIN: an_event_again,
}


# ---- whole lives


@pytest.fixture(scope="module")
def start(plane, identity, tmp_path_factory):
    """start(namespace, flag...): an operator of that namespace, ready; all are ended with the module."""
    operators = []

    def begin(namespace, *flags):
        operator = Operator(plane, tmp_path_factory.mktemp("operator"), f"--kubeconfig={identity(namespace)}",
                            "--leader-elect=true", NOWHERE, *flags, context="operator",
                            environment={"POD_IP": "10.1.2.3"})
        operators.append(operator)
        return operator

    yield begin
    stop_all(operators)


def vacate(api, namespace):
    """As if no operator had ever been there."""
    for path in (LEASE, SLICE):
        api.request("DELETE", path.format(namespace))


def bequeath(api, namespace):
    """As if one had been lost a moment ago, whose address still stands in the EndpointSlice."""
    vacate(api, namespace)
    lease = {"metadata": {"name": OPERATOR}, "spec": {"holderIdentity": "lost", "leaseDurationSeconds": 1}}
    labels = {"kubernetes.io/service-name": OPERATOR}
    where = {"metadata": {"name": OPERATOR, "labels": labels}, "addressType": "IPv4", "endpoints": []}
    for path, body in ((LEASE, lease), (SLICE, where)):
        made = api.request("POST", path.format(namespace).rpartition("/")[0], body)
        assert made.ok, made.message


def leads(api, namespace):
    """An operator holds the Lease, and has written its address."""
    lease, where = (api.request("GET", path.format(namespace)).object for path in (LEASE, SLICE))
    return lease.get("spec", {}).get("holderIdentity", "lost") not in ("", "lost") and where.get("endpoints")


def live(operator, stage):
    """Everything that can happen in a job's life, at once, and a job that is trained."""
    begins = [begin for begin in dict.fromkeys(PARTS.values()) if begin is not an_event_again]
    names = {begin: f"part-{number}" for number, begin in enumerate(begins)}
    goals = {begin: begin(stage, names[begin]) for begin in begins}
    for begin, done in goals.items():
        until(done, 60, lambda: operator.complaint(f"the end of {begin.__qualname__}"))
    stage.job("trained")
    train(operator, stage, "trained")
    return names


def train(operator, stage, job):
    """Plays the coordinator until the operator has taken the end."""

    async def play(part):
        async with aiohttp.ClientSession() as session:
            await Coordinator(part, Script(epochs=2), session, operator.url, KEY).play()

    asyncio.run(asyncio.wait_for(play(Part.of_pod(stage.pod(job))), 60))
    assert stage.status(job)["phase"] == "Succeeded"


def end(cluster, api, namespace):
    """Jobs whose record no MongoDB will take go all the same."""
    api.request("DELETE", f"{THOLE}/namespaces/{namespace}/datasets")
    api.request("DELETE", f"{THOLE}/namespaces/{namespace}/trainjobs")
    for job in cluster.list("TrainJob", namespace):
        api.request("PATCH", f"{THOLE}/namespaces/{namespace}/trainjobs/{job['metadata']['name']}",
                    {"metadata": {"finalizers": None}}, MERGE)


def begin_and_begin_again(api, start, namespace, *flags):
    """Two operators after each other: the first finds nothing, the second what one has left that is lost."""
    vacate(api, namespace)
    first = start(namespace, *flags).ready()
    until(lambda: leads(api, namespace), 60, lambda: first.complaint("the first operator to lead"))
    first.stop()
    bequeath(api, namespace)
    second = start(namespace, *flags).ready()
    until(lambda: leads(api, namespace), 60, lambda: second.complaint("the second operator to lead"))
    return second


def nothing_refused(operator, plane, since, namespace):
    refused = [request for request in requests(plane, since, namespace) if request[1] in (401, 403)]
    assert not refused, refused
    assert operator.metric("rest_client_requests_total", code="403") == 0
    assert operator.metric("rest_client_requests_total", code="201") > 0


def unused(plane, since, namespace):
    used = {right for right, code, _, _ in requests(plane, since, namespace) if code // 100 == 2}
    return set(RIGHTS) - used - {FINALIZERS}


@pytest.fixture(scope="module")
def everywhere(plane, api):
    return install(plane, "config/base")


def test_a_life_with_the_rights_of_a_cluster(cluster, plane, api, everywhere, start):
    """Of each right but one, which takes its time: that is in the other life."""
    since = plane.audit_position()
    operator = begin_and_begin_again(api, start, SYSTEM)
    namespace = "rbac-everywhere"
    cluster.core.create_namespace({"metadata": {"name": namespace}})
    live(operator, Stage(cluster, api, namespace))
    nothing_refused(operator, plane, since, SYSTEM)
    operator.stop()
    assert unused(plane, since, SYSTEM) == {EVENT_AGAIN}
    end(cluster, api, namespace)


class Resident:
    """An operator that has lived in a namespace of its own, with Roles there and nothing elsewhere."""

    def __init__(self, cluster, plane, api, start):
        self.namespace = "team-a"
        plane.kubectl("create", "namespace", self.namespace, check=False)
        self.installed = install(plane, "config/overlays/namespaced")
        self.since = plane.audit_position()
        self.operator = begin_and_begin_again(api, start, self.namespace, f"--namespace={self.namespace}")
        self.stage = Stage(cluster, api, self.namespace)
        self.names = live(self.operator, self.stage)
        self.said = time.monotonic()


@pytest.fixture(scope="module")
def resident(cluster, plane, api, everywhere, start):
    yield Resident(cluster, plane, api, start)
    end(cluster, api, "team-a")


def test_a_life_in_one_namespace(resident):
    kinds = {item["kind"] for item in resident.installed}
    assert kinds == {"ServiceAccount", "Role", "RoleBinding", "Service", "PodDisruptionBudget"}
    assert all(item["metadata"]["namespace"] == resident.namespace for item in resident.installed)


# ---- without one right


def path_of(role):
    folder = "clusterroles" if role["kind"] == "ClusterRole" else f"namespaces/{SYSTEM}/roles"
    return f"{RBAC}/{folder}/{role['metadata']['name']}"


def less(role, right):
    """The role without one verb of one resource."""
    rules = [{**rule, "apiGroups": [group], "resources": [resource],
              "verbs": [verb for verb in rule["verbs"] if (group, resource, verb) != right]}
             for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]]
    return {**role, "rules": [rule for rule in rules if rule["verbs"]]}


def has(api, right):
    group, resource, verb = right
    about = dict(zip(("resource", "subresource"), resource.split("/")))
    asked = {"user": user(SYSTEM), "resourceAttributes": {
        **about, "group": group, "verb": verb, "namespace": SYSTEM, "name": "" if verb == "create" else OPERATOR}}
    answer = api.request("POST", "apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": asked})
    return answer.object["status"]["allowed"]


@pytest.fixture
def taken_away(api, everywhere, right):
    role = next(role for role in ROLES if right in rights_of(role))
    for change, holds in ((less(role, right), False), (role, True)):
        if holds:
            yield
        answer = api.request("PUT", path_of(role), change)
        assert answer.ok, answer.message
        until(lambda: has(api, right) == holds, 30, f"{right} to be {'given' if holds else 'taken'}")


def refused(plane, since, right):
    if right == FINALIZERS:
        return [request for request in requests(plane, since, SYSTEM)
                if request[0] == ("", "secrets", "create") and "blockOwnerDeletion" in request[2]]
    return [request for request in requests(plane, since, SYSTEM) if request[0] == right and request[1] == 403]


def spoken(right):
    return f"{right[2]} {right[1]}{'.' if right[0] else ''}{right[0]}"


AT_START = [right for right in RIGHTS if right not in PARTS]


@pytest.mark.parametrize("right", AT_START, ids=spoken)
def test_an_operator_cannot_begin_without(plane, api, start, stage, right, taken_away):
    (vacate if right[2] == "create" else bequeath)(api, SYSTEM)
    since = plane.audit_position()
    operator = start(SYSTEM, f"--namespace={stage.namespace}")
    until(lambda: refused(plane, since, right), 60, lambda: operator.complaint(f"a refusal to {spoken(right)}"))
    operator.kill()  # what it makes of an end without its rights is not asked here


@pytest.fixture(scope="module")
def stage(cluster, api):
    namespace = "rbac-without"
    cluster.core.create_namespace({"metadata": {"name": namespace}})
    yield Stage(cluster, api, namespace)
    end(cluster, api, namespace)


@pytest.fixture(scope="module")
def acting(api, everywhere, start, stage):
    vacate(api, SYSTEM)
    operator = start(SYSTEM, f"--namespace={stage.namespace}").ready()
    said = an_event(stage, "again")
    until(said, 60, lambda: operator.complaint("an Event"))
    operator.said = time.monotonic()
    return operator


@pytest.mark.parametrize("right", [right for right in RIGHTS if right in PARTS], ids=spoken)
def test_a_job_cannot_live_without(plane, acting, stage, right, taken_away):
    since = plane.audit_position()
    if right == EVENT_AGAIN:
        until(lambda: time.monotonic() > acting.said + 31, 60, "half a minute to go by")
        done = an_event_again(stage, "again")
    else:
        done = PARTS[right](stage, "without-" + "-".join(right[1:]).replace("/", "-"))
    until(lambda: refused(plane, since, right), 60, lambda: acting.complaint(f"a refusal to {spoken(right)}"))
    assert not done()


def test_nothing_was_refused_in_the_life_in_one_namespace(plane, resident):
    """Whatever happened elsewhere meanwhile. Each of its rights was used."""
    until(lambda: time.monotonic() > resident.said + 31, 60, "half a minute to go by")
    until(an_event_again(resident.stage, resident.names[an_event]), 60,
          lambda: resident.operator.complaint("the Event to be repeated"))
    nothing_refused(resident.operator, plane, resident.since, resident.namespace)
    resident.operator.stop()
    assert unused(plane, resident.since, resident.namespace) == set()
    elsewhere = [request for request in requests(plane, resident.since, resident.namespace)
                 if request[3] != resident.namespace]
    assert not elsewhere, elsewhere


# ---- its Lease's way into the API server


def test_renewals_do_not_wait_behind_other_requests(plane, api, everywhere, identity):
    ours = api.request("GET", f"{FLOW}/flowschemas/thole-operator-leader").object
    level = api.request("GET", f"{FLOW}/prioritylevelconfigurations/leader-election").object
    token = yaml.safe_load(identity(SYSTEM).read_text())["users"][0]["user"]["token"]
    operator = Api(plane.kubeconfig, token)

    def ways(path):
        headers = operator.request("GET", path).headers
        return headers["X-Kubernetes-PF-FlowSchema-UID"], headers["X-Kubernetes-PF-PriorityLevel-UID"]

    until(lambda: ways(LEASE.format(SYSTEM)) == (ours["metadata"]["uid"], level["metadata"]["uid"]), 30,
          "a request for the Lease to have its own way")
    for path in (f"{THOLE}/trainjobs", LEASE.format("default")):
        assert ways(path)[0] != ours["metadata"]["uid"], path


# ---- people


PEOPLE = [  # with the ClusterRole that clusters give to people: what they may do with jobs
    ("view", "get", "trainjobs", True),
    ("view", "list", "datasets", True),
    ("view", "create", "trainjobs", False),
    ("view", "patch", "trainjobs/scale", False),
    ("edit", "create", "trainjobs", True),
    ("edit", "patch", "trainjobs/scale", True),
    ("edit", "delete", "datasets", True),
    ("edit", "patch", "trainjobs/status", False),
    ("edit", "update", "datasets/status", False),
    ("admin", "create", "trainjobs", True),
    ("admin", "patch", "trainjobs/status", False),
]


@pytest.mark.parametrize("role,verb,resource,allowed", PEOPLE, ids=lambda value: str(value))
def test_what_people_may_do(api, everywhere, stage, role, verb, resource, allowed):
    """A status is the operator's word: who may edit jobs can neither start nor finish one by writing it."""
    binding = {"metadata": {"name": f"somebody-{role}"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
               "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"somebody-{role}"}]}
    assert api.request("POST", f"{RBAC}/namespaces/{stage.namespace}/rolebindings", binding).code in (201, 409)
    about = dict(zip(("resource", "subresource"), resource.split("/")))
    asked = {"user": f"somebody-{role}", "resourceAttributes": {
        **about, "group": "thole.dev", "verb": verb, "namespace": stage.namespace, "name": "lenet"}}
    answer = lambda: api.request("POST", "apis/authorization.k8s.io/v1/subjectaccessreviews",  # noqa: E731
                                 {"spec": asked}).object["status"]["allowed"]
    if allowed:
        until(answer, 30, "the right to be given")  # the roles are put together by a controller
    else:
        assert not answer()
