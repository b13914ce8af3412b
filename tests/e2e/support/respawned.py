"""A replica that comes back in milliseconds each time it is killed; see `respawning`, the program that does it."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from support.waiting import eventually
from workbench.chart import Release
from workbench.operator import OperatorProcess

PROGRAM: Final = (sys.executable, str(Path(__file__).with_name("respawning.py")))


class Respawned:
    """One replica with the chart's arguments and account, whose process is forked anew whenever it is killed."""

    def __init__(self, process: OperatorProcess) -> None:
        self._process = process
        self.kills = 0

    @classmethod
    def from_release(cls, release: Release, directory: Path, *, flags: Mapping[str, str]) -> Self:
        return cls(OperatorProcess.from_release(release, directory, flags=flags, program=PROGRAM))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.close()

    @property
    def child(self) -> int:
        """Process id of the operator itself."""
        return eventually("a child", self._child, interval=0.005)

    def kill_child(self) -> None:
        """Kills the operator by SIGKILL; returns when it is gone. The next one is on its way then."""
        child = self.child
        os.kill(child, signal.SIGKILL)
        eventually("it is gone", lambda: self._child() != child, interval=0.002)
        self.kills += 1

    def stop(self) -> int:
        """Ends the operator by SIGTERM; returns its exit code."""
        assert self.child
        return self._process.stop()

    def _child(self) -> int | None:
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None
