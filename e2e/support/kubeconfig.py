"""Where a kubeconfig of hack/control-plane.sh leads, and what its current user shows there."""

import pathlib
from typing import NamedTuple

import yaml


class Access(NamedTuple):
    server: str
    authority: str
    certificate: str | None  # files; None where the user has a token instead
    key: str | None


def read(path) -> Access:
    path = pathlib.Path(path)
    config = yaml.safe_load(path.read_text())

    def named(kind, name):
        return next(item[kind] for item in config[kind + "s"] if item["name"] == name)

    def file(name):
        return None if name is None else str(path.parent / name)

    context = named("context", config["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
    return Access(cluster["server"], file(cluster["certificate-authority"]), file(user.get("client-certificate")),
                  file(user.get("client-key")))
