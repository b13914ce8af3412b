"""Keeps the embedded authorities: their CA keys in Secrets of the operator's namespace, made once, rotated, never guessed."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from machinebot.authority.embedded import EmbeddedAuthority
from machinebot.authority.generations import Generation
from machinebot.authority.interface import Authority, TokenReviewer
from machinebot.authority.rotation import advance
from machinebot.authority.stored import dump, load
from machinebot.clock import Clock, rfc3339
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, Unavailable
from machinebot.kube.client import KubeClient
from machinebot.kube.events import EventRecorder, Subject
from machinebot.kube.resources import AUTHORITY_LABEL
from machinebot.kube.secrets import SecretStore, StoredSecret
from machinebot.policy.credential import BotRef, Purpose, TrustAnchor
from machinebot.reconcile.bundles import PUBLISHED, Publication
from machinebot.reconcile.status import StatusWriter
from machinebot.reconcile.world import Due, Entry, Key, Sort, World
from machinebot.resources.authority import KIND, CAStatus, MachineAuthority, MachineAuthoritySpec, MachineAuthorityStatus
from machinebot.resources.meta import READY, Condition, ConditionStatus, with_condition, without_condition

log = logging.getLogger(__name__)

LOOK: Final = timedelta(minutes=10)
"""How often rotation is looked at; its steps are hours apart."""

RETRY: Final = timedelta(seconds=15)
"""How soon an authority that is not ready is looked at again: every output waits for it."""

CONTENT: Final = "generations.json"
"""The key of a CA Secret."""

MAX_NAME: Final = 63
"""Longest name of an authority: it is the value of a label on its CA Secrets, characters."""

ROUNDS: Final = 5
"""How often a CA Secret is read again after another replica was quicker."""


class Authorities:
    """The authorities that can be used, by name.

    Args:
        world: The bots and roles there are.
        reviews: Asks the API server about tokens.
        url: Address of our HTTPS, without a slash at the end.
    """

    def __init__(self, world: World, reviews: TokenReviewer, url: str) -> None:
        self._world = world
        self._reviews = reviews
        self._url = url
        self._ready: dict[str, EmbeddedAuthority] = {}

    def get(self, name: str) -> Authority:
        """The authority of that name.

        Raises:
            Denied: There is no such MachineAuthority.
            Unavailable: It is not ready.
        """
        authority = self._ready.get(name)
        if authority is not None:
            return authority
        if self._world.entry(Key(Sort.AUTHORITY, "", name)) is None:
            raise Denied(
                "AuthorityMissing", f"there is no MachineAuthority {name!r}: create it, or correct the bot's spec.authority"
            )
        raise Unavailable("AuthorityNotReady", f"the MachineAuthority {name!r} is not ready; its status says why")

    def put(self, name: str, spec: MachineAuthoritySpec, generations: Mapping[Purpose, tuple[Generation, ...]]) -> None:
        """Makes an authority usable, or brings one up to date; who has joined stays joined."""
        known, issuer = self._ready.get(name), issuer_of(name, spec, self._url)
        if known is None:
            self._ready[name] = EmbeddedAuthority(name, spec, generations, issuer, self._world, self._reviews)
        else:
            known.update(spec, generations, issuer)

    def forget(self, bot: BotRef) -> None:
        """A bot is gone: its identities are refused from now on."""
        for authority in self._ready.values():
            authority.forget(bot)

    def remove(self, name: str) -> None:
        """An authority was deleted."""
        self._ready.pop(name, None)

    def anchors(self) -> Iterator[tuple[str, TrustAnchor]]:
        """Every published CA generation of every authority, for metrics."""
        for name, authority in self._ready.items():
            for anchor in authority.trust().anchors:
                yield name, anchor


class AuthorityReconciler:
    """Reconciles MachineAuthorities."""

    def __init__(
        self,
        *,
        client: KubeClient,
        world: World,
        secrets: SecretStore,
        authorities: Authorities,
        events: EventRecorder,
        clock: Clock,
        namespace: str,
        publication: Callable[[MachineAuthority], Publication | None],
        enqueue: Callable[[Due], None],
    ) -> None:
        self._world = world
        self._secrets = secrets
        self._authorities = authorities
        self._events = events
        self._clock = clock
        self._namespace = namespace
        self._publication = publication
        self._enqueue = enqueue
        self._status = StatusWriter(client, world)
        self._held: dict[tuple[str, Purpose], tuple[str, tuple[Generation, ...]]] = {}
        self._built: dict[str, tuple[MachineAuthority, Mapping[Purpose, tuple[Generation, ...]]]] = {}

    async def reconcile(self, key: Key) -> datetime | None:
        """Makes the authority usable; returns when to look at its rotation again.

        Raises:
            Unavailable: Status could not be written.
        """
        entry = self._world.entry(key)
        if entry is None:
            self._remove(key.name)
            return None
        now = self._clock.now()
        authority: MachineAuthority | None = None
        try:
            authority = self._world.authority(key.name)
            if authority is None or authority.metadata.deletion_timestamp is not None:
                self._remove(key.name)
                return None
            _check_name(key.name)
            generations = {purpose: await self._generations(authority, purpose, now) for purpose in Purpose}
        except MachinebotError as error:
            await self._not_ready(key, entry, authority, error)
            return now + RETRY
        self._use(authority, generations)
        anchors = tuple(generation.anchor for purpose in Purpose for generation in generations[purpose])
        await self._say(key, entry, authority, "True", "Signing", f"signs as {authority.spec.cluster_name}", anchors)
        return now + LOOK

    def _use(self, authority: MachineAuthority, generations: Mapping[Purpose, tuple[Generation, ...]]) -> None:
        """Takes the authority into use where something of it changed, and has everyone look again."""
        name = authority.metadata.name
        built = self._built.get(name)
        if built is not None and built[0].spec == authority.spec and built[1] == generations:
            return
        self._authorities.put(name, authority.spec, generations)
        self._built[name] = (authority, generations)
        for due in (*self._world.everyone(), *self._world.bundles(name)):
            self._enqueue(due)

    def _remove(self, name: str) -> None:
        self._authorities.remove(name)
        self._built.pop(name, None)
        for purpose in Purpose:
            self._held.pop((name, purpose), None)

    # --- CA Secrets --------------------------------------------------------------------------------------------------

    async def _generations(self, authority: MachineAuthority, purpose: Purpose, now: datetime) -> tuple[Generation, ...]:
        """The generations of one CA, stored, with every step of rotation that is due.

        Raises:
            Invalid: The Secret is missing though there was one, is damaged, or is not ours.
            Unavailable: It cannot be read or written now. Then nothing is made.
        """
        name = authority.metadata.name
        for _ in range(ROUNDS):
            secret = await self._secrets.read(self._namespace, secret_name(name, purpose))
            stored = self._stored(authority, purpose, secret)
            wanted = await asyncio.to_thread(
                advance,
                stored,
                now,
                purpose=purpose,
                algorithm=authority.spec.embedded.key_algorithm,
                cluster_name=authority.spec.cluster_name,
                rotation=authority.spec.embedded.rotation,
            )
            try:
                if secret is None or wanted != stored:
                    await self._store(authority, purpose, secret, wanted)
            except Conflict:
                continue  # another replica was quicker: what it stored counts
            self._held[name, purpose] = (authority.metadata.uid, wanted)
            return wanted
        raise Unavailable("Busy", f"the CA Secret of {purpose} changes faster than it can be read")

    def _stored(self, authority: MachineAuthority, purpose: Purpose, secret: StoredSecret | None) -> tuple[Generation, ...]:
        name = authority.metadata.name
        if secret is not None:
            if not secret.managed or secret.labels.get(AUTHORITY_LABEL) != name:
                raise Invalid(
                    "CASecretConflict",
                    f"the Secret {secret.name!r} in the namespace {self._namespace!r} is not this authority's: delete it",
                )
            return load(purpose, secret.data.get(CONTENT, b""))
        uid, held = self._held.get((name, purpose), ("", ()))
        if uid == authority.metadata.uid:  # one that was deleted and made again begins anew
            log.warning("CA Secret restored from memory", extra={"authority": name, "purpose": str(purpose)})
            return held
        if any(known.purpose == purpose for known in authority.status.authorities):
            raise Invalid(
                "CASecretMissing",
                f"the Secret {secret_name(name, purpose)!r} in the namespace {self._namespace!r} is gone, though it was made "
                "before: restore it from a backup; or, to begin with new CAs that nobody trusts yet, delete the MachineAuthority "
                "and create it again",
            )
        return ()

    async def _store(
        self, authority: MachineAuthority, purpose: Purpose, old: StoredSecret | None, generations: tuple[Generation, ...]
    ) -> None:
        name = authority.metadata.name
        labels, data = {AUTHORITY_LABEL: name}, {CONTENT: dump(generations)}
        if old is None:
            await self._secrets.create(
                self._namespace, secret_name(name, purpose), data, labels=labels, annotations={}, owner=None
            )
        else:
            await self._secrets.replace(old, data, labels=labels, annotations={}, owner=None)
        active = generations[0]
        log.info("CA stored", extra={"authority": name, "purpose": str(purpose), "active": active.id, "count": len(generations)})

    # --- status ------------------------------------------------------------------------------------------------------

    async def _not_ready(self, key: Key, entry: Entry, authority: MachineAuthority | None, error: MachinebotError) -> None:
        log.error("authority not ready", extra={"authority": key.name, "reason": error.reason, "detail": error.message})
        if authority is None:
            return
        if await self._say(key, entry, authority, "False", error.reason, error.message, None):
            subject = Subject(KIND.kind, "", key.name, authority.metadata.uid, entry.version)
            self._events.record(subject, "Warning", error.reason, error.message, action="Load")

    async def _say(
        self,
        key: Key,
        entry: Entry,
        authority: MachineAuthority,
        status: ConditionStatus,
        reason: str,
        message: str,
        anchors: tuple[TrustAnchor, ...] | None,
    ) -> bool:
        conditions = with_condition(
            authority.status.conditions if anchors is None else self._published(authority),
            kind=READY,
            status=status,
            reason=reason,
            message=message,
            generation=authority.metadata.generation,
            now=rfc3339(self._clock.now()),
        )
        published = authority.status.authorities if anchors is None else tuple(map(_ca_status, anchors))
        new = MachineAuthorityStatus(
            observed_generation=authority.metadata.generation, conditions=conditions, authorities=published
        )
        return await self._status.write(key, entry.version, authority.status, new)

    def _published(self, authority: MachineAuthority) -> tuple[Condition, ...]:
        """The conditions with what they say of the trust bundle's namespaces, where any are named."""
        conditions = authority.status.conditions
        if not authority.spec.trust_bundle.namespaces:
            return without_condition(conditions, PUBLISHED)
        publication = self._publication(authority)
        if publication is None:
            return conditions
        return with_condition(
            conditions,
            kind=PUBLISHED,
            status=publication.status,
            reason=publication.reason,
            message=publication.message,
            generation=authority.metadata.generation,
            now=rfc3339(self._clock.now()),
        )


def issuer_of(name: str, spec: MachineAuthoritySpec, url: str) -> str:
    """The `iss` of an authority's JWTs: `spec.issuer`, or where our own HTTPS serves what verifiers look for below it."""
    return spec.issuer or f"{url}/authorities/{name}"


def secret_name(authority: str, purpose: Purpose) -> str:
    """Name of the Secret of one CA."""
    return f"machinebot-ca-{authority}-{purpose}"


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME:
        raise Invalid(
            "NameTooLong", f"the name of a MachineAuthority has at most {MAX_NAME} characters: make one with a shorter name"
        )


def _ca_status(anchor: TrustAnchor) -> CAStatus:
    return CAStatus(
        purpose=anchor.purpose,
        id=anchor.id,
        state=anchor.state,
        fingerprint=anchor.fingerprint,
        not_after=rfc3339(anchor.not_after),
        public=anchor.public.decode(),
    )
