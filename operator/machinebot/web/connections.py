"""Connections at one port: taken at once, given a place in their turn, and ended where the other side is slow.

What is said in them stands in the routes; to which TLS they are changed, in the context that is given.
"""

import asyncio
import logging
import math
import socket
import ssl
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError
from typing_extensions import override

from machinebot.web.answers import Handler
from machinebot.web.limits import source
from machinebot.web.places import Bounds, Guest, Places

log = logging.getLogger(__name__)

http_log = logging.getLogger(f"{__name__}.http")
"""What aiohttp has to tell, without what anybody can cause: it would be a traceback for each request that is none."""

http_log.addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))
)

BACKLOG: Final = 128
"""Most connections that the kernel keeps until they are taken, which happens at once."""

HANDSHAKE_SECONDS: Final = 5.0
"""Longest TLS handshake."""

IDLE_SECONDS: Final = 5.0
"""Longest time for the head of a request, and so for which a connection is kept for the next one."""

LINGER_SECONDS: Final = 2.0
"""How long what remains of a request is read after its answer: who is cut off while it sends may never see the answer."""

CLOSE_SECONDS: Final = 5.0
"""Longest end of TLS: for the rest of the answer to be taken, and the end to be confirmed."""

SETTLE_SECONDS: Final = 0.5
"""Pause between two looks at who has waited for too long, or must make room; they cost microseconds."""

ACCEPT_RETRY_SECONDS: Final = 1.0
"""Pause where no connection can be taken, since the process has no file descriptors left, say."""

STOP_SECONDS: Final = 2.0
"""Longest time for what is under way at the end."""

MAX_LINE: Final = 2048
"""Longest request line, bytes: the longest path of ours has about 300."""

MAX_FIELD: Final = 8190
"""Longest header field, bytes: an ETag list or a proxy's trail fits; common servers draw the line there."""

MAX_FIELDS: Final = 64
"""Most header fields."""


@dataclass(eq=False)
class _Client(Guest):
    """A connection that was taken.

    Attributes:
        connection: Its socket.
        request: What was asked and not yet answered.
        task: Serves it.
    """

    connection: socket.socket
    request: web.Request | None = None
    task: asyncio.Task[None] | None = None

    @property
    @override
    def busy(self) -> bool:
        """Whether a request has come in full, and we work on it."""
        return self.request is not None and self.request.content.is_eof()


class Connections:
    """Serves an application at one port.

    Args:
        bounds: How many connections, and for how long.
        tls: What connections begin in; None for plain TCP.
    """

    def __init__(self, bounds: Bounds, tls: ssl.SSLContext | None = None) -> None:
        self._bounds = bounds
        self._tls = tls
        self._places = Places[_Client](bounds)
        self._runner: web.AppRunner | None = None
        self._listener: socket.socket | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._talking: dict[asyncio.Protocol, _Client] = {}

    @property
    def open(self) -> int:
        """How many connections are served."""
        return len(self._open)

    async def start(self, app: web.Application, host: str, port: int) -> int:
        """Takes the port; returns it.

        Args:
            app: What is served.
            host: The address.
            port: The port; 0 takes a free one.

        Raises:
            OSError: The address cannot be used.
        """
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_log,
            handle_signals=False,
            shutdown_timeout=STOP_SECONDS,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
        )
        await self._runner.setup()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        return int(self._listener.getsockname()[1])

    async def run(self) -> None:
        """Serves for ever, once it was started."""
        if self._listener is None:
            raise RuntimeError("the server was not started")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._accept(self._listener), name="connections accept")
            group.create_task(self._keep_order(), name="connections order")

    async def stop(self) -> None:
        """Ends serving; `run` must have ended."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for client in self._places.tired(math.inf):
            client.connection.close()
        if self._open:
            await asyncio.wait(self._open, timeout=STOP_SECONDS)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def working(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware: a connection whose request we work on keeps its place, however long that takes us."""
        client = self._talking.get(request.protocol)
        if client is None:
            return await handler(request)
        client.request = request
        try:
            return await handler(request)
        finally:
            client.request = None

    # --- places ------------------------------------------------------------------------------------------------------

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("no connection can be taken", extra={"detail": str(error)})
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            self._come(_Client(source(address[0]), loop.time(), connection))
            # One in each round of the event loop: many at once keep nobody from their work.
            await asyncio.sleep(0)

    def _come(self, client: _Client) -> None:
        gone = self._places.come(client)
        if gone is not None:
            gone.connection.close()
        self._settle()

    async def _keep_order(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            self._settle()

    def _settle(self) -> None:
        """Serves whom there is a place for."""
        if self._listener is None:
            return
        now = asyncio.get_running_loop().time()
        for tired in self._places.tired(now):
            tired.connection.close()
        while True:
            client = self._places.call(now)
            if client is not None:
                client.task = asyncio.create_task(self._converse(client), name="connection")
                self._open.add(client.task)
                client.task.add_done_callback(partial(self._ended, client))
                continue
            late = self._places.make_room(now)
            if late is None:
                return
            if late.task is not None:
                late.task.cancel()

    def _ended(self, client: _Client, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._places.leave(client)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connection failed", exc_info=error)
        self._settle()

    # --- one connection ----------------------------------------------------------------------------------------------

    async def _converse(self, client: _Client) -> None:
        """One connection from its first byte to its end."""
        loop = asyncio.get_running_loop()
        server = None if self._runner is None else self._runner.server
        if server is None:
            raise RuntimeError("the server was not started")
        handler = server()
        protocol = _Connection(handler)
        transport: asyncio.Transport | None = None
        self._talking[handler] = client
        try:
            async with asyncio.timeout(self._bounds.stay):
                transport, _ = await loop.connect_accepted_socket(lambda: protocol, client.connection, **self._tls_settings())
                await protocol.ended.wait()
        except (OSError, TimeoutError) as error:
            # What anybody can cause is nothing that anybody must see.
            log.debug("connection ended early", extra={"error": type(error).__name__})
        finally:
            del self._talking[handler]
            if transport is not None and not protocol.ended.is_set():
                transport.abort()

    def _tls_settings(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        return {"ssl": self._tls, "ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": CLOSE_SECONDS}


class _Connection(asyncio.Protocol):
    """aiohttp's handler of one connection, and word of the end: `ended`."""

    def __init__(self, handler: asyncio.Protocol) -> None:
        self._handler = handler
        self.ended = asyncio.Event()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handler.connection_made(transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._handler.data_received(data)

    @override
    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    @override
    def pause_writing(self) -> None:
        self._handler.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._handler.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._handler.connection_lost(exc)
        self.ended.set()
