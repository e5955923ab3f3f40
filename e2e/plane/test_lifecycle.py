"""A job's objects come and go, without a node of this machine."""

from support import manifests
from support.cluster import status_of


def test_a_jobs_children_come_and_go_with_it(cluster, namespace, start_operator):
    start_operator().ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(manifests.trainjob("tiny"), namespace)
    running = lambda job: status_of(job).get("workers", {}).get("ready") == 2  # noqa: E731
    cluster.wait("TrainJob", "tiny", namespace, running, 60, "two workers ready")
    assert len(cluster.list("Deployment", namespace)) == 2
    cluster.delete("TrainJob", "tiny", namespace)
    for kind in ("TrainJob", "Deployment", "Service", "NetworkPolicy", "Secret", "Pod"):
        cluster.wait_list(kind, namespace, lambda found: not found, 60, "none left")
