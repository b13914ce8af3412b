"""A real OpenSSH server on loopback that trusts a certificate authority, and the real client to log in to it."""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from controlplane.pki import write_private
from controlplane.ports import LOOPBACK, ReservedPort
from controlplane.processes import Part, ProgramError, wait_until
from workbench.programs import find_program

START_SECONDS: Final = 20.0
"""From start to the first banner; well below a second on an idle machine."""

BANNER_SECONDS: Final = 5.0
"""For one banner."""

LOGIN_SECONDS: Final = 30.0
"""For one command over ssh by default."""

PRIVILEGE_SEPARATION: Final = Path("/run/sshd")
"""Debian's sshd wants this empty directory when it runs as root; its package makes it only where systemd runs."""

PENALTIES_SINCE: Final = (9, 8)
"""OpenSSH that makes an address wait after failed logins, which all of our logins would share."""


_HAND_OVER: Final = (
    "import socket, sys; peer = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
    "socket.send_fds(socket.socket(fileno=1), [b'.'], [peer.fileno()])"
)
"""A ProxyCommand for ProxyUseFdpass (ssh_config(5)): whatever the host is called, the connection goes to a port of ours."""


class SSHServer:
    """An sshd of its own on a free loopback port. As a context manager it runs for the length of the block.

    It lets in only certificates of the trusted authority, as root to any account and as an ordinary user to that user's
    own. It has no passwords and no authorized_keys, and never outlives this process.
    """

    def __init__(
        self,
        directory: Path,
        *,
        trusted_user_ca_keys: Path,
        host_key: Path,
        host_certificate: Path | None = None,
        authorized_principals: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare it; nothing runs yet. Files are read where they are, so that one that is replaced has its effect.

        Args:
            directory: For its configuration and log; must exist.
            trusted_user_ca_keys: Public keys of the authorities whose user certificates it takes, read at each login.
            host_key: Private host key; nobody but the owner may be able to read it (see `write_files`).
            host_certificate: Host certificate of that key, if it has one.
            authorized_principals: Principals that open every account; without them only the account's own name does.
            options: More lines of sshd_config; they win over ours.

        Raises:
            ProgramMissingError: there is no sshd; the text says what to install.
        """
        program = find_program("sshd", package="openssh-server")
        self._held = ReservedPort(socket.SO_REUSEADDR)
        self.port = self._held.number
        """Where it listens, on 127.0.0.1; the same after a restart."""
        self.log = directory / "sshd.log"
        """Its log, LogLevel VERBOSE: who came, with which certificate, and why not."""
        config = directory / "sshd_config"
        lines = dict(options or {})
        settings = _settings(program, self.port, trusted_user_ca_keys, host_key) | {
            "HostCertificate": str(host_certificate or "none"),
            "AuthorizedPrincipalsFile": str(_principals(directory, authorized_principals) or "none"),
        }
        settings = {name: value for name, value in settings.items() if name not in lines}
        config.write_text("".join(f"{name} {value}\n" for name, value in {**settings, **lines}.items()))
        command = [program, "-D", "-e", "-f", str(config)]
        self._part = Part("sshd", command, self.log, {"PATH": os.environ.get("PATH", os.defpath)})

    def __enter__(self) -> Self:
        """Start it and wait until it greets."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End it and give back its port."""
        self.stop()
        self._held.release()

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start it and return once it greets. Host keys and certificates are read here.

        Raises:
            ProgramError: it ended or did not greet within `seconds`; the text holds the end of its log.
        """
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self._part.start()
        wait_until("sshd's banner", self._greets, seconds=seconds, parts=[self._part])

    def stop(self) -> None:
        """End it; connections that are open go on. It may be started again."""
        self._part.stop()

    def _greets(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=BANNER_SECONDS) as connection:
            return connection.recv(64).startswith(b"SSH-2.0-")


def ssh(
    *command: str,
    port: int,
    user: str,
    key: Path,
    certificate: Path,
    known_hosts: Path,
    host_key_alias: str,
    options: Sequence[str] = (),
    timeout: float = LOGIN_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a command over the real ssh client, with this key, certificate and known_hosts and nothing of the caller's own.

    Args:
        command: What the account's shell runs, such as "id", "-un".
        port: On 127.0.0.1.
        user: Account to log in to.
        key: Private key; nobody but the owner may be able to read it (see `write_files`).
        certificate: User certificate of that key.
        known_hosts: The only known hosts; an unknown host key is refused, never added.
        host_key_alias: Name that the host must prove in `known_hosts` or in its certificate.
        options: More options as for `ssh -o`; the first of a name wins, and these come first.
        timeout: Seconds for all of it.

    Returns:
        The finished client with exit code (255 when it was refused) and output. It is not checked.

    Raises:
        ProgramMissingError: there is no ssh; the text says what to install.
        ProgramError: it took longer than `timeout`.
    """
    settings = [
        *options,
        "BatchMode=yes",
        f"CertificateFile={certificate}",
        "GlobalKnownHostsFile=none",
        f"HostKeyAlias={host_key_alias}",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        f"UserKnownHostsFile={known_hosts}",
    ]
    flags = [word for setting in settings for word in ("-o", setting)]
    return _run_ssh(["-F", "none", *flags, "-i", str(key), "-p", str(port), "-l", user, LOOPBACK, "--", *command], timeout)


def ssh_by_config(
    config: Path,
    host: str,
    *command: str,
    port: int,
    user: str,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout: float = LOGIN_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a command over the real ssh client as `ssh -F config host` does; keys and known hosts come from that file alone.

    Args:
        config: An ssh_config, used as it is.
        host: Name of the host, as a person writes it. It is not looked up: the connection goes to `port`.
        command: What the account's shell runs; none with flags such as -W.
        port: On 127.0.0.1. To ssh the host is one at port 22.
        user: Account to log in to.
        flags: More flags of ssh, such as -A.
        environment: More variables, such as SSH_AUTH_SOCK.
        timeout: Seconds for all of it.

    Returns:
        The finished client with exit code (255 when it was refused) and output. It is not checked.

    Raises:
        ProgramMissingError: there is no ssh; the text says what to install.
        ProgramError: it took longer than `timeout`.
    """
    return _run_ssh([*config_flags(config, port=port, user=user), *flags, host, *command], timeout, environment)


def config_flags(config: Path, *, port: int, user: str) -> list[str]:
    """Flags of ssh for an ssh_config and a host that is a port of this machine: see `ssh_by_config`."""
    hand_over = shlex.join([sys.executable, "-I", "-S", "-c", _HAND_OVER, str(port)])
    settings = ["BatchMode=yes", f"ProxyCommand={hand_over}", "ProxyUseFdpass=yes"]
    return ["-F", str(config), *(word for setting in settings for word in ("-o", setting)), "-l", user]


@contextlib.contextmanager
def ssh_agent(key: Path) -> Iterator[dict[str, str]]:
    """A real ssh-agent that holds the private key: the variables by which ssh finds it."""
    with tempfile.TemporaryDirectory() as place:  # the path of a socket has 107 characters at most
        socket_path, environment = Path(place) / "agent", {"PATH": os.environ.get("PATH", os.defpath)}
        command = [find_program("ssh-agent", package="openssh-client"), "-D", "-a", str(socket_path)]
        part = Part("ssh-agent", command, Path(place) / "log", environment)
        found = {"SSH_AUTH_SOCK": str(socket_path)}
        part.start()
        try:
            wait_until("ssh-agent", socket_path.is_socket, seconds=START_SECONDS, parts=[part])
            add = [find_program("ssh-add", package="openssh-client"), "-q", str(key)]
            subprocess.run(add, env=environment | found, stdin=subprocess.DEVNULL, timeout=LOGIN_SECONDS, check=True)
            yield found
        finally:
            part.stop()


def _run_ssh(
    arguments: Sequence[str], timeout: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    line = [find_program("ssh", package="openssh-client"), *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
    try:
        return subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**inherited, **(environment or {})},
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{shlex.join(arguments)}: not done after {timeout:.0f} s") from None


def write_files(directory: Path, content: Mapping[str, bytes]) -> dict[str, Path]:
    """Write files as a mounted Secret has them, made anew and readable to their owner alone, and return their paths."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = {name: directory / name for name in content}
    for name, path in paths.items():
        path.unlink(missing_ok=True)
        write_private(path, content[name])
    return paths


def _settings(program: str, port: int, trusted_user_ca_keys: Path, host_key: Path) -> dict[str, str]:
    settings = {
        "Port": str(port),
        "ListenAddress": LOOPBACK,
        "HostKey": str(host_key),
        "TrustedUserCAKeys": str(trusted_user_ca_keys),
        "AuthorizedKeysFile": "none",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "StrictModes": "no",  # the directory above a temporary one may belong to everybody
        "PidFile": "none",
        "LogLevel": "VERBOSE",
    }
    if os.geteuid() != 0:
        settings["UsePAM"] = "yes"  # without it sshd takes an account for locked whose line of /etc/shadow it cannot read
    if _version(program) >= PENALTIES_SINCE:
        settings["PerSourcePenalties"] = "no"
    return settings


def _version(program: str) -> tuple[int, int]:
    """(major, minor) of an OpenSSH program; older ones take -V for an unknown option and tell their version all the same."""
    answer = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=BANNER_SECONDS, check=False)
    numbers = re.search(r"OpenSSH_(\d+)\.(\d+)", answer.stderr + answer.stdout)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _principals(directory: Path, names: Sequence[str]) -> Path | None:
    if not names:
        return None
    path = directory / "authorized_principals"
    path.write_text("".join(f"{name}\n" for name in names))
    return path
