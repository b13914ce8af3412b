"""Child processes that never outlive us: spawn, run with a heartbeat, serve in the background, stop. Knows no Kubernetes."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HEARTBEAT_SECONDS = 15.0
"""A build is silent for minutes; a person starts to doubt after less than half a minute."""
POLL_SECONDS = 0.03
"""Between two looks at a condition: well below what a start-up takes, and cheap."""
GRACE_SECONDS = 5.0
"""From SIGTERM to SIGKILL: an idle part needs well under a second, one with open watches may wait for them."""
LOG_LINES = 25
"""Of a dead part's log in an error: enough for the reason and its neighbours."""

_CHILD = Path(__file__).with_name("_child.py")

# The kernel sends PR_SET_PDEATHSIG when the *thread* that forked ends, not the process. A test that starts its cluster in a
# worker thread (asyncio.to_thread, a fixture in a pool) would lose it with that thread, so one thread that lives as long as
# the interpreter does all the forking.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="controlplane-spawner")


class ProgramError(RuntimeError):
    """A program ended with an error, died, or did not become ready in time; the text holds the end of its log."""


def say_on_stderr(line: str) -> None:
    """Print one line of progress for a person."""
    print(f"controlplane: {line}", file=sys.stderr, flush=True)


def spawn(
    command: Sequence[str | Path],
    *,
    output: IO[bytes],
    environment: Mapping[str, str],
    directory: Path | None = None,
    own_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program, killed by the kernel when this process dies, even by SIGKILL (Linux).

    `own_session` keeps the terminal's Ctrl-C away from it, so that we can stop the parts in order.

    Raises:
        FileNotFoundError: there is no such program.
    """
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(f"no program {command[0]}")
    # -I and -S: the shim needs no site-packages, and nobody's PYTHON* variables.
    shim = [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid()), program, *map(str, command[1:])]

    def fork() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            shim,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=own_session,
        )

    return _SPAWNER.submit(fork).result()


def stop(process: subprocess.Popen[bytes], grace_seconds: float = GRACE_SECONDS) -> None:
    """End a process by its id: SIGTERM, then SIGKILL after `grace_seconds`; returns when it is gone, or was already."""
    if process.poll() is None:
        process.terminate()
        process.send_signal(signal.SIGCONT)  # a paused process would not see SIGTERM
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def run_with_heartbeat(
    command: Sequence[str | Path],
    *,
    what: str,
    log: Path,
    environment: Mapping[str, str],
    directory: Path,
    say: Callable[[str], None],
) -> float:
    """Run a long program to its end and return the seconds it took; every `HEARTBEAT_SECONDS` say that it still works.

    Raises:
        ProgramError: its exit code was not 0; the text holds the end of `log`.
    """
    started = time.monotonic()
    with log.open("wb") as output:
        process = spawn(command, output=output, environment=environment, directory=directory)
        try:
            while (code := _wait(process, HEARTBEAT_SECONDS)) is None:
                say(f"{what}: still working, {clock(time.monotonic() - started)}")
        finally:
            stop(process)
    if code != 0:
        raise ProgramError(f"{what} failed with exit code {code} ({' '.join(map(str, command))}):\n{tail(log)}")
    return time.monotonic() - started


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    return None


def clock(seconds: float) -> str:
    """Seconds as people read a stopwatch: `4:07`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The last lines of a log, indented; says so when there are none."""
    text = log.read_text(errors="replace") if log.exists() else ""
    kept = text.splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in kept) or "    (it logged nothing)"


@dataclass
class Part:
    """One server of the control plane: a command line, its log, and the process while it runs."""

    name: str
    command: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it in the background; its log is appended to, so that a restart keeps the story."""
        if self.running:
            raise ProgramError(f"{self.name} runs already")
        with self.log.open("ab") as output:
            self._process = spawn(self.command, output=output, environment=self.environment, own_session=True)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End it and wait until it is gone."""
        if self._process is not None:
            stop(self._process, grace_seconds)
            self._process = None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal (SIGSTOP, SIGCONT, SIGKILL) by its process id."""
        self._running_process().send_signal(number)

    @property
    def running(self) -> bool:
        """True from start until it ends, of itself or by us."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's own process id (the shim becomes it)."""
        return self._running_process().pid

    def check(self) -> None:
        """Do nothing while it runs or was stopped by us.

        Raises:
            ProgramError: it died by itself.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise ProgramError(f"{self.name} died with exit code {code}; the end of {self.log}:\n{tail(self.log)}")

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise ProgramError(f"{self.name} does not run; the end of {self.log}:\n{tail(self.log)}")
        return self._process


def wait_until(
    what: str, condition: Callable[[], bool], *, seconds: float, parts: Iterable[Part], interval: float = POLL_SECONDS
) -> None:
    """Return as soon as the condition holds; an OSError in it (connection refused, time-out) means not yet.

    Args:
        what: What is waited for, for the error.
        condition: Looked at every `interval` seconds.
        seconds: How long at most.
        parts: Those without which it would be in vain.
        interval: Longer for a look that is dear.

    Raises:
        ProgramError: one of the parts died, or `seconds` went by; the text holds the ends of the logs.
    """
    parts = list(parts)
    deadline = time.monotonic() + seconds
    reason = "it never answered"
    while True:
        for part in parts:
            part.check()
        try:
            if condition():
                return
            reason = "it was not so"
        except OSError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            logs = "\n".join(f"the end of {part.log}:\n{tail(part.log)}" for part in parts)
            raise ProgramError(f"waited {seconds:.0f} s for {what} in vain ({reason})\n{logs}")
        time.sleep(interval)
