"""Fixtures: a server on the loopback, and the product's client on it."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from machinebot.kube.client import ApiServer
from unit.kube.server import Clients, Server


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    state = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", state.handle)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield state
    await runner.cleanup()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    state = Clients()
    yield state
    for client in state.made:
        await client.close()


@pytest.fixture
def client(server: Server, clients: Clients) -> ApiServer:
    return clients.client(server.url)
