"""What the CRDs refuse and let through, asked of a real API server: crds/cases.yaml, crds/edits.yaml, and what follows
from the schemas themselves."""

import copy
import itertools
import json

import pytest
import yaml

from support.api import APPLY, JSON_PATCH, MERGE, RESOURCES, Api
from support.cluster import condition_of, status_of
from support.manifests import dataset, merged, trainjob
from support.plane import ROOT, until

STARTED = {"status": {"startTime": "2026-01-02T03:04:05Z"}}


def documents(name):
    return list(yaml.safe_load_all((ROOT / "crds" / name).read_text()))


CASES, EDITS = documents("cases.yaml"), documents("edits.yaml")
SCHEMAS = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
           for name in ("trainjob.yaml", "dataset.yaml") for crd in documents(name)}
WAYS = [(edit, way) for edit in EDITS for way in edit.get("by", ["patch"])]


def sample(kind):
    return yaml.safe_load((ROOT / f"config/samples/{kind.lower()}.yaml").read_text())


@pytest.fixture(scope="module")
def api(plane):
    return Api(plane.kubeconfig)


@pytest.fixture(scope="module")
def space(api):
    """A namespace for all, and names that nobody else has."""
    made = api.request("POST", "api/v1/namespaces", {"metadata": {"generateName": "e2e-validation-"}})
    assert made.ok, made.message
    name = made.object["metadata"]["name"]
    yield name
    api.request("DELETE", f"api/v1/namespaces/{name}")


@pytest.fixture
def create(api, space):
    return lambda manifest: api.request("POST", RESOURCES[manifest["kind"]].format(space), manifest,
                                        fieldValidation="Strict")


def refused(answer, words):
    assert answer.code in (400, 422), f"{answer.code}: {answer.message or 'it was let through'}"
    for word in words:
        assert word in answer.message, f"'{word}' is not said: {answer.message}"


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}: {case['name']}" for case in CASES])
def test_refused_when_applied(create, case):
    refused(create(merged(sample(case["kind"]), case["change"])), case["says"])


SAMPLES = [(path.name, number, document) for path in sorted((ROOT / "config/samples").glob("*.yaml"))
           for number, document in enumerate(yaml.safe_load_all(path.read_text()))]


@pytest.mark.parametrize("name,number,manifest", SAMPLES, ids=[f"{name}, {number}" for name, number, _ in SAMPLES])
def test_samples_are_let_through(api, space, name, number, manifest):
    answer = api.request("POST", RESOURCES[manifest["kind"]].format(space), manifest, dryRun="All",
                         fieldValidation="Strict")
    assert answer.ok, answer.message


# ---- changes


class Subject:
    """One object that exists, made by a server-side apply, and the ways to change it."""

    numbers = itertools.count(1)

    def __init__(self, api, space, edit):
        self.api = api
        self.manifest = merged(sample(edit["kind"]), edit.get("before", {}))
        self.manifest["metadata"]["name"] = f"subject-{next(self.numbers)}"
        self.path = f"{RESOURCES[edit['kind']].format(space)}/{self.manifest['metadata']['name']}"
        made = self.apply({})
        assert made.ok, made.message
        if edit["kind"] == "TrainJob" and edit.get("started", True):
            started = api.request("PATCH", f"{self.path}/status", STARTED, MERGE)
            assert started.ok, started.message

    def merge(self, change, subresource=""):
        return self.api.request("PATCH", self.path + subresource, change, MERGE, fieldValidation="Strict")

    def replace(self, change):
        there = self.api.request("GET", self.path).object
        return self.api.request("PUT", self.path, merged(there, change), fieldValidation="Strict")

    def apply(self, change):
        return self.api.request("PATCH", self.path, merged(self.manifest, change), APPLY, fieldManager="somebody",
                                fieldValidation="Strict")

    def status(self, change):
        return self.merge(change, "/status")

    def scale(self, change):
        return self.merge({"spec": {"replicas": change["spec"]["workers"]["replicas"]}}, "/scale")

    def patch(self, operations):
        return self.api.request("PATCH", self.path, operations, JSON_PATCH, fieldValidation="Strict")


@pytest.mark.parametrize("edit,way", WAYS, ids=[f"{edit['kind']}: {edit['name']}, {way}" for edit, way in WAYS])
def test_a_change(api, space, edit, way):
    subject = Subject(api, space, edit)
    before = api.request("GET", subject.path).object
    answer = getattr(subject, way)(edit["patch" if way == "patch" else "change"])
    if "says" in edit:
        refused(answer, edit["says"])
        assert api.request("GET", subject.path).object == before
    else:
        assert answer.ok, answer.message


# ---- what follows from the schemas


def leaves(schema, path=()):
    """Every value that a user can write: (path, its schema); of lists the first item, of maps the key "key"."""
    for name, child in schema.get("properties", {}).items():
        yield from leaves(child, (*path, name))
    if "items" in schema:
        yield from leaves(schema["items"], (*path, 0))
    if "additionalProperties" in schema:
        yield from leaves(schema["additionalProperties"], (*path, "key"))
    yield path, schema


def written(path, value):
    """An object with only this value."""
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    return value


def spoken(path):
    return "".join(f"[{part}]" if part == 0 else f".{part}" for part in path).removeprefix(".")


LEAVES = [(kind, ("spec", *path), schema) for kind in SCHEMAS
          for path, schema in leaves(SCHEMAS[kind]["properties"]["spec"])]
BOUNDS = {"string": ("maxLength",), "integer": ("minimum", "maximum"), "number": ("minimum", "maximum"),
          "array": ("maxItems",)}


def test_everything_has_a_bound():
    """What has none could grow until etcd refuses the object, and CEL could not tell what its rules cost."""
    for kind, path, schema in LEAVES:
        wanted = BOUNDS.get(schema.get("type"), ())
        if "additionalProperties" in schema:
            wanted = ("maxProperties",)
        for bound in () if "enum" in schema else wanted:
            assert bound in schema, f"{kind} {spoken(path)} has no {bound}"


LONG = [leaf for leaf in LEAVES if "maxLength" in leaf[2] and "x-kubernetes-int-or-string" not in leaf[2]]


@pytest.mark.parametrize("kind,path,schema", LONG, ids=[f"{kind}: {spoken(path)}" for kind, path, _ in LONG])
def test_too_long_a_text(create, kind, path, schema):
    most = schema["maxLength"]
    answer = create(merged(sample(kind), written(path, "x" * (most + 1))))
    refused(answer, [f"{spoken(path)}: Too long: may not be more than {most} bytes"])


@pytest.mark.parametrize("kind,free", [("TrainJob", {"workers", "runPolicy"}), ("Dataset", set())])
def test_no_field_is_forgotten_by_the_freeze(kind, free):
    """One that is added to the schema and not to the rules could be changed under a job."""
    schema = SCHEMAS[kind] if kind == "TrainJob" else SCHEMAS[kind]["properties"]["spec"]
    frozen = {rule["fieldPath"].rsplit(".", 1)[1] for rule in schema["x-kubernetes-validations"]
              if "oldSelf" in rule["rule"]}
    assert frozen == set(SCHEMAS[kind]["properties"]["spec"]["properties"]) - free


MEMBERS = [(kind, path) for kind, path, _ in LEAVES if len(path) > 1 and 0 not in path and "key" not in path]


@pytest.mark.parametrize("kind,path", MEMBERS, ids=[f"{kind}: {spoken(path)}" for kind, path in MEMBERS])
def test_null_is_as_nothing(api, space, kind, path):
    """As an empty `workers:` in a manifest is: the default, or a mistake where there must be something."""

    def answer(is_null):
        manifest = sample(kind)
        at = manifest
        for part in path[:-1]:
            at = at.setdefault(part, {})
        at.pop(path[-1], None)
        if is_null:
            at[path[-1]] = None
        made = api.request("POST", RESOURCES[kind].format(space), manifest, dryRun="All", fieldValidation="Strict")
        return made.object.get("spec"), made.message

    assert answer(True) == answer(False)


MONSTERS = {
    "a number of 400 digits": ({"training": {"epochs": 10**400}}, "number"),
    "a number beyond 64 bits": ({"training": {"seed": 2**64}}, "spec.training.seed"),
    "a number too large for a double": ({"training": {"optimizer": {"learningRate": 10**309}}}, "number"),
    "a list of 100,000": ({"template": {"spec": {"tolerations": [{}] * 100_000}}}, "must have at most 32 items"),
    "a label of two megabytes": ({"template": {"metadata": {"labels": {"a": "x" * 2**21}}}}, "Too long"),
    "more than a request may hold": ({"template": {"metadata": {"labels": {"a": "x" * 2**22}}}}, "too large"),
    "a list of 100,000 layers": ({"model": {"zoo": None, "layers": [{"name": "a", "type": "ReLU"}] * 100_000}},
                                 "must have at most 256 items"),
    "a label's name of a megabyte": ({"template": {"metadata": {"labels": {"x" * 2**20: "a"}}}}, "spec.template.metadata"),
    "a text with a zero byte": ({"datasetRef": {"name": "a\0b"}}, "spec.datasetRef.name"),
    "a text in another script": ({"datasetRef": {"name": "данные"}}, "spec.datasetRef.name"),
}


@pytest.mark.parametrize("monster", MONSTERS)
def test_a_monster_is_refused_like_any_mistake(create, monster):
    change, word = MONSTERS[monster]
    answer = create(merged(sample("TrainJob"), {"spec": change}))
    assert 400 <= answer.code < 500, answer.code
    assert word in answer.message, answer.message[:500]
    assert len(answer.message) < 10_000, "that is no sentence"


LARGE = {
    "TrainJob": {"model": {"zoo": None, "layers": [
        {"name": f"a{'x' * 27}{number}", "type": "Add", "inputs": ["input"] * 8} for number in range(256)]}},
    "Dataset": {"format": "CSV", "train": {"features": "a.csv", "labels": None}, "test": None, "shape": None, "normalize": None,
                "csv": {"labelColumn": "price", "categorical": [
                    {"name": f"column-{column}", "vocabulary": [f"{word:064}" for word in range(40 if column else 1024)]}
                    for column in range(256)]}},
}


@pytest.mark.parametrize("kind", LARGE)
def test_the_largest_that_fits_can_be_made_and_changed(api, space, create, kind):
    """What the rules cost grows with what they look at: the API server ends a request that costs too much."""
    manifest = merged(sample(kind), {"metadata": {"name": "large"}, "spec": LARGE[kind]})
    made = create(manifest)
    assert made.ok, made.message[:1000]
    path = f"{RESOURCES[kind].format(space)}/large"
    for change, subresource in ((STARTED if kind == "TrainJob" else {"status": {"phase": "Ready"}}, "/status"),
                                ({"metadata": {"labels": {"a": "b"}}}, "")):
        answer = api.request("PATCH", path + subresource, change, MERGE)
        assert answer.ok, answer.message[:1000]


def test_what_a_user_writes_into_the_status_is_not_kept(api, space, create):
    manifest = {**sample("TrainJob"), "status": {"startTime": "2026-01-02T03:04:05Z", "phase": "Succeeded"}}
    manifest["metadata"]["name"] = "self-made"
    made = create(manifest)
    assert made.ok and "status" not in made.object
    path = f"{RESOURCES['TrainJob'].format(space)}/self-made"
    replaced = api.request("PUT", path, {**made.object, "status": {"phase": "Succeeded"}})
    assert replaced.ok and "status" not in replaced.object


def test_an_object_from_before_a_rule_can_go_on(plane, api, space):
    """A rule that comes with a newer version does not hold up what was let in before: neither the operator's status nor
    a user's other change, but nobody can make the mistake again."""
    crd = documents("trainjob.yaml")[0]
    text = json.dumps(crd).replace("thole.dev", "ratchet.thole.dev")  # beside the others, which other tests use
    crd = json.loads(text)
    crd["spec"]["names"]["shortNames"], crd["spec"]["names"]["categories"] = [], []
    lax = copy.deepcopy(crd)
    name = lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["datasetRef"][
        "properties"]["name"]
    del name["x-kubernetes-validations"]
    try:
        plane.kubectl("apply", "-f", "-", text=json.dumps(lax))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", crd["metadata"]["name"])
        job = {**sample("TrainJob"), "apiVersion": "ratchet.thole.dev/v1alpha1"}
        job["spec"]["datasetRef"]["name"] = "Not A Name"
        folder = f"apis/ratchet.thole.dev/v1alpha1/namespaces/{space}/trainjobs"
        until(lambda: api.request("POST", folder, job).code in (201, 409), 30, "the kind to be served")
        plane.kubectl("apply", "-f", "-", text=json.dumps(crd))
        job["metadata"]["name"] = "again"
        until(lambda: api.request("POST", folder, job, dryRun="All").code == 422, 30, "the rule to hold")
        path = f"{folder}/lenet"
        for change, subresource in ((STARTED, "/status"), ({"spec": {"workers": {"replicas": 3}}}, ""),
                                    ({"metadata": {"labels": {"a": "b"}}}, "")):
            answer = api.request("PATCH", path + subresource, change, MERGE)
            assert answer.ok, answer.message
    finally:
        plane.kubectl("delete", "crd", crd["metadata"]["name"], "--wait=false", check=False)


# ---- as people see it


@pytest.fixture
def kubectl(plane, space):
    """kubectl with a manifest; returns what it said, and fails where it did not fail as expected."""

    def run(verb, manifest, fails):
        done = plane.kubectl("-n", space, verb, "-f", "-", text=yaml.safe_dump(manifest), check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_kubectl_shows_the_sentence(kubectl):
    wrong = merged(sample("TrainJob"), {"spec": {"model": {"zoo": "resnet50"}}})
    for verb in ("apply", "create"):
        assert 'spec.model.zoo: Unsupported value: "resnet50": supported values: "linear", "logistic"' in kubectl(
            verb, wrong, fails=True)
    wrong = merged(sample("TrainJob"), {"spec": {"training": {"epoch": 3}}})
    assert 'unknown field "spec.training.epoch"' in kubectl("apply", wrong, fails=True)


def test_kubectl_and_a_started_job(api, space, kubectl):
    """What people do with a manifest under version control: apply it again, replace it, take a line out."""
    job = merged(sample("TrainJob"), {"metadata": {"name": "kept"}, "spec": {"training": {"goalAccuracy": 90}}})
    kubectl("apply", job, fails=False)
    path = f"{RESOURCES['TrainJob'].format(space)}/kept"
    assert api.request("PATCH", f"{path}/status", STARTED, MERGE).ok
    kubectl("apply", job, fails=False)
    kubectl("replace", job, fails=False)
    kubectl("apply", merged(job, {"spec": {"workers": {"replicas": 4}}}), fails=False)
    for change in ({"spec": {"training": {"goalAccuracy": None}}}, {"spec": {"training": {"epochs": 6}}}):
        for verb in ("apply", "replace"):
            said = kubectl(verb, merged(job, change), fails=True)
            assert "spec.training: Forbidden: after the job has started only spec.workers.replicas and" in said
            assert "to train with other settings, make another TrainJob" in said


# ---- what only the operator can judge: the directories of nodes that its administrator allowed (here /data)

DIRECTORIES = {"/data": True, "/data/.": True, "//data//mnist/": True, "/etc": False, "/": False, "/database": False,
               "/dat": False, "/./etc/data": False}


def test_directories_that_are_not_allowed(cluster, namespace, start_operator):
    """Neither a parent nor a longer name of an allowed directory is below it; nothing is made of what is not."""
    start_operator("--allowed-host-paths=/data")
    for number, path in enumerate(DIRECTORIES):
        cluster.create(dataset(path, name=f"data-{number}"), namespace)
    for number, (path, allowed) in enumerate(DIRECTORIES.items()):
        found = status_of(cluster.wait("Dataset", f"data-{number}", namespace, lambda d: status_of(d).get("phase"), 60,
                                       "judged"))
        assert found["phase"] == ("Ready" if allowed else "Failed"), path
        assert allowed or (path in found["message"] and "--allowed-host-paths" in found["message"]), found["message"]
    refused_jobs = {"of-data": {"datasetRef": {"name": "data-3"}}, "of-output": {
        "datasetRef": {"name": "data-0"}, "output": {"volume": {"hostPath": {"path": "/root"}}}}}
    for name, change in refused_jobs.items():
        cluster.create(trainjob(name, **change), namespace)
        found = cluster.wait("TrainJob", name, namespace, lambda j: status_of(j).get("message"), 60, "judged")
        assert "--allowed-host-paths" in status_of(found)["message"], status_of(found)
        assert condition_of(found, "Stalled")[0] == "True"
    assert "spec.output.volume.hostPath.path: '/root'" in status_of(found)["message"]
    for kind in ("Secret", "Deployment", "Pod"):
        assert not cluster.list(kind, namespace)
