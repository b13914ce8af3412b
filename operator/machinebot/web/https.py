"""The HTTPS server of every replica: TLS, limits and the change of the certificate. What it answers stands in its routes."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aiohttp import web
from typing_extensions import override

from machinebot.errors import Invalid, MachinebotError
from machinebot.web.answers import uniform
from machinebot.web.certificates import CertificateSource, KeyPair

log = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 128
"""Most connections at a time; others wait in the kernel. One takes up to 300 KiB, most of it the buffer of TLS, so that all of
them stay below 40 MiB of the 512 that a pod has; and one lasts some milliseconds, so that a full house still serves a hundred a
second."""

BACKLOG: Final = 128
"""Most connections that wait to be taken."""

HANDSHAKE_SECONDS: Final = 5.0
"""Longest TLS handshake."""

CONNECTION_SECONDS: Final = 20.0
"""Longest life of a connection, from the first byte to the last: who sends or reads slowly does not keep a place."""

IDLE_SECONDS: Final = 5.0
"""How long a connection of the join API is kept for the next request."""

MAX_LINE: Final = 2048
"""Longest request line, bytes: the longest path of ours has about 300."""

MAX_FIELD: Final = 8190
"""Longest header field, bytes: an ETag list or a proxy's trail fits; common servers draw the line there."""

MAX_FIELDS: Final = 64
"""Most header fields."""

MAX_BODY: Final = 64 * 1024
"""Largest request body, bytes: the join API's."""

LOOK_SECONDS: Final = 1.0
"""Pause between two looks at whether another certificate is due, which cost microseconds."""

RETRY_SECONDS: Final = 30.0
"""Pause after a certificate that could not be had."""

ACCEPT_RETRY_SECONDS: Final = 1.0
"""Pause where no connection can be taken, since the process has no file descriptors left, say."""

STOP_SECONDS: Final = 2.0
"""Longest time for what is under way at the end."""


class HttpsServer:
    """Serves routes over TLS 1.2 or later. Before there is a certificate, handshakes fail.

    Args:
        certificate: Where the certificate comes from.
        routes: Each adds what it answers.
        clients: The CAs of client certificates, PEM; a client may show one, and need not.
    """

    def __init__(
        self,
        certificate: CertificateSource,
        routes: Iterable[Callable[[web.UrlDispatcher], None]],
        clients: Callable[[], bytes] = bytes,
    ) -> None:
        self._source = certificate
        self._clients = clients
        self._pair: KeyPair | None = None
        self._trusted = b""
        app = web.Application(middlewares=(uniform,), client_max_size=MAX_BODY)
        for add in routes:
            add(app.router)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=STOP_SECONDS,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_FIELDS,
        )
        self._current: ssl.SSLContext | None = None
        self._due = asyncio.Event()
        # Connections begin in this context, which has no certificate, and go on in the one of the moment: a change is one
        # assignment, and nothing of an older certificate is left over, as it would be after a change of the kind of key.
        self._front = _context()
        self._front.sni_callback = self._choose
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._open: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    async def start(self, host: str, port: int) -> int:
        """Takes the port and the certificate that is there; returns the port.

        Raises:
            OSError: The address cannot be used.
            MachinebotError: The certificate cannot be used.
        """
        self._renew()
        await self._runner.setup()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        bound = int(self._listener.getsockname()[1])
        log.info("serving HTTPS", extra={"host": host, "port": bound})
        return bound

    @property
    def has_certificate(self) -> bool:
        """Whether handshakes succeed."""
        return self._current is not None

    def look(self) -> None:
        """Another certificate may be due: look now."""
        self._due.set()

    async def run(self) -> None:
        """Serves for ever, once it was started."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._accept(), name="https accept")
            group.create_task(self._keep_certificate(), name="https certificate")

    async def stop(self) -> None:
        """Ends serving; `run` must have ended."""
        if self._listener is not None:
            self._listener.close()
        if self._open:
            await asyncio.wait(self._open, timeout=STOP_SECONDS)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._runner.cleanup()

    # --- the certificate ---------------------------------------------------------------------------------------------

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._current is not None:
            connection.context = self._current

    async def _keep_certificate(self) -> None:
        while True:
            pause = LOOK_SECONDS
            self._due.clear()
            try:
                self._renew()
            except MachinebotError as error:
                log.error(  # noqa: TRY400 - no traceback: it is no defect of ours
                    "HTTPS certificate kept as it was", extra={"reason": error.reason, "detail": error.message}
                )
                pause = RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due.wait()

    def _renew(self) -> None:
        pair, trusted = self._source.look() or self._pair, self._clients()
        if pair is not None and (pair, trusted) != (self._pair, self._trusted):
            self._current = _context(pair, trusted)
            self._pair, self._trusted = pair, trusted

    # --- connections -------------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        listener = self._listener
        if listener is None:
            raise RuntimeError("the server was not started")
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                self._places.release()
                log.warning("no connection can be taken", extra={"detail": str(error)})
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            task = asyncio.create_task(self._converse(connection), name="https connection")
            self._open.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._places.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connection failed", exc_info=error)

    async def _converse(self, connection: socket.socket) -> None:
        """One connection from the handshake to its end."""
        loop = asyncio.get_running_loop()
        server = self._runner.server
        if server is None:
            raise RuntimeError("the server was not started")
        protocol = _Connection(server(), loop.create_future())
        transport: asyncio.BaseTransport | None = None
        try:
            async with asyncio.timeout(CONNECTION_SECONDS):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol, connection, ssl=self._front, ssl_handshake_timeout=HANDSHAKE_SECONDS
                )
                await protocol.ended
        except (OSError, TimeoutError) as error:
            # What anybody can cause is nothing that anybody must see.
            log.debug("connection ended early", extra={"error": type(error).__name__})
        finally:
            if isinstance(transport, asyncio.Transport) and not protocol.ended.done():
                transport.abort()


class _Connection(asyncio.Protocol):
    """aiohttp's handler of one connection, and word of the end: `ended`."""

    def __init__(self, handler: asyncio.Protocol, ended: asyncio.Future[None]) -> None:
        self._handler = handler
        self.ended = ended

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
        if not self.ended.done():
            self.ended.set_result(None)


def _context(pair: KeyPair | None = None, clients: bytes = b"") -> ssl.SSLContext:
    """Our settings of TLS, with a certificate where one is given, and the CAs of client certificates, PEM.

    No session is resumed: each connection shows its certificate anew, to the CAs of that moment.

    Raises:
        Invalid: The certificate or the key is none, or they do not fit each other.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if clients:
        context.load_verify_locations(cadata=clients.decode())
    if pair is None:
        return context
    try:
        with _in_memory(pair.certificate) as certificate, _in_memory(pair.private_key) as private_key:
            # An empty passphrase: without one OpenSSL would ask for it at the terminal.
            context.load_cert_chain(certificate, private_key, password="")
    except (OSError, ValueError) as error:
        raise Invalid(
            "ServingCertificateUnreadable",
            "the certificate of our HTTPS cannot be used: write PEM, the key without a passphrase, and let them fit each other",
        ) from error
    return context


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path for what only reads files; the content never reaches a disk."""
    descriptor = os.memfd_create("machinebot", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
