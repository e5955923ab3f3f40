"""Several operators of which one acts: who each of them is in the API server's audit log, and what they wrote when."""

import datetime
import pathlib
import secrets
import subprocess

import yaml

LEASE = "thole-operator"
WRITES = ("create", "update", "patch", "delete", "deletecollection")

# Short, so that tests need not wait for a quarter of a minute, and long enough for a machine that is busy.
QUICK = ("--leader-elect", "--leader-elect-lease-duration=6s", "--leader-elect-renew-deadline=4s",
         "--leader-elect-retry-period=500ms")
# For a leader that cannot renew while the test still has something to do with it.
LASTING = ("--leader-elect", "--leader-elect-lease-duration=25s", "--leader-elect-renew-deadline=20s",
           "--leader-elect-retry-period=500ms")
# A Lease that does not run out while a test runs: who takes it was given it.
PATIENT = ("--leader-elect", "--leader-elect-lease-duration=1h", "--leader-elect-renew-deadline=59m",
           "--leader-elect-retry-period=1s")


def administrator(plane, directory, name, server="admin"):
    """A kubeconfig for an administrator of this name, who reaches the API server as the context `server` does."""
    key, request, certificate = (directory / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
    authority = [plane.directory / f"ca.{kind}" for kind in ("crt", "key")]
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
            "-subj", f"/O=system:masters/CN={name}", "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", authority[0], "-CAkey", authority[1], "-set_serial",
            str(secrets.randbits(63)), "-days", "2", "-out", certificate)
    config = yaml.safe_load(pathlib.Path(plane.kubeconfig).read_text())
    context = next(item["context"] for item in config["contexts"] if item["name"] == server)
    cluster = next(item["cluster"] for item in config["clusters"] if item["name"] == context["cluster"])
    path = directory / f"{name}.kubeconfig"
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "only",
        "clusters": [{"name": "only", "cluster": {**cluster, "certificate-authority": str(authority[0])}}],
        "users": [{"name": name, "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
        "contexts": [{"name": "only", "context": {"cluster": "only", "user": name}}]}))
    return path


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def leads(operator):
    return operator.alive() and operator.metric("leader_election_master_status") == 1


def when(event, stamp):
    return datetime.datetime.fromisoformat(event[stamp].replace("Z", "+00:00"))


def accepted(events, user, resource=None):
    """The writes of a user that were done, without the Lease's unless asked for: (event, when it was answered)."""
    for event in events:
        about = event.get("objectRef", {}).get("resource")
        wanted = about == resource if resource else about != "leases"
        if (event["user"]["username"] == user and event["verb"] in WRITES and wanted
                and event.get("responseStatus", {}).get("code", 500) // 100 == 2):
            yield event


def taken_over(events, user):
    """When this user first got the Lease: what others write is late from then on."""
    return min((when(event, "stageTimestamp") for event in accepted(events, user, "leases")), default=None)


def describe(event):
    about = event.get("objectRef", {})
    code = event.get("responseStatus", {}).get("code")
    return (f"{event['requestReceivedTimestamp']} {event['user']['username']}: {event['verb']} {about.get('resource')} "
            f"{about.get('namespace')}/{about.get('name')} {about.get('subresource', '')}: {code}")
