"""`/livez`, `/readyz` and `/metrics` of the daemon, in a thread of their own, from the state that the loop has put there last."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from typing_extensions import override

from machinebot.agent.agent import OutputState, State
from machinebot.clock import Clock, rfc3339

log = logging.getLogger(__name__)

JSON: Final = "application/json"

STUCK: Final = timedelta(minutes=15)
"""A loop that has not come round for so long hangs: rounds are a minute apart, and each of their requests has a time-out."""

REQUEST_SECONDS: Final = 10.0
"""Longest request: nobody keeps a thread by sending slowly."""

_TIMES: Final[tuple[tuple[str, str, Callable[[OutputState], datetime | None]], ...]] = (
    ("expiration", "When the credential of an output ends.", lambda output: output.not_after),
    ("not_before", "When the credential of an output begins.", lambda output: output.not_before),
    ("renewal", "When the credential of an output is replaced; alert where this is past.", lambda output: output.renew_at),
)
"""Name, help text, and where the time is found: the same as the operator's."""


@dataclass
class Board:
    """Where the loop puts its state, and others read it."""

    state: State | None = None


class HealthServer:
    """Serves health and metrics.

    Args:
        address: Host and port; port 0 takes a free one.
        board: Where the state is.
        clock: The time.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, address: tuple[str, int], board: Board, clock: Clock) -> None:
        registry = CollectorRegistry()
        registry.register(AgentCollector(board))
        self._server = _Server(address, board, clock, registry)
        self.port = int(self._server.server_address[1])
        """The port."""
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()
        log.info("serving health", extra={"host": address[0], "port": self.port})

    def stop(self) -> None:
        """Ends serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], board: Board, clock: Clock, registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.board, self.clock, self.registry = board, clock, registry
        super().__init__(address, _Handler)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("health request ended early")

    @override
    def server_bind(self) -> None:
        # Without the name look-up of http.server, which may take seconds; with its option, without which a daemon that is started
        # again waits for a minute for the connections that the last one has closed.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "machinebot", int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        """Answers what there is."""
        server = cast("_Server", self.server)
        path = self.path.partition("?")[0]
        state, now = server.board.state, server.clock.now()
        if path == "/livez":
            trouble = None if state is None or now - state.at < STUCK else "the loop hangs"
            self._answer(200 if trouble is None else 503, f"{trouble or 'ok'}\n".encode(), "text/plain; charset=utf-8")
        elif path == "/readyz":
            ready, body = readiness(state, now)
            self._answer(200 if ready else 503, json.dumps(body, indent=2).encode() + b"\n", JSON)
        elif path == "/metrics":
            self._answer(200, generate_latest(server.registry), CONTENT_TYPE_LATEST)
        else:
            self._answer(404, b"there are /livez, /readyz and /metrics\n", "text/plain; charset=utf-8")

    do_HEAD = do_GET  # noqa: N815 - the library's name

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: probes come every few seconds."""


def readiness(state: State | None, now: datetime) -> tuple[bool, dict[str, Any]]:
    """Whether every output has a credential that can be used now, and each of them.

    A credential that cannot be replaced is told, and is no reason to be unready while it can be used.
    """
    if state is None:
        return False, {"ready": False, "outputs": {}}
    good = {output.name: output.ready and output.not_after is not None and now < output.not_after for output in state.outputs}
    ready = all(good.values())
    identity: dict[str, Any] = {"notAfter": _text(state.identity_not_after)}
    if state.identity_reason:
        identity |= {"reason": state.identity_reason, "message": state.identity_message}
    outputs = {
        output.name: {
            "ready": good[output.name],
            "type": output.type,
            "path": output.path,
            "notAfter": _text(output.not_after),
            "renewAt": _text(output.renew_at),
            **({"reason": output.reason, "message": output.message} if output.reason else {}),
        }
        for output in state.outputs
    }
    return ready, {"ready": ready, "identity": identity, "outputs": outputs}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


class AgentCollector(Collector):
    """The metrics, read off the state at scrape time, by the names that the operator's have.

    Args:
        board: Where the state is.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    @override
    def collect(self) -> Iterator[Metric]:
        """What Prometheus scrapes."""
        state = self._board.state
        if state is None:
            return
        labels = ("namespace", "name", "type")
        for name, text, moment in _TIMES:
            family = GaugeMetricFamily(f"machinebot_output_{name}_timestamp_seconds", text, labels=labels)
            for output in state.outputs:
                value = moment(output)
                if value is not None:
                    family.add_metric((state.namespace, output.name, output.type), value.timestamp())
            yield family
        ready = GaugeMetricFamily(
            "machinebot_output_ready_status",
            "1 for the status of the condition Ready that an output has, else 0.",
            labels=("namespace", "name", "condition"),
        )
        for output in state.outputs:
            for condition in ("True", "False", "Unknown"):
                ready.add_metric((state.namespace, output.name, condition), float(condition == str(output.ready)))
        yield ready
        yield _counter(
            "machinebot_issues", "Credentials issued, and attempts that failed.", ("type", "reason", "result"), state.issues
        )
        yield _counter("machinebot_joins", "Joins of bots, by method and result.", ("method", "result"), state.joins)
        if state.identity_not_after is not None:
            yield GaugeMetricFamily(
                "machinebot_identity_expiration_timestamp_seconds",
                "When the agent's own identity at the join API ends.",
                value=state.identity_not_after.timestamp(),
            )


def _counter(name: str, text: str, labels: tuple[str, ...], values: Any) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family
