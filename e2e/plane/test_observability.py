"""What the operator shows of itself: metrics, logs, Events, and on demand all it knows of one job."""

import collections
import json
import pathlib
import re

from prometheus_client.parser import text_string_to_metric_families

from support import manifests, stage
from support.cluster import condition_of, status_of
from support.coordinators import Script
from support.plane import ROOT, until

# What dashboards for controller-runtime, client-go and processes ask for.
FAMILIES = {
    "workqueue_adds": ("counter", {"name", "controller"}),
    "workqueue_depth": ("gauge", {"name", "controller", "priority"}),
    "workqueue_queue_duration_seconds": ("histogram", {"name", "controller"}),
    "workqueue_work_duration_seconds": ("histogram", {"name", "controller"}),
    "workqueue_retries": ("counter", {"name", "controller"}),
    "workqueue_unfinished_work_seconds": ("gauge", {"name", "controller"}),
    "workqueue_longest_running_processor_seconds": ("gauge", {"name", "controller"}),
    "controller_runtime_reconcile": ("counter", {"controller", "result"}),
    "controller_runtime_reconcile_errors": ("counter", {"controller"}),
    "controller_runtime_reconcile_time_seconds": ("histogram", {"controller"}),
    "controller_runtime_active_workers": ("gauge", {"controller"}),
    "controller_runtime_max_concurrent_reconciles": ("gauge", {"controller"}),
    "rest_client_requests": ("counter", {"code", "method", "host"}),
    "leader_election_master_status": ("gauge", {"name"}),
    "process_cpu_seconds": ("counter", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_max_fds": ("gauge", set()),
    "thole_trainjobs": ("gauge", {"phase"}),
    "thole_sync_steps": ("counter", set()),
    "thole_sync_staleness": ("histogram", set()),
}

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-zA-Z_]\w*="([^"\\\n]|\\["\\n])*",?)*\})? (\S+)$')


def base_name(sample, types):
    """The family that a sample's name belongs to, by the text format's rules."""
    for suffix in ("_bucket", "_sum", "_count"):
        name = sample.removesuffix(suffix)
        if name != sample and types.get(name) in ("histogram", "summary"):
            return name
    return sample


def check_format(text):
    """The text format to the letter: more than what parsers insist on."""
    types, helps, order, seen = {}, set(), [], set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helps, f"two HELPs: {line}"
            helps.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
            order.append(name)
        else:
            match = SAMPLE.match(line)
            assert match, f"no sample: {line}"
            family = base_name(match[1], types)
            assert order and family == order[-1], f"not below its TYPE: {line}"
            assert family in helps, f"no HELP: {line}"
            assert types[family] != "counter" or family.endswith("_total"), f"a counter's name ends with _total: {line}"
            key = line.rsplit(" ", 1)[0]
            assert key not in seen, f"twice: {line}"
            seen.add(key)
            float(match[5])
    assert helps == set(types)


def check_histogram(family):
    series = collections.defaultdict(dict)
    for sample in family.samples:
        labels = frozenset((name, value) for name, value in sample.labels.items() if name != "le")
        part = sample.labels["le"] if sample.name.endswith("_bucket") else sample.name.removeprefix(family.name)
        series[labels][part] = sample.value
    assert series
    for parts in series.values():
        count, total = parts.pop("_count"), parts.pop("_sum")
        bounds = sorted(parts, key=float)
        values = [parts[bound] for bound in bounds]
        assert bounds[-1] == "+Inf" and values[-1] == count and values == sorted(values), (family.name, parts)
        assert total >= 0 and (count > 0 or total == 0)


def finished(job):
    return status_of(job).get("phase") == "Succeeded"


def run_a_job(plane, cluster, namespace, operator, name="tiny", epochs=2):
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(manifests.trainjob(name, training={"epochs": epochs}), namespace)
    with stage.played(plane, operator, namespace, Script(epochs=epochs)):
        return cluster.wait("TrainJob", name, namespace, finished, 120, "its end")


# ---------------------------------------------------------------------------------------------------------- metrics


def test_metrics_have_the_names_and_the_format_that_dashboards_read(plane, cluster, namespace, start_operator):
    operator = start_operator("--leader-elect", f"--leader-elect-resource-namespace={namespace}").ready()
    run_a_job(plane, cluster, namespace, operator)
    status, text = operator.get("/metrics")
    assert status == 200
    check_format(text)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name, (kind, labels) in FAMILIES.items():
        family = families[name]
        assert family.type == kind, name
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, sample
        if kind == "histogram":
            check_histogram(family)
    assert operator.metric("leader_election_master_status") == 1
    assert operator.metric("controller_runtime_reconcile_total", controller="trainjob", result="success") > 0
    assert operator.metric("workqueue_queue_duration_seconds_count", controller="trainjob") > 0
    assert operator.metric("thole_trainjobs", phase="Succeeded") >= 1
    assert 1e6 < operator.metric("process_resident_memory_bytes") < 1e10


def test_requests_are_counted_as_the_api_server_counts_them(plane, cluster, namespace, start_operator):
    begin = plane.audit_position()
    operator = start_operator(f"--namespace={namespace}").ready()
    job = run_a_job(plane, cluster, namespace, operator)
    cluster.delete("TrainJob", "tiny", namespace)
    cluster.wait_list("TrainJob", namespace, lambda found: not found, 60, "none left")
    methods = {"create": "POST", "patch": "PATCH", "update": "PUT", "delete": "DELETE"}

    def difference():
        audited = collections.Counter(
            (methods[entry["verb"]], str(entry.get("responseStatus", {}).get("code", 0))) for entry in plane.audited(begin)
            if entry["userAgent"].startswith("thole-operator") and entry["verb"] in methods
            and entry.get("objectRef", {}).get("namespace") == namespace)
        counted = {(method, code): operator.metric("rest_client_requests_total", method=method, code=code)
                   for method in methods.values() for code in ("200", "201", "404", "409")}
        return {key: (counted.get(key, 0), audited.get(key, 0)) for key in {*counted, *audited}
                if counted.get(key, 0) != audited.get(key, 0)}

    until(lambda: not difference(), 30, lambda: f"(counted, audited) to be the same: {difference()}")
    assert job["status"]["epoch"] == 2


# ------------------------------------------------------------------------------------------------------------- logs


def test_lines_of_a_reconcile_say_which_job_and_which_run(cluster, namespace, start_operator):
    operator = start_operator(f"--namespace={namespace}").ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    cluster.create(manifests.trainjob("tiny"), namespace)
    cluster.wait("TrainJob", "tiny", namespace, lambda job: "workers" in status_of(job), 60, "a status")
    runs = until(lambda: [line for line in operator.lines() if line["message"] == "reconciled"], 30, "a run's end")
    for line in operator.lines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("debug", "info", "warn", "error") and line["message"]
        if line.get("controller") == "trainjob":
            assert line["job"] == f"{namespace}/tiny" and line["reconcileID"], line
    ids = [line["reconcileID"] for line in runs]
    assert len(set(ids)) == len(ids), "a run has an id of its own"
    assert {line["result"] for line in runs} <= {"success", "requeue_after", "error"}
    done = until(lambda: [line for line in operator.lines() if line["message"] == "done" and line["kind"] == "Service"],
                 30, "the Service to be made")
    assert (done[0]["what"], done[0]["name"], done[0]["job"]) == ("create", "tiny", f"{namespace}/tiny")


def test_text_is_for_people_and_levels_are_kept(cluster, namespace, start_operator):
    operator = start_operator(f"--namespace={namespace}", "--log-format=text", "--log-level=info")
    until(lambda: " info  ready" in operator.log(), 60, lambda: operator.complaint("a line that says it is ready"))
    cluster.create(manifests.dataset("/etc/passwd"), namespace)
    cluster.wait("Dataset", "fashion-mnist", namespace, lambda d: status_of(d).get("phase") == "Failed", 30, "refused")
    for line in operator.log().splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info|warn|error) +\S", line), line


# ------------------------------------------------------------------------------------------------------------ debug


def test_one_job_can_be_looked_at_where_that_is_asked_for(cluster, namespace, start_operator):
    operator = start_operator(f"--namespace={namespace}", "--debug").ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    secret = {"name": "trainer", "env": [{"name": "PASSWORD", "value": "sesame-open"}]}
    cluster.create(manifests.trainjob("tiny", template={"spec": {"containers": [secret]}}), namespace)
    cluster.wait("TrainJob", "tiny", namespace, lambda job: status_of(job).get("workers", {}).get("ready") == 2, 60,
                 "two workers")

    def look(key):
        status, text = operator.get(f"/debug/trainjob?key={key}")
        assert status == 200, text
        assert "sesame-open" not in text
        return json.loads(text)

    key = f"{namespace}/tiny"
    until(lambda: look(key)["queue"]["state"] == "absent", 60, lambda: f"nothing to do: {look(key)['queue']}")
    seen = look(key)
    job = cluster.get("TrainJob", "tiny", namespace)
    until(lambda: look(key)["cache"]["watchedVersion"] == job["metadata"]["resourceVersion"], 30, "the newest version")
    assert seen["cache"]["object"]["metadata"]["uid"] == seen["memory"]["uid"] == job["metadata"]["uid"]
    assert set(seen["deployments"]) == {f"{key}-ps-0", f"{key}-worker"}
    assert len(seen["pods"]) == 3 and len(seen["services"]) == len(seen["networkpolicies"]) == 1
    assert seen["memory"]["attempts"]["secretMade"] and not seen["memory"]["reports"]["connected"]

    absent = look(f"{namespace}/absent")
    assert absent["queue"]["state"] == "absent" and "object" not in absent["cache"] and "memory" not in absent
    for path in ("/debug/trainjob", "/debug/", "/debug/dataset?key=a/b"):
        assert operator.get(path)[0] == 404


def test_nothing_is_shown_where_it_is_not_asked_for(start_operator):
    assert start_operator().ready().get("/debug/trainjob?key=a/b")[0] == 404


# ----------------------------------------------------------------------------------------------------------- events


def documented():
    """The reasons of config/reasons.md, each with whether its Event is a warning."""
    rows = re.findall(r"^\| `(\w+)` \| (yes)? ?\|", pathlib.Path(ROOT, "config", "reasons.md").read_text(), re.MULTILINE)
    return {name: bool(warning) for name, warning in rows}


def events_of(cluster, namespace, kind="TrainJob"):
    return [event for event in cluster.list("Event", namespace) if event["involvedObject"]["kind"] == kind]


def test_turns_of_a_job_are_events_with_documented_reasons(plane, cluster, namespace, start_operator):
    operator = start_operator(f"--namespace={namespace}").ready()
    job = run_a_job(plane, cluster, namespace, operator)
    outside = manifests.trainjob("outside", output={"volume": {"hostPath": {"path": "/etc"}}})
    cluster.create(outside, namespace)
    cluster.wait("TrainJob", "outside", namespace, lambda j: condition_of(j, "Stalled")[1] == "InvalidSpec", 60, "stalled")
    told = lambda: {(e["involvedObject"]["name"], e["reason"]) for e in events_of(cluster, namespace)}
    wanted = {("tiny", "Succeeded"), ("outside", "InvalidSpec")}
    until(lambda: told() - {("tiny", "Running")} == wanted, 30, lambda: f"Events {wanted}, not {told()}")
    reasons = documented()
    for event in events_of(cluster, namespace):
        assert event["type"] == ("Warning" if reasons[event["reason"]] else "Normal")
        assert event["reportingComponent"] == "thole.dev/thole-operator" and event["reportingInstance"]
        assert event["involvedObject"]["apiVersion"] == "thole.dev/v1alpha1" and event["message"]
        if event["involvedObject"]["name"] == "tiny":
            assert event["involvedObject"]["uid"] == job["metadata"]["uid"]
    for item in (*cluster.list("TrainJob", namespace), *cluster.list("Dataset", namespace)):
        for condition in item["status"]["conditions"]:
            assert condition["reason"] in reasons, condition


# ------------------------------------------------------------------------------------- namespaces that are going away


def test_a_namespace_that_goes_is_no_stream_of_warnings(cluster, namespace, start_operator):
    operator = start_operator(f"--namespace={namespace}").ready()
    cluster.create(manifests.dataset("/data/fashion-mnist"), namespace)
    for number in range(5):
        cluster.create(manifests.trainjob(f"job-{number}"), namespace)
    cluster.delete("Namespace", namespace)
    until(lambda: cluster.get("Namespace", namespace) is None, 120, "the namespace to be gone")
    loud = [line for line in operator.lines() if line["level"] in ("warn", "error")]
    assert not loud, loud
    quiet = [line for line in operator.lines() if line["level"] == "info" and "is being deleted" in line["message"]]
    assert len(quiet) <= 1, quiet
