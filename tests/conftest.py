"""Fixtures that every floor of the tests shares: one control plane a session, the chart on it, a namespace a test."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from controlplane.cluster import ControlPlane, start_control_plane
from machinebot.kube.client import ApiServer, load_configuration
from machinebot.metrics import Metrics
from workbench.chart import Release, install_chart


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane of the session, with an audit log of writes. Nothing is installed on it."""
    with start_control_plane(audit_log=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def release(plane: ControlPlane) -> Release:
    """The chart, installed on the session's control plane; no operator runs."""
    return install_chart(plane)


@pytest.fixture
async def api(plane: ControlPlane) -> AsyncIterator[ApiServer]:
    """The product's own client, as administrator."""
    configuration = await load_configuration(plane.admin_kubeconfig)
    client = ApiServer(configuration, Metrics(CollectorRegistry()), timeout=30)
    yield client
    await client.close()


@pytest.fixture
def namespace(plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own; deleted afterwards, without waiting."""
    name = f"t-{secrets.token_hex(4)}"
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A folder of the test's own for logs of processes."""
    return tmp_path
