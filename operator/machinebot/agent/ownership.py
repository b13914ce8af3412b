"""Whose the files of an output are, and which directories are given to them: none that they could have led a root's agent to."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machinebot.agent.paths import Found
from machinebot.errors import Invalid

CONFLICT: Final = "DirectoryConflict"
"""Reason where something of somebody else's stands in the way."""


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

    def give_directory(self, descriptor: int) -> None:
        """Gives away a directory that is open."""
        self.give(descriptor, self.mode)

    def give(self, descriptor: int, mode: int) -> None:
        """Gives away what is open."""
        if self.owner is not None or self.group is not None:
            os.fchown(descriptor, -1 if self.owner is None else self.owner, -1 if self.group is None else self.group)
        os.fchmod(descriptor, mode)

    def claim(self, path: Path, found: Found, holds_only_ours: Callable[[int], bool]) -> None:
        """Gives away the directory of an output, where it is not yet as it shall be: it was there before.

        Args:
            path: Of the directory.
            found: The directory.
            holds_only_ours: Whether a directory of ours is empty, or is one that we have written into.

        Raises:
            Invalid: It could be one that nobody has meant.
        """
        state = os.fstat(found.descriptor)
        if self == AGENTS or self._is_of(state):
            return
        if not self._may_have(state, found, holds_only_ours):
            raise Invalid(
                CONFLICT,
                f"the agent has not made {path}, which belongs to the user {state.st_uid} and is not as it is written "
                f"({self._words}). It gives away only what is empty or holds its own files, where nobody but root can have put "
                "it: if this directory is meant, set these yourself, else move it away and the agent makes one",
            )
        self.give_directory(found.descriptor)

    def _is_of(self, found: os.stat_result) -> bool:
        owned = self.owner in {None, found.st_uid} and self.group in {None, found.st_gid}
        return owned and stat.S_IMODE(found.st_mode) == self.mode

    def _may_have(self, state: os.stat_result, found: Found, holds_only_ours: Callable[[int], bool]) -> bool:
        if self.owner == state.st_uid and self.owner not in {0, os.geteuid()}:
            # Theirs already: they get nothing that they do not have.
            return True
        # Else one of ours, which the named owner can have put here if one directory of the path is theirs: in that they rename
        # whatever lies there, root's too. An empty one is no better, since root perhaps fills it in a moment. Where every
        # directory of the path is root's or ours, and closed to others (or sticky, where others move nothing of root's), it
        # lies where the writer of the configuration has seen it. Even then it may hold what was not meant to go with it.
        return state.st_uid == os.geteuid() and found.sheltered and holds_only_ours(found.descriptor)

    @property
    def _words(self) -> str:
        """What a directory shall have, for a person."""
        owned = (("owner", self.owner), ("group", self.group))
        return ", ".join([*(f"{name} {number}" for name, number in owned if number is not None), f"mode {self.mode:04o}"])


AGENTS: Final = Ownership()
"""The user's that the agent runs as; the mode of a directory that was there before is left alone then."""
