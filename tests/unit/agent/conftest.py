"""Fixtures of the tests of the agent."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from unit.agent.api import Api, Rig, any_time


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    any_time(monkeypatch)
    with Api().running() as running:
        yield running


@pytest.fixture
def rig(api: Api, tmp_path: Path) -> Iterator[Rig]:
    tmp_path.chmod(0o700)
    with contextlib.ExitStack() as stack:
        yield Rig(api, tmp_path, stack)
