"""A credential of one purpose is worth nothing at the verifiers of every other: each one of each kind, at the real programs.

Whoever has stolen a credential shows it in every form that he can make of it: its key as an SSH key and with a certificate of
his own, and tokens that he signs with it.
"""

import getpass
import itertools
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from spiffe import TrustDomain, X509Bundle, X509Svid
from spiffe.svid.errors import X509SvidError

from controlplane.cluster import ControlPlane
from support.kubernetes_access import user_of_certificate, user_of_token
from support.logins import HOST, PRINCIPAL
from support.mounting import mounted
from support.stage import Stage, Tenant, unique
from support.stolen import DATABASE, NAMES, PATH, SERVERS, USER, WEB, Credential, collected
from support.verifier import fetch, public_of, trusting
from workbench.chart import CLUSTER_NAME
from workbench.databases import TLSFiles
from workbench.mariadb import MariaDBServer
from workbench.nginx import ClientFiles, NginxServer
from workbench.postgres import PostgresServer
from workbench.sshd import SSHServer, ssh_by_config

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

AUDIENCE = "vault"

ROLE: dict[str, Any] = {
    "allow": {
        "logins": ["{{ internal.logins }}"],
        "hostPrincipals": ["*.node.example.test"],
        "kubernetesUsers": [USER],
        "dbUsers": [USER],
        "dnsNames": list(SERVERS),
        "spiffePaths": [PATH],
        "jwtAudiences": [AUDIENCE],
    }
}

SVID = {"path": PATH, "dnsNames": list(SERVERS)}
OUTPUTS: dict[str, dict[str, Any]] = {
    "identity": {"identity": {}},
    "host": {"sshHost": {"principals": [HOST]}},
    "application": {"application": {}},
    "database-client": {"database": {"user": USER}},
    "database-server": {"database": {"server": True, "dnsNames": list(SERVERS)}},
    "kubernetes": {"kubernetes": {}},
    "x509-svid": {"x509SVID": SVID},
    "jwt-svid": {"jwtSVID": {"audiences": [AUDIENCE], "path": PATH}},
}
"""The outputs: every certificate could stand for the same names, so that only its purpose tells it from the others."""

ACCEPTED: dict[str, frozenset[str]] = {
    "sshd": frozenset({"SSH user certificate"}),
    "ssh": frozenset({"SSH host certificate"}),
    "nginx": frozenset({"identity X.509 certificate", "application certificate"}),
    "PostgreSQL": frozenset({"database client certificate"}),
    "MariaDB": frozenset({"database client certificate"}),
    "client of a database": frozenset({"database server certificate"}),
    "kube-apiserver": frozenset({"Kubernetes client certificate", "JWT-SVID"}),
    "SPIFFE": frozenset({"X509-SVID"}),
    "joserfc": frozenset({"JWT-SVID"}),
}
"""Who takes what; nothing else."""


# --- verifiers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verifiers:
    """The programs, all of which trust what the documentation tells them to.

    Attributes:
        plane: The API server takes the Kubernetes CA for one of clients, and the issuer of the tokens.
        trusted: The Secrets, mounted: where the programs find whom they trust.
        keys: The keys for tokens, as the operator serves them.
        issuer: Who signs the tokens.
    """

    plane: ControlPlane
    trusted: Path
    sshd: SSHServer
    nginx: NginxServer
    postgres: PostgresServer
    mariadb: MariaDBServer
    keys: KeySet
    issuer: str

    def at_sshd(self, shown: Credential, files: Path) -> bool:
        """A login by the key, with the certificate if there is one."""
        config = _config(files, self.trusted / "identity" / "known_hosts", shown, "id")
        return _ended(ssh_by_config(config, HOST, "echo", "in", port=self.sshd.port, user=getpass.getuser()), "Permission denied")

    def at_ssh(self, shown: Credential, files: Path) -> bool:
        """A genuine user logs in to a host that has nothing but this."""
        certificate = files / "id-cert.pub" if shown.ssh is not None else None
        genuine = self.trusted / "identity"
        user = replace(shown, ssh=(genuine / "key-cert.pub").read_bytes())
        config = _config(files, genuine / "known_hosts", user, str(genuine / "key"))
        with SSHServer(
            files,
            trusted_user_ca_keys=self.trusted / "host" / "ssh_host-user-ca.pub",
            host_key=files / "id",
            host_certificate=certificate,
            authorized_principals=(PRINCIPAL,),
        ) as server:
            done = ssh_by_config(config, HOST, "echo", "in", port=server.port, user=getpass.getuser())
        return _ended(done, "Host key verification failed")

    def at_nginx(self, shown: Credential, files: Path) -> bool:
        """By the certificate, and by the token alone."""
        authorities, header = self.trusted / "x509-svid" / "svid_bundle.pem", f"Authorization: Bearer {shown.token}"
        client = ClientFiles(files / "tls.crt", files / "tls.key")
        bare = self.nginx.call(WEB, authorities, None, "--header", header)
        answer = self.nginx.call(WEB, authorities, client, "--header", header)
        assert (bare.status, answer.status) in ((400, 200), (400, 400)), (bare, answer)
        return answer.status == 200

    def at_postgres(self, shown: Credential, files: Path) -> bool:
        """By the certificate, with the token as the password; the server takes every name that its CA signed for clients."""
        (files / ".pgpass").write_text(f"*:*:*:*:{shown.token}\n")
        (files / ".pgpass").chmod(0o600)
        done = self.postgres.log_in(USER, self._client(files), host=DATABASE, home=files)
        return _in_as_app(done, "SSL error", "certificate")

    def at_mariadb(self, shown: Credential, files: Path) -> bool:
        """The same, one after the other: the user has no password, and who sends one is refused for that."""
        own = self._client(files)
        trusting_only, options = f"[client]\nssl-ca={own.authorities}\n", files / "my.cnf"
        options.touch(mode=0o600)
        options.write_text(f"{trusting_only}password={shown.token}\n")
        assert not _in_as_app(self.mariadb.log_in(USER, None, option_file=options), "Access denied")
        # The server hangs up after its alert, which then may not be read.
        return _in_as_app(self.mariadb.log_in(USER, own), "TLS/SSL error", "Access denied", "Lost connection")

    def at_client_of_a_database(self, _shown: Credential, files: Path) -> bool:
        """A server with this certificate, and a client that trusts the CA of databases."""
        client = ssl.create_default_context(cafile=str(self.trusted / "database-client" / "ca.crt"))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(files / "tls.crt", files / "tls.key")
        return _shake_hands(client, server, DATABASE)

    def at_kube_apiserver(self, shown: Credential, files: Path) -> bool:
        """By the certificate, and by the token."""
        by_certificate = user_of_certificate(self.plane, files / "tls.crt", files / "tls.key")
        by_token = user_of_token(self.plane, shown.token)
        names = [None if user is None else user.name for user in (by_certificate, by_token)]
        assert names in ([None, None], [USER, None], [None, f"spiffe://{CLUSTER_NAME}{PATH}"]), names
        return names != [None, None]

    def at_spiffe(self, _shown: Credential, files: Path) -> bool:
        """By SPIFFE's own library, and for the chain by openssl, as a peer of either end."""
        bundle = self.trusted / "x509-svid" / "svid_bundle.pem"
        try:
            svid = X509Svid.load(files / "tls.crt", files / "tls.key", Encoding.PEM)
        except X509SvidError:
            return False
        assert X509Bundle.load(TrustDomain(CLUSTER_NAME), bundle, Encoding.PEM).x509_authorities
        line = ["openssl", "verify", "-x509_strict", "-CAfile", bundle, "-purpose"]
        good = [
            subprocess.run([*line, end, files / "tls.crt"], capture_output=True, check=False).returncode == 0
            for end in ("sslclient", "sslserver")
        ]
        return all(good) and svid.spiffe_id.trust_domain.name == CLUSTER_NAME

    def at_joserfc(self, shown: Credential, _files: Path) -> bool:
        """By the keys that the operator serves."""
        rules = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
        )
        try:
            rules.validate(jwt.decode(shown.token, self.keys, algorithms=["ES256"]).claims)
        except JoseError:
            return False
        return True

    def _client(self, files: Path) -> TLSFiles:
        return TLSFiles(files / "tls.crt", files / "tls.key", self.trusted / "database-client" / "ca.crt")


VERIFY: dict[str, Callable[[Verifiers, Credential, Path], bool]] = {
    "sshd": Verifiers.at_sshd,
    "ssh": Verifiers.at_ssh,
    "nginx": Verifiers.at_nginx,
    "PostgreSQL": Verifiers.at_postgres,
    "MariaDB": Verifiers.at_mariadb,
    "client of a database": Verifiers.at_client_of_a_database,
    "kube-apiserver": Verifiers.at_kube_apiserver,
    "SPIFFE": Verifiers.at_spiffe,
    "joserfc": Verifiers.at_joserfc,
}


def _config(directory: Path, known_hosts: Path, shown: Credential, key: str) -> Path:
    """An ssh_config with that key, and its certificate beside it."""
    path = directory / "config"
    lines = [f"IdentityFile {directory / key}", "IdentitiesOnly yes", f"UserKnownHostsFile {known_hosts}"]
    lines += [f"CertificateFile {directory / key}-cert.pub"] if shown.ssh is not None else []
    path.write_text("\n".join([*lines, "GlobalKnownHostsFile none", "StrictHostKeyChecking yes", ""]))
    return path


def _ended(done: subprocess.CompletedProcess[str], refusal: str) -> bool:
    """Whether a login over ssh worked; it must end in one of the two ways."""
    assert (done.returncode == 0 and done.stdout == "in\n") or (done.returncode == 255 and refusal in done.stderr), done
    return done.returncode == 0


def _in_as_app(done: subprocess.CompletedProcess[str], *refusals: str) -> bool:
    """The same for a login to a database."""
    refused = done.returncode != 0 and any(each in done.stderr for each in refusals)
    assert refused or (done.returncode == 0 and done.stdout.strip() == USER), done
    return not refused


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> bool:
    """A TLS handshake in memory: whether the client takes the server."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server, server_hostname=host), server.wrap_bio(to_server, to_client, server_side=True)]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
            ends.remove(end)
    return True


# --- the matrix ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Premises:
    """Everything, made once."""

    credentials: Mapping[str, Credential]
    verifiers: Verifiers


@pytest.fixture(scope="module")
def premises(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Premises]:
    """The Secrets of a real operator whose HTTPS is the issuer of its tokens, and every program."""
    folder = tmp_path_factory.mktemp("purposes")
    with ExitStack() as stack:
        running = stack.enter_context(stage.operator())
        running.wait_leading()
        name = unique("purposes")
        issuer = f"https://localhost:{running.https_port}/authorities/{name}"
        stage.authority(name, issuer=issuer)
        stage.authority_ready(name)
        tenant = stack.enter_context(stage.tenant(name))
        secrets = _issued(tenant, stage.role(**ROLE), folder)
        serving_ca = public_of(stage.authority_ready("default"), "identity")
        plane = stage.release.cluster
        stack.enter_context(plane.accepting_clients(secrets["kubernetes"]["ca.crt"]))
        stack.enter_context(plane.accepting_tokens(_authenticator(issuer, serving_ca.decode())))
        keys = fetch(running.https_port, f"/authorities/{name}/jwks", trusting(serving_ca))
        yield Premises(collected(secrets), _started(stack, plane, folder, KeySet.import_key_set(json.loads(keys.body)), issuer))


def _issued(tenant: Tenant, role: str, folder: Path) -> dict[str, dict[str, bytes]]:
    """The data of every Secret, which is mounted as well."""
    tenant.bot(roles=(role,))
    for name, spec in OUTPUTS.items():
        tenant.output(name, **spec)
    for name in OUTPUTS:
        mounted(tenant, folder, name)
    return {name: tenant.secret(name).data for name in OUTPUTS}


def _authenticator(issuer: str, certificate_authority: str) -> dict[str, Any]:
    return {
        "issuer": {"url": issuer, "audiences": [AUDIENCE], "certificateAuthority": certificate_authority},
        "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
    }


def _started(stack: ExitStack, plane: ControlPlane, folder: Path, keys: KeySet, issuer: str) -> Verifiers:
    host, svid, server = (folder / name for name in ("host", "x509-svid", "database-server"))
    own = TLSFiles(server / "tls.crt", server / "tls.key", server / "ca.crt")
    sshd = SSHServer(
        folder,
        trusted_user_ca_keys=host / "ssh_host-user-ca.pub",
        host_key=host / "ssh_host",
        host_certificate=host / "ssh_host-cert.pub",
        authorized_principals=(PRINCIPAL,),
    )
    nginx = NginxServer(
        folder,
        certificate=svid / "svid.pem",
        key=svid / "svid_key.pem",
        client_authorities=folder / "application" / "ca.crt",
    )
    postgres = PostgresServer(folder, own, rules=("hostssl all all 127.0.0.1/32 trust clientcert=verify-ca",))
    mariadb = MariaDBServer(folder, own, users={USER: "X509"})
    return Verifiers(
        plane=plane,
        trusted=folder,
        sshd=stack.enter_context(sshd),
        nginx=stack.enter_context(nginx),
        postgres=stack.enter_context(postgres),
        mariadb=stack.enter_context(mariadb),
        keys=keys,
        issuer=issuer,
    )


@pytest.mark.parametrize(
    ("credential", "verifier"),
    [pytest.param(*pair, id=" at ".join(pair)) for pair in itertools.product(NAMES, ACCEPTED)],
)
def test_a_credential_is_taken_where_it_is_meant_to_be_and_nowhere_else(
    premises: Premises, tmp_path: Path, credential: str, verifier: str
) -> None:
    shown = premises.credentials[credential]
    taken = VERIFY[verifier](premises.verifiers, shown, shown.put(tmp_path / "stolen"))
    assert taken is (credential in ACCEPTED[verifier])
