"""Whole sets of files in a directory: a reader finds the old set or the new one, and a kill at any moment leaves one of them.

The layout is the one of kubelet's volumes (its AtomicWriter):

    PATH/key            -> ..data/key        what people and programs name; it never changes
    PATH/..data         -> .machinebot-SERIAL
    PATH/.machinebot-SERIAL/key              the set: made beside, complete and on the disk before anything leads to it

`..data` is exchanged by rename(2), which is one step for every reader and for every crash. Who must read several files of one set
opens the directory `..data` once and reads in there: it stays whole, since one old set is kept.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machinebot.agent.paths import UNUSABLE, Trusted, names_in, open_directory, opened, read_all, unusable, write_all
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


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose the files are.

    Attributes:
        owner: User id, or None for the one that the agent runs as.
        group: Group id, or None for that user's.
        mode: Of directories, 0o700 or 0o750; files have it without execution.
    """

    owner: int | None = None
    group: int | None = None
    mode: int = 0o700

    @property
    def file_mode(self) -> int:
        """Of files."""
        return self.mode & 0o666

    def give(self, descriptor: int, mode: int) -> None:
        """Gives away what is open."""
        if self.owner is not None or self.group is not None:
            os.fchown(descriptor, -1 if self.owner is None else self.owner, -1 if self.group is None else self.group)
        os.fchmod(descriptor, mode)


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
        ownership: Ownership = Ownership(),
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
                # A full disk must not be filled by what did not fit.
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
        found = open_directory(self.path, self._trusted, mode=self._ownership.mode)
        if self._descriptor is not None:
            if os.path.sameopenfile(found, self._descriptor):
                os.close(found)
                return self._descriptor
            self.close()
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._ownership != Ownership():
                self._ownership.give(found, self._ownership.mode)
            current = self._current(found)
            if current is not None:
                self._tidy(found, current)
        except OSError as error:
            os.close(found)
            if error.errno == errno.EWOULDBLOCK:
                raise Conflict(
                    "DirectoryBusy", f"another agent writes into {self.path}: give each output a directory of its own"
                ) from error
            raise
        except BaseException:
            os.close(found)
            raise
        self._descriptor = found
        return found

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
        os.mkdir(name, 0o700, dir_fd=directory)
        with opened(name, os.O_RDONLY | os.O_DIRECTORY, directory) as inside:
            if os.fstat(inside).st_uid != os.geteuid() or names_in(inside):
                raise Invalid(UNUSABLE, f"somebody else changes {self.path} at this moment")
            self._step("set")
            for file, content in files.items():
                with opened(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, inside) as descriptor:
                    # Nobody else gets in here yet: the directory is closed until all are there.
                    self._ownership.give(descriptor, self._ownership.file_mode)
                    self._step(f"open {file}")
                    write_all(descriptor, content)
            self._ownership.give(inside, self._ownership.mode)
            os.fsync(inside)

    def _remove_set(self, directory: int, name: str) -> None:
        """Removes what a kill has left of a set; does not follow links."""
        try:
            found = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)

    def _tidy(self, directory: int, current: str) -> None:
        """Removes old sets but one, what a kill has left, and links to files that the set does not have.

        A reader who has just opened the old set reads it to its end.
        """
        try:
            kept = {current, *self._previous(directory, current)}
            for name in names_in(directory):
                if _SET.fullmatch(name) is not None and name not in kept:
                    self._remove_set(directory, name)
                elif name == NEXT or self._is_stale(directory, name, current):
                    self._remove(directory, name)
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
                "DirectoryConflict",
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


def _files_of(name: str, directory: int) -> dict[str, bytes]:
    with opened(name, os.O_RDONLY | os.O_DIRECTORY, directory) as inside:
        names = names_in(inside)
        if len(names) > MAX_FILES:
            raise ValueError("too many files")
        return {each: read_all(each, inside, MAX_FILE) for each in names}
