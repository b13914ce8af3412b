"""Stands before every write: a process that does not lead for sure writes nothing."""

from collections.abc import AsyncIterator, Callable

from typing_extensions import override

from machinebot.kube.client import Json, KubeClient, Page
from machinebot.kube.resources import Resource


class FencedClient(KubeClient):
    """A `KubeClient` whose writes are held against the Lease.

    Beyond this local look, every update but `patch` carries the resourceVersion that it was decided on: a leader that was
    paused between the look and the write meets a conflict.
    """

    def __init__(self, client: KubeClient, check: Callable[[], None]) -> None:
        self._client = client
        self._check = check

    @override
    async def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        return await self._client.get(resource, namespace, name)

    @override
    async def create(self, resource: Resource, namespace: str, body: Json, *, name: str = "", subresource: str = "") -> Json:
        self._check()
        return await self._client.create(resource, namespace, body, name=name, subresource=subresource)

    @override
    async def replace(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        self._check()
        return await self._client.replace(resource, namespace, name, body)

    @override
    async def patch(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        self._check()
        return await self._client.patch(resource, namespace, name, body)

    @override
    async def patch_status(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        self._check()
        return await self._client.patch_status(resource, namespace, name, body)

    @override
    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        self._check()
        await self._client.delete(resource, namespace, name, uid=uid, resource_version=resource_version)

    @override
    def pages(
        self, resource: Resource, namespace: str, *, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Page]:
        return self._client.pages(resource, namespace, selector=selector, metadata_only=metadata_only)

    @override
    def watch(
        self, resource: Resource, namespace: str, *, resource_version: str, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Json]:
        return self._client.watch(
            resource, namespace, resource_version=resource_version, selector=selector, metadata_only=metadata_only
        )
