"""The HTTPS server of every replica: TLS and the change of the certificate. What it answers stands in its routes."""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from aiohttp import web

from machinebot.errors import Invalid, MachinebotError
from machinebot.web.answers import uniform
from machinebot.web.certificates import CertificateSource, KeyPair
from machinebot.web.connections import Connections
from machinebot.web.places import Bounds

log = logging.getLogger(__name__)

BOUNDS: Final = Bounds(served=128, each=32, waiting=256, patience=3.0, wait=10.0, stay=20.0)
"""Connections. One that is served takes up to 300 KiB, most of it the buffer of TLS, and one that waits what the kernel keeps of
its first bytes, at most 128 KiB: together they stay below 72 MiB of the 512 that a pod has. One lasts some milliseconds, or on a
slow line a second, so that 32 of one address are enough for the 20 requests a second that it may make, and the wait is long
enough for the 100 that it may make at once. Clients give up after 30 seconds: after the wait and the stay."""

MAX_BODY: Final = 64 * 1024
"""Largest request body, bytes: the join API's."""

LOOK_SECONDS: Final = 1.0
"""Pause between two looks at whether another certificate is due, which cost microseconds."""

RETRY_SECONDS: Final = 30.0
"""Pause after a certificate that could not be had."""


class HttpsServer:
    """Serves routes over TLS 1.2 or later. Before there is a certificate, handshakes fail.

    Args:
        certificate: Where the certificate comes from.
        routes: Each adds what it answers.
        clients: The CAs of client certificates, PEM; a client may show one, and need not.
        bounds: How many connections, and for how long.
    """

    def __init__(
        self,
        certificate: CertificateSource,
        routes: Iterable[Callable[[web.UrlDispatcher], None]],
        clients: Callable[[], bytes] = bytes,
        bounds: Bounds = BOUNDS,
    ) -> None:
        self._source = certificate
        self._clients = clients
        self._pair: KeyPair | None = None
        self._trusted = b""
        self._current: ssl.SSLContext | None = None
        self._due = asyncio.Event()
        # Connections begin in this context, which has no certificate, and go on in the one of the moment: a change is one
        # assignment, and nothing of an older certificate is left over, as it would be after a change of the kind of key.
        front = _context()
        front.sni_callback = self._choose
        self._connections = Connections(bounds, front)
        self._app = web.Application(middlewares=(self._connections.working, uniform), client_max_size=MAX_BODY)
        for add in routes:
            add(self._app.router)

    async def start(self, host: str, port: int) -> int:
        """Takes the port and the certificate that is there; returns the port.

        Raises:
            OSError: The address cannot be used.
            MachinebotError: The certificate cannot be used.
        """
        self._renew()
        bound = await self._connections.start(self._app, host, port)
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
            group.create_task(self._connections.run(), name="https connections")
            group.create_task(self._keep_certificate(), name="https certificate")

    async def stop(self) -> None:
        """Ends serving; `run` must have ended."""
        await self._connections.stop()

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
