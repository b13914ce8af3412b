"""Opens the directories that hold credentials, so that nobody but root, ourselves and the named owner can have put them there.

A path is walked from the root, one directory at a time, each by a descriptor of the one before. Whoever may rename or replace a
part of the path could lead a privileged agent elsewhere, so every directory on the way must belong to one of the trusted users
and be writable by its owner alone, or be sticky like /tmp. A symbolic link on the way (/var/run) is followed where nobody but
root and ourselves can have put it there; the last part is never a link. What is opened once stays the same directory, whatever
happens to its name.

The named owner is trusted with what is theirs, and with nothing of root's: in their own directories they rename what they like, a
directory of root's too. So a walk tells whether they were asked the way (`Found.sheltered`), and what is made in a directory of
theirs is made where they cannot exchange it (`make_directory`).
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
_MODE: Final = 0o700
"""Mode of a directory that is made."""

_PARENT_MODE: Final = 0o755
"""Mode of parents that are made: others may pass, so that another owner reaches what is inside."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_NURSERIES: Final = 10**20
"""How many names a nursery may have. They look like a set's, so that one which a kill leaves goes with the old sets."""

Prepare = Callable[[int], object]
"""Told the descriptor of what was made, before others see it."""


def _nothing(_descriptor: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Trusted:
    """Who may own the directories of a path.

    Attributes:
        ours: User ids of root and ourselves: only they lead the path, by links and by what they rename.
        owner: Another user who may own directories on it; None for nobody.
        unsafe: Whether nothing is checked: a person wrote so.
    """

    ours: frozenset[int]
    owner: int | None = None
    unsafe: bool = False

    @classmethod
    def of(cls, owner: int | None = None, *, unsafe: bool = False) -> "Trusted":
        """Root, ourselves and that user."""
        return cls(_ours(), owner, unsafe)


@dataclass(frozen=True, slots=True)
class Found:
    """The directory at a path.

    Attributes:
        descriptor: Of the directory, open.
        sheltered: Whether nobody but root and ourselves can have put it, and what leads to it, where it is.
    """

    descriptor: int
    sheltered: bool


def open_directory(path: Path, trusted: Trusted, *, prepare: Prepare = _nothing) -> Found:
    """The directory at a path, which is made where there is none.

    Args:
        path: Absolute.
        trusted: Who may own the directories on the way and itself.
        prepare: Told the descriptor of the directory, where it is made: nobody else has put it there.

    Raises:
        Denied: Somebody else could have put it there.
        Invalid: It is a symbolic link or no directory.
        Unavailable: It cannot be opened or made.
    """
    try:
        return _Walk(path, trusted, prepare).end()
    except OSError as error:
        raise unusable(path, error) from error


def make_directory(name: str, parent: int, *, sheltered: bool, prepare: Prepare = _nothing) -> int:
    """A descriptor of a directory that nobody but this call has made.

    mkdir(2) gives no descriptor, and between it and open(2) whoever may rename in the parent can put something else there: a
    directory of root's that lies in theirs, and which we would then take for our own and give to them. So where others may, it is
    made inside of a closed directory of ours, opened and given there, and only then moved to its name.

    Args:
        name: Of the directory, which there is not yet.
        parent: Descriptor of the directory that it is made in.
        sheltered: Whether nobody but root and ourselves can rename it there; see `shelters`.
        prepare: Told the descriptor; where others may rename it, before it has its name.

    Raises:
        OSError: It cannot be made.
    """
    if sheltered:
        return _made(name, parent, prepare)
    nursery = f".machinebot-{secrets.randbelow(_NURSERIES)}"
    os.mkdir(nursery, _MODE, dir_fd=parent)
    try:
        with opened(nursery, os.O_RDONLY | os.O_DIRECTORY, parent) as inside:
            _check_closed(inside)
            return _moved(name, inside, parent, prepare)
    finally:
        # By its name, which may be another's by now: this removes an empty directory, as the owner of the parent could.
        with suppress(OSError):
            os.rmdir(nursery, dir_fd=parent)


def shelters(directory: int) -> bool:
    """Whether nobody but root and ourselves can rename what is theirs in an open directory."""
    return _is_of(os.fstat(directory), _ours())


def _ours() -> frozenset[int]:
    return frozenset({0, os.geteuid()})


def _made(name: str, parent: int, prepare: Prepare) -> int:
    os.mkdir(name, _MODE, dir_fd=parent)
    descriptor = os.open(name, _FLAGS, dir_fd=parent)
    try:
        prepare(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _moved(name: str, nursery: int, parent: int, prepare: Prepare) -> int:
    try:
        descriptor = _made(name, nursery, prepare)
        try:
            os.rename(name, name, src_dir_fd=nursery, dst_dir_fd=parent)
        except BaseException:
            os.close(descriptor)
            raise
    except BaseException:
        with suppress(OSError):
            os.rmdir(name, dir_fd=nursery)
        raise
    return descriptor


def _check_closed(nursery: int) -> None:
    """Nobody but ourselves may rename in there. Whatever it is else, nothing of it is given away."""
    found = os.fstat(nursery)
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS or names_in(nursery):
        raise OSError(errno.EBUSY, "somebody else changes the directory at this moment")


def _is_of(found: os.stat_result, owners: frozenset[int]) -> bool:
    """Whether in a directory nobody but these users can rename or remove what belongs to them."""
    sticky = bool(found.st_mode & stat.S_ISVTX)
    return found.st_uid in owners and (sticky or not found.st_mode & _WRITABLE_BY_OTHERS)


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

    def __init__(self, path: Path, trusted: Trusted, prepare: Prepare) -> None:
        self._path = path
        self._trusted = trusted
        self._prepare = prepare
        self._links = 0
        self._sheltered = True
        self._parts = list(path.parts[1:])
        self._here = os.open("/", _FLAGS)

    def end(self) -> Found:
        """The last part."""
        try:
            self._check(os.fstat(self._here))
            while self._parts:
                self._step(self._parts.pop(0))
        except BaseException:
            os.close(self._here)
            raise
        return Found(self._here, self._sheltered)

    def _step(self, name: str) -> None:
        around = os.fstat(self._here)
        # A sticky directory shelters what is root's or ours: others can neither rename it nor move such a thing there.
        self._sheltered = self._sheltered and _is_of(around, self._trusted.ours)
        if name == "..":  # of a link; the path itself has none
            return self._enter(os.open("..", _FLAGS, dir_fd=self._here))
        try:
            found = os.lstat(name, dir_fd=self._here)
        except FileNotFoundError:
            return self._make(name)
        if stat.S_ISLNK(found.st_mode) and (self._parts or self._trusted.unsafe):
            return self._follow(name, found, around)
        return self._enter(os.open(name, _FLAGS, dir_fd=self._here))

    def _enter(self, descriptor: int) -> None:
        os.close(self._here)
        self._here = descriptor
        self._check(os.fstat(descriptor))

    def _make(self, name: str) -> None:
        prepare = self._prepare_parent if self._parts else self._prepare_last
        self._enter(make_directory(name, self._here, sheltered=self._sheltered, prepare=prepare))

    def _prepare_parent(self, descriptor: int) -> None:
        os.fchmod(descriptor, _PARENT_MODE)  # whatever the umask says

    def _prepare_last(self, descriptor: int) -> None:
        os.fchmod(descriptor, _MODE)
        self._prepare(descriptor)

    def _follow(self, name: str, found: os.stat_result, around: os.stat_result) -> None:
        why = ""
        if found.st_uid not in self._trusted.ours:
            why = f"belongs to the user {found.st_uid}"
        elif not self._is_closed(around):
            why = f"lies in a directory of the user {around.st_uid}, where others may put links or move them"
        if why and not self._trusted.unsafe:
            raise self._refused(f"the symbolic link {name!r} on the way {why}")
        self._sheltered = self._sheltered and not why
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = Path(os.readlink(name, dir_fd=self._here))
        if target.is_absolute():
            self._enter(os.open("/", _FLAGS))
        self._parts[:0] = [part for part in target.parts if part != target.anchor]

    def _is_closed(self, around: os.stat_result) -> bool:
        """Whether only root and ourselves can put links there.

        Not the named owner in their own directory, and nobody in a sticky one: a link of root's is moved by whoever may rename
        in its directory, and gets another name by link(2) where fs.protected_hardlinks is 0.
        """
        return around.st_uid in self._trusted.ours and not around.st_mode & _WRITABLE_BY_OTHERS

    def _check(self, found: os.stat_result) -> None:
        if self._trusted.unsafe:
            return
        last = not self._parts
        if found.st_uid not in self._trusted.ours | {self._trusted.owner}:
            raise self._refused(f"{'it' if last else 'a directory on the way'} belongs to the user {found.st_uid}")
        sticky = bool(found.st_mode & stat.S_ISVTX) and not last
        if found.st_mode & _WRITABLE_BY_OTHERS and not sticky:
            raise self._refused(f"{'it' if last else 'a directory on the way'} is writable by its group or by everybody")

    def _refused(self, why: str) -> Denied:
        return Denied(
            REFUSED,
            f"{self._path} could be led elsewhere by other users, since {why}: take a directory of root's or of the user that "
            "the agent runs as, on the way too, with mode 0755 or less and without such links",
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
