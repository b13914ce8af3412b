"""Logins with the Secrets of `identity` and `sshHost` outputs, mounted, by the real ssh and sshd."""

import getpass
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.sshd import SSHServer, ssh_by_config

HOST = "web-1.node.example.test"
"""What hosts are called, unless a test says otherwise."""

PRINCIPAL = "deploy"
"""The login that opens the account that runs the tests."""


def serving(folder: Path, files: Path, place: str = "", *, options: Mapping[str, str] | None = None) -> SSHServer:
    """An sshd on the files of an `sshHost` output; the principal `deploy` opens the account that runs the tests."""
    directory = folder / (place or f"sshd-{files.name}")
    directory.mkdir(exist_ok=True)
    return SSHServer(
        directory,
        trusted_user_ca_keys=files / "ssh_host-user-ca.pub",
        host_key=files / "ssh_host",
        host_certificate=files / "ssh_host-cert.pub",
        authorized_principals=(PRINCIPAL,),
        options=options,
    )


def log_in(server: SSHServer, files: Path, *command: str, name: str = HOST, **more: Any) -> subprocess.CompletedProcess[str]:
    """`ssh -F` with the files of an `identity` output; without a command it says "in"."""
    words = command or ("echo", "in")
    return ssh_by_config(files / "ssh_config", name, *words, port=server.port, user=getpass.getuser(), **more)


def is_let_in(server: SSHServer, files: Path) -> bool:
    """Whether the login works; any other end than a refusal is an error."""
    done = log_in(server, files)
    assert (done.returncode, done.stdout) in ((0, "in\n"), (255, "")), done
    return done.returncode == 0
