"""`machinebot status`: what ends when, what is overdue, and why something is not ready."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from machinebot.cli import locks, standing
from machinebot.cli.cluster import Scope, everything, on_cluster
from machinebot.cli.progress import Progress, progress
from machinebot.cli.standing import Standing
from machinebot.cli.tables import Cell, Table, print_json, print_tables, relative
from machinebot.clock import SystemClock, rfc3339
from machinebot.errors import Denied
from machinebot.kube.commandline import CommandLineClient
from machinebot.kube.resources import AUTHORITIES, BOTS, JOIN_TOKENS, LOCKS, OUTPUTS, Resource

Json = dict[str, Any]

KINDS: Final[tuple[tuple[str, Resource, bool], ...]] = (
    ("authorities", AUTHORITIES, False),
    ("bots", BOTS, True),
    ("outputs", OUTPUTS, True),
    ("joinTokens", JOIN_TOKENS, True),
    ("locks", LOCKS, False),
)
"""What is read: its name in the report, where it is, and whether who may not read it is refused. What has no namespace is for
administrators: a tenant's status goes without."""


@dataclass(frozen=True, slots=True)
class World:
    """What was read.

    Attributes:
        objects: The objects of each kind, by the names of `KINDS`; None where they may not be read.
        now: When.
    """

    objects: Mapping[str, list[Json] | None]
    now: datetime

    def of(self, kind: str) -> list[Json]:
        """The objects of a kind, by namespace and name."""
        return sorted(self.objects.get(kind) or [], key=lambda body: _key(body["metadata"]))


def show(where: Scope, *, wide: bool, as_json: bool) -> bool:
    """Prints the report; returns whether nothing in it is a problem.

    Raises:
        MachinebotError: It cannot be read.
    """
    with progress("reading") as line:
        objects = on_cluster(where.context, lambda client: _read(client, where.namespace, line))
    world = World(objects, SystemClock().now())
    content = report(world)
    if as_json:
        print_json(content, sys.stdout)
    else:
        print_tables(tables(world, wide=wide), sys.stdout)
        sys.stdout.write(f"\n{summary(content)}\n")
    return not content["problems"]


async def _read(client: CommandLineClient, namespace: str, line: Progress) -> Mapping[str, list[Json] | None]:
    async def one(resource: Resource, needed: bool) -> list[Json] | None:  # noqa: FBT001 - a row of the table
        try:
            return await everything(client, resource, namespace, line)
        except Denied:
            if needed:
                raise
            return None

    # One after the other: the first failure is the failure, and the API server has one page to make at a time.
    return {name: await one(resource, needed) for name, resource, needed in KINDS}


# --- for programs -------------------------------------------------------------------------------------------------------


def report(world: World) -> Json:
    """The report as JSON; docs/cli.md has its fields."""
    sections = {
        "authorities": [_authority(body, world.now) for body in world.of("authorities")],
        "bots": [_bot(body, world.now) for body in world.of("bots")],
        "outputs": [_output(body, world.now) for body in world.of("outputs")],
        "joinTokens": [_join_token(body, world.now) for body in world.of("joinTokens")],
    }
    return {
        "at": rfc3339(world.now),
        "problems": sum(each["problem"] for section in sections.values() for each in section),
        **{name: None if world.objects[name] is None else section for name, section in sections.items()},
        "locks": None if world.objects["locks"] is None else [locks.view(body, world.now).json() for body in world.of("locks")],
    }


def _head(body: Json, found: Standing) -> Json:
    metadata = body["metadata"]
    place = {"namespace": metadata["namespace"]} if metadata.get("namespace") else {}
    return {
        **place,
        "name": metadata["name"],
        "state": found.word,
        "problem": found.is_problem,
        "reason": found.reason,
        "message": found.message,
        "warnings": list(standing.warnings(body)),
    }


def _authority(body: Json, now: datetime) -> Json:
    return {**_head(body, standing.of_other(body, now)), "clusterName": body["spec"].get("clusterName")}


def _bot(body: Json, now: datetime) -> Json:
    instances = standing.status_of(body).get("instances") or []
    return {**_head(body, standing.of_other(body, now)), "roles": body["spec"].get("roles") or [], "instances": instances}


def _output(body: Json, now: datetime) -> Json:
    status = standing.status_of(body)
    return {
        **_head(body, standing.of_output(body, now)),
        "bot": body["spec"].get("bot"),
        "type": standing.type_of(body),
        "secret": (status.get("secret") or {}).get("name"),
        "serial": status.get("serial"),
        **{field: status.get(field) for field in ("notBefore", "notAfter", "renewAt", "retryAt", "ttl", "ttlReducedBy")},
    }


def _join_token(body: Json, now: datetime) -> Json:
    return {
        **_head(body, standing.of_join_token(body, now)),
        "bot": body["spec"].get("bot"),
        "method": standing.method_of(body),
        "expires": body["spec"].get("expires"),
        "instance": (standing.status_of(body).get("instance") or {}).get("id"),
    }


def summary(content: Mapping[str, Any]) -> str:
    """The last line: how many there are, and how many are a problem."""
    counted = ", ".join(
        f"{words} {len(content[name])}"
        for name, words in (("bots", "bots"), ("outputs", "outputs"), ("joinTokens", "join tokens"), ("locks", "locks"))
        if content[name] is not None
    )
    problems = content["problems"]
    return f"{counted}; {'all is well' if not problems else f'to look at: {problems}'}"


# --- for people ---------------------------------------------------------------------------------------------------------


def tables(world: World, *, wide: bool) -> list[Table]:
    """The report as tables; kinds without objects are left out."""
    made: tuple[tuple[str, Callable[[Sequence[Json], datetime, bool], Table]], ...] = (
        ("authorities", _authorities_table),
        ("outputs", _outputs_table),
        ("bots", _bots_table),
        ("joinTokens", _join_tokens_table),
    )
    found = [build(world.of(name), world.now, wide) for name, build in made if world.of(name)]
    if world.of("locks"):
        found.append(locks.table([locks.view(body, world.now) for body in world.of("locks")], world.now))
    return found


def _authorities_table(bodies: Sequence[Json], now: datetime, _wide: bool) -> Table:  # noqa: FBT001 - as the others
    rows = [
        (body["metadata"]["name"], _state(found), str(body["spec"].get("clusterName")), _why(found, body))
        for body in bodies
        for found in (standing.of_other(body, now),)
    ]
    return Table(("authority", "state", "cluster", "why"), rows)


def _outputs_table(bodies: Sequence[Json], now: datetime, wide: bool) -> Table:  # noqa: FBT001 - as the others
    columns = (
        "output",
        "state",
        "bot",
        "type",
        "ends",
        "renews",
        *(("secret", "serial", "ends at", "renews at") if wide else ()),
        "why",
    )
    rows = []
    for body in sorted(bodies, key=lambda each: (not standing.of_output(each, now).is_problem, _key(each["metadata"]))):
        found, status = standing.of_output(body, now), standing.status_of(body)
        more = (
            str((status.get("secret") or {}).get("name") or "-"),
            str(status.get("serial") or "-"),
            str(status.get("notAfter") or "-"),
            str(status.get("renewAt") or "-"),
        )
        rows.append(
            (
                _name(body),
                _state(found),
                str(body["spec"].get("bot")),
                standing.type_of(body),
                relative(standing.moment(body, "notAfter"), now),
                relative(standing.moment(body, "renewAt"), now),
                *(more if wide else ()),
                _why(found, body),
            )
        )
    return Table(columns, rows)


def _bots_table(bodies: Sequence[Json], now: datetime, wide: bool) -> Table:  # noqa: FBT001 - as the others
    rows = []
    for body in bodies:
        found = standing.of_other(body, now)
        instances = standing.status_of(body).get("instances") or []
        roles = ", ".join(map(str, body["spec"].get("roles") or ()))
        shown = "; ".join(_instance(each, now) for each in instances) if wide else str(len(instances))
        rows.append((_name(body), _state(found), roles, shown or "-", _why(found, body)))
    return Table(("bot", "state", "roles", "instances", "why"), rows)


def _instance(instance: Mapping[str, Any], now: datetime) -> str:
    """One instance for people, such as `0b0e... by github (ci-runner), seen 3m ago`."""
    seen = relative(standing.moment({"status": instance}, "lastSeen"), now)
    return f"{instance.get('id')} by {instance.get('method')} ({instance.get('joinToken')}), seen {seen}"


def _join_tokens_table(bodies: Sequence[Json], now: datetime, wide: bool) -> Table:  # noqa: FBT001 - as the others
    rows = []
    for body in bodies:
        found = standing.of_join_token(body, now)
        end = relative(standing.expires(body), now) + (f" ({body['spec']['expires']})" if wide and standing.expires(body) else "")
        rows.append((_name(body), _state(found), str(body["spec"].get("bot")), standing.method_of(body), end, _why(found, body)))
    return Table(("join token", "state", "bot", "method", "ends", "why"), rows)


def _state(found: Standing) -> Cell:
    return Cell(found.word, standing.LOOKS[found.word])


def _why(found: Standing, body: Json) -> str:
    """Why it stands so; else what the status warns of."""
    if found.message:
        return f"{found.reason}: {found.message}" if found.reason else found.message
    return "; ".join(f"warning: {each}" for each in standing.warnings(body)) or "-"


def _name(body: Json) -> str:
    return f"{body['metadata'].get('namespace', '')}/{body['metadata']['name']}"


def _key(metadata: Mapping[str, Any]) -> tuple[str, str]:
    return (str(metadata.get("namespace") or ""), str(metadata["name"]))
