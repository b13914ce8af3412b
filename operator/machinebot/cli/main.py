"""`machinebot`: runs the operator, and writes the CRDs."""

import logging
import socket
from pathlib import Path
from typing import Annotated, Final, cast, get_args

import typer
import uvloop

from machinebot import __version__
from machinebot.settings import LogFormat, OperatorSettings

MAX_PORT: Final = 65535

app = typer.Typer(
    name="machinebot", help="Machine identities on Kubernetes.", no_args_is_help=True, pretty_exceptions_show_locals=False
)


@app.callback()
def main() -> None:
    """Machine identities on Kubernetes: SSH and X.509 credentials that live for hours, in Secrets."""


@app.command()
def version() -> None:
    """Prints the version."""
    typer.echo(__version__)


@app.command()
def operator(
    namespace: Annotated[str, typer.Option(envvar="POD_NAMESPACE", help="The operator's own namespace.")],
    identity: Annotated[str, typer.Option(envvar="POD_NAME", help="Name of this replica in the Lease.")] = "",
    listen: Annotated[str, typer.Option(help="Address and port for health and metrics.")] = "0.0.0.0:8080",
    watch_namespaces: Annotated[
        str, typer.Option(help="Namespaces that are served, separated by commas; empty for all of the cluster.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Objects that are reconciled at a time.")] = 16,
    sweep_interval: Annotated[float, typer.Option(min=1, help="Seconds between two full looks at the cluster.")] = 300,
    lease_name: Annotated[str, typer.Option(help="Name of the Lease.")] = "machinebot",
    lease_duration: Annotated[float, typer.Option(min=3, max=60, help="Seconds after which a silent leader is replaced.")] = 10,
    log_format: Annotated[str, typer.Option(help="json or console.")] = "json",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Runs the operator."""
    from machinebot.app import run_operator  # noqa: PLC0415 - kopf and the client take a second that other commands save
    from machinebot.logs import configure  # noqa: PLC0415 - the same

    host, _, port = listen.rpartition(":")
    if (
        not port.isdecimal()
        or int(port) > MAX_PORT
        or log_format not in get_args(LogFormat)
        or not isinstance(logging.getLevelName(log_level.upper()), int)
    ):
        raise typer.BadParameter(
            "write --listen as 0.0.0.0:8080, --log-format as json or console, --log-level as debug, info, warning or error"
        )
    settings = OperatorSettings(
        namespace=namespace,
        identity=identity or socket.gethostname(),
        listen_host=host.strip("[]") or "0.0.0.0",  # noqa: S104 - a pod serves on its own address
        listen_port=int(port),
        watch_namespaces=tuple(name.strip() for name in watch_namespaces.split(",") if name.strip()),
        workers=workers,
        sweep_interval=sweep_interval,
        lease_name=lease_name,
        lease_duration=lease_duration,
        lease_renew_deadline=lease_duration * 0.6,
        lease_retry=lease_duration * 0.2,
        log_format=cast("LogFormat", log_format),
        log_level=log_level,
    )
    configure(settings.log_format, settings.log_level)
    raise typer.Exit(uvloop.run(run_operator(settings)))


@app.command()
def crds(
    directory: Annotated[Path, typer.Option(help="Folder that the CRDs are written to.")] = Path("crds"),
) -> None:
    """Writes the CustomResourceDefinitions, generated from the models."""
    from machinebot.cli.crds import all_crds  # noqa: PLC0415 - other commands need no models

    directory.mkdir(parents=True, exist_ok=True)
    for name, text in all_crds().items():
        (directory / name).write_text(text)
        typer.echo(directory / name)


if __name__ == "__main__":
    app()
