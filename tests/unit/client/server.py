"""An HTTPS server in a thread, on loopback, that answers what a test tells it to."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

from machinebot.authority.generations import Generation
from machinebot.authority.rotation import advance
from machinebot.authority.serving import serving_certificate
from machinebot.client.transport import _file
from machinebot.policy.credential import Purpose
from machinebot.resources.authority import Rotation

CLUSTER = "example.test"

HOST = "localhost"


def identity_ca(purpose: Purpose = Purpose.IDENTITY, cluster: str = CLUSTER) -> Generation:
    """A CA that is good now, by the machine's own clock."""
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    return advance((), now, purpose=purpose, algorithm="ECDSA-P256", cluster_name=cluster, rotation=Rotation())[0]


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        method: GET or POST.
        path: With query.
        headers: Names in lower case.
        body: The body.
        peer: The client's certificate, DER; None where it showed none.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: bytes | None


@dataclass(frozen=True)
class Said:
    """One answer. `raw` is sent instead of everything else."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: Callable[[Any], None] | None = None


@dataclass
class Server:
    """A running server.

    Attributes:
        port: Where it listens.
        answer: What it answers; a test may change it.
        seen: Every request so far.
    """

    port: int
    answer: Callable[[Asked], Said]
    seen: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"


def server_context(
    issuer: Generation, *, names: tuple[str, ...] = (HOST,), clients: bytes | None = None, required: bool = False
) -> ssl.SSLContext:
    made = serving_certificate(issuer, CLUSTER, names, datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _file(made.certificate + made.private_key) as path:
        context.load_cert_chain(path)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=clients.decode())
    return context


class _Handler(BaseHTTPRequestHandler):
    """One request a connection."""

    state: Server

    @override
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        peer = self.connection.getpeercert(binary_form=True) if isinstance(self.connection, ssl.SSLSocket) else None
        asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body, peer)
        self.state.seen.append(asked)
        said = self.state.answer(asked)
        self.close_connection = True
        with contextlib.suppress(OSError):
            if said.raw is not None:
                said.raw(self.connection)
                return
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body)))
            self.end_headers()
            self.wfile.write(said.body)

    do_POST = do_GET  # noqa: N815 - the library's name


class _Quiet(ThreadingHTTPServer):
    """Speaks TLS in the thread of each connection, and says nothing of what clients break off."""

    daemon_threads = True
    # What a test opened and did not read to the end must not hold it up.
    block_on_close = False
    # More than ask at once in any test: what does not fit in the queue is tried again after a second, and again after three.
    request_queue_size = 64
    tls: ssl.SSLContext | None = None

    @override
    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(10)
        return connection, address

    @override
    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:
            request = self.tls.wrap_socket(request, server_side=True)
        try:
            super().finish_request(request, client_address)
        finally:
            request.close()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextlib.contextmanager
def serving(answer: Callable[[Asked], Said], context: ssl.SSLContext | None) -> Iterator[Server]:
    """A server for the length of the block; without a context it speaks no TLS."""
    state = Server(0, answer)
    httpd = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    httpd.tls = context
    state.port = httpd.server_address[1]
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextlib.contextmanager
def connect_proxy(answer: bytes | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """An HTTP proxy for one tunnel: its port, and what it is asked. With an answer it says that, and opens none."""
    asked: list[bytes] = []

    def relay(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                asked.append(client.recv(4096))
                if answer is not None:
                    client.sendall(answer)
                    return
                host, _, port = asked[0].split()[1].decode().partition(":")
                with socket.create_connection((host, int(port))) as server:
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                    back.start()
                    _pump(client, server)
                    back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=relay, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], asked
        thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
