"""Everything below config/ is what an API server takes, to the letter, and no pod asks for more than it needs."""

import pytest
import yaml

from support.manifests import dataset, trainjob
from support.plane import ROOT

FOLDERS = sorted(str(file.parent.relative_to(ROOT)) for file in ROOT.glob("config/**/kustomization.yaml")
                 if yaml.safe_load(file.read_text())["kind"] == "Kustomization")


def rendered(plane, folder):
    return [item for item in yaml.safe_load_all(plane.kubectl("kustomize", str(ROOT / folder)).stdout) if item]


def pods(objects):
    return [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]


@pytest.fixture(scope="module")
def namespaces(plane):
    for name in ("thole-system", "team-a"):
        plane.kubectl("create", "namespace", name, check=False)
        plane.kubectl("label", "--overwrite", "namespace", name, "pod-security.kubernetes.io/warn=restricted")


def problems(plane, text):
    """What the API server, asked to be strict, and Pod Security say against it."""
    done = plane.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
                         text=text, check=False)
    return done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_installed_is_valid(plane, namespaces, folder):
    objects = rendered(plane, folder)
    assert problems(plane, yaml.safe_dump_all(objects)) == ""
    for pod in pods(objects):
        for container in pod["containers"]:
            names = [variable["name"] for variable in container.get("env", [])]
            assert len(names) == len(set(names)), names


def test_samples_are_valid(plane, namespaces):
    for sample in sorted((ROOT / "config/samples").glob("*.yaml")):
        assert problems(plane, sample.read_text()) == ""


def test_one_namespace_is_left_by_nothing(plane):
    """Of the installation with Roles: nothing is the cluster's, and nothing names another namespace."""
    objects = rendered(plane, "config/overlays/namespaced")
    text = yaml.safe_dump_all(objects)
    assert "thole-system" not in text
    assert {item["metadata"].get("namespace") for item in objects} == {"team-a"}
    (pod,) = pods(objects)
    assert "--namespace=$(POD_NAMESPACE)" in pod["containers"][0]["args"]


def test_jobs_run_at_the_restricted_level(plane, cluster, namespace, start_operator):
    """But for directories of nodes, which Pod Security lets nobody use there."""
    plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    start_operator()
    claim = {"persistentVolumeClaim": {"claimName": "files"}}
    files = dataset()
    files["spec"]["source"] = claim
    cluster.create(files, namespace)
    cluster.create(trainjob(output={"volume": claim}), namespace)
    cluster.wait_list("Pod", namespace, lambda pods: len(pods) == 3, 60, "a parameter server and two workers")
