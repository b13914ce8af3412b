"""`machinebot renew`: asks for new credentials, and waits for them where wanted."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import typer

from machinebot.cli import standing
from machinebot.cli.cluster import Scope, everything, on_cluster
from machinebot.cli.progress import Progress, progress
from machinebot.cli.tables import printable, relative
from machinebot.cli.written import check_name
from machinebot.clock import SystemClock
from machinebot.errors import Invalid, NotFound, Unavailable
from machinebot.kube.commandline import CommandLineClient
from machinebot.kube.resources import OUTPUTS
from machinebot.resources.output import MAX_OUTPUT_NAME, RENEW_ANNOTATION

Json = dict[str, Any]
Key = tuple[str, str]

AT_ONCE: Final = 16
"""Requests at a time: a person's command does not crowd the operator out."""


PAUSE: Final = 1.0
"""Seconds between a watch that broke off and the next look."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which outputs, as the arguments and flags have it. Exactly one is set.

    Attributes:
        names: Names of outputs.
        selector: `-l`.
        every: `--all`.
    """

    names: tuple[str, ...] = ()
    selector: str = ""
    every: bool = False


def renew(where: Scope, chosen: Chosen, *, waited: bool, seconds: float) -> None:
    """Asks, and waits where wanted.

    Raises:
        MachinebotError: An output is not there, nothing is chosen, or a renewal did not come in time.
    """
    check(where, chosen)
    with progress("reading outputs") as line:
        done = on_cluster(where.context, lambda client: _renew(client, where, chosen, line, waited=waited, seconds=seconds))
    if not done:
        raise Unavailable("NotRenewed", "not every output was renewed: machinebot status says why")


def check(where: Scope, chosen: Chosen) -> None:
    """Refuses what is no choice.

    Raises:
        Invalid: Not exactly one way to choose is used, or names are given for all namespaces.
    """
    if sum((bool(chosen.names), bool(chosen.selector), chosen.every)) != 1:
        raise Invalid("InvalidSpec", "write the names of outputs, or -l SELECTOR, or --all: exactly one of these")
    if chosen.names and not where.namespace:
        raise Invalid("InvalidSpec", "a name is one of a namespace: write -n NAMESPACE instead of -A")
    for name in chosen.names:
        check_name("an output", name, MAX_OUTPUT_NAME)


async def _renew(
    client: CommandLineClient, where: Scope, chosen: Chosen, line: Progress, *, waited: bool, seconds: float
) -> bool:
    before = await _found(client, where, chosen, line)
    asked = datetime.now(UTC).isoformat()
    patch = {"metadata": {"annotations": {RENEW_ANNOTATION: asked}}}
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(key: Key) -> None:
        async with gate:
            await client.patch(OUTPUTS, key[0], key[1], patch)
        if not waited:
            typer.echo(f"{_title(key)} is to be renewed")

    outcomes = await asyncio.gather(*map(ask, before), return_exceptions=True)
    failed = next((each for each in outcomes if each is not None), None)
    if failed is not None:
        raise failed
    if not waited:
        return True
    waiting = Waiting(dict(before), {key: standing.status_of(body).get("serial") for key, body in before.items()}, asked)
    try:
        async with asyncio.timeout(seconds):
            await _watch(client, where, waiting, line)
    except TimeoutError:
        for key, body in sorted(waiting.left.items()):
            why = printable(why_not(body, SystemClock().now()))
            typer.echo(f"{_title(key)} was not renewed within {seconds:g} s: {why}", err=True)
    return not waiting.left


async def _found(client: CommandLineClient, where: Scope, chosen: Chosen, line: Progress) -> Mapping[Key, Json]:
    """The outputs that are chosen: all of them are looked for before the first is asked for."""
    if chosen.names:
        bodies = []
        for name in dict.fromkeys(chosen.names):
            body = await client.get(OUTPUTS, where.namespace, name)
            if body is None:
                raise NotFound("NotFound", f"there is no MachineOutput {where.namespace}/{name}: nothing was asked for")
            bodies.append(body)
    else:
        bodies = await everything(client, OUTPUTS, where.namespace, line, chosen.selector)
    if not bodies:
        place = f"the namespace {where.namespace}" if where.namespace else "the cluster"
        raise NotFound("NotFound", f"no output of {place} fits: nothing was asked for")
    return {key_of(body): body for body in bodies}


async def _watch(client: CommandLineClient, where: Scope, waiting: "Waiting", line: Progress) -> None:
    """Follows the outputs until none is waited for; looks at all of them anew whenever a watch ends."""
    total = len(waiting.left)
    while waiting.left:
        version = ""
        async for page in client.pages(OUTPUTS, where.namespace):
            version = page.resource_version
            for body in page.items:
                _told(waiting.see(body))
        if not waiting.left:
            return
        try:
            async for event in client.watch(OUTPUTS, where.namespace, resource_version=version):
                if event.get("type") in ("MODIFIED", "DELETED") and isinstance(event.get("object"), dict):
                    _told(waiting.see(event["object"], deleted=event["type"] == "DELETED"))
                line.say(f"renewed {total - len(waiting.left)} of {total}")
                if not waiting.left:
                    return
        except Unavailable:  # where the API server is away for good, the next look says so
            await asyncio.sleep(PAUSE)


def _told(sentence: str | None) -> None:
    if sentence is not None:
        typer.echo(sentence)


@dataclass
class Waiting:
    """Which outputs have not been renewed yet.

    Attributes:
        left: They, as they were seen last.
        serials: Serial number of each before it was asked for; None where there was none.
        asked: The value of the annotation.
    """

    left: dict[Key, Json]
    serials: Mapping[Key, str | None]
    asked: str

    def see(self, body: Json, *, deleted: bool = False) -> str | None:
        """Takes an output in; returns a sentence where it is not waited for any more."""
        key = key_of(body)
        if key not in self.left:
            return None
        if deleted:
            del self.left[key]
            return f"{_title(key)} was deleted"
        if not is_renewed(body, self.serials[key], self.asked):
            self.left[key] = body
            return None
        del self.left[key]
        end = relative(standing.moment(body, "notAfter"), SystemClock().now())
        return f"{_title(key)} renewed: serial {self.serials[key] or 'none'} -> {standing.status_of(body)['serial']}, ends {end}"


def is_renewed(body: Mapping[str, Any], serial: str | None, asked: str) -> bool:
    """Whether the output has another credential than the one of that serial number, issued for the wish or a later one."""
    status = standing.status_of(body)
    wanted = (body["metadata"].get("annotations") or {}).get(RENEW_ANNOTATION)
    return wanted is not None and status.get("renewToken") in (asked, wanted) and status.get("serial") not in (None, serial)


def why_not(body: Json, now: datetime) -> str:
    """Why an output was not renewed, for people."""
    found = standing.of_output(body, now)
    if found.message:
        return f"{found.reason}: {found.message}" if found.reason else found.message
    return "the operator has not looked at it: does it run? See machinebot doctor"


def key_of(body: Mapping[str, Any]) -> Key:
    """Namespace and name."""
    return (str(body["metadata"]["namespace"]), str(body["metadata"]["name"]))


def _title(key: Sequence[str]) -> str:
    return "/".join(key)
