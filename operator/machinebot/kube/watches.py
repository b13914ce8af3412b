"""Follows the metadata of one resource: list, then watch, for ever. kopf would fetch whole Secrets, so these are ours."""

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


class MetadataWatch:
    """One resource in one namespace (or all), by label, metadata only."""

    def __init__(self, client: KubeClient, resource: Resource, namespace: str, selector: str, observe: Observe) -> None:
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._selector = selector
        self._observe = observe

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
        async for page in self._client.pages(self._resource, self._namespace, selector=self._selector, metadata_only=True):
            version = version or page.resource_version
            for body in page.items:
                self._observe(self._resource, body, False)
        return version

    async def _follow(self, version: str) -> str:
        stream = self._client.watch(
            self._resource, self._namespace, resource_version=version, selector=self._selector, metadata_only=True
        )
        async for event in stream:
            body: Json = event["object"]
            if event["type"] == "ERROR":
                raise Conflict("WatchExpired", str(body.get("message")))
            version = body["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._observe(self._resource, body, event["type"] == "DELETED")
        return version
