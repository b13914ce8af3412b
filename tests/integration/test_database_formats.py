"""`database` outputs beyond a login: the formats of MongoDB and CockroachDB, what roles refuse, renewal, and the algorithms of CAs."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pymongo
import pymongo.errors
import pytest
from cryptography import x509

from controlplane.ports import LOOPBACK, ReservedPort
from controlplane.processes import Part, wait_until
from support.databases import CLIENTS, NAMES, ROLE, SERVERS, Premises, issued
from support.inprocess import RunningOperator
from support.mounting import mount
from support.stage import Stage, Tenant
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME
from workbench.databases import TLSFiles
from workbench.mariadb import MariaDBServer
from workbench.postgres import PostgresServer

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

USED = (
    *("app-tls", "app-mongo", "app-cockroach", "server-tls", "server-postgres", "server-mongo", "server-cockroach"),
    *("elsewhere", "identity", "kubernetes", "workload"),
)
"""The outputs of the table that this module uses."""

SECONDS = 20.0
"""For one handshake or one command of openssl."""


@pytest.fixture(scope="module")
def premises(
    stage: Stage, authority: str, operator_of_module: RunningOperator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Premises]:
    """The credentials of this module."""
    assert operator_of_module.running
    with issued(stage, authority, tmp_path_factory.mktemp("mounted"), USED) as found:
        yield found


# --- MongoDB ----------------------------------------------------------------------------------------------------------


class TLSServer:
    """A TLS server of the real openssl that demands a certificate and tells whose it was. It speaks no protocol of a database."""

    def __init__(self, directory: Path, files: TLSFiles) -> None:
        self._held = ReservedPort(socket.SO_REUSEADDR)
        self.port = self._held.number
        self.log = directory / "s_server.log"
        command = ["openssl", "s_server", "-accept", f"{LOOPBACK}:{self.port}", "-rev", "-Verify", "1", "-verify_return_error"]
        pair = ["-cert", files.certificate, "-key", files.key, "-CAfile", files.authorities]
        self._part = Part("s_server", [*command, *pair], self.log, {"PATH": "/usr/bin:/bin:/usr/local/bin"})

    def __enter__(self) -> Self:
        self._part.start()
        wait_until("s_server's ACCEPT", lambda: "ACCEPT" in self.text, seconds=SECONDS, parts=[self._part])
        return self

    def __exit__(self, *_raised: object) -> None:
        self._part.stop()
        self._held.release()

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")


def meet(server: TLSServer, files: TLSFiles, *, certificate: bool = True) -> str:
    """Have the real driver of MongoDB connect; returns what it complains of, if only of a server that speaks another protocol."""
    options: dict[str, Any] = {"tls": True, "tlsCAFile": str(files.authorities)}
    if certificate:
        options["tlsCertificateKeyFile"] = str(files.certificate)
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
        "localhost", server.port, directConnection=True, serverSelectionTimeoutMS=5000, connectTimeoutMS=4000, **options
    )
    with client, pytest.raises(pymongo.errors.PyMongoError) as raised:
        client.admin.command("ping")
    return str(raised.value)


def test_the_driver_of_mongodb_proves_itself_with_the_files_of_its_format(premises: Premises, tmp_path: Path) -> None:
    with TLSServer(tmp_path, premises.server("server-mongo")) as server:
        told = meet(server, premises.client("app-mongo"))
        eventually("the handshake is through", lambda: "Verification: OK" in server.text, seconds=SECONDS)
    assert f"Peer certificate: O = {CLUSTER_NAME}, CN = app\n" in server.text
    assert "CERTIFICATE_VERIFY_FAILED" not in told


@pytest.mark.parametrize("output", ["kubernetes", "identity", "workload", "server-tls"])
def test_a_server_of_mongodb_takes_no_certificate_for_something_else(premises: Premises, tmp_path: Path, output: str) -> None:
    files = premises.stranger(output)
    both = tmp_path / "both.pem"
    both.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    with TLSServer(tmp_path, premises.server("server-mongo")) as server:
        meet(server, replace(files, certificate=both))
        eventually("the handshake failed", lambda: "verify error" in server.text, seconds=SECONDS)
    assert "CONNECTION ESTABLISHED" not in server.text


def test_a_server_of_mongodb_takes_nobody_without_a_certificate(premises: Premises, tmp_path: Path) -> None:
    with TLSServer(tmp_path, premises.server("server-mongo")) as server:
        meet(server, premises.client("app-mongo"), certificate=False)
        eventually("the handshake failed", lambda: "peer did not return a certificate" in server.text, seconds=SECONDS)
    assert "CONNECTION ESTABLISHED" not in server.text


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("app-mongo", "unsuitable certificate purpose"),
        ("workload", "CERTIFICATE_VERIFY_FAILED"),
        ("elsewhere", "Hostname mismatch"),
    ],
    ids=["a client's", "of the CA for workloads", "for another name"],
)
def test_the_driver_of_mongodb_refuses_a_server_with_a_certificate(
    premises: Premises, tmp_path: Path, output: str, words: str
) -> None:
    files = replace(premises.server(output), authorities=premises.client("app-mongo").authorities)
    with TLSServer(tmp_path, files) as server:
        assert words in meet(server, premises.client("app-mongo"))


def test_servers_of_mongodb_are_clients_of_each_other(premises: Premises, tmp_path: Path) -> None:
    with TLSServer(tmp_path, premises.server("server-mongo")) as server:
        meet(server, premises.server("server-mongo"))
        eventually("the handshake is through", lambda: "Verification: OK" in server.text, seconds=SECONDS)
    assert f"Peer certificate: O = {CLUSTER_NAME}, OU = database server, CN = node\n" in server.text


# --- CockroachDB, which speaks PostgreSQL's protocol -------------------------------------------------------------------


def test_nodes_of_cockroachdb_are_the_user_node_of_each_other(premises: Premises, tmp_path: Path) -> None:
    files = premises.server("server-cockroach")
    assert {path.name for path in (files.certificate, files.key, files.authorities)} == {"node.crt", "node.key", "ca.crt"}
    with PostgresServer(tmp_path, files, users=("app", "node")) as server:
        assert server.log_in("node", files).stdout == "node\n", server.log.read_text()
        assert server.log_in("app", premises.client("app-cockroach")).stdout == "app\n", server.log.read_text()
        for user, other in (("app", files), ("node", premises.client("app-cockroach"))):
            assert f'certificate authentication failed for user "{user}"' in server.log_in(user, other).stderr


EXTENDED = {
    "app-cockroach": "TLS Web Client Authentication",
    "server-cockroach": "TLS Web Client Authentication, TLS Web Server Authentication",
    "server-mongo": "TLS Web Client Authentication, TLS Web Server Authentication",
    "server-postgres": "TLS Web Server Authentication",
}


@pytest.mark.parametrize(("output", "usages"), EXTENDED.items(), ids=EXTENDED.keys())
def test_openssl_shows_what_a_certificate_is_for(premises: Premises, output: str, usages: str) -> None:
    files = premises.server(output) if output.startswith("server") else premises.client(output)
    shown = openssl("x509", "-in", str(files.certificate), "-noout", "-ext", "extendedKeyUsage")
    assert shown.splitlines()[-1].strip() == usages
    node = "OU = database server, CN = node"
    expected = {"app-cockroach": "CN = app", "server-cockroach": node, "server-mongo": node}
    subject = f"O = {CLUSTER_NAME}, {expected.get(output, 'OU = database server')}"
    assert openssl("x509", "-in", str(files.certificate), "-noout", "-subject").strip() == f"subject={subject}"


def openssl(*words: str, text: str = "") -> str:
    done = subprocess.run(["openssl", *words], input=text, capture_output=True, text=True, timeout=SECONDS, check=True)
    return done.stdout


# --- what roles refuse ------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a user that no role of the bot allows": ({"user": "clerk"}, "NameNotAllowed", "database user 'clerk'"),
    "a user that a role denies": ({"user": "root"}, "NameDenied", "database user 'root'"),
    "a database that no role of the bot allows": (
        {"user": "app", "database": "reports"},
        "NameNotAllowed",
        "database 'reports'",
    ),
    "a name of a server that no role of the bot allows": (
        {"server": True, "dnsNames": ["db.other.svc"]},
        "NameNotAllowed",
        "DNS name 'db.other.svc'",
    ),
    "a node of CockroachDB without the user node": (
        {"server": True, "format": "cockroach", "dnsNames": NAMES[:1]},
        "NameNotAllowed",
        "database user 'node'",
    ),
}


@pytest.mark.parametrize(("settings", "reason", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_no_role_allows_is_refused_before_anything_is_minted(
    tenant: Tenant, stage: Stage, running: RunningOperator, settings: dict[str, Any], reason: str, words: str
) -> None:
    own = stage.role(
        allow={"dbUsers": ["app", "root"], "dbNames": ["orders"], "dnsNames": ["*.data.svc"]},
        deny={"dbUsers": ["ro*"]},
    )
    other = stage.role(
        namespaces=(tenant.namespace,),
        allow={"dbUsers": ["clerk", "node"], "dbNames": ["reports"], "dnsNames": ["*.other.svc"]},
    )
    tenant.bot(roles=(own,))
    tenant.ready("deployer", "MachineBot")
    running.settle()
    before = running.total("machinebot_joins_total"), running.total("machinebot_issues_total", result="success")
    tenant.output(database=settings)
    told = tenant.refused(reason)["message"]
    assert words in told
    assert (repr(other) if reason == "NameNotAllowed" else repr(own)) in told
    running.settle()
    assert not tenant.has("Secret", "web")
    assert (running.total("machinebot_joins_total"), running.total("machinebot_issues_total", result="success")) == before


# --- renewal ----------------------------------------------------------------------------------------------------------

KINDS = {"postgres": ("postgres", "postgres"), "mariadb": ("mysql", "mysql")}
"""The format of each server and how openssl asks it for TLS."""


@pytest.mark.parametrize("kind", KINDS)
def test_after_a_renewal_the_new_certificates_are_taken_and_the_old_one_until_its_end(
    tenant: Tenant, stage: Stage, tmp_path: Path, kind: str
) -> None:
    format_, protocol = KINDS[kind]
    tenant.bot(roles=(stage.role(**ROLE),))
    tenant.output("client", database={"format": format_, "user": "app"})
    tenant.output("server", database={"format": format_, "server": True, "dnsNames": NAMES})
    client, server = (mounted(tenant, tmp_path, name) for name in ("client", "server"))
    old_client, old_server = (serial_of(files.certificate) for files in (client, server))
    with database(kind, tmp_path, server) as running_server:
        assert running_server.log_in("app", client).stdout == "app\n"
        assert shown_serial(protocol, running_server.port, client) == old_server
        shutil.copytree(tmp_path / "client", tmp_path / "old")
        for name, old in (("client", old_client), ("server", old_server)):
            tenant.annotate(name, renew="1")
            eventually(f"{name} is renewed", lambda name=name, old=old: tenant.status(name)["serial"] != str(old))
            mounted(tenant, tmp_path, name)
        old = replace(client, certificate=tmp_path / "old" / client.certificate.name, key=tmp_path / "old" / client.key.name)
        assert serial_of(client.certificate) != serial_of(old.certificate) == old_client
        for files in (client, old):
            assert running_server.log_in("app", files).stdout == "app\n", running_server.log.read_text()
        running_server.reload()
        assert shown_serial(protocol, running_server.port, client) == serial_of(server.certificate) != old_server
        for files in (client, old):
            assert running_server.log_in("app", files).stdout == "app\n", running_server.log.read_text()


@pytest.mark.parametrize("algorithm", ["ECDSA-P384", "Ed25519", "RSA-4096"])
def test_servers_and_clients_take_the_signature_of_every_ca(
    stage: Stage, running: RunningOperator, tmp_path: Path, algorithm: str
) -> None:
    """The CA of the other tests is ECDSA-P256."""
    assert running.running
    authority = stage.authority(embedded={"keyAlgorithm": algorithm})
    stage.authority_ready(authority)
    with stage.tenant(authority) as tenant:
        tenant.bot(roles=(stage.role(**ROLE),))
        tenant.output("client", database={"format": "tls", "user": "app"})
        tenant.output("server", database={"format": "tls", "server": True, "dnsNames": NAMES})
        client, server = (mounted(tenant, tmp_path, name) for name in ("client", "server"))
    for kind in KINDS:
        with database(kind, tmp_path, server) as running_server:
            assert running_server.log_in("app", client).stdout == "app\n", running_server.log.read_text()


def database(kind: str, directory: Path, files: TLSFiles) -> PostgresServer | MariaDBServer:
    if kind == "postgres":
        return PostgresServer(directory, files)
    return MariaDBServer(directory, files, users={"app": f"SUBJECT '/O={CLUSTER_NAME}/CN=app'"})


def mounted(tenant: Tenant, directory: Path, name: str) -> TLSFiles:
    """The files of an output as it stands, in a directory of its name."""
    tenant.ready(name)
    place = mount(directory / name, tenant.secret(name).data)
    settings = tenant.get("MachineOutput", name)["spec"]["database"]
    certificate, key, authorities = (SERVERS if settings.get("server") else CLIENTS)[settings["format"]]
    return TLSFiles(place / certificate, place / key, place / authorities)


def serial_of(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def shown_serial(protocol: str, port: int, files: TLSFiles) -> int:
    """The serial number of the certificate that a server shows to new clients."""
    line = ["openssl", "s_client", "-starttls", protocol, "-connect", f"{LOOPBACK}:{port}", "-CAfile", str(files.authorities)]
    pair = ["-cert", str(files.certificate), "-key", str(files.key)]
    done = subprocess.run([*line, *pair], input=b"", capture_output=True, timeout=SECONDS, check=False)
    return x509.load_pem_x509_certificate(done.stdout).serial_number
