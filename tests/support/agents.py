"""The agent as a process of its own, as a machine outside of the cluster runs it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from machinebot.agent.config import parse_config
from machinebot.agent.directory import ABOUT
from machinebot.agent.outputs import Output, outputs_of
from machinebot.outputs.inspect import Content
from support.verifier import HOST
from support.waiting import eventually

ROOT = Path(__file__).parents[2]


@dataclass
class AgentFiles:
    """The configuration of an agent, and what it writes.

    Attributes:
        home: A directory that nobody else may write into.
        port: Port of the join API on the loopback address.
        authority: CA certificates of the join API, PEM.
        onboarding: As in the configuration.
        outputs: Names and what stands there beside name and directory.
        more: More of the configuration.
        environment: Variables of the process.
    """

    home: Path
    port: int
    authority: bytes
    onboarding: dict[str, Any]
    outputs: Mapping[str, dict[str, Any]]
    more: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """The configuration, written."""
        self.home.chmod(0o700)
        (self.home / "authority.pem").write_bytes(self.authority)
        path = self.home / "bot.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "server": f"https://{HOST}:{self.port}",
                    "ca": {"file": str(self.home / "authority.pem")},
                    "onboarding": self.onboarding,
                    "storage": {"directory": str(self.home / "state")},
                    "outputs": [
                        {"name": name, "directory": {"path": str(self.home / name)}, **fields}
                        for name, fields in self.outputs.items()
                    ],
                    **self.more,
                }
            )
        )
        return path

    def parsed(self) -> dict[str, Output]:
        """The outputs as the product reads them."""
        return {output.name: output for output in outputs_of(parse_config(self.config.read_bytes()))}

    def once(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it once."""
        return subprocess.run(
            self._command("--oneshot", *arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=self._environment,
        )

    @contextlib.contextmanager
    def daemon(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run it as a daemon; its log goes to `log`. What is left of it at the end is killed."""
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(self._command(), stderr=log, stdout=log, env={**self._environment, **environment})
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def files(self, name: str) -> dict[str, bytes]:
        """The set of an output, as a reader who opens it once sees it."""
        inside = os.open(self.home / name / "..data", os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = {}
            for each in os.listdir(inside):  # noqa: PTH208 - a descriptor
                with os.fdopen(os.open(each, os.O_RDONLY, dir_fd=inside), "rb") as file:
                    found[each] = file.read()
            return found
        finally:
            os.close(inside)

    def whole(self, name: str) -> Content:
        """What the set of an output amounts to; fails where it is not one whole set."""
        files = self.files(name)
        stored = self.parsed()[name].stored(files)
        assert ABOUT in files
        return Content(stored.serial, stored.credential.not_before, stored.credential.not_after)

    def log(self) -> list[dict[str, Any]]:
        """Every line of the daemon's log so far, but for one that a kill has cut off."""
        found = []
        for line in (self.home / "log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), **self.environment}

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "machinebot", "agent", "--config", str(self.config), *arguments]


@contextlib.contextmanager
def notified(path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager, at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(60)
        yield listener


def stop(process: subprocess.Popen[bytes]) -> int:
    """End a daemon as a service manager does; returns its exit code."""
    process.send_signal(signal.SIGTERM)
    return eventually("the agent has ended", lambda: process.poll() is not None) and int(process.returncode)
