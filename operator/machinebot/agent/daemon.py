"""The loop of the daemon: a round, a wait, and what signals and systemd want. One thread; health has one of its own.

SIGHUP and SIGUSR1 renew everything at once. SIGTERM and SIGINT end the daemon at once, also in the middle of a request: what is
on the disk is whole at every moment, so that an end takes no care.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from types import FrameType
from typing import Final, Protocol

from machinebot.agent import notify
from machinebot.agent.agent import Agent, State
from machinebot.clock import Clock, rfc3339

WATCHDOG_PART: Final = 0.4
"""Part of systemd's watchdog time after which it hears of us: it recommends half, and a round begins in between."""

_RENEW: Final = (signal.SIGHUP, signal.SIGUSR1)
_END: Final = (signal.SIGTERM, signal.SIGINT)


class Wait(Protocol):
    """Waits; tests move a clock instead."""

    def __call__(self, seconds: float, /) -> None:
        """Returns after that time, or earlier where something has happened."""
        ...


class Stop(BaseException):
    """The daemon is to end."""


class Daemon:
    """Rounds for ever.

    Args:
        agent: Does the rounds.
        clock: The time.
        wait: Waits between them.
        publish: Is told the state after each round.
    """

    def __init__(self, agent: Agent, clock: Clock, wait: Wait, publish: Callable[[State], None]) -> None:
        self._agent = agent
        self._clock = clock
        self._wait = wait
        self._publish = publish
        self._requested = False
        self._watchdog = notify.watchdog_seconds()

    def request(self) -> None:
        """Renews everything in the next round."""
        self._requested = True

    def run(self, until: datetime | None = None) -> None:
        """Goes round until `Stop` is raised, or until a moment.

        Args:
            until: For tests.
        """
        first = True
        while until is None or self._clock.now() < until:
            requested, self._requested = self._requested, False
            if requested:
                notify.reloading()
                self._agent.request()
            due = self._agent.round(self._clock.now())
            state = self._agent.state(self._clock.now())
            self._publish(state)
            notify.notify(*([notify.READY] if first or requested else []), notify.ALIVE, f"STATUS={_summary(state, due)}")
            first = False
            self._wait_for(due)

    def _wait_for(self, due: datetime) -> None:
        """Waits until the next round, in parts that the watchdog likes. By the wall clock, which may be set meanwhile."""
        begun = self._clock.now()
        while not self._requested:
            now = self._clock.now()
            left = (due - now).total_seconds()
            if left <= 0 or now < begun:
                return
            self._wait(left if self._watchdog is None else min(left, self._watchdog * WATCHDOG_PART))
            notify.notify(notify.ALIVE)


def _summary(state: State, due: datetime) -> str:
    good = sum(output.ready for output in state.outputs)
    return f"{good} of {len(state.outputs)} outputs good, next look at {rfc3339(due)}"


class Signals:
    """Makes signals into calls, and a wait that they end."""

    def __init__(self) -> None:
        self._renew: Callable[[], None] = lambda: None
        self._reader, self._writer = -1, -1

    @contextlib.contextmanager
    def installed(self, renew: Callable[[], None]) -> Iterator[None]:
        """For the length of the block, in the main thread.

        Args:
            renew: Called at SIGHUP and SIGUSR1.
        """
        self._renew = renew
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {number: signal.getsignal(number) for number in (*_RENEW, *_END)}
        wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            for number in _RENEW:
                signal.signal(number, self._on_renew)
            for number in _END:
                signal.signal(number, self._on_end)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(self._reader)
            os.close(self._writer)

    def wait(self, seconds: float) -> None:
        """Returns after that time, or at a signal."""
        if select.select([self._reader], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._reader, 64):
                    pass

    def _on_renew(self, _number: int, _frame: FrameType | None) -> None:
        self._renew()

    def _on_end(self, _number: int, _frame: FrameType | None) -> None:
        raise Stop
