"""Mistakes that only pods show: each gives one clear sentence where a user looks, and nothing else suffers.

What the API server refuses by itself is in plane/test_validation.py.
"""

import gzip

import pytest

from support.cluster import condition_of, status_of
from support.manifests import dataset, trainjob

QUICK = {"model": {"zoo": "mlp"}, "training": {"epochs": 1}}
HOPELESS = {**QUICK, "runPolicy": {"backoffLimit": 1}}


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
