"""Small tables of numbers and categories, as CSV, NPY and LibSVM: data that a model can learn something from."""

import csv

import numpy

CITIES = ("Aberdeen", "Bergen", "Cork", "Dover")
NUMBERS = ("age", "rooms", "distance")


def rows(count, seed=11):
    """`count` rows of numbers, a city, a street (of many), and what they mean: a price."""
    random = numpy.random.default_rng(seed)
    worth = dict(zip(CITIES, (1.0, -0.5, 0.25, -1.0)))
    made = []
    for _ in range(count):
        numbers = random.normal(size=len(NUMBERS)).round(3)
        city = CITIES[random.integers(len(CITIES))]
        street = f"street-{random.integers(300)}"
        price = float(numbers @ (0.8, -0.4, 0.2)) + worth[city] + float(random.normal()) * 0.1
        made.append({**dict(zip(NUMBERS, numbers.tolist())), "city": city, "street": street, "price": round(price, 4)})
    return made


def write_csv(path, made, label="price", of=lambda row: row["price"], missing_every=0):
    """With a header; every so-manyeth row lacks its age."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*NUMBERS, "city", "street", label])
        for index, row in enumerate(made):
            age = "" if missing_every and index % missing_every == 0 else row["age"]
            writer.writerow([age, row["rooms"], row["distance"], row["city"], row["street"], of(row)])


def dataset(directory, classes=None, name="houses", train=1500, test=300):
    """A Dataset of two CSV files in `directory`: prices, or with `classes` 2 whether they are above average."""
    directory.mkdir(parents=True, exist_ok=True)
    of = (lambda row: row["price"]) if classes is None else (lambda row: int(row["price"] > 0))
    write_csv(directory / "train.csv", rows(train), of=of, missing_every=50)
    write_csv(directory / "test.csv", rows(test, seed=12), of=of)
    spec = {
        "format": "CSV",
        "source": {"hostPath": {"path": str(directory)}},
        "train": {"features": "train.csv"},
        "test": {"features": "test.csv"},
        "csv": {
            "header": True,
            "labelColumn": "price",
            "categorical": [{"name": "city", "vocabulary": list(CITIES)}, {"name": "street", "buckets": 64}],
        },
        "normalize": {"scale": 1, "mean": [0], "std": [1]},
    }
    if classes is not None:
        spec["classes"] = classes
    return {"apiVersion": "thole.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": name}, "spec": spec}
