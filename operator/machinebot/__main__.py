"""`python -m machinebot`."""

from machinebot.cli.main import app

app()
