"""`machinebot locks`: refuses a bot, an instance, a role or a join token at once, and lets it in again."""

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import typer
from pydantic import ValidationError

from machinebot.cli.applying import Made, apply
from machinebot.cli.cluster import everything, on_cluster
from machinebot.cli.progress import progress
from machinebot.cli.tables import Cell, Look, Table, print_json, print_tables, relative
from machinebot.cli.written import INVALID, check, check_name, moment, reference, schema_of
from machinebot.clock import SystemClock, rfc3339
from machinebot.errors import Invalid, MachinebotError, NotFound
from machinebot.kube.commandline import CommandLineClient
from machinebot.kube.resources import BOTS, JOIN_TOKENS, LOCKS, ROLES, Resource
from machinebot.policy.locks import Lock, lock_of
from machinebot.resources.lock import KIND, MachineLock
from machinebot.resources.meta import MAX_NAME

Json = dict[str, Any]

TARGETS: Final[Mapping[str, Resource]] = {"bot": BOTS, "role": ROLES, "joinToken": JOIN_TOKENS}
"""Targets that are objects, and where these are: an instance is none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for, as the flags have it. Exactly one target is set.

    Attributes:
        bot: `--bot`: namespace/name.
        instance: `--instance`.
        role: `--role`.
        join_token: `--join-token`: namespace/name.
        name: `--name`; made from the target where empty.
        message: `--message`.
        expires: `--expires` or `--ttl`; None until it is deleted.
    """

    bot: str | None = None
    instance: str | None = None
    role: str | None = None
    join_token: str | None = None
    name: str = ""
    message: str = ""
    expires: str | None = None


def add(context: str | None, asked: Asked) -> None:
    """Locks.

    Raises:
        MachinebotError: It cannot be; the message says what to write instead.
    """
    made = lock(asked, SystemClock().now())

    async def work(client: CommandLineClient) -> tuple[str, bool]:
        return await apply(client, made), await _target_is_there(client, made.spec["target"])

    outcome, there = on_cluster(context, work)
    typer.echo(f"{made.title} {outcome}: {worded(made.spec['target'])} is locked")
    if not there:
        typer.echo(f"machinebot: {worded(made.spec['target'])} is not there now: check how it is written", err=True)


def remove(context: str | None, names: Sequence[str]) -> None:
    """Takes locks away, all or none where one is not there.

    Raises:
        MachinebotError: It cannot be.
    """
    for name in names:
        check_name("a lock", name, MAX_NAME)

    async def work(client: CommandLineClient) -> None:
        found = {name: await client.get(LOCKS, "", name) for name in names}
        missing = [name for name, body in found.items() if body is None]
        if missing:
            raise NotFound("NotFound", f"there is no MachineLock {missing[0]!r}: see machinebot locks ls")
        for name, body in found.items():
            metadata = (body or {})["metadata"]
            await client.delete(LOCKS, "", name, uid=metadata["uid"], resource_version=metadata["resourceVersion"])
            typer.echo(f"MachineLock {name} deleted")

    on_cluster(context, work)


def listing(context: str | None, *, as_json: bool) -> None:
    """Prints every lock.

    Raises:
        MachinebotError: They cannot be read.
    """
    with progress("reading locks") as line:
        bodies = on_cluster(context, lambda client: everything(client, LOCKS, "", line))
    now = SystemClock().now()
    found = [view(body, now) for body in bodies]
    if as_json:
        print_json({"locks": [each.json() for each in found]}, sys.stdout)
    else:
        print_tables([table(found, now)], sys.stdout)


# --- what is made -------------------------------------------------------------------------------------------------------


def lock(asked: Asked, now: datetime) -> Made:
    """The MachineLock.

    Raises:
        Invalid: It cannot be.
    """
    wanted = target(asked)
    spec: Json = {"target": wanted}
    if asked.message:
        spec["message"] = asked.message
    if asked.expires is not None:
        spec["expires"] = moment(asked.expires, now)
    check(schema_of(KIND, MachineLock), spec)
    name = asked.name or name_of(wanted)
    check_name("a lock", name, MAX_NAME)
    return Made(KIND, LOCKS, "", name, spec)


def target(asked: Asked) -> Json:
    """The target as the resource has it.

    Raises:
        Invalid: Not exactly one is set, or it is written in another form.
    """
    flags = {"bot": asked.bot, "instance": asked.instance, "role": asked.role, "joinToken": asked.join_token}
    given = {field: text for field, text in flags.items() if text is not None}
    if len(given) != 1:
        raise Invalid(
            INVALID, "write exactly one of --bot NAMESPACE/NAME, --instance ID, --role NAME, --join-token NAMESPACE/NAME"
        )
    field, text = next(iter(given.items()))
    return {field: reference(text) if field in ("bot", "joinToken") else text}


def name_of(wanted: Mapping[str, Any]) -> str:
    """The name of the lock of a target: the same each time, so that a lock that is put again is the same one, and no two targets
    have the same, since a namespace has no dots.
    """
    field, value = next(iter(wanted.items()))
    kind = re.sub("[A-Z]", lambda found: f"-{found[0].lower()}", field)
    text = f"{value['namespace']}.{value['name']}" if isinstance(value, dict) else value
    name = f"{kind}.{text}"
    return name if len(name) <= MAX_NAME else f"{kind}.{hashlib.sha256(text.encode()).hexdigest()}"


def worded(wanted: Mapping[str, Any]) -> str:
    """A target for people."""
    field, value = next(iter(wanted.items()))
    words = {"bot": "the bot", "instance": "the instance", "role": "the role", "joinToken": "the join token"}
    return f"{words[field]} {value['namespace']}/{value['name']}" if isinstance(value, dict) else f"{words[field]} {value}"


async def _target_is_there(client: CommandLineClient, wanted: Mapping[str, Any]) -> bool:
    field, value = next(iter(wanted.items()))
    if field not in TARGETS:
        return True
    namespace, name = (value["namespace"], value["name"]) if isinstance(value, dict) else ("", value)
    try:
        return await client.get(TARGETS[field], namespace, name) is not None
    except MachinebotError:
        return True  # it is locked already, which is what counts


# --- what is shown ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """A lock as it is shown.

    Attributes:
        name: Name of the MachineLock.
        target: What it locks, as the resource has it.
        state: `active`, `expired`, or `unreadable`.
        message: Why.
        expires_at: When it ends by itself, or None.
    """

    name: str
    target: Json
    state: str
    message: str
    expires_at: datetime | None

    def json(self) -> Json:
        """For programs."""
        return {
            "name": self.name,
            "target": self.target,
            "state": self.state,
            "message": self.message,
            "expires": None if self.expires_at is None else rfc3339(self.expires_at),
        }


def view(body: Mapping[str, Any], now: datetime) -> View:
    """How a MachineLock is shown; one that cannot be read is shown as that."""
    name = str(body["metadata"]["name"])
    try:
        found: Lock = lock_of(MachineLock.model_validate(body))
    except (ValidationError, ValueError):
        return View(name, {}, "unreadable", "it does not fit the schema: apply it again", None)
    state = "active" if found.in_force(now) else "expired"
    return View(name, body["spec"]["target"], state, found.message, found.expires_at)


def table(found: Sequence[View], now: datetime) -> Table:
    """The locks for people."""
    looks = {"active": Look.BAD, "expired": Look.FAINT, "unreadable": Look.BAD}
    rows = [
        (
            each.name,
            worded(each.target) if each.target else "-",
            Cell(each.state, looks[each.state]),
            relative(each.expires_at, now),
            each.message or "-",
        )
        for each in found
    ]
    return Table(("lock", "target", "state", "ends", "message"), rows)
