"""Who may join, on every replica: bots, roles, join tokens and locks as they are stored. A replica that stands by has no World,
and serves the join API all the same.

In a cluster without join tokens nobody joins from outside, and bots are not followed here: that costs nothing.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError

from machinebot.errors import Invalid
from machinebot.joins.registry import MachineJoinToken, parse_join_token
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.resources import BOTS, JOIN_TOKENS, LOCKS, ROLES, Resource
from machinebot.kube.watches import Watch
from machinebot.policy.credential import BotRef
from machinebot.policy.locks import Lock, lock_of
from machinebot.reconcile.versions import is_newer
from machinebot.resources.bot import MachineBot
from machinebot.resources.lock import MachineLock
from machinebot.resources.role import MachineRole

log = logging.getLogger(__name__)

Place = tuple[str, str]
"""Namespace and name; the namespace is empty where there is none."""

_FIRST: Final = (JOIN_TOKENS, ROLES, LOCKS)
"""What is followed always: there are few of them."""

TOMBSTONES: Final = 4096
"""UIDs of deleted objects that are remembered, so that an older list or event brings none back."""


class Roster:
    """A `JoinDirectory` by watches of its own. All of its methods but `run` return at once.

    Args:
        client: The API server; nothing is written.
        namespaces: Namespaces that are served; empty for all.
    """

    def __init__(self, client: KubeClient, namespaces: tuple[str, ...]) -> None:
        self._client = client
        self._namespaces = namespaces or ("",)
        self._versions: dict[tuple[str, Place], tuple[str, str]] = {}
        self._gone: dict[str, None] = {}
        self._bots: dict[Place, bytes] = {}
        self._tokens: dict[Place, MachineJoinToken] = {}
        self._roles: dict[str, MachineRole] = {}
        self._locks: dict[str, Lock] = {}
        self._unlisted = {(resource.plural, namespace) for resource in (*_FIRST, BOTS) for namespace in self._places(resource)}
        self._wanted = asyncio.Event()

    @property
    def is_complete(self) -> bool:
        """Whether everything that matters was listed once: before, nobody can be told that something does not exist."""
        return not any(plural != BOTS.plural or self._tokens for plural, _ in self._unlisted)

    def bot(self, ref: BotRef) -> MachineBot | None:
        """The bot, or None where there is none that can be read."""
        body = self._bots.get((ref.namespace, ref.name))
        return None if body is None else _read_bot(body)

    def roles(self) -> Mapping[str, MachineRole]:
        """Every role that can be read, by name."""
        return self._roles

    def locks(self) -> tuple[Lock, ...]:
        """Every lock that can be read."""
        return tuple(self._locks.values())

    def join_token(self, namespace: str, name: str) -> MachineJoinToken | None:
        """The join token, or None where there is none that can be read."""
        return self._tokens.get((namespace, name))

    async def run(self) -> None:
        """Follows them, for ever."""
        async with asyncio.TaskGroup() as group:
            for resource in _FIRST:
                self._follow(group, resource)
            await self._wanted.wait()
            self._follow(group, BOTS)

    def observe(self, resource: Resource, body: Json, gone: bool) -> None:  # noqa: FBT001 - the watch's own signature
        """Takes in one object, or that it is gone; also the answer to a write of our own."""
        metadata = body["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        if gone:
            self._bury(metadata["uid"])
            if self._versions.get((resource.plural, place), ("", ""))[0] == metadata["uid"]:
                self._forget(resource, place)
            return
        known = self._versions.get((resource.plural, place))
        if metadata["uid"] in self._gone or (known is not None and not is_newer(metadata["resourceVersion"], known[1])):
            return
        self._versions[resource.plural, place] = (metadata["uid"], metadata["resourceVersion"])
        self._take(resource, place, body)

    def _take(self, resource: Resource, place: Place, body: Json) -> None:
        try:
            if resource == JOIN_TOKENS:
                self._tokens[place] = parse_join_token(body)
                self._wanted.set()
            elif resource == LOCKS:
                self._locks[place[1]] = lock_of(MachineLock.model_validate(body))
            elif resource == ROLES:
                self._roles[place[1]] = MachineRole.model_validate(body)
            else:
                self._bots[place] = _compact(body)
        except (Invalid, ValidationError, ValueError):
            # What cannot be read lets nobody in. A lock that cannot be read stays what it was: see `_forget_content`.
            log.warning("object unreadable", extra={"resource": resource.plural, "place": "/".join(filter(None, place))})
            if resource != LOCKS:
                self._forget_content(resource, place)

    def _forget(self, resource: Resource, place: Place) -> None:
        self._versions.pop((resource.plural, place), None)
        self._forget_content(resource, place)

    def _forget_content(self, resource: Resource, place: Place) -> None:
        if resource == JOIN_TOKENS:
            self._tokens.pop(place, None)
        elif resource == LOCKS:
            self._locks.pop(place[1], None)
        elif resource == ROLES:
            self._roles.pop(place[1], None)
        else:
            self._bots.pop(place, None)

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        if len(self._gone) > TOMBSTONES:
            del self._gone[next(iter(self._gone))]

    # --- watches ---------------------------------------------------------------------------------------------------------

    def _places(self, resource: Resource) -> tuple[str, ...]:
        return self._namespaces if resource.namespaced else ("",)

    def _follow(self, group: asyncio.TaskGroup, resource: Resource) -> None:
        for namespace in self._places(resource):
            watch = Watch(self._client, resource, namespace, "", self.observe, listed=self._listed)
            group.create_task(watch.run(), name=f"roster of {resource.plural}")

    def _listed(self, resource: Resource, namespace: str, places: frozenset[Place]) -> None:
        """What a whole list does not show is gone: a watch that broke off may have missed it."""
        known = [
            place for plural, place in self._versions if plural == resource.plural and (not namespace or place[0] == namespace)
        ]
        for place in known:
            if place not in places:
                self._forget(resource, place)
        self._unlisted.discard((resource.plural, namespace))


def _compact(body: Json) -> bytes:
    """What decisions read of a bot, as JSON: a tenth of the memory of a model."""
    metadata = body["metadata"]
    kept = {name: metadata[name] for name in ("name", "namespace", "uid", "deletionTimestamp") if name in metadata}
    data = json.dumps({"metadata": kept, "spec": body.get("spec") or {}}, separators=(",", ":")).encode()
    _read_bot(data)
    return data


@lru_cache(maxsize=256)
def _read_bot(data: bytes) -> MachineBot:
    """The model of a bot; one join asks for it several times."""
    parsed: Any = MachineBot.model_validate_json(data)
    bot: MachineBot = parsed
    return bot
