"""The sweep: a full look at the cluster that needs no watch, at start and then every few minutes.

At start it makes the picture complete before anything is decided. Later it finds what a watch has missed: kopf's watchers
can end for good without anybody noticing, and a load balancer can cut a stream without a word.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from machinebot.clock import Clock
from machinebot.errors import MachinebotError, NotFound
from machinebot.kube.client import KubeClient
from machinebot.kube.resources import CONFIG_MAPS, NAMESPACES, SECRETS, SELECTOR, Resource
from machinebot.metrics import Metrics
from machinebot.reconcile.keys import RESOURCES, Due, Sort
from machinebot.reconcile.world import World

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Pause after a sweep that failed."""

YOUNG = frozenset({Sort.LOCK, Sort.JOIN_TOKEN})
"""Kinds that an earlier release did not have. Helm upgrades no CRDs: where they are missing still, everything else goes on."""

Place = tuple[str, str]
"""Namespace and name; the namespace is empty where there is none."""


@dataclass(frozen=True, slots=True)
class _Listing:
    """One list of the API server, and what is held against it.

    Attributes:
        kind: For metrics and the log.
        resource: What is listed.
        namespace: Where; empty for all.
        known: What the world knows of it, and where.
        missing: Takes off what the list did not show, of that namespace; returns whom it concerns.
        selector: By which labels.
        metadata_only: Whether content stays where it is.
        optional: Whether the API server need not know the kind.
    """

    kind: str
    resource: Resource
    namespace: str
    known: Callable[[], set[Place]]
    missing: Callable[[set[Place], str], list[Due]]
    selector: str = SELECTOR
    metadata_only: bool = True
    optional: bool = False


class Sweep:
    """Looks at everything.

    Args:
        client: The API server.
        world: What is filled in.
        enqueue: Told whom a change concerns.
        metrics: For the time of the last sweep, and what it found.
        clock: Tells that time.
        namespaces: Namespaces that are served; empty for all.
        own_namespace: Where the CA Secrets are.
    """

    def __init__(
        self,
        *,
        client: KubeClient,
        world: World,
        enqueue: Callable[[Due], None],
        metrics: Metrics,
        clock: Clock,
        namespaces: tuple[str, ...],
        own_namespace: str,
    ) -> None:
        self._client = client
        self._world = world
        self._enqueue = enqueue
        self._metrics = metrics
        self._clock = clock
        self._namespaces = namespaces or ("",)
        self.ended_at: float | None = None
        """When the last look ended, on the monotonic clock."""
        self._secret_namespaces = ("",) if not namespaces else tuple(dict.fromkeys((*namespaces, own_namespace)))

    async def first(self) -> None:
        """The look at the start, until it succeeds; everything is enqueued."""
        while True:
            try:
                await self._look(count=False)
            except MachinebotError as error:
                log.warning("first look failed", extra={"reason": error.reason, "detail": error.message})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def run(self, interval: float) -> None:
        """Looks every `interval` seconds, for ever; one that fails is tried again soon."""
        pause = interval
        while True:
            await asyncio.sleep(pause)
            try:
                await self._look(count=True)
                pause = interval
            except MachinebotError as error:
                log.warning("sweep failed", extra={"reason": error.reason, "detail": error.message})
                pause = min(RETRY_SECONDS, interval)

    async def _look(self, *, count: bool) -> None:
        for listing in self._listings():
            await self._compare(listing, count=count)
        for sort in RESOURCES:
            for key in self._world.keys(sort):
                self._enqueue(Due(key))
        for key in self._world.keys(Sort.AUTHORITY):
            for due in self._world.bundles(key.name):
                self._enqueue(due)
        self.ended_at = time.monotonic()
        self._metrics.last_sweep.set(self._clock.now().timestamp())

    def _listings(self) -> Iterator[_Listing]:
        """Everything that is listed, in this order."""
        world = self._world
        for namespace in self._secret_namespaces:
            yield _Listing("Secret", SECRETS, namespace, world.secret_places, world.missing_secrets)
        for sort in RESOURCES:
            for namespace in self._namespaces if RESOURCES[sort].namespaced else ("",):
                yield self._objects(sort, namespace)
        if self._namespaces == ("",):
            yield _Listing(
                "Namespace",
                NAMESPACES,
                "",
                lambda: {("", name) for name in world.places.namespaces()},
                lambda gone, _: world.missing_namespaces(name for _, name in gone),
                selector="",
            )
        for namespace in self._namespaces:
            yield _Listing("ConfigMap", CONFIG_MAPS, namespace, lambda: set(world.places.bundles()), world.missing_bundles)

    def _objects(self, sort: Sort, namespace: str) -> _Listing:
        return _Listing(
            sort.value,
            RESOURCES[sort],
            namespace,
            lambda: {(key.namespace, key.name) for key in self._world.keys(sort)},
            lambda gone, listed: self._world.missing(sort, gone, listed),
            selector="",
            metadata_only=False,
            optional=sort in YOUNG,
        )

    async def _compare(self, listing: _Listing, *, count: bool) -> None:
        before = listing.known()
        seen: set[Place] = set()
        changed = 0
        pages = self._client.pages(
            listing.resource, listing.namespace, selector=listing.selector, metadata_only=listing.metadata_only
        )
        try:
            async for page in pages:
                for body in page.items:
                    metadata = body["metadata"]
                    seen.add((metadata.get("namespace", ""), metadata["name"]))
                    changed += self._take(self._world.observe(listing.resource, body, gone=False))
        except NotFound:
            # The API server says so only once it knows all CRDs that there are; before, it is unavailable.
            if not listing.optional:
                raise
            log.error("the CRD is not installed: apply crds/ of this release", extra={"kind": listing.kind})  # noqa: TRY400
        # What came by a watch while the list was on its way may be missing in it: only what was known before can be gone.
        changed += self._take(listing.missing(before - seen, listing.namespace))
        self._note(listing.kind, changed, count=count)

    def _take(self, dues: list[Due]) -> int:
        for due in dues:
            self._enqueue(due)
        return bool(dues)

    def _note(self, kind: str, changed: int, *, count: bool) -> None:
        if count and changed:
            self._metrics.sweep_corrections.labels(kind).inc(changed)
            log.warning("the sweep found what a watch had missed", extra={"kind": kind, "objects": changed})
