"""Whole sets of files in a directory: a reader finds the old set or the new one, and a kill at any moment leaves one of them.

The layout is the one of kubelet's volumes (its AtomicWriter):

    PATH/key            -> ..data/key        what people and programs name; it never changes
    PATH/..data         -> .machinebot-SERIAL
    PATH/.machinebot-SERIAL/key              the set: made beside, complete and on the disk before anything leads to it

`..data` is exchanged by rename(2), which is one step for every reader and for every crash. Who must read several files of one set
opens the directory `..data` once and reads in there: it stays whole, since one old set is kept.

Root's agent works for the named owner, in a directory of theirs. They may do there what they like at any moment, so a set is made
where they cannot exchange it, and what they could not remove themselves is not removed for them.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from machinebot.agent.ownership import AGENTS, CONFLICT, Ownership
from machinebot.agent.paths import (
    UNUSABLE,
    Trusted,
    make_directory,
    names_in,
    open_directory,
    opened,
    read_all,
    shelters,
    unusable,
    write_all,
)
from machinebot.errors import Conflict, Invalid

log = logging.getLogger(__name__)

DATA: Final = "..data"
"""The link that is exchanged; the name is kubelet's, which programs that watch mounted Secrets know."""

NEXT: Final = "..data_tmp"
"""The link that takes its place."""

ABOUT: Final = ".machinebot.json"
"""The file of a set that says what it was made from; written last, and not linked."""

MAX_FILE: Final = 256 * 1024
"""Largest file that is read, bytes."""

MAX_FILES: Final = 64
"""Most files of a set."""

_PREFIX: Final = ".machinebot-"
_SET: Final = re.compile(r"\.machinebot-[0-9]{1,20}")

Step = Callable[[str], None]
"""Told at every step of a write; for tests that stop there."""


def _silent(_step: str) -> None:
    pass


class OutputDirectory:
    """One directory with one set of files.

    Args:
        path: Absolute.
        ownership: Whose the files are.
        unsafe: Whether the directory may be anybody's; see `machinebot.agent.paths`.
        step: Told at every step of a write.
    """

    def __init__(
        self,
        path: Path,
        ownership: Ownership = AGENTS,
        *,
        unsafe: bool = False,
        step: Step = _silent,
    ) -> None:
        self.path = path
        self._ownership = ownership
        self._trusted = Trusted.of(ownership.owner, unsafe=unsafe)
        self._step = step
        self._descriptor: int | None = None

    def close(self) -> None:
        """Lets go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def read(self) -> dict[str, bytes] | None:
        """The files of the set, `ABOUT` among them; None where there is no set.

        Links that somebody has removed are put back.

        Raises:
            Invalid: The set cannot be read: it is damaged, and another one must take its place.
            MachinebotError: The directory cannot be used.
        """
        with self._errors():
            directory = self._open()
            current = self._current(directory)
            if current is None:
                return None
            try:
                files = _files_of(current, directory)
            except (OSError, ValueError) as error:
                raise Invalid("FilesDamaged", f"the files in {self.path} cannot be read") from error
            self._link(directory, files)
            return files

    def check(self, names: Iterable[str]) -> None:
        """Whether a set with files of these names can be written: asked before anything is issued for it.

        Raises:
            Invalid: Somebody else's file stands in the way.
            MachinebotError: The directory cannot be used.
        """
        with self._errors():
            directory = self._open()
            for name in names:
                self._is_linked(directory, name)
            self._remove(directory, NEXT)
            os.symlink(".", NEXT, dir_fd=directory)
            self._remove(directory, NEXT)

    def write(self, serial: int, files: Mapping[str, bytes], about: bytes) -> None:
        """Puts a set in the place of the one that is there.

        Args:
            serial: Tells sets apart.
            files: Name to content.
            about: What it was made from.

        Raises:
            Invalid: Somebody else's file stands in the way.
            MachinebotError: The directory cannot be used; the old set stays.
        """
        name = f"{_PREFIX}{serial}"
        with self._errors():
            directory = self._open()
            for each in files:
                self._is_linked(directory, each)
            try:
                self._make(directory, name, {**files, ABOUT: about})
            except BaseException:
                with self._told():
                    self._remove_set(directory, name)
                raise
            self._step("made")
            self._link(directory, files)
            self._step("linked")
            self._remove(directory, NEXT)
            os.symlink(name, NEXT, dir_fd=directory)
            self._step("exchanging")
            os.rename(NEXT, DATA, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
            self._step("exchanged")
            self._tidy(directory, name)

    # --- the directory ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unusable(self.path, error) from error

    def _open(self) -> int:
        """The directory at the path as it is now: somebody may have made it anew."""
        found = open_directory(self.path, self._trusted, prepare=self._ownership.give_directory)
        descriptor = found.descriptor
        if self._descriptor is not None:
            if os.path.sameopenfile(descriptor, self._descriptor):
                os.close(descriptor)
                return self._descriptor
            self.close()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._ownership.claim(self.path, found, self._holds_only_ours)
            current = self._current(descriptor)
            if current is not None:
                self._tidy(descriptor, current)
        except OSError as error:
            os.close(descriptor)
            if error.errno == errno.EWOULDBLOCK:
                raise Conflict(
                    "DirectoryBusy", f"another agent writes into {self.path}: give each output a directory of its own"
                ) from error
            raise
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return descriptor

    def _holds_only_ours(self, directory: int) -> bool:
        """Whether a directory of ours is empty, or is one that we have written into."""
        current = self._current(directory)
        return not names_in(directory) or (
            current is not None
            and os.lstat(DATA, dir_fd=directory).st_uid == os.geteuid()
            and _exists(f"{current}/{ABOUT}", directory)
        )

    def _current(self, directory: int) -> str | None:
        """Name of the set that `..data` leads to, if it is one."""
        try:
            target = os.readlink(DATA, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise Invalid(UNUSABLE, f"{self.path}/{DATA} is something of somebody else's: move it away") from error
            raise
        if _SET.fullmatch(target) is None or not _exists(target, directory):
            return None
        return target

    # --- one set ---------------------------------------------------------------------------------------------------------

    def _make(self, directory: int, name: str, files: Mapping[str, bytes]) -> None:
        # The set is the owner's before there are files in it: what a kill leaves of it is theirs, and can be told from a
        # directory of root's. Nobody is led to it yet.
        inside = make_directory(name, directory, sheltered=shelters(directory), prepare=self._ownership.give_directory)
        try:
            self._step("set")
            for file, content in files.items():
                with opened(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, inside) as descriptor:
                    self._ownership.give(descriptor, self._ownership.file_mode)
                    self._step(f"open {file}")
                    write_all(descriptor, content)
            os.fsync(inside)
        except Exception:
            # A full disk must not be filled by what did not fit. Its name may be that of another directory by now.
            with self._told():
                for each in names_in(inside):
                    _remove(each, inside)
            raise
        finally:
            os.close(inside)

    def _remove_set(self, directory: int, name: str) -> None:
        """Removes an old set, or what a kill has left of one; follows no links, and goes no deeper."""
        try:
            found = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=directory)
            return
        with opened(name, os.O_RDONLY | os.O_DIRECTORY, directory) as inside:
            if self._is_removable(directory, inside):
                for each in names_in(inside):
                    _remove(each, inside)
        os.rmdir(name, dir_fd=directory)

    def _is_removable(self, directory: int, inside: int) -> bool:
        """Whether what lies in a directory that is called like a set is ours to remove, or the owner's.

        In a directory of theirs the owner may call one of root's by the name of a set, and has us remove what they cannot.
        """
        return os.fstat(inside).st_uid == os.fstat(directory).st_uid or _is_our_file(ABOUT, inside)

    def _tidy(self, directory: int, current: str) -> None:
        """Removes old sets but one, what a kill has left, and links to files that the set does not have.

        A reader who has just opened the old set reads it to its end.
        """
        with self._told():
            kept = {current, *self._previous(directory, current)}
            for name in names_in(directory):
                with self._told():
                    if _SET.fullmatch(name) is not None and name not in kept:
                        self._remove_set(directory, name)
                    elif name == NEXT or self._is_stale(directory, name, current):
                        self._remove(directory, name)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("old files stay", extra={"path": str(self.path), "detail": error.strerror})

    def _previous(self, directory: int, current: str) -> list[str]:
        complete = [
            (os.lstat(name, dir_fd=directory).st_mtime_ns, name)
            for name in names_in(directory)
            if _SET.fullmatch(name) is not None and name != current and _exists(f"{name}/{ABOUT}", directory)
        ]
        return [name for _, name in sorted(complete)[-1:]]

    # --- links -----------------------------------------------------------------------------------------------------------

    def _link(self, directory: int, names: Iterable[str]) -> None:
        for name in names:
            if name != ABOUT and not self._is_linked(directory, name):
                os.symlink(f"{DATA}/{name}", name, dir_fd=directory)

    def _is_linked(self, directory: int, name: str) -> bool:
        """Whether the link of a file is there.

        Raises:
            Invalid: Something else is.
        """
        try:
            target = os.readlink(name, dir_fd=directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            target = ""
        if target != f"{DATA}/{name}":
            raise Invalid(
                CONFLICT,
                f"{self.path}/{name} is something of somebody else's, and is not overwritten: move it away, or take another "
                "directory",
            )
        return True

    def _is_stale(self, directory: int, name: str, current: str) -> bool:
        try:
            return os.readlink(name, dir_fd=directory) == f"{DATA}/{name}" and not _exists(f"{current}/{name}", directory)
        except OSError:
            return False

    def _remove(self, directory: int, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)


def _exists(name: str, directory: int) -> bool:
    try:
        os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def _is_our_file(name: str, directory: int) -> bool:
    try:
        found = os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _remove(name: str, directory: int) -> None:
    if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        os.rmdir(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


def _files_of(name: str, directory: int) -> dict[str, bytes]:
    with opened(name, os.O_RDONLY | os.O_DIRECTORY, directory) as inside:
        names = names_in(inside)
        if len(names) > MAX_FILES:
            raise ValueError("too many files")
        if ABOUT not in names:
            # Links are made by these names: those in a closed directory of root's are not told to the owner of this one.
            raise ValueError("no set")
        return {each: read_all(each, inside, MAX_FILE) for each in names}
