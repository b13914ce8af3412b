"""Health and metrics over a real connection, and nothing else."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from machinebot.metrics import Metrics
from machinebot.web.server import MAX_REQUEST, Server


@dataclass
class Probes:
    """What the server is told when it asks."""

    healthy: str | None = None
    ready: str | None = None
    url: str = ""
    metrics: Metrics | None = None


@pytest.fixture
async def served() -> AsyncIterator[Probes]:
    metrics = Metrics(CollectorRegistry())
    probes = Probes(metrics=metrics)
    server = Server(metrics.registry, healthy=lambda: probes.healthy, ready=lambda: probes.ready)
    port = await server.start("127.0.0.1", 0)
    probes.url = f"http://127.0.0.1:{port}"
    yield probes
    await server.stop()


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(("path", "probe"), [("/healthz", "healthy"), ("/readyz", "ready")])
async def test_a_probe_says_what_is_wrong(served: Probes, browser: aiohttp.ClientSession, path: str, probe: str) -> None:
    for trouble, status in ((None, 200), ("the last sweep is 20 minutes old", 503), (None, 200)):
        setattr(served, probe, trouble)
        async with browser.get(served.url + path) as answer:
            assert answer.status == status
            assert await answer.text() == f"{trouble or 'ok'}\n"
            assert answer.content_type == "text/plain"


async def test_the_probes_are_apart(served: Probes, browser: aiohttp.ClientSession) -> None:
    served.ready = "waiting for the lease"
    async with browser.get(f"{served.url}/healthz") as answer:
        assert answer.status == 200
    async with browser.get(f"{served.url}/readyz") as answer:
        assert answer.status == 503


async def test_an_empty_trouble_is_a_trouble(served: Probes, browser: aiohttp.ClientSession) -> None:
    served.healthy = ""
    async with browser.get(f"{served.url}/healthz") as answer:
        assert answer.status == 503


async def test_metrics(served: Probes, browser: aiohttp.ClientSession) -> None:
    assert served.metrics is not None
    served.metrics.leader.set(1)
    served.metrics.joins.labels("kubernetes", "success").inc()
    async with browser.get(f"{served.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        assert "version=" in answer.headers["Content-Type"]
        lines = (await answer.text()).splitlines()
    assert "machinebot_leader 1.0" in lines
    assert 'machinebot_joins_total{method="kubernetes",result="success"} 1.0' in lines
    assert not any("_created" in line for line in lines)


@pytest.mark.parametrize("path", ["/", "/healthz/", "/metrics/x", "/debug", "/../etc/passwd", "/%2e%2e/x", "/healthz%00"])
async def test_nothing_else_is_served(served: Probes, browser: aiohttp.ClientSession, path: str) -> None:
    async with browser.get(served.url + path) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_it_can_only_be_read(served: Probes, browser: aiohttp.ClientSession, method: str, path: str) -> None:
    async with browser.request(method, served.url + path, data=b"x" * MAX_REQUEST) as answer:
        assert answer.status == 405


async def test_it_can_be_asked_without_the_text(served: Probes, browser: aiohttp.ClientSession) -> None:
    async with browser.head(f"{served.url}/readyz") as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Server(CollectorRegistry(), healthy=lambda: None, ready=lambda: None)
        with pytest.raises(OSError, match="address already in use"):
            await server.start("127.0.0.1", taken.getsockname()[1])
        await server.stop()


async def test_it_can_be_stopped_before_it_was_started() -> None:
    await Server(CollectorRegistry(), healthy=lambda: None, ready=lambda: None).stop()
