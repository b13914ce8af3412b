"""Names of what there is to look at: our objects, and trust bundles in namespaces."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from typing_extensions import override

from machinebot.kube.resources import AUTHORITIES, BOTS, JOIN_TOKENS, LOCKS, OUTPUTS, ROLES, Resource


class Sort(StrEnum):
    """What a key names."""

    BUNDLE = "TrustBundle"
    """An authority's trust bundle in one namespace: no object of ours, but work to be done all the same."""
    AUTHORITY = "MachineAuthority"
    ROLE = "MachineRole"
    LOCK = "MachineLock"
    BOT = "MachineBot"
    OUTPUT = "MachineOutput"
    JOIN_TOKEN = "MachineJoinToken"  # noqa: S105 - a kind


RESOURCES: Final[Mapping[Sort, Resource]] = {
    Sort.AUTHORITY: AUTHORITIES,
    Sort.ROLE: ROLES,
    Sort.LOCK: LOCKS,
    Sort.BOT: BOTS,
    Sort.OUTPUT: OUTPUTS,
    Sort.JOIN_TOKEN: JOIN_TOKENS,
}
"""Our kinds, in the order in which they are listed and looked at: a lock is known before anything is decided."""


@dataclass(frozen=True, slots=True)
class Key:
    """One object to be looked at."""

    sort: Sort
    namespace: str
    name: str

    @override
    def __str__(self) -> str:
        return f"{self.sort}/{self.namespace}/{self.name}" if self.namespace else f"{self.sort}/{self.name}"


@dataclass(frozen=True, slots=True)
class Due:
    """A key, and in how many seconds it is to be looked at."""

    key: Key
    delay: float = 0.0
