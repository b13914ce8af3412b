"""What the database servers share: the three files of TLS, an account that is not root, a directory that is its own."""

import contextlib
import os
import pwd
import socket
import stat
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Literal, Self

from controlplane.ports import ReservedPort
from controlplane.processes import Part, ProgramError, wait_until
from workbench.programs import find_program

START_SECONDS: Final = 30.0
"""From start to the first answer; a second on an idle machine."""

MAKE_SECONDS: Final = 60.0
"""To make the files of an empty server; a second on an idle machine."""

LOGIN_SECONDS: Final = 30.0
"""For one login and one statement."""

UNPRIVILEGED: Final = "nobody"
"""Who runs a server where we are root: PostgreSQL refuses root, and every system has this account."""


TLSVersion = Literal["TLSv1.2", "TLSv1.3"]


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """What one end of a connection has, PEM.

    Attributes:
        certificate: Its certificate.
        key: The private key; the same file where that holds both.
        authorities: The CAs that it trusts.
    """

    certificate: Path
    key: Path
    authorities: Path


class Home:
    """A directory of the server's own account, gone at the end.

    It does not lie in the test's directory, which is closed to other accounts and whose path is too long for a socket
    (108 bytes, unix(7)).
    """

    def __init__(self) -> None:
        self._account = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        self._directory = tempfile.TemporaryDirectory(prefix="machinebot-", ignore_cleanup_errors=True)
        self.path = Path(self._directory.name)
        """The directory, closed to everybody else but root."""
        self._give(self.path)

    def command(self, *line: str | Path) -> list[str]:
        """The command line by which the program runs under the server's account and dies with us."""
        words = [str(word) for word in line]
        if self._account is None:
            return words
        # A change of the account takes back the signal at the parent's death (prctl(2)), so that it is asked for again.
        identity = [f"--reuid={self._account.pw_uid}", f"--regid={self._account.pw_gid}", "--clear-groups"]
        return [find_program("setpriv", package="util-linux"), *identity, "--pdeathsig=KILL", "--", *words]

    def take(self, files: TLSFiles) -> TLSFiles:
        """Copies of the files with the modes that they have, in the account's hands.

        Files that their owner alone may read become the account's own. Where we are root and their group may read them too,
        they stay root's and become of the account's group, as the kubelet has them for a pod with `fsGroup`.
        """
        return TLSFiles(self._take(files.certificate), self._take(files.key), self._take(files.authorities))

    def write(self, name: str, text: str) -> Path:
        """A file that only the account may read, made or replaced."""
        path = self.path / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
        self._give(path)
        return path

    def remove(self) -> None:
        """Delete it with all that the server left."""
        self._directory.cleanup()

    def _take(self, source: Path) -> Path:
        mode = stat.S_IMODE(source.stat().st_mode)
        path = self.path / source.name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(source.read_bytes())
        self._give(path, group_only=bool(mode & stat.S_IRGRP))
        path.chmod(mode)
        return path

    def _give(self, path: Path, *, group_only: bool = False) -> None:
        if self._account is not None:
            os.chown(path, -1 if group_only else self._account.pw_uid, self._account.pw_gid)


def run(
    line: Sequence[str], *, what: str, seconds: float, environment: Mapping[str, str] | None = None, statements: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with nothing of the caller's environment but PATH. Its exit code is not checked.

    Args:
        line: The command.
        what: What it does, for the error.
        seconds: For all of it.
        environment: More of its environment.
        statements: Its standard input.

    Raises:
        ProgramError: it took longer.
    """
    surroundings = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **(environment or {})}
    try:
        return subprocess.run(
            line, input=statements, capture_output=True, text=True, timeout=seconds, check=False, env=surroundings
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{what}: not done after {seconds:.0f} s") from None


def make(
    line: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None, statements: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program that makes a server's files.

    Raises:
        ProgramError: it failed, or took longer than `MAKE_SECONDS`; the text holds what it wrote.
    """
    done = run(line, what=what, seconds=MAKE_SECONDS, environment=environment, statements=statements)
    if done.returncode != 0:
        raise ProgramError(f"{what} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


class DatabaseServer(ABC):
    """A database server of its own on a free loopback port. As a context manager it runs for the length of the block.

    A subclass says how its files are made and how it is started; it must have what these need before it calls `__init__`.
    """

    label: ClassVar[str]
    """Its name, for messages."""

    def __init__(self, files: TLSFiles, log: Path) -> None:
        """Make its files; nothing runs yet.

        Args:
            files: The server's certificate and key, and the CAs of its clients; read at each start and `reload`.
            log: Its log.

        Raises:
            ProgramMissingError: it is not installed; the text says what to install.
            ProgramError: its files could not be made.
        """
        self._files = files
        self.log = log
        """Its log: who came, and why not."""
        with contextlib.ExitStack() as made:
            self._home = Home()
            made.callback(self._home.remove)
            self._held = ReservedPort(socket.SO_REUSEADDR)
            made.callback(self._held.release)
            self._make()
            self._part = Part(self.label, self._home.command(*self._command()), log, self._environment())
            self._left = made.pop_all()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1; the same after a restart."""
        return self._held.number

    def __enter__(self) -> Self:
        """Start it and wait until it takes logins."""
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End it, delete its files and give back its port."""
        self._end()

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start it and return once it takes logins.

        Raises:
            ProgramError: it ended or did not answer within `seconds`; the text holds the end of its log.
        """
        self._home.take(self._files)
        self._part.start()
        wait_until(f"{self.label} to take logins", self._answers, seconds=seconds, parts=[self._part])

    def stop(self) -> None:
        """End it, with the connections that are open. It may be started again."""
        self._part.stop()

    @abstractmethod
    def _make(self) -> None:
        """Make the files of an empty server."""

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """The command line that serves."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it takes logins."""

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath)}

    def _end(self) -> None:
        self.stop()
        self._left.close()
