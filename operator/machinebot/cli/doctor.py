"""`machinebot doctor`: finds out how the installation is, and prints what the checks say of it."""

import asyncio
import sys
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from machinebot.cli import trust
from machinebot.cli.checks import CHECKS, Answer, Facts, Finding, Level, T
from machinebot.cli.cluster import everything, on_cluster
from machinebot.cli.crds import all_crds
from machinebot.cli.progress import Progress, progress
from machinebot.cli.tables import Cell, Look, Table, print_json, print_tables
from machinebot.clock import SystemClock
from machinebot.errors import MachinebotError
from machinebot.kube.commandline import CommandLineClient
from machinebot.kube.resources import AUTHORITIES, JOIN_TOKENS, LEASES, LOCKS, OUTPUTS, Resource
from machinebot.resources.meta import API_VERSION, GROUP

Json = dict[str, Any]

DEFINITIONS: Final = Resource("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", namespaced=False)
POLICIES: Final = Resource("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies", namespaced=False)
BINDINGS: Final = Resource("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", namespaced=False)

LOOKS: Final[Mapping[Level, Look]] = {Level.OK: Look.GOOD, Level.WARN: Look.WARNING, Level.FAIL: Look.BAD, Level.SKIP: Look.FAINT}


@dataclass(frozen=True, slots=True)
class Installation:
    """Where the operator is, as the flags have it.

    Attributes:
        namespace: Its own namespace.
        lease: Name of its Lease.
        url: Address of its HTTPS; empty where it is not to be checked.
        ca_file: CA certificates that HTTPS is verified by; None for the machine's own.
    """

    namespace: str
    lease: str
    url: str = ""
    ca_file: Path | None = None


def examine(context: str | None, installation: Installation, *, as_json: bool) -> bool:
    """Prints what the checks say; returns whether none has failed.

    Raises:
        MachinebotError: There is no kubeconfig to begin with.
    """
    with progress("looking around") as line:
        facts = on_cluster(context, lambda client: _facts(client, installation, line))
    found = [(name, check(facts)) for name, check in CHECKS]
    if as_json:
        print_json({"checks": [_as_object(name, each) for name, each in found]}, sys.stdout)
    else:
        rows = [(name, Cell(each.level.value, LOOKS[each.level]), _sentence(each)) for name, each in found]
        print_tables([Table(("check", "is", "what was found"), rows)], sys.stdout)
    return all(each.level is not Level.FAIL for _, each in found)


def _as_object(name: str, each: Finding) -> Json:
    return {"check": name, "level": each.level.value, "message": each.message, "wayOut": each.way_out}


def _sentence(each: Finding) -> str:
    return f"{each.message}; {each.way_out}" if each.way_out else each.message


async def _facts(client: CommandLineClient, installation: Installation, line: Progress) -> Facts:
    asked: dict[str, Awaitable[Any]] = {
        "version": _answer(client.told("/version")),
        "resources": _answer(_resources(client)),
        "definitions": _answer(_definitions(client, line)),
        "authorities": _answer(everything(client, AUTHORITIES, "", line)),
        "lease": _answer(client.get(LEASES, installation.namespace, installation.lease)),
        "policies": _answer(everything(client, POLICIES, "", line)),
        "bindings": _answer(everything(client, BINDINGS, "", line)),
        "outputs": _answer(everything(client, OUTPUTS, "", line)),
        "join_tokens": _answer(everything(client, JOIN_TOKENS, "", line)),
        "locks": _answer(everything(client, LOCKS, "", line)),
    }
    # On its own, before the rest: a busy moment would look like a skew.
    date = await _answer(client.date())
    asked_at = datetime.now(UTC)
    answers = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
    return Facts(
        **answers,
        wanted={crd["metadata"]["name"]: crd for crd in map(yaml.safe_load, all_crds().values())},
        lease_name=f"{installation.namespace}/{installation.lease}",
        https=_https(installation),
        date=date,
        asked_at=asked_at,
        now=SystemClock().now(),
    )


async def _answer(asked: Awaitable[T]) -> Answer[T]:
    """The answer, or why there is none: one question that fails leaves the others alone."""
    try:
        return await asked
    except MachinebotError as error:
        return error


async def _resources(client: CommandLineClient) -> frozenset[str]:
    """Plurals of our kinds, by discovery, which everybody may ask."""
    answer = await client.told(f"/apis/{API_VERSION}")
    return frozenset(str(each.get("name")) for each in answer.get("resources") or ())


async def _definitions(client: CommandLineClient, line: Progress) -> Mapping[str, Json]:
    bodies = await everything(client, DEFINITIONS, "", line)
    return {body["metadata"]["name"]: body for body in bodies if body["spec"].get("group") == GROUP}


def _https(installation: Installation) -> Answer[str | None]:
    if not installation.url:
        return None
    try:
        trust.from_https(installation.url, "default", "identity-ca", installation.ca_file)
    except MachinebotError as error:
        return error
    return installation.url
