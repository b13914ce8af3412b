"""Publishes an authority's trust bundle: one ConfigMap in each namespace that its globs match, kept as it should be.

What a namespace's ConfigMap holds is told by its metadata: the digest in it, and a resourceVersion that was written by us or
read before. So each is read once after a start, and later only where somebody has touched it.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from machinebot.authority.interface import Authority
from machinebot.clock import Clock
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, NotFound, Unavailable
from machinebot.kube.client import KubeClient
from machinebot.kube.configmaps import ConfigMapStore, Content, StoredConfigMap
from machinebot.kube.events import EventRecorder, Subject
from machinebot.kube.owned import Owner
from machinebot.kube.resources import AUTHORITY_LABEL, SELECTOR
from machinebot.outputs.trust import pieces
from machinebot.policy import backoff
from machinebot.policy.credential import TrustBundle
from machinebot.policy.globs import matches_any
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.places import DIGEST, config_map_name
from machinebot.reconcile.world import COUNT_DELAY, World
from machinebot.resources.authority import KIND, MachineAuthority
from machinebot.resources.meta import ConditionStatus

log = logging.getLogger(__name__)

PUBLISHED: Final = "TrustBundlePublished"
"""The condition of a MachineAuthority that names namespaces for its trust bundle."""

CONFLICT: Final = "TrustBundleConflict"
"""Reason: a ConfigMap that is not ours has the name."""

GOING: Final = "NamespaceTerminating"
"""Reason: the namespace is about to go, or gone."""

ROUNDS: Final = 3
"""How often one reconcile looks again after somebody else was quicker."""


@dataclass(frozen=True, slots=True)
class Publication:
    """How far an authority's trust bundle is published: its condition."""

    status: ConditionStatus
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why a namespace does not get it, and how often that was tried."""

    error: MachinebotError
    attempts: int


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A bundle as ConfigMaps hold it."""

    bundle: TrustBundle
    data: dict[str, str]
    digest: str


class BundleReconciler:
    """Reconciles one authority's trust bundle in one namespace at a time.

    Args:
        client: The API server.
        world: What has been seen of the cluster.
        authorities: Finds the authority of that name; raises `Unavailable` where it is not ready.
        events: Told of refusals.
        clock: For pauses.
        enqueue: Told when an authority's status is to be looked at.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        world: World,
        authorities: Callable[[str], Authority],
        events: EventRecorder,
        clock: Clock,
        enqueue: Callable[[Due], None],
    ) -> None:
        self._store = ConfigMapStore(client)
        self._world = world
        self._places = world.places
        self._authorities = authorities
        self._events = events
        self._clock = clock
        self._enqueue = enqueue
        self._rendered: dict[str, _Rendered] = {}
        self._refused: dict[Key, _Refused] = {}
        self._absent: set[Key] = set()
        """Namespaces that turned out to be gone or about to go, though nothing has said so yet."""

    async def reconcile(self, key: Key) -> datetime | None:
        """Brings the ConfigMap of one namespace to what the authority says; returns when it is to be looked at again.

        Raises:
            Unavailable: It could not be read or written now.
        """
        for _ in range(ROUNDS):
            try:
                return await self._round(key)
            except Conflict as error:
                log.debug("somebody was quicker", extra={"key": str(key), "reason": error.reason})
                await self._see(key)
        raise Unavailable("Busy", "the ConfigMap changes faster than it can be looked at")

    def publication(self, authority: MachineAuthority) -> Publication | None:
        """How far the authority's trust bundle is published; None as long as not every namespace has been looked at."""
        globs, name = authority.spec.trust_bundle.namespaces, authority.metadata.name
        content = self._content(authority)
        spaces = [space for space in self._places.namespaces() if matches_any(globs, space)]
        keys = [key for space in spaces if (key := Key(Sort.BUNDLE, space, name)) not in self._absent]
        missing = [key for key in keys if not self._says(key, content)]
        refused = {key: self._refused[key].error for key in missing if key in self._refused}
        if len(refused) < len(missing):
            return None
        if not refused:
            count = "1 namespace" if len(keys) == 1 else f"{len(keys)} namespaces"
            return Publication("True", "Published", f"the ConfigMap {config_map_name(name)} is in {count}")
        first = min(refused, key=lambda key: key.namespace)
        message = f"not published in {len(refused)} of {len(keys)} namespaces: {refused[first].message}"
        return Publication("False", refused[first].reason, message)

    async def _round(self, key: Key) -> datetime | None:
        authority = self._authority(key.name)
        if authority is None or not self._places.has_namespace(key.namespace):
            self._drop(key)
            return None
        try:
            if matches_any(authority.spec.trust_bundle.namespaces, key.namespace):
                await self._publish(key, authority)
            else:
                await self._withdraw(key, authority)
        except (Denied, Invalid) as error:
            if error.reason != GOING:
                return self._refuse(key, authority, error)
            self._absent.add(key)
            self._changed(key)
        return None

    def _authority(self, name: str) -> MachineAuthority | None:
        """The authority, where it can be worked for: its CAs are loaded, and it is not about to go."""
        try:
            authority = self._world.authority(name)
            if authority is None or authority.metadata.deletion_timestamp is not None:
                return None
            self._authorities(name)
        except (Invalid, Denied, Unavailable):
            return None  # once it is ready, everything of it is looked at
        return authority

    # --- act ---------------------------------------------------------------------------------------------------------

    async def _publish(self, key: Key, authority: MachineAuthority) -> None:
        content, name = self._content(authority), config_map_name(key.name)
        entry = self._places.bundle(key.namespace, name)
        if entry is not None and entry.verified and self._says(key, content):
            self._drop(key)
            return
        stored = None
        if entry is not None or key in self._refused:
            stored = await self._store.read(key.namespace, name)
        if stored is None:
            stored = await self._create(key, content)
        elif not stored.managed:
            raise _conflict(key)
        elif not stored.holds(content):
            stored = await self._replace(key, stored, content)
        self._places.remember_bundle(key.namespace, name, stored.metadata)
        self._drop(key)

    async def _create(self, key: Key, content: Content) -> StoredConfigMap:
        name = config_map_name(key.name)
        try:
            stored = await self._store.create(key.namespace, name, content)
        except Conflict:
            found = await self._store.read(key.namespace, name)
            if found is not None and not found.managed:
                raise _conflict(key) from None
            raise
        except NotFound as error:
            raise Denied(GOING, error.message) from error
        self._changed(key)
        log.info("trust bundle published", extra={"authority": key.name, "namespace": key.namespace})
        return stored

    async def _replace(self, key: Key, old: StoredConfigMap, content: Content) -> StoredConfigMap:
        self._changed(key)
        log.info("trust bundle brought up to date", extra={"authority": key.name, "namespace": key.namespace})
        if old.immutable:
            metadata = old.metadata
            await self._store.delete(key.namespace, metadata["name"], uid=metadata["uid"], version=metadata["resourceVersion"])
            return await self._create(key, content)
        try:
            return await self._store.replace(old, content)
        except NotFound as error:
            raise Conflict(error.reason, error.message) from error

    async def _withdraw(self, key: Key, authority: MachineAuthority) -> None:
        """Deletes the ConfigMap of a namespace that is not meant any more, where it is this authority's."""
        name = config_map_name(key.name)
        entry = self._places.bundle(key.namespace, name)
        self._drop(key)
        if entry is None or entry.owner_uid != authority.metadata.uid:
            return
        await self._store.delete(key.namespace, name, uid=entry.uid, version=entry.version)
        self._places.remember_bundle(key.namespace, name, None)
        self._changed(key)
        log.info("trust bundle withdrawn", extra={"authority": key.name, "namespace": key.namespace})

    async def _see(self, key: Key) -> None:
        """Takes in the ConfigMap as it is now, without waiting for the watch to bring it."""
        name = config_map_name(key.name)
        stored = await self._store.read(key.namespace, name)
        self._places.remember_bundle(key.namespace, name, None)
        if stored is not None and stored.managed:
            self._places.observe_bundle(stored.metadata, gone=False)

    # --- say ---------------------------------------------------------------------------------------------------------

    def _refuse(self, key: Key, authority: MachineAuthority, error: MachinebotError) -> datetime:
        known = self._refused.get(key)
        attempts = 1 if known is None else known.attempts + 1
        self._refused[key] = _Refused(error, attempts)
        if known is None or known.error.message != error.message:
            metadata = authority.metadata
            subject = Subject(KIND.kind, "", metadata.name, metadata.uid, metadata.resource_version)
            self._events.record(subject, "Warning", error.reason, error.message, action="Publish")
            log.warning("trust bundle refused", extra={"key": str(key), "reason": error.reason, "detail": error.message})
            self._changed(key)
        return backoff.retry_at(attempts, f"{authority.metadata.uid}/{key.namespace}", self._clock.now())

    def _drop(self, key: Key) -> None:
        """Nothing stands in the way any more."""
        self._absent.discard(key)
        if self._refused.pop(key, None) is not None:
            self._changed(key)

    def _changed(self, key: Key) -> None:
        """Has the authority's status looked at; those that change together are counted once."""
        self._enqueue(Due(Key(Sort.AUTHORITY, "", key.name), COUNT_DELAY))

    # --- what it should be -------------------------------------------------------------------------------------------

    def _content(self, authority: MachineAuthority) -> Content:
        name = authority.metadata.name
        bundle = self._authorities(name).trust()
        rendered = self._rendered.get(name)
        if rendered is None or rendered.bundle != bundle:
            data = {piece: content.decode() for piece, content in pieces(bundle).items()}
            digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
            rendered = self._rendered[name] = _Rendered(bundle, data, digest)
        return Content(
            data=rendered.data,
            labels={AUTHORITY_LABEL: name},
            annotations={DIGEST: rendered.digest},
            owner=Owner(KIND.kind, name, authority.metadata.uid),
        )

    def _says(self, key: Key, content: Content) -> bool:
        """Whether the metadata of the namespace's ConfigMap say that it is as it should be."""
        entry = self._places.bundle(key.namespace, config_map_name(key.name))
        return entry is not None and (entry.digest, entry.owner_uid) == (content.annotations[DIGEST], content.owner.uid)


def _conflict(key: Key) -> Denied:
    return Denied(
        CONFLICT,
        f"the ConfigMap {config_map_name(key.name)!r} in the namespace {key.namespace!r} is not ours, since it lacks the label "
        f"{SELECTOR}: delete it, or leave the namespace out of spec.trustBundle.namespaces; where it lost the label, put it back",
    )
