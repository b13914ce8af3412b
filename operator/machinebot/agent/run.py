"""Puts the agent together from its configuration, and runs it once or for ever."""

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Final

from machinebot.agent import notify
from machinebot.agent.agent import Agent, State
from machinebot.agent.config import REASON, AgentConfig
from machinebot.agent.daemon import Daemon, Signals, Stop
from machinebot.agent.directory import OutputDirectory
from machinebot.agent.membership import Membership
from machinebot.agent.outputs import Output
from machinebot.agent.storage import FileStorage, MemoryStorage, Storage
from machinebot.clock import Clock, SystemClock
from machinebot.errors import Invalid

log = logging.getLogger(__name__)

PATIENCE: Final = timedelta(seconds=60)
"""How long a oneshot tries again what is unavailable: some seconds of an operator that is being replaced are no failed job."""


def assemble(
    config: AgentConfig,
    outputs: tuple[Output, ...],
    stack: ExitStack,
    *,
    once: bool = False,
    storage: Storage | None = None,
    host: str | None = None,
    alive: Callable[[], None] = lambda: notify.notify(notify.ALIVE),
) -> Agent:
    """The agent of a configuration.

    Args:
        config: The configuration.
        outputs: Its outputs.
        stack: Closes what it holds.
        once: Whether it ends after its work: without storage it need not learn then how the server's CAs go on.
        storage: Instead of what the configuration says.
        host: Name of this machine, by which agents of one configuration spread their renewals.
        alive: Called before everything that may take long.

    Raises:
        MachinebotError: The storage cannot be used.
    """
    if storage is None:
        storage = _storage(config, stack)
    uid = f"{host or socket.gethostname()}/{config.place}"
    joins: Counter[tuple[str, str]] = Counter()

    def count(method: str, result: str) -> None:
        joins[method, result] += 1

    follow = not (once and isinstance(storage, MemoryStorage))
    membership = Membership(config, storage, uid=uid, count=count, follow=follow, alive=alive)
    pairs: list[tuple[Output, OutputDirectory]] = []
    for output in outputs:
        directory = OutputDirectory(output.directory.path, output.owned(), unsafe=output.directory.unsafe_skip_checks)
        stack.callback(directory.close)
        if output.directory.unsafe_skip_checks:
            log.warning("a directory is not checked: others may lead the files elsewhere", extra={"path": str(directory.path)})
        pairs.append((output, directory))
    return Agent(config.onboarding.namespace, membership, pairs, uid=uid, joins=joins)


def _storage(config: AgentConfig, stack: ExitStack) -> Storage:
    if config.storage is None:
        return MemoryStorage()
    storage = FileStorage(config.storage.directory)
    stack.callback(storage.close)
    return storage


def run_once(
    config: AgentConfig, outputs: tuple[Output, ...], *, clock: Clock | None = None, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Joins, writes every output, and ends.

    Returns:
        0 where every output was written, else 1.

    Raises:
        MachinebotError: The storage cannot be used.
    """
    clock = clock or SystemClock()
    with ExitStack() as stack:
        agent = assemble(config, outputs, stack, once=True)
        agent.request()
        deadline = clock.now() + PATIENCE
        while True:
            now = clock.now()
            due = agent.round(now)
            if not agent.unfinished:
                return 0
            if due > deadline or not agent.hopeful:
                return 1
            sleep((due - now).total_seconds())


def run_daemon(config: AgentConfig, outputs: tuple[Output, ...]) -> int:
    """Keeps every output fresh until SIGTERM or SIGINT.

    Returns:
        0.

    Raises:
        MachinebotError: It cannot begin.
    """
    if config.onboarding.method == "token" and config.storage is None:
        raise Invalid(
            REASON,
            "storage: a secret of the method token counts once, so that a daemon must keep its identity over restarts: write "
            "storage: {directory: /var/lib/machinebot}",
        )
    clock = SystemClock()
    with ExitStack() as stack:
        agent = assemble(config, outputs, stack)
        signals = Signals()
        daemon = Daemon(agent, clock, signals.wait, _published(config, clock, stack))
        try:
            with signals.installed(daemon.request):
                daemon.run()
        except Stop:
            log.info("ended by a signal")
        notify.notify(notify.STOPPING)
    return 0


def _published(config: AgentConfig, clock: Clock, stack: ExitStack) -> Callable[[State], None]:
    """Where the state goes after each round: to the health server, where one is wanted."""
    if config.health is None:
        return lambda _state: None
    from machinebot.agent.health import Board, HealthServer  # noqa: PLC0415 - 50 ms and two packages that others save

    board = Board()
    try:
        server = HealthServer(config.health.address, board, clock)
    except OSError as error:
        raise Invalid(REASON, f"health.listen: {config.health.listen} cannot be used: {error.strerror}") from error
    stack.callback(server.stop)

    def publish(state: State) -> None:
        board.state = state

    return publish
