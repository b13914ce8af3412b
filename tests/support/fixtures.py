"""Fixtures of the tests of the controller: a stage and a running operator a module, a namespace and a role a test."""

from collections.abc import Iterator

import pytest

from support.inprocess import RunningOperator
from support.stage import Stage, Tenant, raise_stage
from workbench.chart import Release


@pytest.fixture(scope="module")
def stage(release: Release) -> Iterator[Stage]:
    """The chart on the session's control plane."""
    with raise_stage(release) as raised:
        yield raised


@pytest.fixture(scope="module")
def authority(stage: Stage) -> str:
    """A MachineAuthority of the module's own."""
    return stage.authority()


@pytest.fixture(scope="module")
def operator_of_module(stage: Stage, authority: str) -> Iterator[RunningOperator]:
    """One operator for the whole module: see `running`."""
    with stage.operator() as operator:
        operator.wait_leading()
        stage.authority_ready(authority)
        operator.wait_serving()
        yield operator


@pytest.fixture
def running(operator_of_module: RunningOperator) -> Iterator[RunningOperator]:
    """The operator of this module, running. Its sweep stays out: what comes true without `settle` was brought by the watches.

    A test that has this may end it, and no other: it is started again behind it, since not every test of a module asks for it
    by this name. Nothing may have crashed in it.
    """
    assert operator_of_module.running
    yield operator_of_module
    if operator_of_module.running:
        assert operator_of_module.total("machinebot_reconcile_errors_total", reason="Crashed") == 0
    else:
        operator_of_module.start()
        operator_of_module.wait_leading()
        operator_of_module.wait_serving()


@pytest.fixture
def tenant(stage: Stage, authority: str, running: RunningOperator) -> Iterator[Tenant]:
    """A namespace of the test's own, served by the operator of the module."""
    assert running.running
    with stage.tenant(authority) as made:
        yield made


@pytest.fixture
def role(stage: Stage) -> str:
    """A role that gives a bot the logins that it asks for, in every namespace."""
    return stage.role()


@pytest.fixture
def cleared(stage: Stage, authority: str) -> Iterator[None]:
    """Takes away each test's own authorities: every look at the cluster reads six Secrets for each."""
    assert authority
    with stage.clearing():
        yield
