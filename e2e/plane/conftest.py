"""Fixtures of the tests that need an API server, controllers and kwok's nodes, but no cluster: `pytest e2e/plane`.

They start a control plane of their own and run the operator as a process. `cluster` and `namespace` are as in the
parent's conftest.py, of this control plane.
"""

import itertools

import pytest

from support import plane as planes


@pytest.fixture(scope="session")
def plane():
    if not planes.OPERATOR.is_file():
        pytest.fail(f"{planes.OPERATOR} does not exist: cmake --preset asan && cmake --build --preset asan")
    with planes.running("--crds", "--nodes", "2", "--toxiproxy") as plane:
        yield plane


@pytest.fixture(scope="session")
def cluster(plane):
    from kubernetes import client, config

    from support.cluster import Cluster

    config.load_kube_config(plane.kubeconfig, context="admin")
    with client.ApiClient() as api_client:
        yield Cluster(api_client)


@pytest.fixture
def start_operator(plane, tmp_path):
    """start_operator(*flags, binary=…, environment=…, context=…): a running operator; it is ended with the test."""
    operators = []
    numbers = itertools.count(1)

    def start(*flags, **options):
        operator = planes.Operator(plane, tmp_path / f"operator-{next(numbers)}", *flags, **options)
        operators.append(operator)
        return operator

    yield start
    planes.stop_all(operators)
