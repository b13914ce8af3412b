"""What runs while this replica leads: the first look, the watches, the workers, the sweep; until the Lease is lost."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from machinebot.clock import Clock
from machinebot.controller import handlers
from machinebot.controller.queue import WorkQueue
from machinebot.controller.sweep import Sweep
from machinebot.controller.workers import Reconcile, Workers
from machinebot.errors import MachinebotError
from machinebot.kube.client import KubeClient
from machinebot.kube.resources import CONFIG_MAPS, NAMESPACES, SECRETS, SELECTOR, SERVICE_ACCOUNTS, Resource
from machinebot.kube.watches import MetadataWatch
from machinebot.metrics import Metrics
from machinebot.reconcile.keys import RESOURCES, Due, Key, Sort
from machinebot.reconcile.world import World
from machinebot.settings import OperatorSettings

log = logging.getLogger(__name__)


class Term:
    """One term as a leader."""

    def __init__(
        self,
        *,
        client: KubeClient,
        world: World,
        queue: WorkQueue[Key],
        enqueue: Callable[[Due], None],
        reconcilers: Mapping[Sort, Reconcile],
        metrics: Metrics,
        clock: Clock,
        settings: OperatorSettings,
        hold: Callable[[], Coroutine[Any, Any, None]],
        take_signals: Callable[[], None],
    ) -> None:
        self._client = client
        self._world = world
        self._queue = queue
        self._enqueue = enqueue
        self._reconcilers = reconcilers
        self._metrics = metrics
        self._clock = clock
        self._settings = settings
        self._hold = hold
        self._take_signals = take_signals
        self._sweep: Sweep | None = None

    @property
    def swept_at(self) -> float | None:
        """When the last full look at the cluster ended, on the monotonic clock; None before the first."""
        return None if self._sweep is None else self._sweep.ended_at

    async def run(self) -> None:
        """Leads until the Lease is lost or something broke, which is raised."""
        sweep = Sweep(
            client=self._client,
            world=self._world,
            enqueue=self._enqueue,
            metrics=self._metrics,
            clock=self._clock,
            namespaces=self._settings.watch_namespaces,
            own_namespace=self._settings.namespace,
        )
        self._sweep = sweep
        self._world.places.assume(self._settings.watch_namespaces)
        workers = Workers(self._queue, self._reconcilers, self._metrics, self._clock)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hold(), name="lease")
            await sweep.first()
            await self._authorities_first()
            log.info(
                "synced",
                extra={sort.lower(): self._world.count(sort) for sort in RESOURCES},
            )
            group.create_task(self._kopf(), name="kopf")
            for watch in self._metadata_watches():
                group.create_task(watch.run(), name="metadata watch")
            group.create_task(self._queue.run(), name="queue")
            for number in range(self._settings.workers):
                group.create_task(workers.run(), name=f"worker {number}")
            group.create_task(sweep.run(self._settings.sweep_interval), name="sweep")

    async def _kopf(self) -> None:
        namespaces = self._settings.watch_namespaces
        await handlers.watch(self._observe, self._world.knows, namespaces, spawned=self._take_signals)

    async def _authorities_first(self) -> None:
        """Loads the authorities before anything else is decided, so that no output is told that there is none."""
        for key in self._world.keys(Sort.AUTHORITY):
            try:
                again = await self._reconcilers[Sort.AUTHORITY](key)
            except MachinebotError as error:
                log.warning("authority not loaded", extra={"key": str(key), "reason": error.reason})
                continue
            if again is not None:
                self._queue.add_at(key, again)

    def _observe(self, resource: Resource, body: Mapping[str, Any], gone: bool) -> None:  # noqa: FBT001 - a callback
        for due in self._world.observe(resource, body, gone=gone):
            self._enqueue(due)

    def _metadata_watches(self) -> list[MetadataWatch]:
        namespaces = self._settings.watch_namespaces or ("",)
        secret_namespaces = ("",) if namespaces == ("",) else tuple(dict.fromkeys((*namespaces, self._settings.namespace)))
        places = [(SECRETS, namespace) for namespace in secret_namespaces]
        places += [(resource, namespace) for resource in (SERVICE_ACCOUNTS, CONFIG_MAPS) for namespace in namespaces]
        watches = [MetadataWatch(self._client, resource, namespace, SELECTOR, self._observe) for resource, namespace in places]
        if not self._settings.watch_namespaces:
            watches.append(MetadataWatch(self._client, NAMESPACES, "", "", self._observe))
        return watches
