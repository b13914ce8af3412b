"""Health and metrics over real connections, and nothing else; probes are answered whatever others do."""

import asyncio
import contextlib
import http.client
import logging
import resource
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from machinebot.metrics import Metrics
from machinebot.web.connections import Connections
from machinebot.web.places import Bounds
from machinebot.web.server import BOUNDS, MAX_REQUEST, Server
from support.waiting import eventually_async
from unit.web.broken import Broken
from unit.web.serving import read_to_the_end


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
        with pytest.raises(OSError, match=r"(?i)address already in use"):
            await server.start("127.0.0.1", taken.getsockname()[1])
        await server.stop()


async def test_it_can_be_stopped_before_it_was_started() -> None:
    await Server(CollectorRegistry(), healthy=lambda: None, ready=lambda: None).stop()


# --- many and slow ones -------------------------------------------------------------------------------------------------


PROMPT = 3.0
"""Seconds for an answer that nothing stands in the way of, on a busy machine; the kubelet waits for 5."""

LARGE = 32 * 1024 * 1024
"""Bytes of a text that no buffer of the kernel takes whole."""

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Large(Collector):
    """Makes a large text, once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.begun = 0

    @override
    def describe(self) -> Iterator[Metric]:
        return iter(())

    @override
    def collect(self) -> Iterator[Metric]:
        self.begun += 1
        assert self.may.wait(20)
        family = GaugeMetricFamily("large", "Large.", labels=("name",))
        for number in range(LARGE // 2**20):
            family.add_metric((f"{number}" + "x" * 2**20,), 1)
        yield family


@dataclass
class Busy:
    """A server with a large text."""

    server: Server
    port: int
    large: Large

    async def get(self, path: str, source: str = "127.0.0.1", seconds: float = 20) -> tuple[int, int]:
        """Status and length of the answer to a client of this address."""

        def ask() -> tuple[int, int]:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds, source_address=(source, 0))
            with contextlib.closing(connection):
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, len(answer.read())

        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(ask)

    async def send(self, sent: bytes, source: str = "127.0.0.1") -> socket.socket:
        """A connection of this address in which that was sent, and nothing is read."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.bind((source, 0))
        await asyncio.to_thread(connection.connect, ("127.0.0.1", self.port))
        connection.sendall(sent)
        return connection

    async def has_open(self, count: int) -> bool:
        return self.server._connections.open == count


@contextlib.asynccontextmanager
async def busy(bounds: Bounds = BOUNDS) -> AsyncIterator[Busy]:
    registry, large = CollectorRegistry(), Large()
    registry.register(large)
    server = Server(registry, healthy=lambda: None, ready=lambda: None, bounds=bounds)
    try:
        yield Busy(server, await server.start("127.0.0.1", 0), large)
    finally:
        large.may.set()
        await server.stop()


async def test_many_scrapes_at_once_are_few_texts() -> None:
    async with busy(replace(BOUNDS, each=24)) as served:
        answers = await asyncio.gather(*(served.get("/metrics") for _ in range(6)))
        assert {status for status, _ in answers} == {200}
        assert len({length for _, length in answers}) == 1
        assert answers[0][1] > LARGE
        assert served.large.begun <= 2


async def test_the_head_of_a_scrape_has_no_text_behind_it() -> None:
    async with busy() as served:
        with await served.send(SCRAPE.replace(b"GET", b"HEAD")) as connection:
            head = await asyncio.to_thread(read_to_the_end, connection)
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        assert int(head.lower().partition(b"content-length: ")[2].split()[0]) > LARGE


async def test_each_connection_is_for_one_request(served: Probes) -> None:
    for path in ("/healthz", "/metrics", "/nothing"):
        host, _, port = served.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = await asyncio.to_thread(read_to_the_end, connection)
            assert b"connection: close" in answer.lower()


async def test_probes_are_answered_while_scrapes_are_made_and_no_thread_of_others_is_taken() -> None:
    async with busy() as served:
        served.large.may.clear()
        with contextlib.ExitStack() as stack:
            for _ in range(BOUNDS.each):
                stack.enter_context(await served.send(SCRAPE))
            await eventually_async("one is being made", lambda: _begun(served))
            for path in ("/healthz", "/readyz"):
                assert (await served.get(path, "127.0.0.2", PROMPT))[0] == 200
            async with asyncio.timeout(PROMPT):
                await asyncio.to_thread(int)
            served.large.may.set()


async def _begun(served: Busy) -> bool:
    return served.large.begun == 1


@pytest.mark.parametrize("sent", [b"", b"GET /hea", SCRAPE], ids=["nothing", "half a line", "a text that nobody reads"])
async def test_an_address_with_many_connections_keeps_no_probe_out(sent: bytes) -> None:
    async with busy() as served:
        with contextlib.ExitStack() as stack:
            for _ in range(3 * BOUNDS.served):
                stack.enter_context(await served.send(sent))
            for path in ("/healthz", "/readyz"):
                assert (await served.get(path, "127.0.0.2", PROMPT))[0] == 200
            await eventually_async("it has its share, and no more", lambda: served.has_open(BOUNDS.each))


@pytest.mark.parametrize("sent", [b"", SCRAPE], ids=["nothing", "scrapes that are never made"])
async def test_addresses_that_hold_every_place_keep_no_probe_out(sent: bytes) -> None:
    async with busy() as served:
        served.large.may.clear()
        with contextlib.ExitStack() as stack:
            for number in range(BOUNDS.served):
                stack.enter_context(await served.send(sent, f"127.0.1.{number % 4 + 1}"))
            await eventually_async("all places are taken", lambda: served.has_open(BOUNDS.served))
            assert (await served.get("/healthz", "127.0.0.2", BOUNDS.patience + PROMPT))[0] == 200


async def test_who_does_not_read_is_dropped_and_the_text_is_not_kept_for_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with busy() as served:
        await served.get("/metrics")
        served.server._connections._bounds = replace(BOUNDS, stay=3.0)
        before = _resident()
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(await served.send(SCRAPE)) for _ in range(BOUNDS.each)]
            for connection in connections:
                # On a machine that is busy with others the text may take longer than the connection lasts.
                with contextlib.suppress(ConnectionError):
                    await asyncio.to_thread(connection.recv, 1)
            grown = _resident() - before
            await eventually_async("they are dropped", lambda: served.has_open(0), seconds=20)
        assert grown < 4 * LARGE
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def _resident() -> int:
    """Memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def test_who_goes_away_while_it_reads_is_nothing_to_be_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with busy() as served:
        with await served.send(SCRAPE) as connection:
            await asyncio.to_thread(connection.recv, 1)
        await eventually_async("it is gone", lambda: served.has_open(0))
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_broken_metric_is_told(served: Probes, browser: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture) -> None:
    assert served.metrics is not None
    served.metrics.registry.register(Broken())
    async with browser.get(f"{served.url}/metrics") as answer:
        assert answer.status == 500
        assert "broken" not in await answer.text()
    assert "broken metric" in caplog.text


async def test_two_scrapes_in_a_row_each_show_what_is_true(served: Probes, browser: aiohttp.ClientSession) -> None:
    assert served.metrics is not None
    for number in range(20):
        served.metrics.queue_depth.set(number)
        async with browser.get(f"{served.url}/metrics") as answer:
            assert f"machinebot_queue_depth {number}.0" in await answer.text()


async def test_an_end_that_nobody_has_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_self: Connections) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Connections, "_keep_order", broken)
    async with busy():
        await eventually_async("it is told", lambda: _told(caplog))


async def _told(caplog: pytest.LogCaptureFixture) -> bool:
    return "serving has ended" in caplog.text and "a defect" in caplog.text
