"""Keeps the authorities. Of embedded ones the CA keys, in Secrets of the operator's namespace: made once, rotated, never guessed.
Of remote ones what the other cluster told last.
"""

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
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.remote import REFRESH, RemoteAuthority, ca_status, status_of, told_before
from machinebot.reconcile.status import StatusWriter
from machinebot.reconcile.world import Entry, World
from machinebot.resources.authority import (
    KIND,
    Embedded,
    MachineAuthority,
    MachineAuthoritySpec,
    MachineAuthorityStatus,
)
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
        self._ready: dict[str, EmbeddedAuthority | RemoteAuthority] = {}

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
        if isinstance(known, EmbeddedAuthority):
            known.update(spec, generations, issuer)
        else:
            self._ready[name] = EmbeddedAuthority(name, spec, generations, issuer, self._world, self._reviews)

    def put_remote(self, authority: RemoteAuthority) -> None:
        """Makes the authority of another cluster usable."""
        self._ready[authority.name] = authority

    def is_remote(self, name: str) -> bool:
        """Whether the authority of that name is one of another cluster; as far as is known."""
        return isinstance(self._ready.get(name), RemoteAuthority)

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
        self._remote: dict[str, tuple[str, RemoteAuthority]] = {}
        """The UID of the MachineAuthority beside what is known of the other cluster."""
        self._built: dict[str, tuple[MachineAuthoritySpec, object]] = {}
        """What was taken into use last: the spec, and the generations or the trust bundle."""

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
            if authority.spec.embedded is None:
                return await self._reconcile_remote(key, entry, authority, now)
            generations = {
                purpose: await self._generations(authority, authority.spec.embedded, purpose, now) for purpose in Purpose
            }
        except MachinebotError as error:
            await self._not_ready(key, entry, authority, error)
            return now + RETRY
        self._authorities.put(key.name, authority.spec, generations)
        self._look_again(authority, generations)
        anchors = tuple(generation.anchor for purpose in Purpose for generation in generations[purpose])
        await self._say(key, entry, authority, "True", "Signing", f"signs as {authority.spec.cluster_name}", anchors)
        return now + LOOK

    def _look_again(self, authority: MachineAuthority, built: object) -> None:
        """Has everyone look again, where something of the authority has changed."""
        name = authority.metadata.name
        if self._built.get(name) == (authority.spec, built):
            return
        self._built[name] = (authority.spec, built)
        for due in (*self._world.everyone(), *self._world.bundles(name)):
            self._enqueue(due)

    def _remove(self, name: str) -> None:
        self._authorities.remove(name)
        self._built.pop(name, None)
        self._remote.pop(name, None)
        for purpose in Purpose:
            self._held.pop((name, purpose), None)

    # --- of other clusters -----------------------------------------------------------------------------------------------

    async def _reconcile_remote(self, key: Key, entry: Entry, authority: MachineAuthority, now: datetime) -> datetime:
        """Asks the other cluster for its trust; returns when to ask again. What it told last counts as long as it is away.

        Raises:
            Denied: The authority there is that of another cluster: nobody may use it.
            Invalid: It cannot be asked as it is written.
        """
        remote = self._remote_of(authority)
        away: Unavailable | None = None
        try:
            await remote.refresh(now)
        except Unavailable as error:
            away = error
        except (Denied, Invalid):
            self._authorities.remove(key.name)
            self._built.pop(key.name, None)
            raise
        if remote.told is not None:
            self._authorities.put_remote(remote)
            self._look_again(authority, remote.told)
        if away is not None:
            await self._not_ready(key, entry, authority, Unavailable("RemoteUnavailable", f"{away.reason}: {away.message}"))
            return now + max(RETRY, timedelta(seconds=away.retry_after or 0))
        spec = remote.remote
        message = f"joins {spec.url}, the authority {spec.authority} of {authority.spec.cluster_name}"
        await self._say(key, entry, authority, "True", "Remote", message, remote.trust().anchors)
        return now + REFRESH

    def _remote_of(self, authority: MachineAuthority) -> RemoteAuthority:
        name, uid = authority.metadata.name, authority.metadata.uid
        known_uid, remote = self._remote.get(name, ("", None))
        if remote is None or known_uid != uid:
            told = told_before(authority)
            remote = RemoteAuthority(
                name,
                authority.spec,
                self._world,
                told=told,
                server_ca=b"" if told is None else (authority.status.server_ca or "").encode(),
                changed=lambda: self._enqueue(Due(Key(Sort.AUTHORITY, "", name))),
            )
            self._remote[name] = (uid, remote)
        remote.update(authority.spec)
        return remote

    # --- CA Secrets --------------------------------------------------------------------------------------------------

    async def _generations(
        self, authority: MachineAuthority, embedded: Embedded, purpose: Purpose, now: datetime
    ) -> tuple[Generation, ...]:
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
                algorithm=embedded.key_algorithm,
                cluster_name=authority.spec.cluster_name,
                rotation=embedded.rotation,
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
        new = MachineAuthorityStatus(observed_generation=authority.metadata.generation, conditions=conditions)
        if authority.spec.remote is not None:
            new = new.model_copy(update=self._told(key.name))
        else:
            published = authority.status.authorities if anchors is None else tuple(map(ca_status, anchors))
            new = new.model_copy(update={"authorities": published})
        return await self._status.write(key, entry.version, authority.status, new)

    def _told(self, name: str) -> dict[str, object]:
        """What the other cluster told last, as status keeps it for a restart; empty where it has told nothing."""
        _, remote = self._remote.get(name, ("", None))
        if remote is None or remote.told is None:
            return {}
        return {**status_of(remote.told), "server_ca": remote.server_ca.decode() or None}

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
