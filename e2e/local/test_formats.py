"""Every format of a Dataset, plain and compressed, gives the samples that are in it."""

import gzip

import numpy
import pytest

from support import idx, local, tables
from support.manifests import dataset, trainjob

JOB = trainjob(model={"zoo": "mlp"}, training={"epochs": 2, "batchSize": 100, "seed": 5})


def trained(directory, data, job, options=("--workers", 2)):
    directory.mkdir()
    run = local.run(directory, data, job, options=options)
    assert run.returncode == 0, run
    return run


@pytest.fixture(scope="module")
def from_idx(trainer, small_data, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("formats") / "idx", dataset(small_data), JOB)


def npy_of(data, directory, dtype=numpy.uint8, compress=False):
    """The same images and labels as NPY files."""
    directory.mkdir()
    files = {}
    for split, names in idx.FILES.items():
        files[split] = {}
        for member, name in zip(("features", "labels"), names):
            array = idx.read(data / f"{name}.gz")
            if member == "features":
                array = array.reshape(-1, 1, 28, 28).astype(dtype)
            path = directory / f"{split}-{member}.npy"
            numpy.save(path, array)
            if compress:
                path.with_suffix(".npy.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
                path.unlink()
                path = path.with_suffix(".npy.gz")
            files[split][member] = path.name
    return dataset(directory, format="NPY", train=files["train"], test=files["test"])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", ">f8"])
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
def test_npy_is_the_same_as_idx(from_idx, small_data, tmp_path, dtype, compress):
    run = trained(tmp_path / "run", npy_of(small_data, tmp_path / "data", dtype, compress), JOB)
    assert run.sha256 == from_idx.sha256


def test_plain_idx_is_the_same_as_compressed(from_idx, tmp_path):
    idx.write(tmp_path / "plain", compress=False)
    names = {split: dict(zip(("features", "labels"), files)) for split, files in idx.FILES.items()}
    run = trained(tmp_path / "run", dataset(tmp_path / "plain", **names), JOB)
    assert run.sha256 == from_idx.sha256


REGRESSION = {"epochs": 8, "batchSize": 50, "optimizer": {"learningRate": 0.02, "momentum": 0.9}}


def test_csv_prices_are_learned(trainer, tmp_path):
    """Three numbers and two categories; what is left is the noise that was put in, 0.1² and the streets' none."""
    run = trained(tmp_path / "run", tables.dataset(tmp_path / "data"), trainjob(
        datasetRef={"name": "houses"}, model={"zoo": "widedeep"}, training=REGRESSION))  # fmt: skip
    assert run.history[-1]["validationLoss"] < 0.1
    assert "accuracy" not in run.history[-1]


def test_csv_classes_are_learned(trainer, tmp_path):
    run = trained(tmp_path / "run", tables.dataset(tmp_path / "data", classes=2), trainjob(
        datasetRef={"name": "houses"}, model={"zoo": "widedeep"}, training=REGRESSION))  # fmt: skip
    assert run.history[-1]["accuracy"] > 93


def libsvm_of(directory, compress):
    """The numbers of the same table, with the class before them."""
    directory.mkdir()
    suffix = ".gz" if compress else ""
    for name, made in (("train", tables.rows(1500)), ("test", tables.rows(300, seed=12))):
        lines = []
        for row in made:
            pairs = " ".join(f"{i}:{row[number]}" for i, number in enumerate(tables.NUMBERS, 1) if row[number] != 0)
            lines.append(f"{int(row['age'] > row['rooms'])} {pairs}\n")
        data = "".join(lines).encode()
        (directory / f"{name}.svm{suffix}").write_bytes(gzip.compress(data, 1) if compress else data)
    spec = {
        "format": "LibSVM",
        "source": {"hostPath": {"path": str(directory)}},
        "train": {"features": f"train.svm{suffix}"},
        "test": {"features": f"test.svm{suffix}"},
        "libsvm": {"features": len(tables.NUMBERS)},
        "classes": 2,
        "normalize": {"scale": 1, "mean": [0], "std": [1]},
    }
    return {"apiVersion": "thole.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "numbers"}, "spec": spec}


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
def test_libsvm_is_learned(trainer, tmp_path, compress):
    run = trained(tmp_path / "run", libsvm_of(tmp_path / "data", compress), trainjob(
        datasetRef={"name": "numbers"}, model={"zoo": "logistic"}, training=REGRESSION))  # fmt: skip
    assert run.history[-1]["accuracy"] > 93


def test_a_part_of_the_training_samples_validates(trainer, small_data, tmp_path):
    """Without test files the last tenth is held back; the number of workers changes nothing."""
    data = dataset(small_data, test=None)
    runs = [trained(tmp_path / str(n), data, JOB, ("--workers", n)) for n in (1, 3)]
    assert runs[0].sha256 == runs[1].sha256
    assert runs[0].history[-1]["accuracy"] > 15
    assert runs[0].history == runs[0].history


def test_augmentation_is_the_same_for_everybody(from_idx, small_data, tmp_path):
    job = trainjob(model={"zoo": "mlp"}, training={
        "epochs": 2, "batchSize": 100, "seed": 5, "augmentation": {"flipHorizontal": True, "cropPadding": 2}})  # fmt: skip
    runs = [trained(tmp_path / str(n), dataset(small_data), job, ("--workers", n)) for n in (1, 3)]
    assert runs[0].sha256 == runs[1].sha256
    assert runs[0].sha256 != from_idx.sha256


MISTAKES = [
    ("a word among numbers", "age,rooms,distance,city,street,price\n1,2,3,Cork,a,0.5\n1,two,3,Cork,a,0.5\n", ["line 3", "rooms"]),
    ("a row too short", "age,rooms,distance,city,street,price\n1,2,3,Cork,a,0.5\n1,2,3\n", ["line 3"]),
    ("no such column", "age,rooms,distance,town,street,price\n1,2,3,Cork,a,0.5\n", ["city"]),
    ("nothing", "", ["train.csv"]),
    ("a header alone", "age,rooms,distance,city,street,price\n", ["train.csv"]),
    ("an open quote", 'age,rooms,distance,city,street,price\n1,2,3,"Cork,a,0.5\n', ["line 2"]),
]  # fmt: skip


@pytest.mark.parametrize("text, words", [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_in_a_table_has_a_line(trainer, tmp_path, text, words):
    data = tables.dataset(tmp_path / "data")
    (tmp_path / "data" / "train.csv").write_text(text)
    (tmp_path / "run").mkdir()
    run = local.run(tmp_path / "run", data, trainjob(datasetRef={"name": "houses"}, model={"zoo": "widedeep"}))
    assert run.returncode > 0, run
    for word in words:
        assert word in run.stderr, f"'{word}' is not said: {run}"
