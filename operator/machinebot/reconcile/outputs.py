"""Brings one output to what its spec says: look, decide, act, say so. Two writes for an issue, none where all is well."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from machinebot.authority.interface import REJOIN, Authority
from machinebot.authority.plan import Plan
from machinebot.clock import Clock
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, Unavailable
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.events import EventRecorder
from machinebot.kube.owned import Owner
from machinebot.kube.resources import BOTS, OUTPUTS, Resource
from machinebot.kube.secrets import OWN_TYPES, SecretStore, StoredSecret
from machinebot.kube.workloads import Workloads
from machinebot.metrics import Metrics
from machinebot.outputs import inspect, packing
from machinebot.outputs.base import ClusterFacts, Material
from machinebot.outputs.keys import SLOW, PrivateKeyPair, generate
from machinebot.outputs.registry import MachineOutput
from machinebot.policy import backoff
from machinebot.policy.credential import BotRef, Issued, IssueRequest, Usage
from machinebot.policy.decision import Cause, Credential, Snapshot, why_issue
from machinebot.policy.grants import select_roles
from machinebot.reconcile import holding
from machinebot.reconcile.holding import NOTHING, Holding
from machinebot.reconcile.joins import BotJoins
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.ownership import check_ours, was_in_the_way
from machinebot.reconcile.report import Reporter
from machinebot.reconcile.restarts import Restarts
from machinebot.reconcile.world import SecretEntry, World
from machinebot.resources.bot import MachineBot
from machinebot.resources.output import KIND, RENEW_ANNOTATION

log = logging.getLogger(__name__)

ROUNDS: Final = 3
"""How often one reconcile looks again after somebody else was quicker, before it gives way to others."""


@dataclass(frozen=True, slots=True)
class Target:
    """An output with everything that its credential depends on.

    Attributes:
        key: The output's key.
        version: resourceVersion of the output that was looked at.
        output: The output.
        bot: Its bot.
        authority: The bot's authority.
        request: What is wanted, without the public key, which is made for the issue.
        plan: What an issue gives; None where only the issue tells.
        inputs: Digest of what a credential made now is made from.
    """

    key: Key
    version: str
    output: MachineOutput
    bot: MachineBot
    authority: Authority
    request: IssueRequest
    plan: Plan | None
    inputs: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputServices:
    """What reconciling outputs needs of the rest."""

    client: KubeClient
    world: World
    secrets: SecretStore
    joins: BotJoins
    authorities: Callable[[str], Authority]
    """Finds the authority of that name; raises `Unavailable` where it is not ready."""
    events: EventRecorder
    metrics: Metrics
    clock: Clock
    cluster: ClusterFacts
    enqueue: Callable[[Due], None]


class OutputReconciler:
    """Reconciles MachineOutputs."""

    def __init__(self, services: OutputServices) -> None:
        self._with = services
        self._report = Reporter(services.client, services.world, services.events, services.clock)
        self._restarts = Restarts(Workloads(services.client), services.events, services.clock)
        self._seen: dict[Key, Holding] = {}
        """Of outputs whose Secret has another version than status says, though its content is the same: what it holds."""

    async def reconcile(self, key: Key) -> datetime | None:
        """Brings one output to what its spec says; returns when it is to be looked at again.

        Raises:
            Unavailable: Nothing could be done, and not even be said in status: try again later.
        """
        for _ in range(ROUNDS):
            entry = self._with.world.entry(key)
            if entry is None:
                self._seen.pop(key, None)
                self._restarts.forget(key)
                return None
            try:
                output = self._with.world.output(key)
            except Invalid as error:
                await self._report.unreadable(key, entry, error)
                return None
            if output is None or output.metadata.deletion_timestamp is not None:
                return None
            try:
                return await self._round(key, entry.version, output)
            except Conflict as error:
                log.debug("somebody was quicker", extra={"output": str(key), "reason": error.reason})
                await self._see(key, output)
        raise Unavailable("Busy", "the output or its Secret changes faster than it can be looked at")

    async def _see(self, key: Key, output: MachineOutput) -> None:
        """Takes in the output and its Secret as they are now, without waiting for the watches to bring them."""
        secret = await self._with.secrets.read(key.namespace, output.secret_name)
        self._with.world.remember_secret(key.namespace, output.secret_name, None if secret is None else _entry(secret))
        body = await self._with.client.get(OUTPUTS, key.namespace, key.name)
        if body is not None:
            self._observe(OUTPUTS, body)

    def _observe(self, resource: Resource, body: Json) -> None:
        for due in self._with.world.observe(resource, body, gone=False):
            self._with.enqueue(due)

    async def _round(self, key: Key, version: str, output: MachineOutput) -> datetime | None:
        now = self._with.clock.now()
        held = NOTHING
        try:
            held = await self._look(output)
            target = self._target(key, version, output)
        except (Denied, Invalid) as refusal:
            if refusal.reason == "BotMissing":
                held = await self._withdraw(output, held)
            return await self._refuse(key, version, output, held, refusal)
        except Unavailable as trouble:
            return await self._report.trouble(key, version, output, held, trouble)
        cause = self._why(target, held, now)
        if cause is None:
            return await self._settle(target, held, None)
        waiting = self._report.waits(output, now)
        if waiting is not None:
            return waiting
        return await self._issue(target, held, cause)

    # --- look --------------------------------------------------------------------------------------------------------

    async def _look(self, output: MachineOutput) -> Holding:
        """What the Secret holds: from status where it is untouched, else by reading it.

        Raises:
            Denied: The Secret of that name is not ours (`SecretConflict`).
        """
        namespace, name = output.metadata.namespace, output.secret_name
        known = self._with.world.secret(namespace, name)
        if known is None and output.status.secret is None and not was_in_the_way(output):
            return NOTHING
        doubted = _key(output) in self._with.world.doubted
        if known is not None and known.owner_uid == output.metadata.uid and not doubted:
            told = holding.from_status(output, known.version, known.uid)
            if told is not None:
                self._seen.pop(_key(output), None)
                return told
            seen = self._seen.get(_key(output))
            if seen is not None and seen.version == known.version:
                return seen
        return await self._read(output)

    async def _read(self, output: MachineOutput) -> Holding:
        namespace, name = output.metadata.namespace, output.secret_name
        secret = await self._with.secrets.read(namespace, name)
        self._with.world.doubted.discard(_key(output))
        if secret is None:
            self._with.world.remember_secret(namespace, name, None)
            self._seen.pop(_key(output), None)
            return NOTHING
        check_ours(output, secret)
        held = holding.from_secret(output, secret)
        self._with.world.remember_secret(namespace, name, _entry(secret))
        self._seen[_key(output)] = replace(held, secret=None)
        return held

    def _target(self, key: Key, version: str, output: MachineOutput) -> Target:
        """The output with everything that its credential depends on.

        Raises:
            Denied, Invalid: What an issue would be refused with.
            Unavailable: The authority is not ready.
        """
        ref = BotRef(key.namespace, output.spec.bot)
        bot = self._with.world.bot(ref)
        if bot is None:
            raise Denied(
                "BotMissing",
                f"there is no MachineBot {ref.name!r} in the namespace {ref.namespace!r}: create it, or correct spec.bot",
            )
        authority = self._with.authorities(bot.spec.authority)
        packing.keys(output)
        request = IssueRequest(
            output=output.metadata.name,
            wish=output.type.ask(output.settings),
            roles=output.spec.roles,
            lifetime=output.spec.wished_lifetime,
            public_key=None,
        )
        planned = authority.plan(bot, request, now=self._with.clock.now())
        return Target(
            key=key,
            version=version,
            output=output,
            bot=bot,
            authority=authority,
            request=request,
            plan=planned,
            inputs=_inputs(output, bot, authority, request, planned),
        )

    def _why(self, target: Target, held: Holding, now: datetime) -> Cause | None:
        trusted: dict[str, frozenset[str]] = {}
        for anchor in target.authority.trust().anchors:
            trusted[anchor.purpose] = trusted.get(anchor.purpose, frozenset()) | {anchor.id}
        return why_issue(
            Snapshot(
                credential=held.credential,
                inputs=target.inputs,
                trusted=trusted,
                renew_at=None if held.credential is None else holding.renew_at(target.output, held.credential),
                requested=requested(target.output),
                fulfilled=held.fulfilled,
                now=now,
            )
        )

    # --- act ---------------------------------------------------------------------------------------------------------

    async def _issue(self, target: Target, held: Holding, cause: Cause) -> datetime | None:
        output, metrics = target.output, self._with.metrics
        try:
            stored = await self._mint(target, held, cause)
        except Conflict:
            raise
        except MachinebotError as error:
            metrics.issues.labels(output.type.name, cause.reason, error.reason).inc()
            if isinstance(error, Unavailable):
                return await self._report.trouble(target.key, target.version, output, held, error, target=target)
            if error.reason == "NamespaceTerminating":
                return None
            again = await self._refuse(target.key, target.version, output, held, error)
            if again is None and target.plan is None:
                # What stands in the way is an object of the other cluster, which no watch of ours shows.
                again = backoff.retry_at(ELSEWHERE_ROUND, output.metadata.uid, self._with.clock.now())
            return again
        metrics.issues.labels(output.type.name, cause.reason, "success").inc()
        self._seen[target.key] = stored
        again = await self._settle(target, stored, cause)
        self._seen.pop(target.key, None)  # status tells it from now on
        return again

    async def _settle(self, target: Target, held: Holding, cause: Cause | None) -> datetime:
        """What follows from a good credential in the Secret; `cause` says why it was issued now, where it was."""
        await self._tidy(target.output)
        restarted = await self._restarts.follow(target.key, target.output, held)
        if cause is None:
            again = await self._report.settled(target, held, restarted)
        else:
            again = await self._report.issued(target, held, cause, restarted)
        return again if restarted.again is None else min(again, restarted.again)

    async def _mint(self, target: Target, held: Holding, cause: Cause) -> Holding:
        """A new key, its certificates, checked, and stored in one write."""
        output = target.output
        old = held.secret
        if old is None and held.credential is not None:
            old = (await self._read(output)).secret
            if old is None:
                raise Conflict("SecretMissing", "the Secret vanished")
        password = await self._keystore_password(output)
        key = await _private_key(output)
        issued = await self._ask(target, None if key is None else key.spki)
        material = Material(private_key=key, issued=issued, trust=target.authority.trust(), cluster=self._with.cluster)
        data = packing.pack(output, material, password=password)
        content = inspect.inspect(output, data)
        if (content.serial, content.not_after) != (issued.serial, issued.not_after):
            raise Unavailable("IssuedOtherThanAsked", "the authority signed something else than it says; nothing was stored")
        digest = inspect.digest(data)
        authorities = {str(purpose): generation for purpose, generation in issued.authorities.items()}
        terms = None if target.plan is not None else holding.terms_of(issued)
        notes = holding.annotations(
            output,
            inputs=target.inputs,
            digest=digest,
            authorities=authorities,
            reason=cause.reason,
            fulfilled=requested(output),
            terms=terms,
        )
        secret = await self._store(output, old, data, notes)
        self._with.world.remember_secret(secret.namespace, secret.name, _entry(secret))
        if inspect.digest(secret.data) != digest:
            raise Unavailable("StoredOtherThanWritten", "the API server stored something else than was written")
        return Holding(
            credential=Credential(
                damage=None,
                inputs=target.inputs,
                authorities=authorities,
                not_before=content.not_before,
                not_after=content.not_after,
            ),
            version=secret.resource_version,
            uid=secret.uid,
            digest=digest,
            serial=str(content.serial),
            fulfilled=requested(output),
            reason=cause.reason,
            terms=terms or holding.NO_TERMS,
        )

    async def _keystore_password(self, output: MachineOutput) -> str | None:
        """The password for keystores, where a Secret holds it.

        Raises:
            Invalid: There is no such Secret or key, it is one of ours, or what it holds is no password.
        """
        wanted = output.spec.keystores
        reference = wanted.pkcs12.password_secret_ref if wanted is not None and wanted.pkcs12 is not None else None
        if reference is None:
            return None
        secret = await self._with.secrets.read(output.metadata.namespace, reference.name)
        return packing.password_from(reference, None if secret is None or secret.managed else secret.data)

    async def _ask(self, target: Target, public_key: bytes | None) -> Issued:
        request = replace(target.request, public_key=public_key)
        identity = await self._with.joins.identity(target.bot, target.authority)
        if target.bot.status.service_account is None or target.bot.status.service_account.uid != identity.service_account.uid:
            self._with.enqueue(Due(Key(Sort.BOT, target.key.namespace, target.bot.metadata.name)))
        try:
            return await target.authority.issue(identity, request, now=self._with.clock.now())
        except Denied as error:
            if error.reason not in REJOIN:
                raise
        self._with.joins.forget(identity.bot)
        identity = await self._with.joins.identity(target.bot, target.authority)
        return await target.authority.issue(identity, request, now=self._with.clock.now())

    async def _store(
        self, output: MachineOutput, old: StoredSecret | None, data: Mapping[str, bytes], notes: dict[str, str]
    ) -> StoredSecret:
        owner = Owner(KIND.kind, output.metadata.name, output.metadata.uid)
        labels, kind = holding.labels(output), output.spec.secret.type
        if old is not None and old.type != kind and old.type in OWN_TYPES:
            await self._with.secrets.delete(old)  # the type of a Secret cannot be changed
            old = None
        if old is None:
            return await self._with.secrets.create(
                output.metadata.namespace, output.secret_name, data, labels=labels, annotations=notes, owner=owner, kind=kind
            )
        our_labels, our_annotations = holding.templated(old)
        bare = replace(
            old,
            labels={name: text for name, text in old.labels.items() if name not in our_labels},
            annotations={name: text for name, text in old.annotations.items() if name not in our_annotations},
        )
        return await self._with.secrets.replace(bare, data, labels=labels, annotations=notes, owner=owner, kind=kind)

    async def _withdraw(self, output: MachineOutput, held: Holding) -> Holding:
        """The bot was deleted: its credential goes too, once the API server itself has said that the bot is gone.

        Raises:
            Conflict: The bot is there after all, and was not seen yet; it is seen now.
        """
        bot = await self._with.client.get(BOTS, output.metadata.namespace, output.spec.bot)
        if bot is not None:
            self._observe(BOTS, bot)
            raise Conflict("BotNotSeen", f"the MachineBot {output.spec.bot!r} was not seen yet")
        if held.credential is None:
            return held
        secret = held.secret or await self._with.secrets.read(output.metadata.namespace, output.secret_name)
        if secret is not None:
            check_ours(output, secret)
            await self._with.secrets.delete(secret)
            log.info("credential withdrawn", extra={"output": output.metadata.name, "namespace": output.metadata.namespace})
        self._with.world.remember_secret(output.metadata.namespace, output.secret_name, None)
        self._seen.pop(_key(output), None)
        return NOTHING

    async def _tidy(self, output: MachineOutput) -> None:
        """Deletes the Secret of an earlier name, where it is still ours, now that the one of the new name is stored."""
        earlier = output.status.secret
        if earlier is None or earlier.name == output.secret_name:
            return
        secret = await self._with.secrets.read(output.metadata.namespace, earlier.name)
        if secret is not None and secret.managed and secret.owner_uid == output.metadata.uid:
            await self._with.secrets.delete(secret)

    async def _refuse(
        self, key: Key, version: str, output: MachineOutput, held: Holding, refusal: MachinebotError
    ) -> datetime | None:
        await self._report.refused(key, version, output, held, refusal)
        if refusal.reason in backoff.WATCHED_BY_NOBODY:
            return backoff.retry_at(REFUSAL_ROUND, output.metadata.uid, self._with.clock.now())
        return None


REFUSAL_ROUND: Final = 4
"""Which step of the back-off these are looked at in: about 16 s."""

ELSEWHERE_ROUND: Final = 6
"""The same for what the authority of another cluster refuses: about a minute."""


def requested(output: MachineOutput) -> str | None:
    """The wish for a renewal that stands on the output, or None."""
    text = output.metadata.annotations.get(RENEW_ANNOTATION)
    return None if text is None else text[: holding.MAX_FULFILLED]


def _key(output: MachineOutput) -> Key:
    return Key(Sort.OUTPUT, output.metadata.namespace, output.metadata.name)


def _entry(secret: StoredSecret) -> SecretEntry:
    return SecretEntry(uid=secret.uid, version=secret.resource_version, owner_uid=secret.owner_uid)


def _inputs(output: MachineOutput, bot: MachineBot, authority: Authority, request: IssueRequest, planned: Plan | None) -> str:
    """Digest of everything that a credential made now is made from; not of when, nor of which CA generation signs."""
    parts: dict[str, object] = {
        "cluster": authority.spec.cluster_name,
        "bot": bot.metadata.name,
        "key": output.spec.private_key.algorithm,
        "type": output.type.name,
        "settings": output.settings.wire(),
        "secret": output.spec.secret.wire(),
        "keystores": None if output.spec.keystores is None else output.spec.keystores.wire(),
    }
    if planned is None:
        parts |= _asked(bot, authority, request)
    else:
        parts |= _given(authority, request, planned)
    return holding.inputs_digest(parts)


def _given(authority: Authority, request: IssueRequest, planned: Plan) -> dict[str, object]:
    """What an issue gives."""
    ssh = planned.grant.ssh
    return {
        "roles": planned.grant.roles,
        "names": {kind: planned.grant.plain(kind) for kind in planned.grant.names},
        "ssh": [ssh.forward_agent, ssh.port_forwarding, ssh.permit_pty, *ssh.source_addresses],
        "issuer": authority.trust().issuer if Usage.WORKLOAD_TOKEN in request.wish.usages else None,
        "lifetime": int(planned.lifetime.length.total_seconds()),
    }


def _asked(bot: MachineBot, authority: Authority, request: IssueRequest) -> dict[str, object]:
    """What is asked for, where only the issue tells what is given: what changes elsewhere is followed at the next renewal."""
    length = min(request.lifetime, authority.spec.max_lifetime, bot.spec.max_lifetime)
    return {
        "authority": authority.name,
        "roles": select_roles(bot.spec, request.roles),
        "names": {kind: names for kind, names in request.wish.names.items() if names},
        "lifetime": int(length.total_seconds()),
    }


async def _private_key(output: MachineOutput) -> PrivateKeyPair | None:
    """A new private key, off the event loop where making one takes long; None for a type without one."""
    algorithm = output.spec.private_key.algorithm
    if not output.type.algorithms:
        return None
    return await asyncio.to_thread(generate, algorithm) if algorithm in SLOW else generate(algorithm)
