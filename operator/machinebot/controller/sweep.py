"""The sweep: a full look at the cluster that needs no watch, at start and then every few minutes.

At start it makes the picture complete before anything is decided. Later it finds what a watch has missed: kopf's watchers
can end for good without anybody noticing, and a load balancer can cut a stream without a word.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from machinebot.clock import Clock
from machinebot.errors import MachinebotError
from machinebot.kube.client import KubeClient
from machinebot.kube.resources import CONFIG_MAPS, NAMESPACES, SECRETS, SELECTOR
from machinebot.metrics import Metrics
from machinebot.reconcile.world import RESOURCES, Due, Sort, World

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""Pause after a sweep that failed."""


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
        for namespace in self._secret_namespaces:
            await self._secrets(namespace, count=count)
        for sort, resource in RESOURCES.items():
            for namespace in self._namespaces if resource.namespaced else ("",):
                await self._objects(sort, namespace, count=count)
        if self._namespaces == ("",):
            await self._all_namespaces(count=count)
        for namespace in self._namespaces:
            await self._config_maps(namespace, count=count)
        for sort in (Sort.AUTHORITY, Sort.ROLE, Sort.BOT, Sort.OUTPUT):
            for key in self._world.keys(sort):
                self._enqueue(Due(key))
        for key in self._world.keys(Sort.AUTHORITY):
            for due in self._world.bundles(key.name):
                self._enqueue(due)
        self.ended_at = time.monotonic()
        self._metrics.last_sweep.set(self._clock.now().timestamp())

    async def _objects(self, sort: Sort, namespace: str, *, count: bool) -> None:
        before = {(key.namespace, key.name) for key in self._world.keys(sort)}
        seen: set[tuple[str, str]] = set()
        changed = 0
        async for page in self._client.pages(RESOURCES[sort], namespace):
            for body in page.items:
                metadata = body["metadata"]
                seen.add((metadata.get("namespace", ""), metadata["name"]))
                changed += self._take(self._world.observe(RESOURCES[sort], body, gone=False))
        # What came by a watch while the list was on its way may be missing in it: only what was known before can be gone.
        changed += self._take(self._world.missing(sort, before - seen, namespace))
        self._note(sort.value, changed, count=count)

    async def _secrets(self, namespace: str, *, count: bool) -> None:
        before = self._world.secret_places()
        seen: set[tuple[str, str]] = set()
        changed = 0
        async for page in self._client.pages(SECRETS, namespace, selector=SELECTOR, metadata_only=True):
            for body in page.items:
                seen.add((body["metadata"]["namespace"], body["metadata"]["name"]))
                changed += self._take(self._world.observe(SECRETS, body, gone=False))
        changed += self._take(self._world.missing_secrets(before - seen, namespace))
        self._note("Secret", changed, count=count)

    async def _config_maps(self, namespace: str, *, count: bool) -> None:
        before = set(self._world.places.bundles())
        seen: set[tuple[str, str]] = set()
        changed = 0
        async for page in self._client.pages(CONFIG_MAPS, namespace, selector=SELECTOR, metadata_only=True):
            for body in page.items:
                seen.add((body["metadata"]["namespace"], body["metadata"]["name"]))
                changed += self._take(self._world.observe(CONFIG_MAPS, body, gone=False))
        changed += self._take(self._world.missing_bundles(before - seen, namespace))
        self._note("ConfigMap", changed, count=count)

    async def _all_namespaces(self, *, count: bool) -> None:
        before = set(self._world.places.namespaces())
        seen: set[str] = set()
        changed = 0
        async for page in self._client.pages(NAMESPACES, "", metadata_only=True):
            for body in page.items:
                seen.add(body["metadata"]["name"])
                changed += self._take(self._world.observe(NAMESPACES, body, gone=False))
        changed += self._take(self._world.missing_namespaces(before - seen))
        self._note("Namespace", changed, count=count)

    def _take(self, dues: list[Due]) -> int:
        for due in dues:
            self._enqueue(due)
        return bool(dues)

    def _note(self, kind: str, changed: int, *, count: bool) -> None:
        if count and changed:
            self._metrics.sweep_corrections.labels(kind).inc(changed)
            log.warning("the sweep found what a watch had missed", extra={"kind": kind, "objects": changed})
