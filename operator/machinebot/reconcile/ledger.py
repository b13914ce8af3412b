"""What the join API remembers: renewable instances, in the status of their join token, each change at once and only once; and who
was here, in the status of bots, now and then.
"""

import asyncio
import logging
from collections import OrderedDict
from typing import Any, Final

from pydantic import ValidationError

from machinebot.authority.bot_certificates import InstanceIdentity
from machinebot.authority.visits import Entry, Visit
from machinebot.clock import rfc3339
from machinebot.errors import Conflict, Denied, MachinebotError, NotFound
from machinebot.joins.registry import MachineJoinToken
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.resources import BOTS, JOIN_TOKENS, LOCKS, MANAGED_BY, MANAGED_BY_LABEL
from machinebot.policy.credential import BotRef
from machinebot.reconcile.roster import Roster
from machinebot.resources.bot import MAX_ATTRIBUTES, MAX_INSTANCES, BotInstance, MachineBotStatus
from machinebot.resources.join_token import MachineJoinTokenStatus, RenewableInstance
from machinebot.resources.lock import KIND as LOCK_KIND
from machinebot.resources.meta import API_VERSION

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 30.0
"""Pause between two writes of who was here: a join writes no object, and status is a minute behind at most."""

MAX_BOTS: Final = 10_000
"""Most bots whose visits wait to be written; beyond that the oldest are not shown."""

_SHOWN: Final = 256
"""Longest value of an attribute in status, characters."""


class Ledger:
    """See `machinebot.authority.visits.Ledger`. Every replica has one; the resourceVersion decides between them.

    Args:
        client: The API server.
        roster: Told of our own writes, so that they count here at once.
    """

    def __init__(self, client: KubeClient, roster: Roster) -> None:
        self._client = client
        self._roster = roster
        self._visits: OrderedDict[BotRef, OrderedDict[str, Visit]] = OrderedDict()

    async def read(self, token: MachineJoinToken) -> Entry:
        """What is remembered of a secret, as it is stored now.

        Raises:
            Denied: The join token is gone, or is another one of the same name.
        """
        namespace, name = token.metadata.namespace, token.metadata.name
        body = await self._client.get(JOIN_TOKENS, namespace, name)
        if body is None or body["metadata"]["uid"] != token.metadata.uid or "deletionTimestamp" in body["metadata"]:
            raise _gone(name)
        return Entry(_instance(body), body["metadata"]["resourceVersion"])

    async def write(self, token: MachineJoinToken, entry: Entry, new: RenewableInstance) -> None:
        """Stores it, if the join token still is what it was when the entry was read: a version is of one object only."""
        namespace, name = token.metadata.namespace, token.metadata.name
        patch = {"metadata": {"resourceVersion": entry.version}, "status": {"instance": new.wire()}}
        try:
            answer = await self._client.patch_status(JOIN_TOKENS, namespace, name, patch)
        except Conflict:
            raise Conflict("Busy", "this join token changes at the moment: ask again with the same public key") from None
        except NotFound:
            raise _gone(name) from None
        self._roster.observe(JOIN_TOKENS, answer, False)

    async def lock(self, identity: InstanceIdentity, message: str) -> None:
        """Locks an instance for good.

        Raises:
            Conflict: A lock of that name is there and changes at this moment.
        """
        target = {"instance": identity.instance}
        told = f"bot {identity.bot.namespace}/{identity.bot.name}: {message}"[:1024]
        # The second name is for where a person has made the first lock one that ends.
        for name in (f"instance-{identity.instance}", f"instance-{identity.instance}-{identity.generation}"):
            body = {
                "apiVersion": API_VERSION,
                "kind": LOCK_KIND.kind,
                "metadata": {"name": name, "labels": {MANAGED_BY_LABEL: MANAGED_BY}},
                "spec": {"target": target, "message": told},
            }
            try:
                answer = await self._client.create(LOCKS, "", body)
            except Conflict:
                known = await self._client.get(LOCKS, "", name)
                if known is not None and known["spec"].get("target") == target and known["spec"].get("expires") is None:
                    return  # it is locked already
            else:
                self._roster.observe(LOCKS, answer, False)
                return
        raise Conflict("Busy", f"the instance {identity.instance} cannot be locked at this moment")

    # --- who was here ----------------------------------------------------------------------------------------------------

    def note(self, visit: Visit) -> None:
        """Remembers who was here; returns at once."""
        bot, instance = visit.identity.bot, visit.identity.instance
        of_bot = self._visits.setdefault(bot, OrderedDict())
        before = of_bot.pop(instance, None)
        of_bot[instance] = visit if before is None or visit.attributes else Visit(visit.identity, before.attributes, visit.at)
        if len(of_bot) > MAX_INSTANCES:
            of_bot.popitem(last=False)
        if len(self._visits) > MAX_BOTS:
            self._visits.popitem(last=False)

    async def run(self) -> None:
        """Writes who was here, for ever."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes who was here since the last time, a status for each bot; what fails is tried again the next time."""
        for bot in list(self._visits):
            visits = self._visits.pop(bot)
            try:
                await self._write_visits(bot, visits)
            except MachinebotError as error:
                log.info("visits kept for later", extra={"bot": bot.user, "reason": error.reason})
                later = self._visits.setdefault(bot, OrderedDict())
                for instance, visit in visits.items():
                    later.setdefault(instance, visit)

    async def _write_visits(self, bot: BotRef, visits: OrderedDict[str, Visit]) -> None:
        body = await self._client.get(BOTS, bot.namespace, bot.name)
        if body is None:
            return
        try:
            known = MachineBotStatus.model_validate(body.get("status") or {}).instances
        except ValidationError:
            known = ()
        merged = OrderedDict((each.id, each) for each in known)
        for visit in visits.values():
            if visit.identity.bot_uid == body["metadata"]["uid"]:
                before = merged.pop(visit.identity.instance, None)
                merged[visit.identity.instance] = _shown(visit, before)
        latest = sorted(merged.values(), key=lambda each: each.last_seen)[-MAX_INSTANCES:]
        if tuple(latest) == known:
            return
        status: dict[str, Any] = {"instances": [each.wire() for each in latest]}
        patch = {"metadata": {"resourceVersion": body["metadata"]["resourceVersion"]}, "status": status}
        answer = await self._client.patch_status(BOTS, bot.namespace, bot.name, patch)
        self._roster.observe(BOTS, answer, False)


def _gone(name: str) -> Denied:
    return Denied("JoinTokenUnknown", f"the MachineJoinToken {name!r} is gone, or was made anew: ask for another secret")


def _instance(body: Json) -> RenewableInstance | None:
    try:
        return MachineJoinTokenStatus.model_validate(body.get("status") or {}).instance
    except ValidationError:
        # Somebody has spoiled the status: nobody can tell who joined, so that nobody may.
        raise Denied("InstanceUnknown", "the status of the join token cannot be read: make another join token") from None


def _shown(visit: Visit, before: BotInstance | None) -> BotInstance:
    identity = visit.identity
    attributes = visit.attributes or (before.attributes if before is not None else {})
    return BotInstance(
        id=identity.instance,
        method=identity.method,
        join_token=identity.join_token,
        generation=identity.generation,
        attributes={name: text[:_SHOWN] for name, text in sorted(attributes.items())[:MAX_ATTRIBUTES]},
        joined_at=before.joined_at if before is not None else rfc3339(visit.at),
        last_seen=rfc3339(visit.at),
        expires_at=rfc3339(identity.expires_at),
    )
