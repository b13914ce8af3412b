"""Connections to HTTPS: nobody keeps others out, by many of them or by slow ones, and what we work on is not cut off."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp import web

from machinebot.web import connections
from machinebot.web.https import BOUNDS
from support.waiting import eventually_async
from unit.web.serving import Served, read_to_the_end, serving

GET = b"GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n"
NO_BODY = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"

FEW = replace(BOUNDS, served=4, each=2, waiting=8, patience=0.3, wait=5.0)
"""Bounds that a test reaches with few connections."""

PROMPT = 3.0
"""Seconds for an answer that nothing stands in the way of, on a busy machine; far below any that a connection may last."""


async def test_a_connection_is_for_one_request(served: Served) -> None:
    answer = await served.get("/jwks")
    assert answer.headers["connection"] == "close"
    await eventually_async("it is gone", lambda: served.has_open(0))


# --- many ---------------------------------------------------------------------------------------------------------------


async def test_an_address_that_holds_all_it_can_keeps_no_other_one_out(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(BOUNDS.each):
            stack.enter_context(await served.send(NO_BODY))
        assert await served.has_open(BOUNDS.each)
        for _ in range(BOUNDS.served + BOUNDS.waiting):
            stack.enter_context(await served.connect())
        for _ in range(3):
            assert await served.get_from("127.0.0.2", "/jwks", seconds=PROMPT) == 200
        await eventually_async("it has its share, and no more", lambda: served.has_open(BOUNDS.each))


async def test_addresses_that_hold_every_place_make_room_for_another_one() -> None:
    held: list[ssl.SSLSocket] = []
    async with serving(FEW) as served:
        with contextlib.ExitStack() as stack:
            for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"):
                held += [stack.enter_context(await served.send(NO_BODY, source))]
            assert await served.has_open(FEW.served)
            assert await served.get_from("127.0.0.3", "/jwks", seconds=PROMPT) == 200
            assert await asyncio.to_thread(read_to_the_end, held[0]) == b"", "the oldest lost its place, and the connection"


async def test_clients_behind_one_address_with_somebody_who_is_slow_are_answered() -> None:
    async with serving(FEW) as served:
        with await served.send(NO_BODY), await served.send(NO_BODY):
            assert await served.has_open(FEW.each)
            assert await served.get_from("127.0.0.1", "/jwks", seconds=PROMPT) == 200


async def test_a_hundred_clients_of_one_address_at_once_are_all_answered(served: Served) -> None:
    answers = await asyncio.gather(*(served.get_from("127.0.0.1", "/jwks") for _ in range(100)))
    assert answers == [200] * 100


async def test_more_connections_than_places_wait() -> None:
    async with serving(replace(FEW, patience=20.0)) as served:
        with await served.connect() as first, await served.connect():
            await eventually_async("all places of the address are taken", lambda: served.has_open(FEW.each))
            waiting = asyncio.create_task(served.get_from("127.0.0.1", "/jwks"))
            assert not (await asyncio.wait({waiting}, timeout=0.3))[0]
            first.close()
            assert await waiting == 200


async def test_whoever_has_waited_for_too_long_is_dropped_and_so_is_whoever_there_is_no_room_for() -> None:
    async with serving(replace(FEW, served=1, each=1, waiting=1, patience=20.0, wait=0.5)) as served:
        with await served.connect(), await served.connect() as second, await served.connect() as third:
            for connection in (third, second):
                assert await asyncio.to_thread(read_to_the_end, connection) == b""
            assert await served.has_open(1)


async def test_what_waits_at_the_end_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STOP_SECONDS", 0.3)
    async with serving(replace(FEW, patience=20.0)) as served:
        open_ = [await served.connect() for _ in range(4)]
        await eventually_async("some are served and some wait", lambda: served.has_open(FEW.each))
    for connection in open_:
        with connection:
            assert await asyncio.to_thread(read_to_the_end, connection) == b""


@pytest.fixture
async def worked_on() -> AsyncIterator[tuple[Served, asyncio.Event]]:
    """A server with few places that answers /v1/work once the event is set."""
    done = asyncio.Event()

    def routes(router: web.UrlDispatcher) -> None:
        async def work(_request: web.Request) -> web.Response:
            await done.wait()
            return web.Response()

        router.add_get("/v1/work", work)

    async with serving(FEW, (routes,)) as served:
        yield served, done


async def test_whoever_waits_for_us_is_not_cut_off_for_others(worked_on: tuple[Served, asyncio.Event]) -> None:
    served, done = worked_on
    first = [asyncio.create_task(served.get_from("127.0.0.1", "/v1/work")) for _ in range(FEW.each)]
    await eventually_async("they are served", lambda: served.has_open(FEW.each))
    other = asyncio.create_task(served.get_from("127.0.0.1", "/jwks"))
    assert not (await asyncio.wait({other}, timeout=5 * FEW.patience))[0]
    done.set()
    assert await asyncio.gather(*first, other) == [200, 200, 200]


async def test_a_connection_that_was_kept_for_another_request_makes_room(worked_on: tuple[Served, asyncio.Event]) -> None:
    served, done = worked_on
    done.set()
    with contextlib.ExitStack() as stack:
        for _ in range(FEW.each):
            kept = stack.enter_context(await served.send(b"GET /v1/work HTTP/1.1\r\nHost: x\r\n\r\n"))
            assert (await asyncio.to_thread(kept.recv, 1000)).startswith(b"HTTP/1.1 200")
        assert await served.has_open(FEW.each)
        assert await served.get_from("127.0.0.1", "/jwks", seconds=PROMPT) == 200


# --- slow ones ----------------------------------------------------------------------------------------------------------


SILENT: dict[str, bytes] = {
    "nothing": b"",
    "no TLS": b"GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n",
    "half a hello": b"\x16\x03\x01\x02\x00\x01\x00",
}


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
async def test_who_does_not_shake_hands_is_dropped(served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.3)
    with await served.connect() as connection:
        connection.sendall(sent)
        await asyncio.to_thread(read_to_the_end, connection)
    assert (await served.get("/jwks")).status == 200


SLOW: dict[str, bytes] = {
    "no request": b"",
    "half a line": b"GET /jw",
    "no end of the head": b"GET /jwks HTTP/1.1\r\nHost: x\r\n",
    "no body": NO_BODY,
    "an answer that nobody reads": b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("sent", SLOW.values(), ids=SLOW)
async def test_no_connection_outlives_its_time(sent: bytes) -> None:
    async with serving(replace(BOUNDS, stay=0.5)) as served:
        with await served.send(sent) as connection:
            await eventually_async("its place is free", lambda: served.has_open(0), seconds=10)
            await asyncio.to_thread(read_to_the_end, connection)


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
async def test_no_handshake_outlives_the_time_of_the_connection(sent: bytes) -> None:
    async with serving(replace(BOUNDS, stay=0.3)) as served:
        with await served.connect() as connection:
            connection.settimeout(connections.HANDSHAKE_SECONDS / 2)
            connection.sendall(sent)
            await asyncio.to_thread(read_to_the_end, connection)


HELD: dict[str, bytes] = {
    "no request": b"",
    "half a line": b"GET /jw",
    "no end of the head": b"GET /jwks HTTP/1.1\r\nHost: x\r\n",
    "the end is not confirmed": GET,
    "refused, and no body": b"POST /jwks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
    "no second request": b"GET /v1/none HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("sent", HELD.values(), ids=HELD)
async def test_every_step_has_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    for name in ("IDLE_SECONDS", "LINGER_SECONDS", "CLOSE_SECONDS"):
        monkeypatch.setattr(connections, name, 0.3)
    async with serving() as served:
        with await served.send(sent):
            begun = time.monotonic()
            await eventually_async("its place is free", lambda: served.has_open(0))
            assert time.monotonic() - begun < BOUNDS.stay / 2


async def test_who_goes_away_in_the_middle_is_nothing_to_be_told(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for sent in (b"", b"GET /jw", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"):
        connection: ssl.SSLSocket = await served.send(sent)
        connection.close()
        await eventually_async("it is gone", lambda: served.has_open(0))
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_where_no_connection_can_be_taken_it_is_tried_again(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "ACCEPT_RETRY_SECONDS", 0.05)
    loop, failures = asyncio.get_running_loop(), 2

    class Loop:
        """Has no file descriptors left, at first."""

        def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
            return getattr(loop, name)

        async def sock_accept(self, listener: object) -> object:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise OSError(24, "Too many open files")
            return await loop.sock_accept(listener)

    monkeypatch.setattr(connections.asyncio, "get_running_loop", Loop)
    accepting = asyncio.create_task(served.server._connections._accept(served.server._connections._listener))
    await eventually_async("it was tried again", lambda: _below(lambda: failures))
    monkeypatch.undo()
    accepting.cancel()
    assert caplog.text.count("no connection can be taken") == 2


async def _below(count: Callable[[], int]) -> bool:
    return count() < 0
