"""Fixtures: an issuer on the loopback, and what asks it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest

from controlplane.pki import Authority
from controlplane.ports import LOOPBACK
from machinebot.issuers.fetching import Issuers
from unit.issuers.server import HOST, FixedClock, Script


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side, and the client's."""
    directory: Path = tmp_path_factory.mktemp("tls")
    authority = Authority("issuers")
    names = [HOST, "keys.example.test"]
    certificate, key = authority.serving("issuer", dns_names=names, addresses=[LOOPBACK]).write(directory, "serving")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    return serving, ssl.create_default_context(cadata=authority.certificate.decode())


@pytest.fixture
async def script(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Script]:
    state = Script()
    server = await asyncio.start_server(state.serve, LOOPBACK, 0, ssl=tls[0])
    state.port = server.sockets[0].getsockname()[1]
    state.good()
    yield state
    server.close()
    state.hang_up()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def counts() -> list[str]:
    """What came of each fetch."""
    return []


async def no_review(_token: str, _audience: str) -> NoReturn:
    raise AssertionError("nobody asked for a review")


@pytest.fixture
async def issuers(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], script: Script, clock: FixedClock, counts: list[str]
) -> AsyncIterator[Issuers]:
    place = (LOOPBACK, script.port)
    made = Issuers(
        review=no_review,
        clock=clock,
        ssl_context=tls[1],
        connect={HOST: place, "keys.example.test": place, "other.example.test": place},
        counted=counts.append,
    )
    yield made
    await made.close()
