# ruff: noqa: FBT002, PLC0415 - flags; what the agent needs is loaded when it runs: the other commands start without it
"""`machinebot agent`: credentials in directories, outside of a cluster. What it does stands in `machinebot.agent`."""

from pathlib import Path
from typing import Annotated

import typer

from machinebot.cli.people import one_line_for_errors


def agent(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration, YAML.")],
    oneshot: Annotated[
        bool, typer.Option("--oneshot", help="Joins, writes every output once, and ends; fails where one could not be written.")
    ] = False,
    validate: Annotated[bool, typer.Option("--validate", help="Reads the configuration, and does nothing.")] = False,
) -> None:
    """Keeps credentials in directories fresh: on CI runners, cloud machines and any other host."""
    with one_line_for_errors():
        from machinebot.agent.config import read_config
        from machinebot.agent.outputs import outputs_of

        read = read_config(config)
        outputs = outputs_of(read)
        if validate:
            typer.echo(f"{config}: {len(outputs)} output{'s' if len(outputs) > 1 else ''}, all right")
            return
        from machinebot.agent.run import run_daemon, run_once
        from machinebot.logs import configure

        configure(read.log.format, read.log.level)
        status = run_once(read, outputs) if oneshot else run_daemon(read, outputs)
    raise typer.Exit(status)
