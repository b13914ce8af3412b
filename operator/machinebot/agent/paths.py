"""Opens the directories that hold credentials, so that nobody but root, ourselves and the named owner can have put them there.

A path is walked from the root, one directory at a time, each by a descriptor of the one before. Whoever may rename or replace a
part of the path could lead a privileged agent elsewhere, so every directory on the way must belong to one of the trusted users
and be writable by its owner alone, or be sticky like /tmp. Then a symbolic link on the way (/var/run) is one of theirs, and is
followed; the last part is never a link. What is opened once stays the same directory, whatever happens to its name.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machinebot.errors import Denied, Invalid, Unavailable

REFUSED: Final = "DirectoryRefused"
"""Reason where a directory could be somebody else's."""

UNUSABLE: Final = "DirectoryUnusable"
"""Reason where a directory cannot be opened, read or written."""

MAX_LINKS: Final = 40
"""Most symbolic links on the way, as the kernel has it (path_resolution(7))."""

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_PARENT_MODE: Final = 0o755
"""Mode of parents that are made: others may pass, so that another owner reaches what is inside."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """Who may own the directories of a path.

    Attributes:
        owners: User ids, root and ourselves among them.
        unsafe: Whether nothing is checked: a person wrote so.
    """

    owners: frozenset[int]
    unsafe: bool = False

    @classmethod
    def of(cls, owner: int | None = None, *, unsafe: bool = False) -> "Trusted":
        """Root, ourselves and that user."""
        return cls(frozenset({0, os.geteuid()} | (set() if owner is None else {owner})), unsafe)


def open_directory(path: Path, trusted: Trusted, *, mode: int = 0o700) -> int:
    """A descriptor of the directory, which is made where there is none.

    Args:
        path: Absolute.
        trusted: Who may own the directories on the way and itself.
        mode: Of the directory, where it is made.

    Raises:
        Denied: Somebody else could have put it there.
        Invalid: It is a symbolic link or no directory.
        Unavailable: It cannot be opened or made.
    """
    try:
        return _Walk(path, trusted, mode).end()
    except OSError as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: OSError) -> Invalid | Unavailable:
    """What went wrong with a directory, as one of our errors: no operating system's text holds more than names of files."""
    if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.EISDIR}:
        return Invalid(
            UNUSABLE, f"{path} is no plain directory ({error.strerror}): a link there is not followed, write the directory itself"
        )
    return Unavailable(
        UNUSABLE,
        f"{path} cannot be used ({error.strerror}): let it be writable by the user that the agent runs as, with space left",
    )


class _Walk:
    """From the root of the file system to a directory."""

    def __init__(self, path: Path, trusted: Trusted, mode: int) -> None:
        self._path = path
        self._trusted = trusted
        self._mode = mode
        self._links = 0
        self._parts = list(path.parts[1:])
        self._here = os.open("/", _FLAGS)

    def end(self) -> int:
        """The descriptor of the last part."""
        try:
            self._check(os.fstat(self._here))
            while self._parts:
                self._step(self._parts.pop(0))
        except BaseException:
            os.close(self._here)
            raise
        return self._here

    def _step(self, name: str) -> None:
        if name == "..":  # of a link; the path itself has none
            return self._enter(os.open("..", _FLAGS, dir_fd=self._here))
        try:
            found = os.lstat(name, dir_fd=self._here)
        except FileNotFoundError:
            return self._make(name)
        if stat.S_ISLNK(found.st_mode) and (self._parts or self._trusted.unsafe):
            return self._follow(name, found)
        return self._enter(os.open(name, _FLAGS, dir_fd=self._here))

    def _enter(self, descriptor: int) -> None:
        os.close(self._here)
        self._here = descriptor
        self._check(os.fstat(descriptor))

    def _make(self, name: str) -> None:
        mode = _PARENT_MODE if self._parts else self._mode
        os.mkdir(name, mode, dir_fd=self._here)
        self._enter(os.open(name, _FLAGS, dir_fd=self._here))
        os.fchmod(self._here, mode)  # whatever the umask says

    def _follow(self, name: str, found: os.stat_result) -> None:
        # In a sticky directory anybody may have put it.
        if not self._trusted.unsafe and found.st_uid not in self._trusted.owners:
            raise self._refused(f"the symbolic link {name!r} on the way belongs to the user {found.st_uid}")
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = Path(os.readlink(name, dir_fd=self._here))
        if target.is_absolute():
            self._enter(os.open("/", _FLAGS))
        self._parts[:0] = [part for part in target.parts if part != target.anchor]

    def _check(self, found: os.stat_result) -> None:
        if self._trusted.unsafe:
            return
        last = not self._parts
        if found.st_uid not in self._trusted.owners:
            raise self._refused(f"{'it' if last else 'a directory on the way'} belongs to the user {found.st_uid}")
        sticky = bool(found.st_mode & stat.S_ISVTX) and not last
        if found.st_mode & _WRITABLE_BY_OTHERS and not sticky:
            raise self._refused(f"{'it' if last else 'a directory on the way'} is writable by its group or by everybody")

    def _refused(self, why: str) -> Denied:
        return Denied(
            REFUSED,
            f"{self._path} could be led elsewhere by other users, since {why}: take a directory of root's or of the user that "
            "the agent runs as, on the way too, with mode 0755 or less",
        )


def names_in(directory: int) -> list[str]:
    """The names in an open directory."""
    return sorted(os.listdir(directory))


@contextmanager
def opened(name: str, flags: int, directory: int, mode: int = 0o600) -> Iterator[int]:
    """A descriptor of a file in a directory, never through a link."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Writes everything, and waits until it is on the disk."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def read_all(name: str, directory: int, longest: int) -> bytes:
    """The content of a plain file in a directory.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no plain file, or longer than that.
    """
    with opened(name, os.O_RDONLY | os.O_NONBLOCK, directory) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("no plain file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(longest + 1)
    if len(content) > longest:
        raise ValueError("too long")
    return content
