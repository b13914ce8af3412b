"""How commands reach the cluster: by the kubeconfig that kubectl would take, with the namespace that it would take."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from machinebot.cli.progress import Progress
from machinebot.errors import NotFound, Unavailable
from machinebot.kube.client import Json
from machinebot.kube.commandline import CommandLineClient, chosen_namespace, connect
from machinebot.kube.resources import Resource
from machinebot.resources.meta import GROUP

T = TypeVar("T")
"""What a command's work returns."""

_NO_SUCH_PATH: Final = "Not Found"
"""All that an API server says of a path that it does not serve."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a command looks.

    Attributes:
        context: Context of the kubeconfig; None for its current one.
        namespace: The namespace; empty for all of the cluster.
    """

    context: str | None
    namespace: str


def kubeconfig() -> Path | None:
    """Where kubectl looks; None in a pod."""
    written = os.environ.get("KUBECONFIG")
    if written:
        return Path(written)
    usual = Path.home() / ".kube" / "config"
    return usual if usual.exists() else None


def scope(context: str | None, namespace: str | None, *, everywhere: bool = False) -> Scope:
    """Where a command looks, from its flags.

    Raises:
        Invalid: The kubeconfig is needed for the answer and cannot be read.
    """
    if everywhere:
        return Scope(context, "")
    return Scope(context, namespace or chosen_namespace(kubeconfig(), context))


def on_cluster(context: str | None, work: Callable[[CommandLineClient], Awaitable[T]]) -> T:
    """Does the work with a connection, and hangs up.

    Raises:
        MachinebotError: The API server is not there, or refuses; the message says what to do.
    """

    async def connected() -> T:
        client = await connect(kubeconfig(), context)
        try:
            with _understood():
                return await work(client)
        finally:
            await client.close()

    return asyncio.run(connected())


@contextmanager
def _understood() -> Iterator[None]:
    """Gives the answer for a kind that is not installed a sentence."""
    try:
        yield
    except NotFound as error:
        if error.message != _NO_SUCH_PATH:
            raise
        raise Unavailable(
            error.reason,
            f"the API server does not know a kind of {GROUP}: install the chart of this version, or see machinebot doctor",
        ) from error


async def everything(
    client: CommandLineClient, resource: Resource, namespace: str, progress: Progress, selector: str = ""
) -> list[Json]:
    """All objects of a kind in a namespace, or in all of them."""
    found: list[Json] = []
    async for page in client.pages(resource, namespace, selector=selector):
        found += page.items
        progress.say(f"reading {resource.plural}: {len(found)}")
    return found
