"""kopf's part: it watches our kinds and hands on what it sees. The handlers note and enqueue; nothing else."""

import asyncio
import dataclasses
import datetime as dt
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import kopf
from typing_extensions import override

from machinebot.errors import Unavailable
from machinebot.kube.resources import Resource
from machinebot.reconcile.keys import RESOURCES
from machinebot.resources.meta import GROUP, VERSION

CHUNK: Final = 500
"""Objects in one page of kopf's first list."""

IDLE_SECONDS: Final = 0.1
"""How long kopf keeps a task for an object that has gone quiet: at 10,000 objects its default of 5 s costs 100 MB,
and half a second 25 MB."""

LOGIN_SECONDS: Final = 600
"""How long kopf uses credentials before it asks for them again: a pod's token is replaced under it."""

Observe = Callable[[Resource, Mapping[str, Any], bool], None]
"""Told of each object: its resource, its body, and whether it is gone."""


Knows = Callable[[Resource, Mapping[str, Any]], bool]
"""Whether an object of that metadata was seen already: most events are the echo of our own writes."""


def registry(observe: Observe, knows: Knows) -> kopf.OperatorRegistry:
    """The handlers for kopf: one `on.event` a kind, and the log-in."""
    handlers = kopf.OperatorRegistry()
    for resource in RESOURCES.values():
        _register(handlers, resource, observe, knows)
    kopf.on.login(registry=handlers, id="login", errors=kopf.ErrorsMode.PERMANENT)(_login)
    return handlers


def _register(handlers: kopf.OperatorRegistry, resource: Resource, observe: Observe, knows: Knows) -> None:
    def is_news(event: kopf.RawEvent, **_: Any) -> bool:
        return event["type"] == "DELETED" or not knows(resource, event["object"]["metadata"])

    @kopf.on.event(GROUP, VERSION, resource.plural, registry=handlers, id=resource.plural, when=is_news)
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        observe(resource, event["object"], event["type"] == "DELETED")


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """The pod's ServiceAccount, or the kubeconfig; asked for again before a mounted token ends."""
    found = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
    if found is None:
        return None
    return dataclasses.replace(found, expiration=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=LOGIN_SECONDS))


def settings() -> kopf.OperatorSettings:
    """Kopf's settings: watches only, no writes, no Events, no peering."""
    chosen = kopf.OperatorSettings()
    chosen.watching.server_timeout = 600
    chosen.watching.client_timeout = 660
    chosen.watching.connect_timeout = 10
    chosen.watching.chunk_size = CHUNK
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 5
    chosen.queueing.idle_timeout = IDLE_SECONDS
    chosen.posting.enabled = False
    chosen.posting.level = logging.CRITICAL
    chosen.scanning.disabled = True
    chosen.peering.standalone = True
    chosen.persistence.diffbase_storage = _NoDiffBase()
    chosen.persistence.progress_storage = _NoProgress()
    return chosen


class _NoDiffBase(kopf.DiffBaseStorage):
    """kopf works out the essence of an object at each event, for handlers of changes. We have none."""

    @override
    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    @override
    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    @override
    def store(self, **_: Any) -> None:
        """Nothing is written to anybody's object."""


class _NoProgress(kopf.ProgressStorage):
    """kopf keeps the progress of handlers of changes in the object. We have none."""

    @override
    def fetch(self, **_: Any) -> kopf.ProgressRecord | None:
        return None

    @override
    def store(self, **_: Any) -> None:
        """Nothing is written to anybody's object."""

    @override
    def purge(self, **_: Any) -> None:
        """Nothing was written."""

    @override
    def touch(self, **_: Any) -> None:
        """Nothing is written to anybody's object."""

    @override
    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


async def watch(observe: Observe, knows: Knows, namespaces: tuple[str, ...], *, spawned: Callable[[], None]) -> None:
    """Runs kopf until it is cancelled.

    Args:
        observe: Told of each object.
        knows: Which events are no news.
        namespaces: Namespaces that are served; empty for all.
        spawned: Called as soon as kopf has taken SIGTERM and SIGINT for itself, before it can get one: they are to be taken
            back, since kopf's end is not ours.

    Raises:
        Unavailable: kopf ended by itself: nobody would watch our kinds any more.
    """
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=registry(observe, knows),
        settings=settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
    )
    spawned()
    await kopf.run_tasks(tasks, ignored=others)
    raise Unavailable("WatchEnded", "kopf has ended, and nothing watches any more: stopping, so that a new process begins anew")
