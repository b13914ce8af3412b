"""`machinebot`: the application, and the commands of those who install it; those for people are in `machinebot.cli.people`."""

import logging
import socket
import sys
from pathlib import Path
from typing import Annotated, Final, cast, get_args

import typer

from machinebot import __version__
from machinebot.cli import people
from machinebot.cli.agent import agent
from machinebot.settings import LogFormat, OperatorSettings

MAX_PORT: Final = 65535

app = typer.Typer(
    name="machinebot", help="Machine identities on Kubernetes.", no_args_is_help=True, pretty_exceptions_show_locals=False
)


@app.callback()
def main() -> None:
    """Machine identities on Kubernetes: SSH, X.509 and JWT credentials that live for hours, always fresh."""


@app.command()
def version() -> None:
    """Prints the version."""
    typer.echo(__version__)


@app.command()
def operator(
    namespace: Annotated[str, typer.Option(envvar="POD_NAMESPACE", help="The operator's own namespace.")],
    identity: Annotated[str, typer.Option(envvar="POD_NAME", help="Name of this replica in the Lease.")] = "",
    listen: Annotated[str, typer.Option(help="Address and port for health and metrics, without TLS.")] = "0.0.0.0:8080",
    listen_https: Annotated[
        str, typer.Option(help="Address and port for HTTPS: the trust bundle and the join API.")
    ] = "0.0.0.0:8443",
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate of HTTPS, PEM; without it the operator's own CA signs one.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of HTTPS, PEM.")] = None,
    service: Annotated[str, typer.Option(help="Name of the Service in front of the replicas.")] = "machinebot",
    url: Annotated[str, typer.Option(help="Address of HTTPS that clients are told; default: the Service's.")] = "",
    watch_namespaces: Annotated[
        str, typer.Option(help="Namespaces that are served, separated by commas; empty for all of the cluster.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Objects that are reconciled at a time.")] = 16,
    sweep_interval: Annotated[float, typer.Option(min=1, help="Seconds between two full looks at the cluster.")] = 300,
    join_address_rate: Annotated[float, typer.Option(min=0.1, help="Requests a second to the join API, by one address.")] = 20,
    join_address_burst: Annotated[int, typer.Option(min=1, help="Requests at once, by one address.")] = 100,
    join_token_rate: Annotated[float, typer.Option(min=0.1, help="Joins a second, by one join token.")] = 50,
    join_token_burst: Annotated[int, typer.Option(min=1, help="Joins at once, by one join token.")] = 200,
    lease_name: Annotated[str, typer.Option(help="Name of the Lease.")] = "machinebot",
    lease_duration: Annotated[float, typer.Option(min=3, max=60, help="Seconds after which a silent leader is replaced.")] = 10,
    log_format: Annotated[str, typer.Option(help="json or console.")] = "json",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Runs the operator."""
    import uvloop  # noqa: PLC0415 - not there without the operator's packages

    from machinebot.app import run_operator  # noqa: PLC0415 - kopf and the client take a second that other commands save
    from machinebot.logs import configure  # noqa: PLC0415 - the same

    host, port = _address(listen)
    https_host, https_port = _address(listen_https)
    _check_https(url, tls_cert, tls_key)
    if log_format not in get_args(LogFormat) or not isinstance(logging.getLevelName(log_level.upper()), int):
        raise typer.BadParameter("write --log-format as json or console, --log-level as debug, info, warning or error")
    settings = OperatorSettings(
        namespace=namespace,
        identity=identity or socket.gethostname(),
        listen_host=host,
        listen_port=port,
        https_host=https_host,
        https_port=https_port,
        tls_certificate=tls_cert,
        tls_private_key=tls_key,
        service=service,
        url=url,
        watch_namespaces=tuple(name.strip() for name in watch_namespaces.split(",") if name.strip()),
        workers=workers,
        sweep_interval=sweep_interval,
        join_address_rate=join_address_rate,
        join_address_burst=join_address_burst,
        join_token_rate=join_token_rate,
        join_token_burst=join_token_burst,
        lease_name=lease_name,
        lease_duration=lease_duration,
        lease_renew_deadline=lease_duration * 0.6,
        lease_retry=lease_duration * 0.2,
        log_format=cast("LogFormat", log_format),
        log_level=log_level,
    )
    configure(settings.log_format, settings.log_level)
    raise typer.Exit(uvloop.run(run_operator(settings)))


def _address(listen: str) -> tuple[str, int]:
    """Host and port of `--listen` and `--listen-https`."""
    host, _, port = listen.rpartition(":")
    if not port.isdecimal() or int(port) > MAX_PORT:
        raise typer.BadParameter("write --listen as 0.0.0.0:8080, --listen-https as 0.0.0.0:8443")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - a pod serves on its own address


def _check_https(url: str, tls_cert: Path | None, tls_key: Path | None) -> None:
    if (tls_cert is None) is not (tls_key is None):
        raise typer.BadParameter("write --tls-cert and --tls-key together, or neither")
    if url and (not url.startswith("https://") or url.endswith("/")):
        raise typer.BadParameter("write --url as https://id.example.test, without a slash at the end")


@app.command()
def trust(
    piece: Annotated[str, typer.Argument(help="What to print, such as ssh-user-ca; without it the list of all.")] = "",
    authority: Annotated[str, typer.Option(help="Name of the MachineAuthority.")] = "default",
    url: Annotated[
        str, typer.Option(help="Address of an operator's HTTPS; without it the API server of your kubeconfig is asked.")
    ] = "",
    ca_file: Annotated[
        Path | None, typer.Option(help="With --url: CA certificates that the server is verified by, such as identity-ca.")
    ] = None,
    context: people.Context = None,
    pins: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--pins", help="Prints the pins of its CA certificates: those of identity-ca are for ca.pins.")
    ] = False,
) -> None:
    """Prints a piece of the trust bundle: what sshd, nginx, databases and verifiers of tokens need."""
    with people.one_line_for_errors():
        from machinebot.cli import trust as source  # noqa: PLC0415 - the client takes a second that other commands save

        if not piece:
            typer.echo(source.listing())
            return
        source.check_piece(piece)
        found = source.from_https(url, authority, piece, ca_file) if url else source.from_cluster(authority, piece, context)
        typer.echo("\n".join(source.pins(piece, found)) if pins else found, nl=pins)


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


app.command()(agent)
people.register(app)


def run() -> None:
    """The installed scripts `machinebot` and `kubectl-machinebot`: the usage is shown as it was called."""
    app(prog_name=program(sys.argv[0]))


def program(path: str) -> str:
    """How a person has called us: kubectl runs `kubectl-machinebot` for `kubectl machinebot`."""
    return "kubectl machinebot" if Path(path).name.startswith("kubectl-") else "machinebot"


if __name__ == "__main__":
    run()
