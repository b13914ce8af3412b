"""Secrets mounted as files, and a login with them: real client, real server."""

import getpass
import subprocess
from pathlib import Path
from typing import Final

from e2e.support.objects import Json, content
from support import mounting
from workbench.sshd import SSHServer, ssh

HOST: Final = "web-1.node.example.test"
"""Principal of the host certificate in the examples."""


def mount(directory: Path, secret: Json) -> Path:
    """The Secret as a volume with `defaultMode: 0600`, which ssh and sshd want of private keys."""
    return mounting.mount(directory, content(secret), mode=0o600)


def server(directory: Path, host: Path, *principals: str) -> SSHServer:
    """An sshd on the files of an `sshHost` output; the principals open the account that runs the tests."""
    directory.mkdir(parents=True, exist_ok=True)
    return SSHServer(
        directory,
        trusted_user_ca_keys=host / "ssh_host-user-ca.pub",
        host_key=host / "ssh_host",
        host_certificate=host / "ssh_host-cert.pub",
        authorized_principals=principals,
    )


def log_in(to: SSHServer, identity: Path, *, host: str = HOST) -> subprocess.CompletedProcess[str]:
    """Runs `echo in` over ssh with the files of an `identity` output."""
    return ssh(
        "echo",
        "in",
        port=to.port,
        user=getpass.getuser(),
        key=identity / "key",
        certificate=identity / "key-cert.pub",
        known_hosts=identity / "known_hosts",
        host_key_alias=host,
    )
