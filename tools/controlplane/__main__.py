"""The command line: `python3 -m controlplane build` and `python3 -m controlplane up`."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from controlplane.binaries import ensure
from controlplane.golang import GoMissingError
from controlplane.processes import ProgramError
from controlplane.recipe import PROGRAMS

WATCH_SECONDS = 0.5
"""How soon `up` notices that a part of the control plane died."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "build":
            return _build(options.program or PROGRAMS)
        return _up(options.directory, audit_log=options.audit_log)
    except (GoMissingError, ProgramError, ValueError) as error:
        print(f"controlplane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m controlplane", description=sys.modules["controlplane"].__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="find the programs or build them, and print where they are")
    build.add_argument("program", nargs="*", metavar="PROGRAM", help="only these (default: all)")
    up = commands.add_parser("up", help="start a control plane, print its kubeconfig's path, stay until Ctrl-C")
    up.add_argument("--directory", type=Path, help="keep everything here, also afterwards (default: a temporary one)")
    up.add_argument("--audit-log", action="store_true", help="let the API server log every write")
    return parser


def _build(programs: Sequence[str]) -> int:
    for name, path in ensure(programs).paths.items():
        print(f"{name}\t{path}")
    return 0


def _up(directory: Path | None, *, audit_log: bool) -> int:
    from controlplane.cluster import start_control_plane  # noqa: PLC0415  # needs cryptography, which `build` must not

    binaries = ensure()  # before the signals are ours: Ctrl-C must end a build at once
    finished = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: finished.set())
    signal.signal(signal.SIGINT, lambda *_: finished.set())
    with start_control_plane(directory, audit_log=audit_log, binaries=binaries) as cluster:
        print(f"export KUBECONFIG={cluster.admin_kubeconfig}", flush=True)
        print(f"controlplane: {cluster.url} is ready (process {os.getpid()}); Ctrl-C ends it", file=sys.stderr, flush=True)
        while not finished.wait(WATCH_SECONDS):
            cluster.check()
    return 0


if __name__ == "__main__":
    sys.exit(main())
