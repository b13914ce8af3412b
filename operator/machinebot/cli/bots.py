"""`machinebot bots`: makes MachineBots."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import typer

from machinebot.cli.applying import Made, apply, print_made
from machinebot.cli.cluster import Scope, on_cluster
from machinebot.cli.written import INVALID, check, check_name, check_namespace, schema_of
from machinebot.errors import Invalid
from machinebot.kube.resources import BOTS
from machinebot.resources.bot import KIND, MAX_BOT_NAME, MachineBot


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for, as the flags have it.

    Attributes:
        roles: Values of `--roles`, each with names between commas.
        logins: Values of `--logins`, the same.
        traits: Values of `--trait`: `name=value,value`.
        max_session_ttl: `--max-session-ttl`; None for the default.
        authority: `--authority`; None for the default.
    """

    roles: tuple[str, ...]
    logins: tuple[str, ...] = ()
    traits: tuple[str, ...] = ()
    max_session_ttl: str | None = None
    authority: str | None = None


def add(where: Scope, name: str, asked: Asked, *, applied: bool) -> None:
    """Prints the MachineBot, or applies it.

    Raises:
        MachinebotError: It cannot be; the message says what to write instead.
    """
    made = bot(where.namespace, name, asked)
    if not applied:
        print_made(made)
        return
    outcome = on_cluster(where.context, lambda client: apply(client, made))
    typer.echo(f"{made.title} {outcome}")


def bot(namespace: str, name: str, asked: Asked) -> Made:
    """The MachineBot.

    Raises:
        Invalid: It cannot be.
    """
    check_name("a bot", name, MAX_BOT_NAME)
    check_namespace(namespace)
    spec = {
        "roles": list(split(asked.roles)),
        "logins": list(split(asked.logins)),
        "traits": traits(asked.traits),
        "maxSessionTTL": asked.max_session_ttl,
        "authority": asked.authority,
    }
    given = {field: value for field, value in spec.items() if value not in (None, [], {}) or field == "roles"}
    check(schema_of(KIND, MachineBot), given)
    return Made(KIND, BOTS, namespace, name, given)


def split(values: Iterable[str]) -> tuple[str, ...]:
    """The names between commas of every value, each once, in their order."""
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


def traits(values: Iterable[str]) -> Mapping[str, list[str]]:
    """Traits from `name=value,value`; a name that comes again adds to its values.

    Raises:
        Invalid: One has another form.
    """
    found: dict[str, list[str]] = {}
    for value in values:
        name, sign, text = value.partition("=")
        listed = split((text,))
        if not sign or not name.strip() or not listed:
            raise Invalid(INVALID, f"{value[:64]!r} is no trait: write --trait kubernetes_groups=viewers,editors")
        known = found.setdefault(name.strip(), [])
        known += [each for each in listed if each not in known]
    return found
