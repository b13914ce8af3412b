"""Client certificates at our HTTPS: shown where there is one, by the CAs of the moment, anew for each connection."""

import asyncio
import http.client
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from machinebot.authority import bot_certificates
from machinebot.authority.bot_certificates import InstanceIdentity, key_digest
from machinebot.authority.generations import Generation
from machinebot.authority.rotation import advance
from machinebot.clock import SystemClock
from machinebot.policy.credential import Purpose
from machinebot.web.certificates import SignedCertificate
from machinebot.web.https import HttpsServer
from support.joining import pem
from support.verifier import trusting
from support.waiting import eventually_async
from unit.authority.builders import CLUSTER, HOUR, REF, ROTATION, der

NAMES = ("localhost",)


def new_ca(purpose: Purpose) -> Generation:
    now = SystemClock().now()
    return advance((), now, purpose=purpose, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION)[0]


def shows(router: web.UrlDispatcher) -> None:
    async def show(request: web.Request) -> web.Response:
        shown = request.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return web.json_response({"length": len(shown or b"")})

    router.add_post("/v1/show", show)
    router.add_post("/show", show)


@dataclass
class Served:
    """A server that tells whether a certificate was shown."""

    port: int
    identity: Generation
    clients: list[Generation] = field(default_factory=list)
    tickets: bool = False

    def context(self, signer: Generation | None = None) -> ssl.SSLContext:
        """A client's TLS, with an identity that this CA has signed."""
        context = trusting(self.identity.anchor.public)
        if signer is not None:
            key, now = ec.generate_private_key(ec.SECP256R1()), SystemClock().now()
            who = InstanceIdentity(
                REF, "bot-1", "i", 1, "github", "runners", "t-1", key_digest(der(key.public_key())), now + HOUR
            )
            certificate = bot_certificates.sign(who, key.public_key(), signer, cluster_name=CLUSTER, now=now)
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(certificate + pem(key))
                pair.flush()
                context.load_cert_chain(pair.name)
        return context

    async def shown(self, context: ssl.SSLContext, path: str = "/v1/show") -> bool:
        """Whether the server has seen a certificate."""

        def ask() -> bool:
            connection = http.client.HTTPSConnection("localhost", self.port, context=context, timeout=10)
            try:
                connection.request("POST", path, b"")
                return b'"length": 0' not in connection.getresponse().read()
            finally:
                connection.close()

        return await asyncio.to_thread(ask)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    identity = new_ca(Purpose.IDENTITY)
    clients = [new_ca(Purpose.BOT)]
    source = SignedCertificate(lambda: (CLUSTER, identity), NAMES, SystemClock())
    server = HttpsServer(source, (shows,), lambda: b"".join(each.anchor.public for each in clients))
    port = await server.start("127.0.0.1", 0)
    running = asyncio.create_task(server.run())
    yield Served(port, identity, clients)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.stop()


async def test_a_client_may_show_an_identity_and_need_not(served: Served) -> None:
    assert await served.shown(served.context(served.clients[0]))
    assert not await served.shown(served.context())


async def refused(served: Served, context: ssl.SSLContext) -> bool:
    try:
        await served.shown(context)
    except (OSError, http.client.HTTPException):
        return True
    return False


async def test_of_another_ca_it_ends_the_connection(served: Served) -> None:
    assert await refused(served, served.context(new_ca(Purpose.BOT)))
    # A CA of the very same name, with another key: one that was made again.
    assert await refused(served, served.context(replace(new_ca(Purpose.BOT), id=served.clients[0].id)))


async def test_a_ca_that_comes_and_one_that_goes_count_for_the_next_connection(served: Served) -> None:
    old, new = served.clients[0], new_ca(Purpose.BOT)
    before, after = served.context(old), served.context(new)
    served.clients[:] = [new]
    await eventually_async("the new one is taken", lambda: _good(served, after))
    assert await refused(served, before)


async def _good(served: Served, context: ssl.SSLContext) -> bool:
    return not await refused(served, context)


async def test_no_session_is_resumed(served: Served) -> None:
    """One that was, would show the certificate to the CAs of an earlier time."""

    def twice(version: ssl.TLSVersion) -> list[bool]:
        context = served.context(served.clients[0])
        context.maximum_version = version
        session: Any = None
        reused = []
        for _ in range(2):
            connection = http.client.HTTPSConnection("localhost", served.port, context=context, timeout=10)
            connection.connect()
            connection.sock.close()
            raw = http.client.HTTPConnection("localhost", served.port, timeout=10)
            raw.connect()
            with context.wrap_socket(raw.sock, server_hostname="localhost", session=session) as tls:
                tls.sendall(b"POST /v1/show HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                assert tls.recv(1000).startswith(b"HTTP/1.1 200")
                reused.append(bool(tls.session_reused))
                session = tls.session
        return reused

    assert await asyncio.to_thread(twice, ssl.TLSVersion.TLSv1_3) == [False, False]


async def test_connections_of_the_join_api_stay_open_and_others_do_not(served: Served) -> None:
    def headers(path: str) -> list[str | None]:
        connection = http.client.HTTPSConnection("localhost", served.port, context=served.context(), timeout=10)
        found = []
        for _ in range(2):
            connection.request("POST", path, b"")
            answer = connection.getresponse()
            answer.read()
            found.append(answer.getheader("Connection"))
            kept = connection.sock is not None
        connection.close()
        return [*found, "kept" if kept else "closed"]

    assert await asyncio.to_thread(headers, "/v1/show") == [None, None, "kept"]
    assert await asyncio.to_thread(headers, "/show") == ["close", "close", "closed"]
