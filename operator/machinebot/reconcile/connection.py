"""The way to the join API of another cluster: a bounded number of threads, time-outs, pauses, and whom to trust at its end."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from machinebot.client.api import JoinClient
from machinebot.client.pins import merged
from machinebot.client.transport import UNREACHABLE, UNREADABLE, UNTRUSTED, Identity
from machinebot.errors import Denied, Invalid, MachinebotError, Unavailable
from machinebot.resources.authority import Remote

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")

SLOTS: Final = 8
"""Most requests to the other cluster at a time; half of the operator's workers. Each has a thread, of our own: those that asyncio
shares out are few, and others, who make keys, need them while a server hangs."""

TIMEOUT_SECONDS: Final = 10.0
"""For connecting, for the handshake, and for all of an answer: a good one takes some milliseconds and the way there and back."""

PAUSE: Final = timedelta(seconds=10)
"""For how long nobody else asks where no answer came: every one of them would hold a worker until its time is out."""

MAX_PAUSE: Final = timedelta(minutes=1)
"""Longest pause for everybody that the other side can ask for; whoever was refused waits as long as was asked for."""

AWAY: Final = frozenset({UNREACHABLE, UNREADABLE, UNTRUSTED, "TooManyRequests"})
"""Reasons of `Unavailable` that would meet everybody who asks now."""

_MAX_MESSAGE: Final = 1024
"""Longest message of the other side that is passed on, characters."""


@dataclass(frozen=True, slots=True)
class _Away:
    """The other side does not answer, as somebody has found out.

    Attributes:
        error: How.
        since: When.
        until: When the next one may try.
    """

    error: Unavailable
    since: datetime
    until: datetime


class Connection:
    """Asks the join API of another cluster.

    Args:
        remote: Where it is.
        server_ca: CA certificates of its HTTPS beside `caBundle`, PEM, which it has told over a connection that was verified, so
            that its rotations are followed. Empty where it is not known by a CA of its own.
    """

    def __init__(self, remote: Remote, server_ca: bytes = b"") -> None:
        self.remote = remote
        self.server_ca = server_ca
        self._slots = asyncio.Semaphore(SLOTS)
        self._threads = ThreadPoolExecutor(SLOTS, thread_name_prefix="remote")
        self._away: _Away | None = None

    def update(self, remote: Remote) -> None:
        """Asks elsewhere, or trusts others, from now on: what was learnt of the former counts no more."""
        self.remote, self.server_ca, self._away = remote, b"", None

    async def ask(
        self, call: Callable[[JoinClient], AnswerT], now: datetime, *, shown: Identity | None = None, prefix: str = ""
    ) -> AnswerT:
        """One request, in a thread.

        Args:
            call: What is asked.
            now: The time.
            shown: The identity of a bot, for mutual TLS.
            prefix: Path between the address and those of the join API.

        Raises:
            MachinebotError: See `JoinClient`; `Unavailable` at once, where somebody has just found out that there is no answer.
        """
        self._check_away(now)
        async with self._slots:
            self._check_away(now)
            ca, url = self._server_ca(), f"{self.remote.url}{prefix}"

            def asking() -> AnswerT:
                """The client is made in the thread too: CA certificates are parsed for it."""
                return call(JoinClient(url, ca=ca, identity=shown, timeout=TIMEOUT_SECONDS))

            try:
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, asking)
            except Unavailable as error:
                raise self._unavailable(error, now) from error
            except (Denied, Invalid) as error:
                raise self.refusal(error) from error
            self._away = None
            return answer

    def _unavailable(self, error: Unavailable, now: datetime) -> Unavailable:
        """The failure as it counts here: what is missing or busy there is no object of this cluster."""
        if error.reason in AWAY:
            pause = PAUSE if error.retry_after is None else min(timedelta(seconds=error.retry_after), MAX_PAUSE)
            self._away = _Away(error, now, now + pause)
        return Unavailable(error.reason, error.message, retry_after=error.retry_after)

    def refusal(self, error: MachinebotError) -> MachinebotError:
        """The refusal, with whose it is: people look for the MachineLock, say, that it names."""
        return type(error)(error.reason, f"{self.remote.url} says: {error.message}"[:_MAX_MESSAGE])

    def _check_away(self, now: datetime) -> None:
        away = self._away
        if away is not None and away.since <= now < away.until:
            left = (away.until - now).total_seconds()
            raise Unavailable(away.error.reason, away.error.message, retry_after=max(left, away.error.retry_after or 0))

    def _server_ca(self) -> bytes | None:
        """The CAs that the other side is verified by; None for those of the system."""
        if self.remote.ca_bundle is None:
            return None
        written, learnt = self.remote.ca_bundle.encode(), self.server_ca
        return merged((written, learnt)) or written

    async def follow(self, now: datetime) -> None:
        """Follows the rotation of the CA of the server, where what is trusted is one of its own CAs."""
        trusted = self._server_ca()
        if trusted is None:
            return
        try:
            told = merged((await self.ask(lambda client: client.server_ca(), now),))
        except MachinebotError as error:
            log.warning("CAs of the other cluster not read", extra={"url": self.remote.url, "reason": error.reason})
            return
        if _share(trusted, told):
            self.server_ca = told


def _share(one: bytes, other: bytes) -> bool:
    """Whether two texts have a CA certificate in common."""
    return len(merged((one, other))) < len(merged((one,))) + len(merged((other,)))
