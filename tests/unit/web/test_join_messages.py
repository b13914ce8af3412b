"""Messages to the join API as they come over the wire: in time, whole, and counted by the source that they come from."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry

from machinebot.metrics import Metrics
from machinebot.protocol.messages import JOIN_PATH
from machinebot.web import connections, joins
from machinebot.web.joins import JoinRates, JoinRoutes
from machinebot.web.limits import Rate
from support.waiting import eventually_async
from unit.authority.desk_world import DeskWorld
from unit.web.serving import Clock, Served, Trusts, read_to_the_end, serving

HEAD = f"POST {JOIN_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def routes(rate: Rate) -> JoinRoutes:
    return JoinRoutes(
        desk=DeskWorld().desk,
        trust=Trusts(),
        ready=lambda: True,
        rates=JoinRates(address=rate, token=rate),
        clock=Clock(),
        metrics=Metrics(CollectorRegistry()),
    )


@pytest.fixture
async def joined(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.3)
    async with serving(routes=(routes(Rate(1000, 1000)).add_to,)) as served:
        yield served


async def answered(served: Served, sent: str) -> tuple[int, bytes]:
    """Status and body."""
    with await served.send(sent.encode()) as connection:
        head, _, body = (await asyncio.to_thread(read_to_the_end, connection)).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("begun", ["", '{"namespace": "ci"'], ids=["nothing", "half of it"])
async def test_a_message_that_does_not_come_is_given_up(joined: Served, monkeypatch: pytest.MonkeyPatch, begun: str) -> None:
    monkeypatch.setattr(joins, "BODY_SECONDS", 0.3)
    status, body = await answered(joined, f"{HEAD}Content-Length: 100\r\n\r\n{begun}")
    assert (status, json.loads(body)["reason"]) == (408, "BadRequest")
    assert json.loads(body)["message"].startswith("the message did not come within")
    await eventually_async("its place is free", lambda: joined.has_open(0))


BROKEN: dict[str, str] = {
    "a length that is none": "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "compressed, and is not": "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("rest", BROKEN.values(), ids=BROKEN)
async def test_a_message_that_is_broken_on_its_way_is_refused(
    joined: Served, caplog: pytest.LogCaptureFixture, rest: str
) -> None:
    caplog.set_level(logging.INFO)
    assert (await answered(joined, f"{HEAD}{rest}"))[0] == 400
    assert caplog.records == []


async def test_who_goes_away_in_the_middle_of_a_message_is_nothing_to_be_told(
    joined: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connection = await joined.send(f"{HEAD}Content-Length: 100\r\n\r\n".encode())
    connection.close()
    await eventually_async("it is gone", lambda: joined.has_open(0))
    assert caplog.records == []


ADDRESSES: dict[str, tuple[str, str, bool]] = {
    "the same": ("192.0.2.1", "192.0.2.1", True),
    "two": ("192.0.2.1", "192.0.2.2", False),
    "two of one network": ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
    "two of two networks": ("2001:db8::1", "2001:db8:0:1::1", False),
    "one in two forms": ("192.0.2.1", "::ffff:192.0.2.1", True),
}


@pytest.mark.parametrize(("first", "second", "refused"), ADDRESSES.values(), ids=ADDRESSES)
async def test_requests_are_counted_by_the_source(first: str, second: str, refused: bool) -> None:
    let_in = routes(Rate(1, 1))._let_in
    request = make_mocked_request("POST", JOIN_PATH)
    let_in(request.clone(remote=first))
    if not refused:
        let_in(request.clone(remote=second))
        return
    with pytest.raises(joins._TooManyError):
        let_in(request.clone(remote=second))
