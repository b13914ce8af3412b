"""Fixtures of the end-to-end tests: the operator as a process of its own, with the chart's account and arguments."""

from collections.abc import Iterator

import pytest

from controlplane.cluster import ControlPlane, start_control_plane
from workbench.chart import Release, install_chart
from workbench.operator import OperatorProcess


@pytest.fixture(scope="module")
def own_plane() -> Iterator[ControlPlane]:
    """A control plane of the module's own, with an audit log of writes: for tests that break something, or change what all share."""
    with start_control_plane(audit_log=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def own_release(own_plane: ControlPlane) -> Release:
    """The chart on it."""
    return install_chart(own_plane)


@pytest.fixture(scope="module")
def operator(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """The operator on the session's control plane, for the length of a module. Its sweeps are a second apart."""
    directory = tmp_path_factory.mktemp("operator")
    with OperatorProcess.from_release(release, directory, flags={"--sweep-interval": "1"}) as process:
        process.wait_ready()
        yield process
        assert process.stop() == 0
