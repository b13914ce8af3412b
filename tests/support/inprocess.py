"""The whole operator in a thread of this process: a test steps its clock, cuts its line and waits for its queue to be empty."""

import asyncio
import http.client
import os
import secrets
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from prometheus_client import CollectorRegistry

from machinebot.app import Operator
from machinebot.controller.term import Term
from machinebot.errors import MachinebotError
from machinebot.issuers.fetching import Issuers
from machinebot.kube.client import ApiServer, cluster_facts, load_configuration
from machinebot.kube.tokens import TokenReviews
from machinebot.metrics import Metrics
from machinebot.reconcile.world import World
from machinebot.settings import OperatorSettings
from support.clock import SteppedClock
from support.hangup import hang_up
from support.line import Line
from support.waiting import eventually

T = TypeVar("T")

LOOPBACK = "127.0.0.1"

A_LITTLE = timedelta(seconds=3)
"""More than what the operator waits for to write once for several changes; less than any pause after a failure but the first."""

INTERVAL = 0.02
"""Seconds between two looks at whether it has nothing left to do: it takes some milliseconds."""


@dataclass(frozen=True)
class _Alive:
    """What exists while it runs."""

    loop: asyncio.AbstractEventLoop
    operator: Operator
    line: Line
    metrics: Metrics
    stop: asyncio.Event


class _Login:
    """KUBECONFIG in the environment, where kopf looks for it: set as long as an operator runs."""

    def __init__(self) -> None:
        self._outside: str | None = None
        self._count = 0

    def enter(self, kubeconfig: Path) -> None:
        """One operator more."""
        if self._count == 0:
            self._outside = os.environ.pop("KUBECONFIG", None)
        elif os.environ["KUBECONFIG"] != str(kubeconfig):
            raise RuntimeError("an operator with another log-in runs")
        self._count += 1
        os.environ["KUBECONFIG"] = str(kubeconfig)

    def leave(self) -> None:
        """One operator less."""
        self._count -= 1
        if self._count == 0:
            del os.environ["KUBECONFIG"]
            if self._outside is not None:
                os.environ["KUBECONFIG"] = self._outside


_login = _Login()


class RunningOperator:
    """One operator. As a context manager it runs for the length of the block, unless the test ends it before.

    It has its own event loop in its own thread, as a process would: kopf cancels every task of its loop when it ends.
    kopf finds its log-in by KUBECONFIG, so that operators with different ones cannot run at the same time.

    Args:
        kubeconfig: How it logs in.
        settings: How it runs. The port is always a free one.
        clock: Its clock.
        watch_kubeconfig: How kopf logs in, where that differs.
        outside: Makes what judging joins asks of others, of the reviewer of tokens; the servers of platforms themselves by default.
    """

    def __init__(
        self,
        kubeconfig: Path,
        settings: OperatorSettings,
        clock: SteppedClock,
        *,
        watch_kubeconfig: Path | None = None,
        outside: Callable[[TokenReviews], Issuers] | None = None,
    ) -> None:
        self._outside = outside
        self._kubeconfig = kubeconfig
        self._watch_kubeconfig = watch_kubeconfig or kubeconfig
        self._settings = replace(settings, listen_host=LOOPBACK, listen_port=0, https_host=LOOPBACK, https_port=0)
        self.clock = clock
        """Its clock."""
        self._alive: _Alive | None = None
        self._port = 0
        self._failure: BaseException | None = None
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start it; see `wait_leading`."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.running:
            self.stop()

    # --- its life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, for the first time or again, and return when it serves. It keeps its name, its clock and nothing else."""
        if self.running:
            raise RuntimeError("the operator runs already")
        self._let_go()
        self._alive, self._failure = None, None
        self._begun.clear()
        _login.enter(self._watch_kubeconfig)
        self._thread = threading.Thread(target=self._run, name=f"operator {self._settings.identity}", daemon=True)
        self._thread.start()
        self._begun.wait()

    def stop(self) -> None:
        """Ask it to end, as SIGTERM does, and wait until it has."""
        alive = self._parts
        alive.loop.call_soon_threadsafe(alive.stop.set)
        self._join()
        self.check()

    def crash(self) -> None:
        """To the cluster it is dead from now on: no request leaves any more, not even the one that gives up the Lease."""
        alive = self._parts
        alive.line.cut()
        alive.loop.call_soon_threadsafe(alive.stop.set)
        self._join()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def ended(self) -> BaseException | None:
        """What it ended with, once it has; None for a clean end."""
        eventually("the operator ends", lambda: not self.running)
        self._join()
        return self._failure

    def check(self) -> None:
        """Raise what it ended with, if it did with something."""
        if self._failure is not None:
            raise self._failure

    def wait_leading(self) -> None:
        """Return once it leads, has seen the cluster once and has nothing left to do."""
        eventually("the operator leads", self._leads)
        self.wait_quiet()

    def wait_serving(self) -> None:
        """Return once its HTTPS has a certificate, knows the trust of the authority `default`, and who may join."""
        eventually("the operator serves", lambda: self._serves)

    # --- looking into it -----------------------------------------------------------------------------------------------

    @property
    def operator(self) -> Operator:
        """The product, for tests that look where the cluster shows nothing."""
        return self._parts.operator

    @property
    def world(self) -> World:
        """What it has seen of the cluster."""
        return self._term._world

    @property
    def line(self) -> Line:
        """Its line to the API server."""
        return self._parts.line

    def settle(self) -> None:
        """Have it look at the whole cluster once more, let its clock run on a little, and return when nothing is left to do.

        What has happened before the call has had all of its consequences afterwards, but for those that wait for longer.
        """
        self.call(self._look)
        self.wait_quiet()
        self.step(A_LITTLE)
        self.wait_quiet()

    def wait_quiet(self) -> None:
        """Return when nothing waits to be looked at, nothing is being looked at and every event is posted."""
        eventually("the operator has nothing left to do", lambda: self.call(self._is_quiet), interval=INTERVAL)

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in its event loop."""
        self.check()
        return asyncio.run_coroutine_threadsafe(function(), self._parts.loop).result(timeout=60)

    def step(self, length: timedelta) -> None:
        """Move its clock, and have its queue look at it now, which it would do by itself within some seconds."""
        self.clock.step(length)
        self.call(self._look_at_clock)

    def value(self, name: str, /, **labels: str) -> float:
        """The value of one of its metrics; 0 where there is no such sample."""
        return self._parts.metrics.registry.get_sample_value(name, labels) or 0.0

    def total(self, name: str, /, **labels: str) -> float:
        """The sum over every sample of a metric that has these labels."""
        families = self._parts.metrics.registry.collect()
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def get(self, path: str) -> tuple[int, str]:
        """One GET at its own port: status and body."""
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    # --- inside --------------------------------------------------------------------------------------------------------

    @property
    def https_port(self) -> int:
        """The port of its HTTPS."""
        return self._parts.operator.https_port

    @property
    def _parts(self) -> _Alive:
        self.check()
        if self._alive is None:
            raise RuntimeError("the operator does not run")
        return self._alive

    @property
    def _term(self) -> Term:
        picture = self._parts.operator._picture
        if picture is None:
            raise LookupError("the operator does not lead")
        return picture.term

    def _leads(self) -> bool:
        self.check()
        picture = None if self._alive is None else self._alive.operator._picture
        return picture is not None and picture.term.swept_at is not None

    @property
    def _serves(self) -> bool:
        operator = self._parts.operator
        try:
            known = bool(operator._trust.get("default").anchors)
        except MachinebotError:
            return False
        return known and operator._https.has_certificate and operator._roster.is_complete

    async def _look(self) -> None:
        sweep = self._term._sweep
        assert sweep is not None
        await sweep._look(count=False)

    async def _look_at_clock(self) -> None:
        self._term._queue._move_due()

    async def _is_quiet(self) -> bool:
        queue, events = self._term._queue, self._parts.operator._events
        return not (queue._ready or queue._working or events._waiting.qsize() or self._parts.line.under_way)

    def _join(self) -> None:
        if self._thread is None:
            return
        self._thread.join(timeout=30)
        assert not self.running, "the operator does not end"
        self._let_go()

    def _let_go(self) -> None:
        """The thread has ended, by itself or not."""
        if self._thread is not None:
            self._thread = None
            _login.leave()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseExceptionGroup as several:
            self._failure = _one(several)
        except BaseException as error:  # noqa: BLE001 - told to the test, in its own thread
            self._failure = error
        finally:
            self._begun.set()

    async def _main(self) -> None:
        metrics = Metrics(CollectorRegistry())
        configuration = await load_configuration(self._kubeconfig)
        api = ApiServer(configuration, metrics, timeout=self._settings.request_timeout)
        line, stop = Line(api), asyncio.Event()
        cluster = cluster_facts(configuration, in_cluster=False)
        outside = None if self._outside is None else self._outside(TokenReviews(line))
        operator = Operator(self._settings, line, metrics, self.clock, cluster=cluster, outside=outside)
        self._alive = _Alive(asyncio.get_running_loop(), operator, line, metrics, stop)
        try:
            await operator.run(stop, self._started)
        finally:
            await api.close()
            await hang_up()

    def _started(self, port: int) -> None:
        self._port = port
        self._begun.set()


def _one(several: BaseExceptionGroup) -> BaseException:
    """The failure in a group that says most: ours, if one is among them."""
    flat = [_one(error) if isinstance(error, BaseExceptionGroup) else error for error in several.exceptions]
    return next((error for error in flat if isinstance(error, MachinebotError)), flat[0])


def settings(namespace: str, **changes: Any) -> OperatorSettings:
    """Settings of an operator under test: only its watches find changes, since the sweep stays out for long."""
    plain: dict[str, Any] = {"namespace": namespace, "identity": f"test-{secrets.token_hex(4)}", "lease_retry": 0.5}
    return OperatorSettings(**{**plain, **changes})
