"""A cluster as the tests use it: objects by kind and name, and waiting for what they become.

Waiting is by watch with a deadline, and a wait in vain says what was there instead: the namespace's objects, events and
logs. Nothing here knows what a test wants.
"""

import time

from kubernetes import client, dynamic
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import DynamicApiError, NotFoundError

GROUP = "thole.dev/v1alpha1"
SYSTEM = "thole-system"

KINDS = {
    "TrainJob": GROUP,
    "Dataset": GROUP,
    "Deployment": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Lease": "coordination.k8s.io/v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Pod": "v1",
    "Service": "v1",
    "Secret": "v1",
    "Event": "v1",
    "Node": "v1",
    "Namespace": "v1",
}


class Cluster:
    def __init__(self, api_client):
        self.core = client.CoreV1Api(api_client)
        self._dynamic = dynamic.DynamicClient(api_client)
        self._resources = {}

    def resource(self, kind):
        if kind not in self._resources:
            self._resources[kind] = self._dynamic.resources.get(api_version=KINDS[kind], kind=kind)
        return self._resources[kind]

    def create(self, manifest, namespace):
        return self.resource(manifest["kind"]).create(body=manifest, namespace=namespace).to_dict()

    def get(self, kind, name, namespace=None):
        """The object, or None."""
        try:
            return self.resource(kind).get(name=name, namespace=namespace).to_dict()
        except NotFoundError:
            return None

    def list(self, kind, namespace=None, **selectors):
        return self.resource(kind).get(namespace=namespace, **selectors).to_dict()["items"]

    def patch(self, kind, name, namespace, body):
        return (
            self.resource(kind)
            .patch(name=name, namespace=namespace, body=body, content_type="application/merge-patch+json")
            .to_dict()
        )

    def delete(self, kind, name, namespace=None, **options):
        """Deletes; fine where it is gone already."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", **options}
        try:
            self.resource(kind).delete(name=name, namespace=namespace, body=body)
        except NotFoundError:
            pass

    def wait(self, kind, name, namespace, condition, seconds, what):
        """Waits until condition(object, or None where there is none) is true and returns that object.

        `condition` may raise AssertionError where what it waits for cannot come any more.
        """
        return self._wait(kind, namespace, f"metadata.name={name}", None, lambda found: found[0] if found else None,
                          condition, seconds, f"{kind} {name}: {what}")

    def wait_list(self, kind, namespace, condition, seconds, what, label_selector=None):
        """Waits until condition(list of objects) is true and returns the list."""
        return self._wait(kind, namespace, None, label_selector, lambda found: found, condition, seconds,
                          f"{kind}s{f' with {label_selector}' if label_selector else ''}: {what}")

    def _wait(self, kind, namespace, field_selector, label_selector, shape, condition, seconds, what):
        selectors = {"namespace": namespace, "field_selector": field_selector, "label_selector": label_selector}
        try:
            for objects in self._observe(self.resource(kind), time.monotonic() + seconds, selectors):
                if condition(shape(objects)):
                    return shape(objects)
        except AssertionError as error:
            raise AssertionError(f"{error}, while waiting for {what}\n{self.describe(namespace)}") from None
        raise AssertionError(f"waited {seconds} s in vain for {what}\n{self.describe(namespace)}")

    @staticmethod
    def _observe(resource, deadline, selectors):
        """All selected objects, at once and after every change, until the deadline."""
        while True:
            listed = resource.get(**selectors).to_dict()
            objects = {item["metadata"]["uid"]: item for item in listed["items"]}
            yield list(objects.values())
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                for event in resource.watch(resource_version=listed["metadata"]["resourceVersion"],
                                            timeout=max(1, int(left)), **selectors):
                    item = event["raw_object"]
                    if event["type"] == "DELETED":
                        objects.pop(item["metadata"]["uid"], None)
                    elif event["type"] in ("ADDED", "MODIFIED"):
                        objects[item["metadata"]["uid"]] = item
                    else:  # BOOKMARK is not asked for; ERROR means: list again
                        break
                    yield list(objects.values())
                    if time.monotonic() > deadline:
                        break
            except (DynamicApiError, ApiException) as error:
                if error.status != 410:
                    raise

    def log(self, pod, namespace, container=None, previous=False, lines=None):
        try:
            return self.core.read_namespaced_pod_log(pod, namespace, container=container, previous=previous,
                                                     tail_lines=lines)
        except ApiException as error:
            return f"(no log: {error.reason})"

    def describe(self, namespace):
        """What a person would look at after a failure."""
        if namespace is None:
            return ""
        text = [f"---- namespace {namespace}"]
        for kind in ("Dataset", "TrainJob"):
            for item in self.list(kind, namespace):
                status = {key: value for key, value in item.get("status", {}).items() if key != "history"}
                text.append(f"{kind} {item['metadata']['name']}: {status}")
        for item in self.list("Deployment", namespace):
            conditions = [f"{c['type']}={c['status']} {c.get('message', '')}"
                          for c in item.get("status", {}).get("conditions", [])]
            text.append(f"Deployment {item['metadata']['name']}: {item['spec'].get('replicas')} wanted; {conditions}")
        for item in sorted(self.list("Event", namespace), key=lambda e: e["metadata"]["creationTimestamp"]):
            about = item["involvedObject"]
            text.append(f"Event {about['kind']} {about['name']}: {item['reason']}: {item['message']}")
        for pod in self.list("Pod", namespace):
            name, status = pod["metadata"]["name"], pod["status"]
            states = [{key: c.get(key) for key in ("name", "restartCount", "state", "lastState")}
                      for c in status.get("containerStatuses", [])]
            text.append(f"Pod {name} on {pod['spec'].get('nodeName')}: {status.get('phase')} {states}")
            for previous in (True, False):
                log = self.log(name, namespace, previous=previous, lines=15)
                if not log.startswith("(no log"):
                    text += [f"  {'before' if previous else 'log'}: {line}" for line in log.splitlines()]
        operators = self.list("Pod", SYSTEM, label_selector="app.kubernetes.io/name=thole-operator")
        for pod in operators:
            text.append(f"operator {pod['metadata']['name']}: {pod['status'].get('phase')}")
            text += [f"  log: {line}" for line in self.log(pod["metadata"]["name"], SYSTEM, lines=20).splitlines()]
        return "\n".join(text)


def condition_of(item, kind):
    """(status, reason, message) of one of the object's conditions; (None, None, None) where it has none."""
    for condition in ((item or {}).get("status") or {}).get("conditions", []):
        if condition["type"] == kind:
            return condition["status"], condition.get("reason"), condition.get("message")
    return None, None, None


def status_of(item):
    return (item or {}).get("status") or {}


def leading_operator(cluster, other_than=None):
    """The operator's pod that holds the Lease, once one does that is not `other_than`."""

    def pod_of(lease):
        return ((lease or {}).get("spec", {}).get("holderIdentity") or "").rsplit("_", 1)[0]

    lease = cluster.wait("Lease", "thole-operator", SYSTEM, lambda found: pod_of(found) not in ("", other_than), 60,
                         f"held by a pod that is not {other_than}")
    return cluster.get("Pod", pod_of(lease), SYSTEM)
