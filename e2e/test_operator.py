"""The operator as its administrator sees it."""

import re

from kubernetes.client.exceptions import ApiException

from support.cluster import SYSTEM, leading_operator, status_of
from support.manifests import dataset, trainjob


def served(cluster, pod, path):
    """GET from an operator's own port, through the API server."""
    name = pod["metadata"]["name"]
    try:
        return cluster.core.connect_get_namespaced_pod_proxy_with_path(f"{name}:8080", SYSTEM, path)
    except ApiException as error:
        return f"{error.status} {error.body}"


def test_health_and_metrics(cluster, submit, small_hosted):
    """Both operators are healthy and ready; one of them says that it leads, and that is who has the Lease."""
    cluster.wait("Deployment", "thole-operator", SYSTEM, lambda found: found["status"].get("availableReplicas") == 2, 60,
                 "two available")
    submit(trainjob(model={"zoo": "mlp"}, training={"epochs": 1}), dataset(small_hosted)).succeeded(60)
    leader = leading_operator(cluster)
    leading = 'leader_election_master_status{name="thole-operator"} '
    for pod in cluster.list("Pod", SYSTEM, label_selector="app.kubernetes.io/name=thole-operator"):
        if "deletionTimestamp" in pod["metadata"]:
            continue
        for path in ("healthz", "readyz"):
            answer = served(cluster, pod, path)
            assert not re.match(r"[45]\d\d ", answer), f"{pod['metadata']['name']}/{path}: {answer}"
        is_leader = pod["metadata"]["name"] == leader["metadata"]["name"]
        assert f"{leading}{int(is_leader)}\n" in served(cluster, pod, "metrics")
    metrics = served(cluster, leader, "metrics")
    names = set(re.findall(r"^(\w+)", metrics, re.MULTILINE))
    assert any(name.startswith("thole_") for name in names), sorted(names)
    for line in metrics.splitlines():
        assert re.match(r"# (HELP|TYPE) |\w+(\{.*\})? [-+.\deEINFNa]+$", line), f"not Prometheus' text format: {line}"


def test_a_settled_job_costs_no_writes(cluster, submit, small_hosted):
    """Nothing is written about a job that is over, whatever else happens in its namespace."""
    job = submit(trainjob(model={"zoo": "mlp"}, training={"epochs": 1}), dataset(small_hosted))
    job.succeeded(60)
    cluster.wait_list("Pod", job.namespace, lambda pods: not pods, 60, "gone")
    # Its other parts settle; a second job, run through from start to end, is what time is measured by.
    settled = {}

    def quiet(found):
        if settled.get("version") == found["metadata"]["resourceVersion"]:
            return True
        settled["version"] = found["metadata"]["resourceVersion"]
        return False

    job.wait(lambda found: status_of(found).get("workers", {}).get("replicas", 0) == 0, 30, "no pods counted any more")
    quiet(job.get())
    other = submit(trainjob("other", model={"zoo": "mlp"}, training={"epochs": 1}))
    other.succeeded(60)
    assert quiet(job.get()), f"the settled job was written: {status_of(job.get())}"


def test_the_operator_may_do_only_what_it_needs(kubectl):
    """Least privilege, asked of the API server itself."""
    who = f"--as=system:serviceaccount:{SYSTEM}:thole-operator"

    def may(*request):
        return kubectl("auth", "can-i", *request, who, "--all-namespaces", fails=None).strip().splitlines()[-1] == "yes"

    assert may("create", "deployments.apps") and may("patch", "trainjobs.thole.dev/status")
    for request in (("get", "secrets"), ("list", "secrets"), ("watch", "secrets"), ("update", "trainjobs.thole.dev/scale"),
                    ("create", "pods"), ("create", "pods/exec"), ("get", "pods/log"), ("create", "clusterrolebindings"),
                    ("delete", "namespaces"), ("get", "configmaps"), ("impersonate", "users"), ("*", "*")):
        assert not may(*request), f"the operator may {' '.join(request)}"
