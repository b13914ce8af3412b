"""Every test here runs on both event loops: uvloop's, as the operator does, and asyncio's, as an operator inside of a test does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from unit.web.serving import Served, serving


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the plugin's names
    item: pytest.Item,  # noqa: ARG001 - the plugin's names
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server with the bounds of the product."""
    async with serving() as made:
        yield made
