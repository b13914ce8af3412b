"""`database` outputs where they are used: certificates of a real operator, real servers of databases, and their real clients."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from support.databases import ALGORITHMS, CLIENTS, SERVERS, Premises, issued
from support.inprocess import RunningOperator
from support.mounting import mount
from support.stage import Stage
from workbench.chart import CLUSTER_NAME
from workbench.databases import TLSFiles
from workbench.mariadb import MariaDBServer
from workbench.postgres import PostgresServer

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

UNKNOWN_CA = "alert unknown ca"
WRONG_PURPOSE = "alert unsupported certificate"
"""What a server's TLS tells a client whose certificate it does not take (RFC 8446, section 6.2)."""

FOREIGN = {
    "of a server": ("server-tls", WRONG_PURPOSE),
    "of the CA for identities": ("identity", UNKNOWN_CA),
    "of the CA for Kubernetes": ("kubernetes", UNKNOWN_CA),
    "of the CA for workloads": ("workload", UNKNOWN_CA),
}
"""Certificates that no database may take from a client, and what it tells the client."""

FALSE_SERVERS = {
    "a client's certificate": ("app-tls", {"postgres": "certificate verify failed", "mariadb": "certificate purpose"}),
    "a certificate of the CA for workloads": (
        "workload",
        {"postgres": "certificate verify failed", "mariadb": "unable to get local issuer certificate"},
    ),
    "a certificate for another name": (
        "elsewhere",
        {"postgres": "does not match host name", "mariadb": "Validation of SSL server certificate failed"},
    ),
}
"""Certificates that no client may take from a server, and what each client says of them."""

BY_SUBJECT = {
    "app": f"SUBJECT '/O={CLUSTER_NAME}/CN=app'",
    "clerk": f"SUBJECT '/O={CLUSTER_NAME}/OU=orders/CN=clerk'",
    "node": f"SUBJECT '/O={CLUSTER_NAME}/OU=database server/CN=node'",
    "careless": "X509",
}
"""What MariaDB requires of each user."""

BY_SUBJECT_TOO = (
    "hostssl orders all 127.0.0.1/32 cert clientname=DN map=orders",
    "hostssl reports all 127.0.0.1/32 cert clientname=DN map=reports",
    "hostssl postgres all 127.0.0.1/32 cert",
)
"""pg_hba.conf of a server that holds the database in the certificate against the one of the connection."""

MAPS = tuple(rf'{database} "/^CN=([^,]+),OU={database},O={re.escape(CLUSTER_NAME)}$" \1' for database in ("orders", "reports"))
"""pg_ident.conf for it. PostgreSQL has the subject in the order of RFC 2253, the last part first."""


@pytest.fixture(scope="module")
def premises(
    stage: Stage, authority: str, operator_of_module: RunningOperator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Premises]:
    """The credentials of this module."""
    assert operator_of_module.running
    with issued(stage, authority, tmp_path_factory.mktemp("mounted")) as found:
        yield found


@pytest.fixture(scope="module")
def postgres(premises: Premises, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL on the files of the format postgres, unchanged."""
    server = PostgresServer(
        tmp_path_factory.mktemp("postgres"),
        premises.server("server-postgres"),
        users=("app", "clerk", "node"),
        databases=("orders", "reports"),
        rules=BY_SUBJECT_TOO,
        maps=MAPS,
    )
    with server:
        yield server


@pytest.fixture(scope="module")
def mariadb(premises: Premises, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDBServer]:
    """A MariaDB on the files of the format mysql, unchanged."""
    server = MariaDBServer(
        tmp_path_factory.mktemp("mariadb"), premises.server("server-mysql"), users=BY_SUBJECT, databases=("orders",)
    )
    with server:
        yield server


Database = PostgresServer | MariaDBServer
KINDS = ("postgres", "mariadb")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest) -> Database:
    """Each of the servers."""
    found: Database = request.getfixturevalue(request.param)
    return found


def started(kind: str, directory: Path, files: TLSFiles) -> AbstractContextManager[Database]:
    """A server of its own that knows the user `app`."""
    if kind == "postgres":
        return PostgresServer(directory, files)
    return MariaDBServer(directory, files, users={"app": BY_SUBJECT["app"]})


def came(user: str, login: subprocess.CompletedProcess[str], server: Database) -> bool:
    """Whether the server let that user in. If not, the assertion shows both sides."""
    assert (login.returncode, login.stdout) == (0, f"{user}\n"), f"{login.stderr}\n{server.log.read_text()[-4000:]}"
    return True


def refusal(login: subprocess.CompletedProcess[str]) -> str:
    """What the client was told."""
    assert login.returncode != 0, login.stdout
    assert login.stdout == ""
    return login.stderr


# --- who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CLIENTS, *ALGORITHMS])
def test_a_client_logs_in_with_the_files_of_every_format_and_with_every_key(
    premises: Premises, database: Database, name: str
) -> None:
    assert came("app", database.log_in("app", premises.client(f"app-{name}")), database)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*SERVERS, *ALGORITHMS])
def test_a_server_serves_with_the_files_of_every_format_and_with_every_key(
    premises: Premises, tmp_path: Path, kind: str, name: str
) -> None:
    with started(kind, tmp_path, premises.server(f"server-{name}")) as server:
        assert came("app", server.log_in("app", premises.client("app-tls")), server)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files may be open to a group, and only root can give them one")
def test_postgresql_takes_a_key_as_a_pod_with_fsgroup_has_it(premises: Premises, tmp_path: Path) -> None:
    own = premises.server("server-postgres")
    place = mount(tmp_path / "mounted", {path.name: path.read_bytes() for path in astuple(own)}, mode=0o640)
    files = TLSFiles(*(place / path.name for path in astuple(own)))
    with PostgresServer(tmp_path, files) as server:
        assert came("app", server.log_in("app", premises.client("app-postgres")), server)


def test_psql_finds_the_files_of_its_format_by_itself(premises: Premises, postgres: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / ".postgresql").symlink_to(premises.directory / "app-postgres")
    assert came("app", postgres.log_in("app", None, home=tmp_path), postgres)


def test_a_client_of_mariadb_reads_the_files_from_its_option_file(
    premises: Premises, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    files = premises.client("app-mysql")
    options = tmp_path / "my.cnf"
    options.write_text(
        f"[client]\nssl-cert = {files.certificate}\nssl-key = {files.key}\nssl-ca = {files.authorities}\nssl-verify-server-cert\n"
    )
    assert came("app", mariadb.log_in("app", None, option_file=options), mariadb)


# --- who does not -----------------------------------------------------------------------------------------------------


def test_another_user_than_the_one_in_the_certificate_is_refused(
    premises: Premises, postgres: PostgresServer, mariadb: MariaDBServer
) -> None:
    for certified, wanted in (("app-tls", "clerk"), ("clerk", "app"), ("app-tls", "postgres"), ("clerk-orders", "app")):
        told = refusal(postgres.log_in(wanted, premises.client(certified)))
        assert f'certificate authentication failed for user "{wanted}"' in told
    for certified, wanted in (("app-tls", "clerk"), ("clerk-orders", "app"), ("app-tls", "root")):
        assert f"Access denied for user '{wanted}'" in refusal(mariadb.log_in(wanted, premises.client(certified)))


def test_without_a_certificate_nobody_gets_in(
    premises: Premises, postgres: PostgresServer, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    authorities = premises.client("app-tls").authorities
    (tmp_path / ".postgresql").mkdir()
    shutil.copy(authorities, tmp_path / ".postgresql" / "root.crt")
    assert "connection requires a valid client certificate" in refusal(postgres.log_in("app", None, home=tmp_path))
    for user in BY_SUBJECT:
        assert "Access denied" in refusal(mariadb.log_in(user, None, authorities=authorities))


def test_the_database_in_the_certificate_bounds_the_client_where_the_server_looks_at_it(
    premises: Premises, postgres: PostgresServer
) -> None:
    assert came("app", postgres.log_in("app", premises.client("app-orders"), database="orders"), postgres)
    assert came("clerk", postgres.log_in("clerk", premises.client("clerk-orders"), database="orders"), postgres)
    assert came("app", postgres.log_in("app", premises.client("app-reports"), database="reports"), postgres)
    for certified, wanted in (("app-orders", "reports"), ("app-reports", "orders"), ("app-tls", "orders")):
        told = refusal(postgres.log_in("app", premises.client(certified), database=wanted))
        assert 'certificate authentication failed for user "app"' in told
    assert "certificate authentication failed" in refusal(
        postgres.log_in("clerk", premises.client("app-orders"), database="orders")
    )


def test_mariadb_holds_the_whole_subject_against_the_user(premises: Premises, mariadb: MariaDBServer) -> None:
    assert came("clerk", mariadb.log_in("clerk", premises.client("clerk-orders"), database="orders"), mariadb)
    for certified in ("clerk", "app-orders"):
        assert "Access denied for user 'clerk'" in refusal(mariadb.log_in("clerk", premises.client(certified)))
    assert "Access denied for user 'app'" in refusal(mariadb.log_in("app", premises.client("app-orders")))


def test_a_user_of_mariadb_that_requires_any_certificate_takes_that_of_everybody(
    premises: Premises, mariadb: MariaDBServer
) -> None:
    """Why the documentation says SUBJECT."""
    assert came("careless", mariadb.log_in("careless", premises.client("app-tls")), mariadb)
    assert came("careless", mariadb.log_in("careless", premises.client("clerk")), mariadb)


@pytest.mark.parametrize(("output", "told"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_certificate_for_something_else_opens_no_database(
    premises: Premises, database: Database, output: str, told: str
) -> None:
    users = ("app", "careless") if isinstance(database, MariaDBServer) else ("app",)
    for user in users:
        # MariaDB hangs up after its alert, which its client then may not read.
        words = refusal(database.log_in(user, premises.stranger(output), tls="TLSv1.2"))
        assert told in words or (isinstance(database, MariaDBServer) and "Lost connection" in words), words
        refusal(database.log_in(user, premises.stranger(output)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("output", "words"), FALSE_SERVERS.values(), ids=FALSE_SERVERS.keys())
def test_a_client_refuses_a_server_with(
    premises: Premises, tmp_path: Path, kind: str, output: str, words: dict[str, str]
) -> None:
    files = replace(premises.server(output), authorities=premises.client("app-tls").authorities)
    with started(kind, tmp_path, files) as server:
        assert words[kind] in refusal(server.log_in("app", premises.client("app-tls")))
