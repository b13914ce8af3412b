"""Fixtures of the unit tests."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def _logging_as_before() -> Iterator[None]:
    """Logging is set up for the whole process; it is put back."""
    root, names = logging.getLogger(), ("machinebot", "kopf")
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in names:
        logging.getLogger(name).setLevel(levels[name])
