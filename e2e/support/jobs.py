"""One TrainJob of a test: what it is, what became of it, and its parts."""

from support.cluster import condition_of, status_of


class Job:
    def __init__(self, cluster, namespace, created, storage):
        self.cluster, self.namespace, self.storage = cluster, namespace, storage
        self.name, self.uid = created["metadata"]["name"], created["metadata"]["uid"]

    def get(self):
        return self.cluster.get("TrainJob", self.name, self.namespace)

    def wait(self, condition, seconds, what):
        return self.cluster.wait("TrainJob", self.name, self.namespace, condition, seconds, what)

    def succeeded(self, seconds=90):
        """Waits until it has succeeded and its history is where it belongs; fails as soon as it cannot any more."""

        def over(job):
            status = status_of(job)
            assert job is not None, f"TrainJob {self.name} is gone"
            assert status.get("phase") != "Failed", f"TrainJob {self.name} failed: {status.get('message')}"
            return status.get("phase") == "Succeeded" and condition_of(job, "HistorySynced")[0] == "True"

        return self.wait(over, seconds, "succeeded, with its history in MongoDB")

    def failed(self, seconds=60):
        def over(job):
            phase = status_of(job).get("phase")
            assert phase != "Succeeded", f"TrainJob {self.name} succeeded"
            return phase == "Failed"

        return self.wait(over, seconds, "failed")

    def epoch(self, number, seconds=60, running=True):
        """Waits until this many epochs are in its history: while it runs, or also when it has succeeded meanwhile."""

        def reached(job):
            phase = status_of(job).get("phase")
            assert phase != "Failed" and not (running and phase == "Succeeded"), \
                f"phase {phase} before epoch {number} was seen"
            return len(status_of(job).get("history", [])) >= number

        return self.wait(reached, seconds, f"{number} epochs in its history")

    def says(self, *words, seconds=30):
        """Waits until its message has all these words."""
        return self.wait(lambda job: all(word in status_of(job).get("message", "") for word in words), seconds,
                         f"message with {', '.join(words)}")

    def pods(self, role):
        """Its pods of a role (ps, worker) that are not on their way out."""
        found = self.cluster.list("Pod", self.namespace, label_selector=f"thole.dev/job={self.name},thole.dev/role={role}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def model(self, job):
        """The model's file, of the object as it was when it had succeeded."""
        return self.storage / status_of(job)["model"]["path"]
