"""Shows a TrainJob as it trains, and, when it has ended, its history from the status and from MongoDB.

usage: follow.py [--context NAME] NAMESPACE NAME
"""

import argparse
import re
import subprocess
import sys
import time

import pymongo
from kubernetes import client, config, watch

GROUP, VERSION, PLURAL = "thole.dev", "v1alpha1", "trainjobs"


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--context")
    parser.add_argument("namespace")
    parser.add_argument("name")
    arguments = parser.parse_args()
    config.load_kube_config(context=arguments.context)

    job = follow(arguments.namespace, arguments.name)
    status = job["status"]
    if status["phase"] == "Failed":
        sys.exit(failure(status))
    print(f"\nhistory in the status of the TrainJob:\n{table(status['history'])}")
    print(f"\nhistory in MongoDB, database thole, collection history, _id {job['metadata']['uid']}:")
    print(table(from_mongodb(arguments.context, job)))
    print(f"\nmodel: {model_file(job)}\nsha256 {status['model']['sha256']}, {status['model']['bytes']} bytes")


def follow(namespace, name):
    """Prints what changes until the job has ended, and returns the job."""
    api = client.CustomObjectsApi()
    display = Display()
    while True:
        try:
            stream = watch.Watch().stream(api.list_namespaced_custom_object, GROUP, VERSION, namespace, PLURAL,
                                          field_selector=f"metadata.name={name}", timeout_seconds=60)
            for event in stream:
                job = event["object"]
                if event["type"] == "DELETED":
                    sys.exit(f"the TrainJob {name} was deleted")
                display.show(job)
                if job.get("status", {}).get("phase") in ("Succeeded", "Failed"):
                    return settled(api, job)
        except client.ApiException as error:
            if error.status != 410:  # the version that it would have gone on from is forgotten: list again
                raise


def settled(api, job):
    """The job once MongoDB has its history too, or after a minute."""
    deadline = time.monotonic() + 60
    while not condition(job, "HistorySynced") and time.monotonic() < deadline:
        time.sleep(0.5)
        job = api.get_namespaced_custom_object(GROUP, VERSION, job["metadata"]["namespace"], PLURAL,
                                               job["metadata"]["name"])
    return job


def condition(job, kind):
    return any(c["type"] == kind and c["status"] == "True" for c in job["status"].get("conditions", []))


class Display:
    """One line an epoch, one for each new message, and on a terminal a last line that moves."""

    def __init__(self):
        self.moving = sys.stdout.isatty()
        self.epochs = 0
        self.message = None
        self.percent = None

    def show(self, job):
        status, training = job.get("status", {}), job["spec"]["training"]
        for entry in status.get("history", []):
            if entry["epoch"] > self.epochs:
                self.epochs = entry["epoch"]
                self.line(f"epoch {entry['epoch']} of {training['epochs']}   {describe(entry)}")
        if status.get("message") not in (None, self.message):
            self.message = status["message"]
            self.line(f"{status.get('phase', 'Pending')}: {self.message}")
        if status.get("phase") == "Running" and "step" in status:
            progress = f"step {status['step']}   {status.get('progressPercent', 0)} %" + (
                f"   loss {status['trainLoss']:.4f}" if "trainLoss" in status else "")
            if self.moving:
                print(f"\r\033[K    {progress}", end="", flush=True)
            elif status.get("progressPercent") != self.percent:
                self.percent = status.get("progressPercent")
                self.line(progress)

    def line(self, text):
        print(("\r\033[K" if self.moving else "") + f"    {text}", flush=True)


def describe(entry):
    parts = [f"train loss {entry['trainLoss']:.4f}"]
    if "validationLoss" in entry:
        parts.append(f"validation loss {entry['validationLoss']:.4f}")
    if "accuracy" in entry:
        parts.append(f"accuracy {entry['accuracy']:.2f} %")
    parts += [f"{entry['parallelism']} workers", f"{entry['durationSeconds']:.1f} s"]
    return "   ".join(parts)


def failure(status):
    last = status.get("lastFailure", {})
    facts = ", ".join(f"{key} {last[key]}" for key in ("pod", "node", "container", "exitCode", "signal", "reason")
                      if last.get(key) not in (None, ""))
    return "\n".join(filter(None, [f"\nthe job failed: {status.get('message', 'without a word')}", facts,
                                   last.get("message"), last.get("logTail")]))


def table(history):
    rows = [("epoch", "train loss", "val. loss", "accuracy", "workers", "seconds")]
    for entry in history:
        rows.append((str(entry["epoch"]), f"{entry['trainLoss']:.4f}", number(entry.get("validationLoss"), 4),
                     number(entry.get("accuracy"), 2), f"{entry['parallelism']:g}", f"{entry['durationSeconds']:.1f}"))
    return "\n".join("    " + "".join(f"{cell:>12}" for cell in row) for row in rows)


def number(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def from_mongodb(context, job):
    """The record's arrays, as entries like those of the status."""
    kubectl = ["kubectl", *(["--context", context] if context else []), "-n", "thole-system"]
    forward = subprocess.Popen([*kubectl, "port-forward", "deployment/mongodb", ":27017", "--address", "127.0.0.1"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        if port is None:
            sys.exit("kubectl port-forward to MongoDB failed")
        with pymongo.MongoClient("127.0.0.1", int(port[1]), serverSelectionTimeoutMS=10000) as mongo:
            record = mongo["thole"]["history"].find_one({"_id": job["metadata"]["uid"]})
    finally:
        forward.terminate()
        forward.wait()
    if record is None:
        sys.exit("MongoDB has no record of this job")
    data = record["data"]

    def at(field, index):
        values = data.get(field, [])
        return values[index] if index < len(values) else None

    return [{"epoch": index + 1, "trainLoss": loss, "validationLoss": at("validation_loss", index),
             "accuracy": at("accuracy", index), "parallelism": at("parallelism", index),
             "durationSeconds": at("epoch_duration", index)} for index, loss in enumerate(data["train_loss"])]


def model_file(job):
    volume, path = job["spec"].get("output", {}).get("volume", {}), job["status"]["model"]["path"]
    if "hostPath" in volume:
        return f"{volume['hostPath']['path']}/{path}"
    if "persistentVolumeClaim" in volume:
        return f"{path} in the claim {volume['persistentVolumeClaim']['claimName']}"
    return path


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the job goes on: kubectl get trainjobs.thole.dev --watch")
