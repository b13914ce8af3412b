"""Secrets mounted as files, and a login with them: real client, real server."""

import getpass
import subprocess
from pathlib import Path
from typing import Final

from e2e.support.objects import Json, content
from workbench.sshd import SSHServer, ssh

HOST: Final = "web-1.node.example.test"
"""Principal of the host certificate in the examples."""

PRIVATE: Final = frozenset({"key", "tls.key", "ssh_host"})


def mount(directory: Path, secret: Json) -> Path:
    """The Secret's keys as files: private ones 0600, as `defaultMode: 0600` and sshd want it, the others 0644."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in content(secret).items():
        path = directory / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(value)
        path.chmod(0o600 if name in PRIVATE else 0o644)
    return directory


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
