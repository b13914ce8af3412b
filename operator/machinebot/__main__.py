"""`python -m machinebot`."""

from machinebot.cli.main import run

run()
