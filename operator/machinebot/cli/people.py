# ruff: noqa: PLC0415 - what a command needs is loaded when it runs: --help and the agent start without the client
"""The commands for people: their arguments, flags and help. What they do stands in a module for each noun."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from machinebot.errors import MachinebotError

WAIT_SECONDS: Final = 60.0
"""How long `renew --wait` waits: a renewal takes well below a second, and failed ones are tried again after two, four, eight."""

OPERATOR_NAMESPACE: Final = "machinebot-system"
"""Where the docs install the operator."""

Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; its current one by default.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The namespace; that of the kubeconfig's context by default.")
]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")]
Output = Annotated[str, typer.Option("--output", "-o", help="table, or json for programs.")]
Apply = Annotated[bool, typer.Option("--apply", help="Applies it instead of printing it as YAML.")]
Expires = Annotated[str | None, typer.Option(help="When it ends: 2027-01-01T00:00:00Z, 2027-01-01, or from now on such as 12h.")]

bots = typer.Typer(help="Makes bots.", no_args_is_help=True)
tokens = typer.Typer(help="Makes join tokens: who may join from outside of the cluster as a bot.", no_args_is_help=True)
locks = typer.Typer(help="Refuses a bot, an instance, a role or a join token at once.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Hangs the commands into the application."""
    app.add_typer(bots, name="bots")
    app.add_typer(tokens, name="tokens")
    app.add_typer(locks, name="locks")
    for command in (status, inspect, renew, doctor):
        app.command()(command)


@contextmanager
def one_line_for_errors() -> Iterator[None]:
    """Our own errors, and a package that is not installed, become one line on standard error and the exit code 1."""
    try:
        yield
    except MachinebotError as error:
        message = " ".join(error.message.split()).replace(": Value error, ", ": ")  # pydantic's words for our own sentences
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("machinebot"):
            raise
        extra = "aws" if (error.name or "").startswith("botocore") else "operator"
        message = f"this needs the package {error.name}: pip install 'machinebot[{extra}]'"
    else:
        return
    from machinebot.cli.tables import printable

    typer.echo(f"machinebot: {printable(message)}", err=True)
    raise typer.Exit(1)


def _as_json(output: str) -> bool:
    if output not in ("table", "json"):
        raise typer.BadParameter("write -o table or -o json")
    return output == "json"


@bots.command("add")
def bots_add(
    name: Annotated[str, typer.Argument(help="Name of the bot.")],
    roles: Annotated[list[str], typer.Option(help="Roles that its credentials may carry, separated by commas.")],
    logins: Annotated[
        list[str] | None, typer.Option(help="Logins: they reach roles that name {{ internal.logins }}, such as access.")
    ] = None,
    trait: Annotated[list[str] | None, typer.Option(help="A trait: name=value,value. Once for each.")] = None,
    max_session_ttl: Annotated[str | None, typer.Option(help="Longest life of its credentials; at most 24h.")] = None,
    authority: Annotated[str | None, typer.Option(help="MachineAuthority that it joins; default by default.")] = None,
    *,
    apply: Apply = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Prints a MachineBot as YAML, or applies it: machinebot bots add deployer --roles access --logins deploy."""
    with one_line_for_errors():
        from machinebot.cli import bots as work
        from machinebot.cli.cluster import scope

        asked = work.Asked(tuple(roles), tuple(logins or ()), tuple(trait or ()), max_session_ttl, authority)
        work.add(scope(context, namespace), name, asked, applied=apply)


@tokens.command("add")
def tokens_add(
    name: Annotated[str, typer.Argument(help="Name of the join token.")],
    bot: Annotated[str, typer.Option(help="The bot that is joined as.")],
    method: Annotated[str, typer.Option(help="The join method: github, gitlab, kubernetes, token and so on.")],
    allow: Annotated[
        list[str] | None, typer.Option(help="A rule: key=value,key=value. Once for each; one that fits is enough.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method: key=value, or key=@FILE for what a file holds.")
    ] = None,
    expires: Expires = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="With the method token: file that is made for its secret, for you alone; - for standard output."),
    ] = None,
    *,
    apply: Apply = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Prints a MachineJoinToken as YAML, or applies it."""
    with one_line_for_errors():
        from machinebot.cli import tokens as work
        from machinebot.cli.cluster import scope

        asked = work.Asked(bot, method, tuple(allow or ()), tuple(settings or ()), expires)
        work.add(scope(context, namespace), name, asked, applied=apply, secret_file=secret_file)


@locks.command("add")
def locks_add(
    bot: Annotated[str | None, typer.Option(help="A bot with all of its instances: namespace/name.")] = None,
    instance: Annotated[
        str | None, typer.Option(help="One instance of a bot, by its id: its identity, not who can prove to be the bot anew.")
    ] = None,
    role: Annotated[str | None, typer.Option(help="A role.")] = None,
    join_token: Annotated[str | None, typer.Option(help="A join token and who joined by it: namespace/name.")] = None,
    name: Annotated[str, typer.Option(help="Name of the lock; made from the target by default.")] = "",
    message: Annotated[str, typer.Option(help="Why: shown to whoever is refused. Nothing secret.")] = "",
    expires: Expires = None,
    ttl: Annotated[str | None, typer.Option(help="How long it lasts, such as 12h: the same as --expires 12h.")] = None,
    context: Context = None,
) -> None:
    """Locks at once: nothing is issued for the target until the lock is removed or ends."""
    if expires is not None and ttl is not None:
        raise typer.BadParameter("write --expires or --ttl, not both")
    with one_line_for_errors():
        from machinebot.cli import locks as work

        asked = work.Asked(bot, instance, role, join_token, name, message, expires if ttl is None else ttl)
        work.add(context, asked)


@locks.command("rm")
def locks_rm(
    names: Annotated[list[str], typer.Argument(help="Names of locks.")],
    context: Context = None,
) -> None:
    """Removes locks."""
    with one_line_for_errors():
        from machinebot.cli import locks as work

        work.remove(context, names)


@locks.command("ls")
def locks_ls(output: Output = "table", context: Context = None) -> None:
    """Lists the locks."""
    as_json = _as_json(output)
    with one_line_for_errors():
        from machinebot.cli import locks as work

        work.listing(context, as_json=as_json)


def status(
    namespace: Namespace = None,
    *,
    everywhere: Everywhere = False,
    wide: Annotated[bool, typer.Option("--wide", help="Secrets, serial numbers, times and instances too.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 where something is not ready or overdue.")] = False,
    output: Output = "table",
    context: Context = None,
) -> None:
    """Shows what ends when, what is overdue, and why something is not ready."""
    as_json = _as_json(output)
    with one_line_for_errors():
        from machinebot.cli import status as work
        from machinebot.cli.cluster import scope

        well = work.show(scope(context, namespace, everywhere=everywhere), wide=wide, as_json=as_json)
    if check and not well:
        raise typer.Exit(1)


def inspect(
    source: Annotated[
        str, typer.Argument(help="A Secret (or secret/NAME), a file, or a directory of an agent.", metavar="SECRET|FILE")
    ],
    namespace: Namespace = None,
    output: Output = "table",
    context: Context = None,
) -> None:
    """Shows SSH certificates, X.509 certificates and JWTs side by side; never a private key."""
    as_json = _as_json(output)
    with one_line_for_errors():
        from machinebot.cli import inspecting as work

        work.show(context, namespace, source, as_json=as_json)


def renew(
    outputs: Annotated[list[str] | None, typer.Argument(help="Names of outputs.")] = None,
    namespace: Namespace = None,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Outputs with these labels, such as app=web.")] = "",
    *,
    every: Annotated[bool, typer.Option("--all", help="Every output of the namespace, or of the cluster with -A.")] = False,
    everywhere: Everywhere = False,
    wait: Annotated[bool, typer.Option("--wait", help="Waits until the new credentials are there.")] = False,
    timeout: Annotated[float, typer.Option(min=1, max=86400, help="Seconds that --wait waits.")] = WAIT_SECONDS,
    context: Context = None,
) -> None:
    """Has credentials replaced at once."""
    with one_line_for_errors():
        from machinebot.cli import renew as work
        from machinebot.cli.cluster import scope

        where = scope(context, namespace, everywhere=everywhere)
        work.renew(where, work.Chosen(tuple(outputs or ()), selector, every), waited=wait, seconds=timeout)


def doctor(
    operator_namespace: Annotated[str, typer.Option(help="The operator's own namespace.")] = OPERATOR_NAMESPACE,
    lease_name: Annotated[str, typer.Option(help="Name of the operator's Lease.")] = "machinebot",
    url: Annotated[str, typer.Option(help="Address of the operator's HTTPS, to have it checked.")] = "",
    ca_file: Annotated[Path | None, typer.Option(help="With --url: CA certificates that the server is verified by.")] = None,
    output: Output = "table",
    context: Context = None,
) -> None:
    """Checks the installation; exit code 1 where a check fails."""
    as_json = _as_json(output)
    with one_line_for_errors():
        from machinebot.cli import doctor as work

        well = work.examine(context, work.Installation(operator_namespace, lease_name, url, ca_file), as_json=as_json)
    if not well:
        raise typer.Exit(1)
