"""Load on the API server: raw limits, and our own objects applied at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from machinebot.kube.client import ApiServer
from machinebot.kube.resources import BOTS, OUTPUTS, SECRETS, SERVICE_ACCOUNTS, TOKEN_REVIEWS, Resource
from machinebot.resources.meta import API_VERSION

AT_ONCE: Final = 24
"""Requests under way at a time."""

NAMESPACE: Final = "bench"
"""Where all of the load goes."""


Json = dict[str, Any]


async def rate(count: int, act: Callable[[int], Awaitable[Any]]) -> float:
    """Calls `act` with 0 to count - 1, `AT_ONCE` at a time; returns calls a second."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await act(number)

    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return count / (time.monotonic() - begun)


async def raw_limits(client: ApiServer, count: int) -> dict[str, float]:
    """What this API server does on this machine now, a second: the floor to compare with."""
    data = {f"key-{number}": "x" * 400 for number in range(8)}

    async def secret(number: int) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"raw-{number}"}, "stringData": data}
        await client.create(SECRETS, NAMESPACE, body)

    async def patch(number: int) -> None:
        status = {"status": {"outputs": number + 1, "observedGeneration": 1}}
        await client.patch_status(BOTS, NAMESPACE, f"raw-{number % 50}", status)

    async def token_request(_: int) -> None:
        spec = {"audiences": ["example.test"], "expirationSeconds": 600}
        await client.create(SERVICE_ACCOUNTS, NAMESPACE, {"spec": spec}, name="default", subresource="token")

    async def token_review(_: int) -> None:
        await client.create(TOKEN_REVIEWS, "", {"spec": {"token": token, "audiences": ["example.test"]}})

    for number in range(50):
        await client.create(BOTS, NAMESPACE, bot(f"raw-{number}"))
    spec = {"audiences": ["example.test"], "expirationSeconds": 600}
    answer = await client.create(SERVICE_ACCOUNTS, NAMESPACE, {"spec": spec}, name="default", subresource="token")
    token = answer["status"]["token"]
    figures = {
        "Secret creates": await rate(count, secret),
        "status merge-patches": await rate(count, patch),
        "TokenRequests": await rate(count, token_request),
        "TokenReviews": await rate(count, token_review),
    }
    await delete_all(client, SECRETS)
    await delete_all(client, BOTS)
    return figures


async def delete_all(client: ApiServer, resource: Resource) -> None:
    """Deletes every object of a resource in the load's namespace."""
    found = [item["metadata"] async for page in client.pages(resource, NAMESPACE) for item in page.items]

    async def delete(number: int) -> None:
        metadata = found[number]
        current = await client.get(resource, NAMESPACE, metadata["name"])
        if current is not None:
            version = current["metadata"]["resourceVersion"]
            await client.delete(resource, NAMESPACE, metadata["name"], uid=metadata["uid"], resource_version=version)

    await rate(len(found), delete)


def bot(name: str) -> Json:
    """A bot with one role."""
    return {
        "apiVersion": API_VERSION,
        "kind": "MachineBot",
        "metadata": {"name": name},
        "spec": {"roles": ["access"], "logins": ["deploy"]},
    }


def output(name: str, **spec: Any) -> Json:
    """An identity output of the bot of the same name; `spec` has more fields of it, or others."""
    return {
        "apiVersion": API_VERSION,
        "kind": "MachineOutput",
        "metadata": {"name": name},
        "spec": {"bot": name, "identity": {}, **spec},
    }


async def apply_pairs(client: ApiServer, names: Iterable[str], **spec: Any) -> None:
    """Creates a bot and its output for each name, as fast as the API server takes them; `spec` is of the outputs."""
    chosen = list(names)

    async def pair(number: int) -> None:
        await client.create(BOTS, NAMESPACE, bot(chosen[number]))
        await client.create(OUTPUTS, NAMESPACE, output(chosen[number], **spec))

    await rate(len(chosen), pair)


class ReadyFollower:
    """Follows the outputs by a watch and notes when each became Ready, on the monotonic clock."""

    def __init__(self, client: ApiServer) -> None:
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self.ready: dict[str, float] = {}

    async def start(self) -> None:
        """Begins with what there is."""
        version = ""
        async for page in self._client.pages(OUTPUTS, NAMESPACE):
            version = version or page.resource_version
            for item in page.items:
                self._see(item)
        self._task = asyncio.create_task(self._follow(version))

    def stop(self) -> None:
        """Ends the watch."""
        if self._task is not None:
            self._task.cancel()

    async def wait(self, total: int, seconds: float) -> None:
        """Returns when so many are Ready.

        Raises:
            TimeoutError: They did not become so in time.
        """
        async with asyncio.timeout(seconds):
            while len(self.ready) < total:
                await asyncio.sleep(0.005)

    async def _follow(self, version: str) -> None:
        while True:
            async for event in self._client.watch(OUTPUTS, NAMESPACE, resource_version=version):
                version = event["object"]["metadata"]["resourceVersion"]
                self._see(event["object"])

    def _see(self, body: Json) -> None:
        conditions = (body.get("status") or {}).get("conditions") or ()
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            self.ready.setdefault(body["metadata"]["name"], time.monotonic())
