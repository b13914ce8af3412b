"""Clients of the join API, as a process of their own: `python -m bench.clients` reads an order as JSON and answers with what it saw.

They share the processors with what is measured, so they do no more than they must: requests are made in advance, connections stay
open, and of an answer no more is read than its status, its headers and that the credentials are there.
"""

import itertools
import json
import math
import queue
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

HOST: Final = "127.0.0.1"

RECONNECT_SECONDS: Final = 15.0
"""Age at which a connection is replaced: the server ends it at 20 s, and an answer may be lost in that moment."""

TIMEOUT_SECONDS: Final = 20.0
"""For one connection or answer."""

END: Final = b"\r\n\r\n"
OK: Final = 200
_RECEIVED: Final = 65_536


@dataclass(frozen=True)
class Order:
    """What to do.

    Attributes:
        port: Port of the join API on the loopback address.
        name: Name that its certificate must prove.
        authority: CA certificates of the join API, PEM.
        path: Path that is posted to.
        bodies: Bodies of requests.
        count: Requests that count, at most.
        clients: How many at a time, each with a connection of its own.
        seconds: Longest time for all of them.
        warm: Requests of each client before those that count.
        once: Whether a body is good for one request; else they are used in turn.
        per_second: Requests a second of all clients together; 0 for as fast as they go.
        anew: Whether each request has a connection of its own.
        wanted: What an answer of 200 must contain.
    """

    port: int
    name: str
    authority: str
    path: str
    bodies: Sequence[str]
    count: int
    clients: int = 16
    seconds: float = 60.0
    warm: int = 5
    once: bool = False
    per_second: float = 0.0
    anew: bool = False
    wanted: Sequence[str] = ()


@dataclass
class Seen:
    """What came of it, of the requests that count.

    Attributes:
        milliseconds: How long each took, from the first byte sent to the last one read.
        answers: How many of each status, as text; `broken` where there was none.
        reasons: How many of each reason of an error.
        incomplete: Answers of 200 without all that was wanted.
        unhelpful: Answers of 429 whose Retry-After is no whole number of seconds above 0.
        connections: Connections that were made.
        seconds: From the first to the last.
        cpu: Processor time of this process, seconds.
    """

    milliseconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    incomplete: int = 0
    unhelpful: int = 0
    connections: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return len(self.milliseconds) / self.seconds

    def percentile(self, percent: float) -> float:
        """The time within which so many of the requests were answered, ms."""
        ordered = sorted(self.milliseconds)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """What another process saw."""
        return cls(**{**told, "answers": Counter(told["answers"]), "reasons": Counter(told["reasons"])})


def run(order: Order) -> Seen:
    """Carries out an order in a process of its own.

    Raises:
        subprocess.SubprocessError: It failed; what it said is on standard error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.clients"],
        input=json.dumps(asdict(order)),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        text=True,
        timeout=order.seconds + 2 * TIMEOUT_SECONDS,
        check=True,
    )
    return Seen.of(json.loads(done.stdout))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    status: int
    head: bytes
    body: bytes


class Client:
    """One client and its connection."""

    def __init__(self, order: Order, context: ssl.SSLContext) -> None:
        self._order = order
        self._context = context
        self._connection: ssl.SSLSocket | None = None
        self._since = 0.0
        self.connections = 0

    def ask(self, request: bytes) -> Answer:
        """One request.

        Raises:
            OSError: The connection broke.
        """
        if self._connection is None or self._order.anew or time.monotonic() - self._since > RECONNECT_SECONDS:
            self._connect()
        connection = self._connection
        if connection is None:
            raise ConnectionError
        connection.sendall(request)
        data = b""
        while END not in data:
            data += _more(connection)
        head, _, body = data.partition(END)
        length = int(header(head, b"content-length"))
        while len(body) < length:
            body += _more(connection)
        if header(head, b"connection") == b"close":
            self.close()
        return Answer(int(head[9:12]), head, body)

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        self.close()
        plain = socket.create_connection((HOST, self._order.port), timeout=TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = self._context.wrap_socket(plain, server_hostname=self._order.name)
        self._since = time.monotonic()
        self.connections += 1


def header(head: bytes, name: bytes) -> bytes:
    """The value of a header field in lower case; empty where there is none."""
    for line in head.split(b"\r\n")[1:]:
        field_name, _, value = line.partition(b":")
        if field_name.lower() == name:
            return value.strip().lower()
    return b""


def _more(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(_RECEIVED)
    if not data:
        raise ConnectionError("the connection was closed")
    return data


class Crowd:
    """All clients of one order."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._context = ssl.create_default_context(cadata=order.authority)
        head = f"POST {order.path} HTTP/1.1\r\nHost: {order.name}\r\nContent-Type: application/json\r\nContent-Length: "
        requests = [f"{head}{len(body.encode())}\r\n\r\n{body}".encode() for body in order.bodies]
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        needed = order.count + order.clients * order.warm
        source: Iterator[bytes] = iter(requests) if order.once else itertools.cycle(requests)
        for request in itertools.islice(source, needed):
            self._requests.put(request)
        self._wanted = [text.encode() for text in order.wanted]
        self._begin = threading.Barrier(order.clients + 1)
        self._lock = threading.Lock()
        self._taken = 0
        self._begun = 0.0
        self.seen = Seen()

    def run(self) -> Seen:
        """Carries out the order."""
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._order.clients)]
        for thread in threads:
            thread.start()
        self._begin.wait()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._begun = time.monotonic()
        self._begin.wait()
        for thread in threads:
            thread.join(self._order.seconds + TIMEOUT_SECONDS)
        self.seen.seconds = time.monotonic() - self._begun
        now = resource.getrusage(resource.RUSAGE_SELF)
        self.seen.cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        return self.seen

    def _work(self) -> None:
        client = Client(self._order, self._context)
        try:
            for _ in range(self._order.warm):
                client.ask(self._requests.get())
        except OSError:
            self._begin.abort()
            raise
        self._begin.wait()
        self._begin.wait()
        while (request := self._next()) is not None:
            begun = time.monotonic()
            try:
                answer = client.ask(request)
            except OSError:
                answer = None
                client.close()
            self._note(1000 * (time.monotonic() - begun), answer)
        with self._lock:
            self.seen.connections += client.connections
        client.close()

    def _next(self) -> bytes | None:
        """The next request, when its moment has come; None at the end."""
        with self._lock:
            number, self._taken = self._taken, self._taken + 1
        due = self._begun + (number / self._order.per_second if self._order.per_second else 0)
        time.sleep(max(0.0, due - time.monotonic()))
        if number >= self._order.count or time.monotonic() - self._begun > self._order.seconds:
            return None
        return self._requests.get()

    def _note(self, milliseconds: float, answer: Answer | None) -> None:
        with self._lock:
            seen = self.seen
            seen.milliseconds.append(milliseconds)
            seen.answers[str(answer.status) if answer else "broken"] += 1
            if answer is None:
                return
            if answer.status != OK:
                seen.reasons[json.loads(answer.body)["reason"]] += 1
            elif not all(text in answer.body for text in self._wanted):
                seen.incomplete += 1
            if answer.status == 429 and not header(answer.head, b"retry-after").isdigit():
                seen.unhelpful += 1


def main() -> None:
    """Reads an order from standard input, carries it out, and writes what it saw."""
    json.dump(vars(Crowd(Order(**json.load(sys.stdin))).run()), sys.stdout)


if __name__ == "__main__":
    main()
