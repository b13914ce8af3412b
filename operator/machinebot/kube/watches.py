"""Follows one resource: list, then watch, for ever. kopf would fetch whole Secrets and works for the leader alone, so these are
ours.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from machinebot.errors import Conflict, MachinebotError
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.resources import Resource

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0)
"""Pauses after a first, second, ... failed attempt in a row; the last one repeats."""

ROUND_SECONDS: Final = 1.0
"""A round takes at least so long: a stream that ends, or expires, as soon as it has begun must not become a hot loop of lists."""

Observe = Callable[[Resource, Json, bool], None]
"""Told of each object: its resource, its metadata-only body, and whether it is gone."""


Listed = Callable[[Resource, str, frozenset[tuple[str, str]]], None]
"""Told after each whole list: the resource, the namespace that was listed (empty for all), and where its objects are."""


def _nobody(_resource: Resource, _namespace: str, _places: frozenset[tuple[str, str]]) -> None:
    """Who has a sweep of its own needs no word of lists."""


class Watch:
    """One resource in one namespace (or all), by label.

    Args:
        client: The API server.
        resource: What is followed.
        namespace: Where; empty for all.
        selector: By which labels; empty for all.
        observe: Told of each object.
        listed: Told after each list: what is not in it is gone.
        metadata_only: Whether content stays where it is.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        namespace: str,
        selector: str,
        observe: Observe,
        *,
        listed: Listed = _nobody,
        metadata_only: bool = False,
    ) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self._observe = observe
        self._listed = listed
        self._metadata_only = metadata_only

    async def run(self) -> None:
        """Watches for ever; what fails is tried again. A gap is closed by the list that follows, and by the sweep."""
        failures = 0
        version = ""
        while True:
            begun = asyncio.get_running_loop().time()
            try:
                if not version:
                    version = await self._list()
                version = await self._follow(version)
                failures = 0
            except Conflict:  # 410 Gone: the version is too old
                version = ""
            except MachinebotError as error:
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                log.warning("watch interrupted", extra={"resource": self._resource.plural, "reason": error.reason})
                await asyncio.sleep(pause)
            await asyncio.sleep(begun + ROUND_SECONDS - asyncio.get_running_loop().time())

    async def _list(self) -> str:
        version = ""
        places: set[tuple[str, str]] = set()
        pages = self._client.pages(self._resource, self._namespace, selector=self._selector, metadata_only=self._metadata_only)
        async for page in pages:
            version = version or page.resource_version
            for body in page.items:
                self._observe(self._resource, body, False)
                places.add((body["metadata"].get("namespace", ""), body["metadata"]["name"]))
        self._listed(self._resource, self._namespace, frozenset(places))
        return version

    async def _follow(self, version: str) -> str:
        stream = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=version,
            selector=self._selector,
            metadata_only=self._metadata_only,
        )
        async for event in stream:
            body: Json = event["object"]
            if event["type"] == "ERROR":
                raise Conflict("WatchExpired", str(body.get("message")))
            version = body["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._observe(self._resource, body, event["type"] == "DELETED")
        return version


class MetadataWatch(Watch):
    """The same for metadata alone."""

    def __init__(self, client: KubeClient, resource: Resource, namespace: str, selector: str, observe: Observe) -> None:
        super().__init__(client, resource, namespace, selector, observe, metadata_only=True)
