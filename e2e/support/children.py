"""What the operator makes for jobs: whether all of it is there, and nothing else."""

from support.cluster import status_of
from support.plane import until


def amiss(cluster, namespace):
    """What is not as the jobs want it: children that lack or are too many, workers that are not as many as asked for."""
    jobs = {job["metadata"]["uid"]: job for job in cluster.list("TrainJob", namespace)}
    owned = {uid: [] for uid, job in jobs.items() if "deletionTimestamp" not in job["metadata"]}
    found = []
    for kind in ("Deployment", "Service", "NetworkPolicy", "Secret"):
        for child in cluster.list(kind, namespace):
            name = child["metadata"]["name"]
            owner = child["metadata"]["ownerReferences"][0]
            owned.setdefault(owner["uid"], []).append(kind)
            job = jobs.get(owner["uid"])
            if job is None:
                found.append(f"{kind} {name} belongs to no job ({owner['name']})")
            elif name.endswith("-worker") and child["spec"]["replicas"] != job["spec"]["workers"]["replicas"]:
                found.append(f"{name}: {child['spec']['replicas']} and not {job['spec']['workers']['replicas']} replicas")
    for uid, kinds in owned.items():
        if uid in jobs and sorted(kinds) != ["Deployment", "Deployment", "NetworkPolicy", "Secret", "Service"]:
            found.append(f"TrainJob {jobs[uid]['metadata']['name']} has {kinds}, its status {status_of(jobs[uid])}")
    return found


def whole(cluster, namespace, seconds=60):
    """Waits until every job has its children and as many workers as asked for, and no child is nobody's."""
    until(lambda: not amiss(cluster, namespace), seconds,
          lambda: "\n".join(["this to be mended:", *amiss(cluster, namespace)]))
