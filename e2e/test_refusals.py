"""Mistakes: each gives one clear sentence where a user looks, and nothing else suffers."""

import gzip
import json
import pathlib

import pytest
import yaml
from kubernetes.dynamic.exceptions import DynamicApiError

from support.cluster import condition_of, status_of
from support.manifests import dataset, merged, trainjob

QUICK = {"model": {"zoo": "mlp"}, "training": {"epochs": 1}}
HOPELESS = {**QUICK, "runPolicy": {"backoffLimit": 1}}

ROOT = pathlib.Path(__file__).resolve().parents[1]
CASES = list(yaml.safe_load_all((ROOT / "crds/cases.yaml").read_text()))


def refused(cluster, namespace, manifest, words):
    with pytest.raises(DynamicApiError) as refusal:
        cluster.create(manifest, namespace)
    assert refusal.value.status == 422, refusal.value.body
    message = json.loads(refusal.value.body)["message"]
    for word in words:
        assert word in message, f"'{word}' is not said: {message}"


@pytest.fixture(scope="module")
def one_namespace(cluster):
    """For what is never created: one namespace serves all."""
    name = cluster.core.create_namespace({"metadata": {"generateName": "e2e-refusals-"}}).metadata.name
    yield name
    cluster.delete("Namespace", name)


@pytest.mark.parametrize("case", CASES, ids=[f"{case['kind']}: {case['name']}" for case in CASES])
def test_refused_when_applied(cluster, one_namespace, case):
    sample = yaml.safe_load((ROOT / f"config/samples/{case['kind'].lower()}.yaml").read_text())
    refused(cluster, one_namespace, merged(sample, case["change"]), case["says"])


def test_kubectl_shows_the_sentence(kubectl, namespace):
    wrong = yaml.safe_dump(trainjob(model={"zoo": "resnet50"}))
    said = kubectl("-n", namespace, "apply", "-f", "-", input=wrong, fails=True)
    assert 'spec.model.zoo: Unsupported value: "resnet50": supported values: "mlp", "lenet"' in said


def test_kubectl_warns_of_unknown_fields(kubectl, namespace):
    wrong = yaml.safe_dump(merged(trainjob(), {"spec": {"training": {"epoch": 3}}}))
    assert 'unknown field "spec.training.epoch"' in kubectl("-n", namespace, "apply", "-f", "-", input=wrong, fails=True)


def test_a_path_that_is_not_allowed(submit, cluster):
    job = submit(trainjob(**QUICK), dataset("/etc"))
    found = cluster.wait("Dataset", "fashion-mnist", job.namespace,
                         lambda d: status_of(d).get("phase") == "Failed", 20, "Failed")
    for word in ("/etc", "--allowed-host-paths"):
        assert word in status_of(found)["message"]
    job.says("fashion-mnist", "--allowed-host-paths")
    assert not cluster.list("Pod", job.namespace)


@pytest.mark.parametrize("path", ["/usr/share/datasets/../../../etc", "/usr/share/datasets-secret", "//etc", "/"])
def test_ways_around_the_allowed_paths(cluster, namespace, path):
    """Neither a parent nor a longer name of an allowed folder is below it."""
    try:
        cluster.create(dataset(path), namespace)
    except DynamicApiError as refusal:
        assert refusal.status == 422
        return
    cluster.wait("Dataset", "fashion-mnist", namespace, lambda d: status_of(d).get("phase") == "Failed", 20, "Failed")


def test_an_output_that_is_not_allowed(submit, cluster):
    job = submit(trainjob(**QUICK, output={"volume": {"hostPath": {"path": "/root"}}}), dataset(), keeps_output=True)
    job.says("spec.output.volume.hostPath.path", "/root", "--allowed-host-paths")
    assert not cluster.list("Pod", job.namespace)


def test_a_dataset_that_does_not_exist_yet(submit, cluster, small_hosted):
    """It is waited for, and said so; when it comes, the job goes its way."""
    job = submit(trainjob(**QUICK))
    job.says("fashion-mnist", job.namespace)
    assert status_of(job.get())["phase"] == "Pending"
    cluster.create(dataset(small_hosted), job.namespace)
    job.succeeded(60)


def test_a_folder_that_does_not_exist(submit):
    job = submit(trainjob(**QUICK), dataset("/usr/share/datasets/nothing-here"))
    found = job.says("/usr/share/datasets/nothing-here", seconds=60)
    assert status_of(found)["phase"] in ("Starting", "Failed")


def test_a_file_that_does_not_exist(submit, small_hosted):
    job = submit(trainjob(**HOPELESS), dataset(small_hosted, train={"features": "trian-images.gz"}))
    job.says("trian-images.gz", seconds=15)
    failed = job.failed(60)
    assert "trian-images.gz" in status_of(failed)["message"]
    assert condition_of(failed, "Failed")[0] == "True"
    assert condition_of(failed, "Stalled")[0] == "True"
    job.cluster.wait_list("Pod", job.namespace, lambda pods: not pods, 60, "gone, since the job failed")


@pytest.mark.parametrize("cut", ["in its gzip stream", "in its contents"])
def test_a_truncated_file(submit, host, cut):
    data = host(f"truncated {cut}".replace(" ", "-"), train=500, test=100)
    file = data / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-300] if "gzip" in cut else gzip.compress(gzip.decompress(whole)[:-300]))
    job = submit(trainjob(**HOPELESS), dataset(data))
    job.says(file.name, "cut off", "copy it again", seconds=15)
    assert "cut off" in status_of(job.failed(60))["message"]


def test_an_image_that_does_not_exist(submit):
    template = {"spec": {"containers": [{"name": "trainer", "image": "nowhere.invalid/thole:none"}]}}
    job = submit(trainjob(**QUICK, template=template), dataset())
    job.says("nowhere.invalid/thole:none", f"{job.name}-ps-0", seconds=60)


def test_pods_that_fit_nowhere(submit):
    container = {"name": "trainer", "resources": {"requests": {"cpu": "1000"}}}
    job = submit(trainjob(**QUICK, template={"spec": {"containers": [container]}}), dataset())
    job.says("Insufficient cpu", seconds=30)
