"""Writes status: one merge-patch, only where something differs, and only onto the object that the decision was made on."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from machinebot.clock import rfc3339
from machinebot.errors import MachinebotError, NotFound
from machinebot.kube.client import KubeClient
from machinebot.reconcile.keys import RESOURCES, Key
from machinebot.reconcile.world import Entry, World
from machinebot.resources.meta import READY, Condition, Status, with_condition


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The merge-patch (RFC 7386) that makes `new` of `old`; empty where they are equal."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        if name not in old:
            patch[name] = value
        elif isinstance(value, dict) and isinstance(old[name], dict):
            inner = difference(old[name], value)
            if inner:
                patch[name] = inner
        elif value != old[name]:
            patch[name] = value
    return patch


class StatusWriter:
    """Writes the status of our objects."""

    def __init__(self, client: KubeClient, world: World) -> None:
        self._client = client
        self._world = world

    async def write(self, key: Key, version: str, old: Status, new: Status) -> bool:
        """Writes the new status if it differs; returns whether it did. An object that is gone needs none.

        Args:
            key: The object.
            version: resourceVersion of the object that the status was worked out from.
            old: Status as it stands there.
            new: Status as it should be.

        Raises:
            Conflict: The object changed since.
            Unavailable: The API server is away.
        """
        patch = difference(old.wire(), new.wire())
        if not patch:
            return False
        body = {"metadata": {"resourceVersion": version}, "status": patch}
        try:
            answer = await self._client.patch_status(RESOURCES[key.sort], key.namespace, key.name, body)
        except NotFound:
            return False
        self._world.remember(key, answer)
        return True


async def unreadable(writer: StatusWriter, key: Key, entry: Entry, error: MachinebotError, now: datetime) -> None:
    """Says of an object that does not fit its model any more what is wrong with it; the rest of its status stays as it is.

    Raises:
        Conflict: The object changed since.
        Unavailable: The API server is away.
    """
    old: dict[str, Any] = from_json(entry.body)["status"]
    conditions = tuple(
        Condition.model_validate(condition)
        for condition in old.get("conditions", ())
        if isinstance(condition, dict) and condition.get("type") == READY
    )
    condition = with_condition(
        conditions,
        kind=READY,
        status="False",
        reason=error.reason,
        message=error.message,
        generation=entry.generation,
        now=rfc3339(now),
    )
    before = Status(observed_generation=old.get("observedGeneration"), conditions=conditions)
    after = Status(observed_generation=entry.generation, conditions=condition)
    await writer.write(key, entry.version, before, after)
