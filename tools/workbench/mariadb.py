"""A real MariaDB on loopback that lets in by the subjects of client certificates, and the real client to log in to it."""

import os
import pwd
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from typing_extensions import override

from controlplane.ports import LOOPBACK
from controlplane.processes import ProgramError
from workbench.databases import LOGIN_SECONDS, DatabaseServer, TLSFiles, TLSVersion, make, run
from workbench.programs import find_program

HOST: Final = "localhost"
"""The name by which clients reach the server by default; its certificate must prove it. The client has no way to be told the
address beside the name, so that it must be one that leads to loopback."""

GREETING_SECONDS: Final = 5.0
"""For one greeting."""

SMALL_AND_QUICK: Final = (
    "--innodb-buffer-pool-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-log-file-size=4M",
    "--skip-log-bin",
)
"""Options of a server whose data nobody will miss."""


class MariaDBServer(DatabaseServer):
    """A MariaDB of its own on a free loopback port. As a context manager it runs for the length of the block.

    It has no passwords: over TCP it lets in by certificates alone, over its socket the account that made it. It never
    outlives this process.
    """

    label = "MariaDB"

    def __init__(self, directory: Path, files: TLSFiles, *, users: Mapping[str, str], databases: Sequence[str] = ()) -> None:
        """Make its files; nothing runs yet.

        Args:
            directory: For its log; must exist.
            files: The server's certificate and key, and the CAs of its clients; read at each start and `reload`.
            users: From each user to what it requires, as after `REQUIRE` in CREATE USER: SUBJECT '/O=.../CN=...'.
            databases: Databases, open to every user.

        Raises:
            ProgramMissingError: there is no MariaDB; the text says what to install.
            ProgramError: mariadb-install-db failed.
        """
        self._users = users
        self._databases = databases
        super().__init__(files, directory / "mariadb.log")

    def reload(self) -> None:
        """Have it read certificate, key and CAs again by FLUSH SSL; connections that are open go on.

        Raises:
            ProgramError: it refused; the text holds its answer.
        """
        self._home.take(self._files)
        line = [_client(), "--no-defaults", f"--socket={self._socket}", f"--user={_whoami()}", "--execute=FLUSH SSL"]
        done = run(line, what="FLUSH SSL", seconds=LOGIN_SECONDS)
        if done.returncode != 0:
            raise ProgramError(f"FLUSH SSL: {done.stderr}")

    def log_in(
        self,
        user: str,
        files: TLSFiles | None,
        *,
        authorities: Path | None = None,
        option_file: Path | None = None,
        database: str = "",
        host: str = HOST,
        tls: TLSVersion = "TLSv1.3",
    ) -> subprocess.CompletedProcess[str]:
        """Log in with the real client and --ssl-verify-server-cert, and ask the server who came.

        Args:
            user: User to log in as.
            files: The client's certificate and key, and the CAs that it trusts; None for no certificate on the command line.
            authorities: The CAs that it trusts, where it has no certificate.
            option_file: The one option file that it reads; none by default.
            database: Database to log in to; none is fine.
            host: Name that the server must prove, and that must lead to loopback.
            tls: Newest version of TLS that the client speaks. With TLS 1.2 it learns why its certificate is refused; with 1.3 it
                is already through its part when the server looks at it, and may only see the connection break.

        Returns:
            The finished client: exit code 0 and the user's name, or 1 and why not.

        Raises:
            ProgramError: it took longer than `LOGIN_SECONDS`.
        """
        options = ["--ssl-verify-server-cert", f"--connect-timeout={round(LOGIN_SECONDS)}"]
        if tls == "TLSv1.2":
            options.append("--tls-version=TLSv1.2")
        if files is not None:
            options += [f"--ssl-cert={files.certificate}", f"--ssl-key={files.key}"]
        trusted = authorities if files is None else files.authorities
        if trusted is not None:
            options.append(f"--ssl-ca={trusted}")
        line = [
            _client(),
            "--no-defaults" if option_file is None else f"--defaults-file={option_file}",
            "--protocol=TCP",
            f"--host={host}",
            f"--port={self.port}",
            f"--user={user}",
            *options,
            "--batch",
            "--skip-column-names",
            "--execute=SELECT substring_index(current_user(), '@', 1)",
            *((database,) if database else ()),
        ]
        return run(line, what=f"mariadb as {user}", seconds=LOGIN_SECONDS, environment={"HOME": str(self._home.path)})

    @property
    def _socket(self) -> Path:
        return self._home.path / "mariadb.sock"

    @override
    def _make(self) -> None:
        make(
            self._home.command(
                find_program("mariadb-install-db", package="mariadb-server-core"),
                "--no-defaults",
                f"--datadir={self._home.path / 'data'}",
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={_whoami()}",
                "--skip-test-db",
                "--skip-name-resolve",
                *SMALL_AND_QUICK,
            ),
            what="mariadb-install-db",
            environment={"TMPDIR": str(self._home.path)},
        )

    @override
    def _command(self) -> list[str | Path]:
        own = self._home.take(self._files)
        statements = "".join(f"{line};\n" for line in _statements(self._users, self._databases))
        users_file = self._home.write("users.sql", statements)
        return [
            find_program("mariadbd", package="mariadb-server-core"),
            "--no-defaults",
            f"--datadir={self._home.path / 'data'}",
            f"--tmpdir={self._home.path}",
            f"--socket={self._socket}",
            f"--pid-file={self._home.path / 'mariadb.pid'}",
            f"--init-file={users_file}",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            "--skip-name-resolve",
            f"--ssl-cert={own.certificate}",
            f"--ssl-key={own.key}",
            f"--ssl-ca={own.authorities}",
            "--log-warnings=4",
            *SMALL_AND_QUICK,
        ]

    @override
    def _answers(self) -> bool:
        with socket.create_connection((LOOPBACK, self.port), timeout=GREETING_SECONDS) as connection:
            return re.search(rb"\d+\.\d+\.\d+", connection.recv(64)) is not None


def _statements(users: Mapping[str, str], databases: Sequence[str]) -> list[str]:
    """What the server runs at each start, before it takes logins."""
    found = [f"CREATE DATABASE IF NOT EXISTS `{name}`" for name in databases]
    for user, required in users.items():
        found.append(f"CREATE USER IF NOT EXISTS '{user}'@'{LOOPBACK}' REQUIRE {required}")
        found += [f"GRANT ALL ON `{name}`.* TO '{user}'@'{LOOPBACK}'" for name in databases]
    return found


def _client() -> str:
    return find_program("mariadb", package="mariadb-client-core")


def _whoami() -> str:
    """Who logs in over the socket: the account of this very process."""
    return pwd.getpwuid(os.geteuid()).pw_name
