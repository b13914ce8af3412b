"""The line from the operator to the API server, with faults on demand. It is the product's own client that goes over it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import override

from machinebot.errors import MachinebotError, Unavailable
from machinebot.kube.client import Json, KubeClient, Page
from machinebot.kube.resources import Resource
from support.waiting import DEADLINE

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        verb: get, list, watch, create, update, patch or delete.
        resource: Plural, with a subresource after a slash.
        namespace: Empty where there is none.
        name: Of the object; empty where the whole collection is meant.
    """

    verb: str
    resource: str
    namespace: str
    name: str


Matches = Callable[[Call], bool]


def away() -> Unavailable:
    """What the product's client says where no answer comes."""
    return Unavailable("ApiServerAway", "the API server does not answer: a fault that the test wants")


class Line(KubeClient):
    """A `KubeClient` that can be cut for good, or fail what a test names. Faults are set from another thread."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._cut = False
        self._faults: tuple[tuple[Matches, MachinebotError], ...] = ()
        self._held: tuple[tuple[Matches, threading.Event], ...] = ()
        self._last: Matches | None = None
        self.under_way = 0
        """Requests that have no answer yet, watches not counted."""

    def cut(self) -> None:
        """From now on nothing leaves and nothing arrives: to the cluster, the process is dead."""
        self._cut = True

    def cut_after(self, matches: Matches) -> None:
        """Cut it once such a request was carried out, before its answer is seen."""
        self._last = matches

    @property
    def is_cut(self) -> bool:
        """Whether it is."""
        return self._cut

    @contextlib.contextmanager
    def failing(self, matches: Matches, error: MachinebotError | None = None) -> Iterator[list[Call]]:
        """Inside the block such requests fail; yields those that did."""
        met: list[Call] = []

        def fails(call: Call) -> bool:
            if matches(call):
                met.append(call)
                return True
            return False

        fault = (fails, error or away())
        self._faults = (*self._faults, fault)
        try:
            yield met
        finally:
            self._faults = tuple(each for each in self._faults if each is not fault)

    @contextlib.contextmanager
    def holding(self, matches: Matches) -> Iterator[list[Call]]:
        """Inside the block such requests are not sent yet; yields those that wait."""
        met: list[Call] = []
        released = threading.Event()

        def waits(call: Call) -> bool:
            if matches(call):
                met.append(call)
                return True
            return False

        hold = (waits, released)
        self._held = (*self._held, hold)
        try:
            yield met
        finally:
            self._held = tuple(each for each in self._held if each is not hold)
            released.set()

    def _admit(self, call: Call) -> None:
        if self._cut:
            raise away()
        for matches, error in self._faults:
            if matches(call):
                raise error

    async def _carry(self, call: Call, send: Callable[[], Awaitable[T]]) -> T:
        self._admit(call)
        self.under_way += 1
        try:
            for waits, released in self._held:
                if waits(call):
                    await asyncio.to_thread(released.wait, DEADLINE)
            answer = await send()
        finally:
            self.under_way -= 1
        if self._last is not None and self._last(call):
            self._cut = True
        if self._cut:
            raise away()
        return answer

    @override
    async def get(self, resource: Resource, namespace: str, name: str) -> Json | None:
        return await self._carry(
            Call("get", resource.plural, namespace, name), lambda: self._client.get(resource, namespace, name)
        )

    @override
    async def create(self, resource: Resource, namespace: str, body: Json, *, name: str = "", subresource: str = "") -> Json:
        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        return await self._carry(
            Call("create", plural, namespace, name or body.get("metadata", {}).get("name", "")),
            lambda: self._client.create(resource, namespace, body, name=name, subresource=subresource),
        )

    @override
    async def replace(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        return await self._carry(
            Call("update", resource.plural, namespace, name), lambda: self._client.replace(resource, namespace, name, body)
        )

    @override
    async def patch(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        return await self._carry(
            Call("patch", resource.plural, namespace, name), lambda: self._client.patch(resource, namespace, name, body)
        )

    @override
    async def patch_status(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        return await self._carry(
            Call("patch", f"{resource.plural}/status", namespace, name),
            lambda: self._client.patch_status(resource, namespace, name, body),
        )

    @override
    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str) -> None:
        await self._carry(
            Call("delete", resource.plural, namespace, name),
            lambda: self._client.delete(resource, namespace, name, uid=uid, resource_version=resource_version),
        )

    @override
    async def pages(
        self, resource: Resource, namespace: str, *, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Page]:
        self._admit(Call("list", resource.plural, namespace, ""))
        async for page in self._client.pages(resource, namespace, selector=selector, metadata_only=metadata_only):
            if self._cut:
                raise away()
            yield page

    @override
    async def watch(
        self, resource: Resource, namespace: str, *, resource_version: str, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[Json]:
        self._admit(Call("watch", resource.plural, namespace, ""))
        stream = self._client.watch(
            resource, namespace, resource_version=resource_version, selector=selector, metadata_only=metadata_only
        )
        async for event in stream:
            if self._cut:
                raise away()
            yield event
