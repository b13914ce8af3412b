"""How long the fuzzers run: shortly in every run of the tests, for very many examples where MACHINEBOT_FUZZ is set."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("fuzz", max_examples=5_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])

LONG = bool(os.environ.get("MACHINEBOT_FUZZ"))
if LONG:
    settings.load_profile("fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A long run has no limit of time."""
    for item in items:
        if LONG and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(0))
