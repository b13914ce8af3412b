"""A real nginx on loopback that asks its clients for a certificate, and curl to call it."""

import grp
import os
import pwd
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from controlplane.ports import LOOPBACK, ReservedPort
from controlplane.processes import Part, ProgramError, wait_until
from workbench.programs import find_program

START_SECONDS: Final = 20.0
"""From start to the first answer; well below a second on an idle machine."""

CALL_SECONDS: Final = 30.0
"""For one request."""

UNPRIVILEGED: Final = "nobody"
"""Who the workers are where we are root; every system has this account."""

_CONFIGURATION: Final = """\
{user}daemon off;
worker_processes 1;
pid {home}/pid;
error_log stderr info;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  server {{
    listen {address}:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_verify_client on;
    ssl_client_certificate {authorities};
    location / {{
      default_type text/plain;
      return 200 "$ssl_client_s_dn\\n";
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class ClientFiles:
    """A client's certificate and its private key, PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        body: The body: the subject of the client's certificate where the status is 200 (RFC 2253).
        error: What curl complained of.
    """

    status: int
    body: str
    error: str


class NginxServer:
    """An nginx of its own on a free loopback port. As a context manager it runs for the length of the block.

    It serves those clients alone whose certificate one of the authorities signed, and never outlives this process.
    """

    def __init__(self, directory: Path, *, certificate: Path, key: Path, client_authorities: Path) -> None:
        """Prepare it; nothing runs yet. Files are read where they are, at each start.

        Args:
            directory: For its configuration and log; must exist.
            certificate: The server's own certificate, PEM.
            key: Its private key.
            client_authorities: `ssl_client_certificate`: CAs of the clients.

        Raises:
            ProgramMissingError: there is no nginx; the text says what to install.
        """
        program = find_program("nginx", package="nginx-light")
        self._held = ReservedPort(socket.SO_REUSEADDR)
        self._home = tempfile.TemporaryDirectory(prefix="machinebot-")
        self.port = self._held.number
        """Where it listens, on 127.0.0.1; the same after a restart."""
        self.log = directory / "nginx.log"
        """Its log: why a certificate was not taken."""
        config = directory / "nginx.conf"
        config.write_text(
            _CONFIGURATION.format(
                user=f"user {UNPRIVILEGED} {_group()};\n" if os.geteuid() == 0 else "",
                home=self._home.name,
                address=LOOPBACK,
                port=self.port,
                certificate=certificate,
                key=key,
                authorities=client_authorities,
            )
        )
        command = [program, "-e", "stderr", "-p", self._home.name, "-c", str(config)]
        self._part = Part("nginx", command, self.log, {"PATH": os.environ.get("PATH", os.defpath)})

    def __enter__(self) -> Self:
        """Start it and wait until it listens."""
        self._part.start()
        wait_until("nginx", self._listens, seconds=START_SECONDS, parts=[self._part])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End it, delete its files and give back its port."""
        self._part.stop()
        self._held.release()
        self._home.cleanup()

    def call(self, host: str, authorities: Path, client: ClientFiles | None = None, *flags: str) -> Answer:
        """GET / by curl.

        Args:
            host: Name that the server must prove.
            authorities: CAs that curl trusts.
            client: Certificate that it shows; None shows none.
            flags: More flags of curl, such as --header.

        Raises:
            ProgramMissingError: there is no curl; the text says what to install.
            ProgramError: it took longer than `CALL_SECONDS`.
        """
        line = [
            find_program("curl", package="curl"),
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--write-out",
            "\n%{http_code}",
        ]
        line += ["--cacert", str(authorities), "--resolve", f"{host}:{self.port}:{LOOPBACK}"]
        if client is not None:
            line += ["--cert", str(client.certificate), "--key", str(client.key)]
        try:
            done = subprocess.run(
                [*line, *flags, f"https://{host}:{self.port}/"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProgramError(f"curl to {host} at port {self.port}: not done after {CALL_SECONDS:.0f} s") from None
        body, _, status = done.stdout.rpartition("\n")
        return Answer(status=int(status), body=body, error=done.stderr)

    def _listens(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=CALL_SECONDS):
            return True


def _group() -> str:
    """The group of that account, which systems call differently."""
    return grp.getgrgid(pwd.getpwnam(UNPRIVILEGED).pw_gid).gr_name
