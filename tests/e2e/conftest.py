"""Fixtures of the end-to-end tests: the operator as a process of its own, with the chart's account and arguments."""

from collections.abc import Iterator

import pytest

from controlplane.cluster import ControlPlane, start_control_plane
from e2e.support.objects import EVERYWHERE, create, role
from workbench.chart import Release, install_chart
from workbench.operator import OperatorProcess


@pytest.fixture(scope="session")
def rough_plane() -> Iterator[ControlPlane]:
    """A second control plane of the session, with an audit log of writes: for tests that kill, pause and stop its parts, or change
    what the chart has made.
    """
    with start_control_plane(audit_log=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rough_release(rough_plane: ControlPlane) -> Release:
    """The chart on it, and the role `everywhere` for every namespace; no operator runs."""
    release = install_chart(rough_plane)
    create(rough_plane, role(EVERYWHERE, ["*"]))
    return release


@pytest.fixture(scope="module")
def operator(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """The operator on the session's control plane, for the length of a module. Its sweeps are a second apart."""
    directory = tmp_path_factory.mktemp("operator")
    with OperatorProcess.from_release(release, directory, flags={"--sweep-interval": "1"}) as process:
        process.wait_ready()
        yield process
        assert process.stop() == 0
