"""A real PostgreSQL on loopback that lets in by client certificates alone, and the real psql to log in to it."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from typing_extensions import override

from controlplane.ports import LOOPBACK
from controlplane.processes import wait_until
from workbench.databases import LOGIN_SECONDS, START_SECONDS, DatabaseServer, TLSFiles, TLSVersion, make, run
from workbench.programs import find_program

HOST: Final = "db.data.svc"
"""The name by which clients reach the server by default; its certificate must prove it."""

BY_COMMON_NAME: Final = ("hostssl all all 127.0.0.1/32 cert clientcert=verify-full",)
"""Lines of pg_hba.conf: in comes who brings a certificate with the user's name as CN, and nobody else."""

DEBIAN: Final = Path("/usr/lib/postgresql")
"""Where Debian has PostgreSQL's programs: in `N/bin`, which is on nobody's PATH."""

RELOADED: Final = "received SIGHUP, reloading configuration files"
"""What it logs when it reads its files again."""

SMALL_AND_QUICK: Final[Mapping[str, str]] = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "20",
    "max_wal_senders": "0",
    "shared_buffers": "1MB",
    "synchronous_commit": "off",
    "wal_level": "minimal",
}
"""Settings of a server whose data nobody will miss."""


class PostgresServer(DatabaseServer):
    """A PostgreSQL of its own on a free loopback port. As a context manager it runs for the length of the block.

    It has no passwords and no socket but the one of TLS, and never outlives this process.
    """

    label = "PostgreSQL"

    def __init__(
        self,
        directory: Path,
        files: TLSFiles,
        *,
        users: Sequence[str] = ("app",),
        databases: Sequence[str] = (),
        rules: Sequence[str] = BY_COMMON_NAME,
        maps: Sequence[str] = (),
    ) -> None:
        """Make its files; nothing runs yet.

        Args:
            directory: For its log; must exist.
            files: The server's certificate and key, and the CAs of its clients; read at each start and `reload`.
            users: Roles that may log in, beside the superuser `postgres`.
            databases: Databases, beside `postgres`.
            rules: Lines of pg_hba.conf.
            maps: Lines of pg_ident.conf.

        Raises:
            ProgramMissingError: there is no PostgreSQL; the text says what to install.
            ProgramError: initdb failed.
        """
        self._users = users
        self._databases = databases
        self._rules = rules
        self._maps = maps
        super().__init__(files, directory / "postgres.log")

    @override
    def stop(self) -> None:
        """End it, with the connections that are open. It may be started again."""
        if self._part.running:
            self._part.send(signal.SIGINT)  # SIGTERM would wait for clients to go (postgres(1))
        super().stop()

    def reload(self) -> None:
        """Have it read certificate, key and CAs again, as `pg_ctl reload` does; connections that are open go on."""
        self._home.take(self._files)
        seen = self.log.read_text(errors="replace").count(RELOADED)
        self._part.send(signal.SIGHUP)
        wait_until(
            "PostgreSQL to read its files again",
            lambda: self.log.read_text(errors="replace").count(RELOADED) > seen,
            seconds=START_SECONDS,
            parts=[self._part],
        )

    def log_in(
        self,
        user: str,
        files: TLSFiles | None,
        *,
        database: str = "postgres",
        host: str = HOST,
        home: Path | None = None,
        tls: TLSVersion = "TLSv1.3",
    ) -> subprocess.CompletedProcess[str]:
        """Log in with the real psql and sslmode=verify-full, and ask the server who came.

        Args:
            user: Role to log in as.
            files: The client's certificate and key, and the CAs that it trusts; None for those that psql finds by itself.
            database: Database to log in to.
            host: Name that the server must prove.
            home: The home directory in whose `.postgresql` psql looks by itself.
            tls: Newest version of TLS that the client speaks. With TLS 1.2 it learns why its certificate is refused; with 1.3 it
                is already through its part when the server looks at it, and may only see the connection break.

        Returns:
            The finished client: exit code 0 and the user's name, or 2 and why not.

        Raises:
            ProgramError: it took longer than `LOGIN_SECONDS`.
        """
        surroundings = {
            **_environment(),
            "HOME": str(home or self._home.path / "nowhere"),
            "PGCONNECT_TIMEOUT": str(round(LOGIN_SECONDS)),
            "PGDATABASE": database,
            "PGHOST": host,
            "PGHOSTADDR": LOOPBACK,
            "PGPORT": str(self.port),
            "PGSSLMAXPROTOCOLVERSION": tls,
            "PGSSLMODE": "verify-full",
            "PGUSER": user,
        }
        if files is not None:
            surroundings |= {
                "PGSSLCERT": str(files.certificate),
                "PGSSLKEY": str(files.key),
                "PGSSLROOTCERT": str(files.authorities),
            }
        line = [_program("psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--command=SELECT current_user"]
        return run(line, what=f"psql as {user}", seconds=LOGIN_SECONDS, environment=surroundings)

    @property
    def _data(self) -> Path:
        return self._home.path / "data"

    @override
    def _make(self) -> None:
        flags = ("-D", self._data, "-U", "postgres", "-A", "reject", "-E", "UTF8", "--locale=C", "--no-sync")
        make(self._home.command(_program("initdb"), *flags), what="initdb")
        # One line a statement, as the stand-alone server reads them: so that no login without a certificate is ever open.
        wanted = [f'CREATE ROLE "{name}" LOGIN' for name in self._users] + [
            f'CREATE DATABASE "{name}"' for name in self._databases
        ]
        make(
            self._home.command(_program("postgres"), "--single", "-F", "-D", self._data, "postgres"),
            what="the stand-alone PostgreSQL",
            statements="".join(f"{statement}\n" for statement in wanted),
        )

    @override
    def _command(self) -> list[str | Path]:
        flags = [word for name, value in self._options().items() for word in ("-c", f"{name}={value}")]
        return [_program("postgres"), "-D", self._data, *flags]

    @override
    def _environment(self) -> dict[str, str]:
        return _environment()

    def _options(self) -> dict[str, str]:
        files = self._home.take(self._files)
        return {
            **SMALL_AND_QUICK,
            "port": str(self.port),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "hba_file": str(self._home.write("pg_hba.conf", "".join(f"{rule}\n" for rule in self._rules))),
            "ident_file": str(self._home.write("pg_ident.conf", "".join(f"{line}\n" for line in self._maps))),
            "log_connections": "on",
            "ssl": "on",
            "ssl_cert_file": str(files.certificate),
            "ssl_key_file": str(files.key),
            "ssl_ca_file": str(files.authorities),
        }

    @override
    def _answers(self) -> bool:
        line = [_program("pg_isready"), f"--host={LOOPBACK}", f"--port={self.port}", "--quiet"]
        return run(line, what="pg_isready", seconds=LOGIN_SECONDS).returncode == 0


def _program(name: str) -> str:
    versions = [path for path in DEBIAN.glob("*/bin") if re.fullmatch(r"\d+", path.parent.name)]
    newest_first = sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    return find_program(name, package="postgresql", places=newest_first)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
