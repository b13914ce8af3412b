"""An HTTPS server of a test's own over real connections, what it is told, and a client."""

import asyncio
import contextlib
import http.client
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from aiohttp import web

from machinebot.authority.generations import Generation
from machinebot.errors import Conflict, Denied, Invalid, NotFound, Unavailable
from machinebot.policy.credential import Purpose, TrustBundle
from machinebot.web.certificates import SignedCertificate
from machinebot.web.https import BOUNDS, HttpsServer
from machinebot.web.places import Bounds
from machinebot.web.trust import TrustRoutes
from support.clock import SteppedClock
from support.verifier import Answer, fetch, trusting
from unit.authority.builders import CLUSTER, ISSUER, NOW, all_generations, ca

NAMES = ("machinebot.system.svc", "localhost")
TRUST = TrustBundle(CLUSTER, ISSUER, tuple(each.anchor for several in all_generations().values() for each in several))


class Clock(SteppedClock):
    """Stands at NOW until it is stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.time = NOW

    def now(self):
        return self.time


@dataclass
class Trusts:
    """One authority."""

    known: dict[str, TrustBundle] = field(default_factory=lambda: {"default": TRUST})

    def get(self, name: str) -> TrustBundle:
        if name == "young":
            raise Unavailable("AuthorityNotReady", "wait")
        if name not in self.known:
            raise NotFound("AuthorityMissing", "there is none")
        return self.known[name]


FAILURES: dict[str, Exception] = {
    "invalid": Invalid("A", "wrong"),
    "denied": Denied("B", "no"),
    "conflict": Conflict("C", "changed"),
    "crash": RuntimeError("secret text"),
}


def failing(router: web.UrlDispatcher) -> None:
    async def fail(request: web.Request) -> web.Response:
        raise FAILURES[request.match_info["how"]]

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 64 * 1024 * 1024)

    async def echo(request: web.Request) -> web.Response:
        with contextlib.suppress(ConnectionError):
            return web.Response(body=await request.read())
        return web.Response()

    router.add_get("/fail/{how}", fail)
    router.add_get("/large", large)
    router.add_post("/echo", echo)


@dataclass
class Served:
    """A server, what it is told, and a client."""

    server: HttpsServer
    port: int
    clock: Clock
    trusts: Trusts
    issuer: list[tuple[str, Generation]]
    tls: ssl.SSLContext

    async def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        return await asyncio.to_thread(lambda: fetch(self.port, path, self.tls, method=method, **headers))

    async def get_from(self, source: str, path: str, *, seconds: float = 20) -> int:
        """The status that a client of this address is answered.

        Raises:
            OSError: None, or not in time.
        """

        def ask() -> int:
            connection = http.client.HTTPSConnection(
                "localhost", self.port, context=self.tls, timeout=seconds, source_address=(source, 0)
            )
            with contextlib.closing(connection):
                connection.request("GET", path)
                return connection.getresponse().status

        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(ask)

    async def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """A connection of this address in which nothing is said."""
        return await asyncio.to_thread(socket.create_connection, ("127.0.0.1", self.port), 20, (source, 0))

    async def send(self, sent: bytes, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """A connection of this address with TLS, in which that was sent."""
        raw = await self.connect(source)
        connection = await asyncio.to_thread(self.tls.wrap_socket, raw, server_hostname="localhost")
        await asyncio.to_thread(connection.sendall, sent)
        return connection

    async def has_open(self, count: int) -> bool:
        """Whether so many connections are served."""
        return self.server._connections.open == count


@contextlib.asynccontextmanager
async def serving(bounds: Bounds = BOUNDS, routes: Iterable[Callable[[web.UrlDispatcher], None]] = ()) -> AsyncIterator[Served]:
    """A server, with routes of the test's own beside those of the trust bundle."""
    clock, trusts, issuer = Clock(), Trusts(), [(CLUSTER, ca(Purpose.IDENTITY))]
    source = SignedCertificate(lambda: issuer[-1] if issuer else None, NAMES, clock)
    server = HttpsServer(source, (TrustRoutes(trusts).add_to, failing, *routes), bounds=bounds)
    port = await server.start("127.0.0.1", 0)
    running = asyncio.create_task(server.run())
    try:
        yield Served(server, port, clock, trusts, issuer, trusting(ca(Purpose.IDENTITY).anchor.public, any_time=True))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


def read_to_the_end(connection: socket.socket) -> bytes:
    """What still comes until the other side ends the connection.

    Raises:
        TimeoutError: It does not.
    """
    data = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while more := connection.recv(65536):
            data += more
    return data
