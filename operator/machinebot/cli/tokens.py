"""`machinebot tokens`: makes MachineJoinTokens, and the secrets of those of the method `token`."""

import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer

from machinebot.cli.applying import Made, apply, create, print_made
from machinebot.cli.cluster import Scope, on_cluster
from machinebot.cli.written import INVALID, check, check_name, check_namespace, moment, schema_of
from machinebot.clock import SystemClock
from machinebot.errors import Invalid, MachinebotError
from machinebot.joins.base import JoinMethod
from machinebot.joins.methods.token import METHOD as SECRET_METHOD
from machinebot.joins.methods.token import SECRET_BYTES, secret_hash
from machinebot.joins.registry import JOIN_METHODS, parse_join_token, schema_model
from machinebot.kube.resources import JOIN_TOKENS
from machinebot.resources.bot import MAX_BOT_NAME
from machinebot.resources.join_token import KIND, MAX_TOKEN_NAME

Json = dict[str, Any]

STANDARD_OUTPUT: Final = Path("-")
"""Stands for standard output where a file is asked for."""

MAX_FILE: Final = 256 * 1024
"""Longest file that a setting is read from, bytes; the schema bounds each further."""

_UNESCAPED_COMMA: Final = re.compile(r"(?<!\\),")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for, as the flags have it.

    Attributes:
        bot: `--bot`.
        method: `--method`, as tbot or as the resource spells it.
        allow: Values of `--allow`, each one rule: `key=value,key=value`.
        settings: Values of `--set`: `key=value`.
        expires: `--expires`; None for never.
    """

    bot: str
    method: str
    allow: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    expires: str | None = None


def add(where: Scope, name: str, asked: Asked, *, applied: bool, secret_file: Path | None) -> None:
    """Prints the MachineJoinToken, or applies it. A secret goes to where `secret_file` says, and nowhere else.

    Raises:
        MachinebotError: It cannot be; the message says what to write instead.
    """
    chosen = method(asked.method)
    if chosen is not SECRET_METHOD:
        if secret_file is not None:
            raise Invalid(INVALID, f"--secret-file is for the method token: {chosen.name} has no secret")
        _finish(where, join_token(where.namespace, name, asked, SystemClock().now()), applied=applied)
        return
    _check_secret_file(secret_file, applied=applied)
    secret = secrets.token_hex(SECRET_BYTES)
    hashed = (*asked.settings, f"secretHash={secret_hash(secret)}")
    made = join_token(
        where.namespace, name, Asked(asked.bot, asked.method, asked.allow, hashed, asked.expires), SystemClock().now()
    )
    if secret_file == STANDARD_OUTPUT:
        on_cluster(where.context, lambda client: create(client, made))
        typer.echo(f"{made.title} created", err=True)
        sys.stdout.write(f"{secret}\n" if sys.stdout.isatty() else secret)
        return
    assert secret_file is not None  # noqa: S101 - checked above
    _with_secret_file(where, made, secret, secret_file, applied=applied)


def join_token(namespace: str, name: str, asked: Asked, now: datetime) -> Made:
    """The MachineJoinToken.

    Raises:
        Invalid: It cannot be.
    """
    check_name("a join token", name, MAX_TOKEN_NAME)
    check_namespace(namespace)
    check_name("a bot", asked.bot, MAX_BOT_NAME)
    schema, chosen = schema_of(KIND, schema_model()), method(asked.method)
    spec: Json = {"bot": asked.bot}
    if asked.expires is not None:
        spec["expires"] = moment(asked.expires, now)
    spec[chosen.field] = settings(chosen, schema["properties"][chosen.field], asked.allow, asked.settings)
    check(schema, spec)
    made = Made(KIND, JOIN_TOKENS, namespace, name, spec)
    parse_join_token({**made.body, "metadata": {**made.body["metadata"], "uid": "none"}})
    return made


def method(name: str) -> JoinMethod[Any, Any]:
    """The join method of that name or field.

    Raises:
        Invalid: There is none.
    """
    for each in JOIN_METHODS.values():
        if name in (each.name, each.field):
            return each
    raise Invalid(
        INVALID, f"there is no join method {name[:64]!r}: write one of {', '.join(each.name for each in JOIN_METHODS.values())}"
    )


# --- settings of a method, from flags -----------------------------------------------------------------------------------


def settings(chosen: JoinMethod[Any, Any], schema: Mapping[str, Any], allow: Sequence[str], given: Sequence[str]) -> Json:
    """What stands in the field of the method.

    Args:
        chosen: The method.
        schema: The schema of that field.
        allow: Values of `--allow`.
        given: Values of `--set`.

    Raises:
        Invalid: A flag has another form, or names a field that there is not.
    """
    found: Json = {}
    if allow and "allow" not in schema["properties"]:
        raise Invalid(INVALID, f"--allow is not for the method {chosen.name}: it has no rules")
    for value in allow:
        rule: Json = {}
        for part in _UNESCAPED_COMMA.split(value):
            _assign(rule, schema["properties"]["allow"]["items"], part.replace("\\,", ","), "--allow")
        found.setdefault("allow", []).append(rule)
    for value in given:
        _assign(found, schema, value, "--set")
    return found


def _assign(target: Json, schema: Mapping[str, Any], text: str, flag: str) -> None:
    """Puts the value of `key=value`, or of `key.key=value`, where it belongs."""
    key, sign, value = text.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise Invalid(INVALID, f"{text[:64]!r} is no setting: write {flag} key=value")
    place = target
    while True:
        name, known = path[0], schema.get("properties", {})
        field = known.get(name)
        if field is None and "additionalProperties" in schema:
            name, path, field = ".".join(path), path[:1], schema["additionalProperties"]  # a map's keys may have dots
        if field is None:
            raise Invalid(
                INVALID, f"{flag}: there is no field {name[:64]!r}: write one of {', '.join(known) or 'no field at all'}"
            )
        if len(path) == 1:
            _put(place, name, field, _read(value), f"{flag} {key}")
            return
        place, schema, path = place.setdefault(name, {}), field, path[1:]


def _put(place: Json, name: str, field: Mapping[str, Any], value: str, what: str) -> None:
    kind = field["type"]
    if kind == "array" and field["items"]["type"] in ("string", "boolean", "integer"):
        place.setdefault(name, []).append(_converted(field["items"]["type"], value, what))
        return
    if name in place:
        raise Invalid(INVALID, f"{what}: is there twice, and takes one value")
    if kind not in ("string", "boolean", "integer"):
        below = ", ".join(f"{name}.{each}" for each in field.get("properties", {})) or "its resource as YAML"
        raise Invalid(INVALID, f"{what}: takes no single value: write {below}")
    place[name] = _converted(kind, value, what)


def _converted(kind: str, value: str, what: str) -> str | bool | int:
    match kind:
        case "boolean" if value in ("true", "false"):
            return value == "true"
        case "integer" if value.isdecimal():
            return int(value)
        case "string":
            return value
        case _:
            raise Invalid(INVALID, f"{what}: must be {'true or false' if kind == 'boolean' else 'a number'}")


def _read(value: str) -> str:
    """The value, or the content of the file where it is `@FILE`."""
    if not value.startswith("@"):
        return value
    try:
        with Path(value[1:]).open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise Invalid(INVALID, f"{value[1:]} is longer than {MAX_FILE} bytes")
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(INVALID, f"{value[1:]} cannot be read: {error}") from error


# --- the secret ---------------------------------------------------------------------------------------------------------


def _check_secret_file(secret_file: Path | None, *, applied: bool) -> None:
    if secret_file is None:
        raise Invalid(
            INVALID,
            "the method token makes a secret, which is stored nowhere else: write --secret-file FILE, made for you alone, "
            "or --apply --secret-file - to hand it on through a pipe",
        )
    if secret_file == STANDARD_OUTPUT and not applied:
        raise Invalid(INVALID, "standard output is taken by the resource: write --secret-file FILE, or add --apply")


def _with_secret_file(where: Scope, made: Made, secret: str, secret_file: Path, *, applied: bool) -> None:
    """The file comes first: a resource whose secret is lost would let nobody in. It goes again where the resource is refused."""
    try:
        descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Invalid(
            INVALID, f"{secret_file} cannot be made ({error.strerror}): write the name of a file that is not there yet"
        ) from error
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secret)
        if applied:
            on_cluster(where.context, lambda client: create(client, made))
            typer.echo(f"{made.title} created")
        else:
            print_made(made)
    except (MachinebotError, OSError, KeyboardInterrupt):
        secret_file.unlink(missing_ok=True)
        raise
    typer.echo(f"machinebot: the secret is in {secret_file}, and nowhere else", err=True)


def _finish(where: Scope, made: Made, *, applied: bool) -> None:
    if not applied:
        print_made(made)
        return
    outcome = on_cluster(where.context, lambda client: apply(client, made))
    typer.echo(f"{made.title} {outcome}")
