"""`x509SVID` outputs by the words of X509-SVID: read by SPIFFE's own library, verified by openssl, used by two ends of mutual TLS."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID
from spiffe import SpiffeId, TrustDomain, X509Bundle, X509Svid

from controlplane.ports import LOOPBACK
from machinebot.outputs.base import EVERY_ALGORITHM
from support.inprocess import RunningOperator
from support.mounting import mounted
from support.stage import Stage, Tenant
from workbench.chart import CLUSTER_NAME

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

SECONDS = 20.0
"""For a handshake."""

ALLOW: dict[str, Any] = {"logins": ["deploy"], "dnsNames": ["*.apps.svc"], "spiffePaths": ["/ns/*"]}


@pytest.fixture(scope="module")
def tenant(stage: Stage, authority: str, operator_of_module: RunningOperator) -> Iterator[Tenant]:
    """A namespace for the whole module."""
    assert operator_of_module.running
    with stage.tenant(authority) as made:
        made.bot(roles=(stage.role("svid-everything", allow=ALLOW),))
        yield made


@dataclass(frozen=True)
class Workload:
    """What a workload has mounted."""

    svid: Path
    key: Path
    bundle: Path

    @property
    def certificate(self) -> x509.Certificate:
        """The one certificate of the SVID."""
        (found,) = x509.load_pem_x509_certificates(self.svid.read_bytes())
        return found

    @property
    def authorities(self) -> list[x509.Certificate]:
        """The bundle."""
        return x509.load_pem_x509_certificates(self.bundle.read_bytes())


def workload(tenant: Tenant, folder: Path, name: str, spec: dict[str, Any] | None = None, **more: Any) -> Workload:
    """The files of a new output."""
    tenant.output(name, x509SVID=spec or {}, **more)
    directory = mounted(tenant, folder, name)
    return Workload(directory / "svid.pem", directory / "svid_key.pem", directory / "svid_bundle.pem")


# --- what it is ---------------------------------------------------------------------------------------------------------


IDS: dict[str, tuple[dict[str, Any], str]] = {
    "the bot's own": ({}, "/ns/{namespace}/bot/deployer"),
    "a path that the role allows": ({"path": "/ns/shop/sa/web"}, "/ns/shop/sa/web"),
    "with DNS names": ({"path": "/ns/shop/sa/web", "dnsNames": ["web.apps.svc"]}, "/ns/shop/sa/web"),
}


@pytest.mark.parametrize(("spec", "path"), IDS.values(), ids=IDS)
def test_the_library_of_spiffe_reads_it(tenant: Tenant, tmp_path: Path, spec: dict[str, Any], path: str) -> None:
    wanted = SpiffeId(f"spiffe://{CLUSTER_NAME}{path.format(namespace=tenant.namespace)}")
    files = workload(tenant, tmp_path, _name(spec), spec)
    svid = X509Svid.load(files.svid, files.key, Encoding.PEM)
    assert svid.spiffe_id == wanted
    assert svid.spiffe_id.trust_domain == TrustDomain(CLUSTER_NAME)
    assert svid.leaf.public_key() == svid.private_key.public_key()
    bundle = X509Bundle.load(svid.spiffe_id.trust_domain, files.bundle, Encoding.PEM)
    (authority,) = bundle.x509_authorities
    svid.leaf.verify_directly_issued_by(authority)


@pytest.mark.parametrize("algorithm", sorted(EVERY_ALGORITHM))
@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_takes_it_for_both_ends_by_the_letter_of_rfc_5280(
    tenant: Tenant, tmp_path: Path, algorithm: str, purpose: str
) -> None:
    files = workload(tenant, tmp_path, f"{algorithm.lower()}-{purpose}", privateKey={"algorithm": algorithm})
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", files.bundle, files.svid]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{files.svid}: OK\n"


def test_it_keeps_every_rule_of_x509_svid(tenant: Tenant, tmp_path: Path) -> None:
    """X509-SVID, sections 2 (the SPIFFE ID), 3 and 4 (constraints and usage), for the leaf and the CA."""
    files = workload(tenant, tmp_path, "rules", {"path": "/ns/shop/sa/web", "dnsNames": ["a.apps.svc", "b.apps.svc"]})
    leaf = files.certificate
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{CLUSTER_NAME}/ns/shop/sa/web"]
    assert names.value.get_values_for_type(x509.DNSName) == ["a.apps.svc", "b.apps.svc"]
    assert len(list(names.value)) == 3
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(False, None)
    known = {ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS}
    known |= {ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.SUBJECT_KEY_IDENTIFIER}
    assert {extension.oid for extension in leaf.extensions} == known

    (authority,) = files.authorities
    names = authority.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.UniformResourceIdentifier(f"spiffe://{CLUSTER_NAME}")], "no path"
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca


def test_the_keys_of_the_secret_have_the_names_that_the_output_gives(tenant: Tenant, tmp_path: Path) -> None:
    keys = {"svid": "tls.crt", "key": "tls.key", "bundle": "ca.pem"}
    tenant.output("renamed", x509SVID={"keys": keys}, secret={"type": "kubernetes.io/tls"})
    directory = mounted(tenant, tmp_path, "renamed")
    assert {path.name for path in directory.iterdir() if path.is_file()} == set(keys.values())
    assert tenant.secret("renamed").body["type"] == "kubernetes.io/tls"
    svid = X509Svid.load(directory / "tls.crt", directory / "tls.key", Encoding.PEM)
    assert str(svid.spiffe_id).endswith("/bot/deployer")


# --- mutual TLS ---------------------------------------------------------------------------------------------------------


def context(files: Workload, *, server: bool) -> ssl.SSLContext:
    """One end, which shows its SVID and asks for the other's."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.load_cert_chain(files.svid, files.key)
    made.load_verify_locations(files.bundle)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def meet(server: Workload, client: Workload, host: str) -> tuple[str, str]:
    """A connection over TCP: the SPIFFE ID that each end saw of the other, the server's view first.

    Raises:
        ssl.SSLError: One of them did not take the other.
    """
    seen: list[str] = []
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(SECONDS)

        def serve() -> None:
            line, _ = listener.accept()
            line.settimeout(SECONDS)
            with line:
                try:
                    with context(server, server=True).wrap_socket(line, server_side=True) as wrapped:
                        seen.append(_peer(wrapped))
                        wrapped.sendall(b"in")
                except OSError:
                    pass  # the client sees it too

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            line = socket.create_connection(listener.getsockname(), timeout=SECONDS)
            with line, context(client, server=False).wrap_socket(line, server_hostname=host) as wrapped:
                assert wrapped.recv(2) == b"in"
                return seen[0], _peer(wrapped)
        finally:
            thread.join(SECONDS)


def _peer(line: ssl.SSLSocket) -> str:
    names = dict(line.getpeercert() or {})["subjectAltName"]
    (found,) = [str(value) for kind, value in names if kind == "URI"]  # type: ignore[misc]
    return found


@pytest.fixture(scope="module")
def shop(tenant: Tenant, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workload]:
    """Two workloads, each of which is reached by a name of its own."""
    folder = tmp_path_factory.mktemp("shop")
    return {
        name: workload(tenant, folder, name, {"path": f"/ns/shop/sa/{name}", "dnsNames": [f"{name}.apps.svc"]})
        for name in ("cart", "stock")
    }


@pytest.mark.parametrize(("server", "client"), [("cart", "stock"), ("stock", "cart")])
def test_two_workloads_know_each_other_by_mutual_tls(shop: dict[str, Workload], server: str, client: str) -> None:
    ids = meet(shop[server], shop[client], f"{server}.apps.svc")
    assert ids == tuple(f"spiffe://{CLUSTER_NAME}/ns/shop/sa/{name}" for name in (client, server))


def test_a_workload_is_not_taken_for_another_name(shop: dict[str, Workload]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        meet(shop["cart"], shop["stock"], "stock.apps.svc")


def test_a_certificate_of_another_purpose_is_no_peer(tenant: Tenant, shop: dict[str, Workload], tmp_path: Path) -> None:
    tenant.output("app", application={})
    files = mounted(tenant, tmp_path, "app")
    foreign = Workload(files / "tls.crt", files / "tls.key", shop["cart"].bundle)
    with pytest.raises(ssl.SSLError, match=r"unknown ca|UNKNOWN_CA"):
        meet(shop["cart"], foreign, "cart.apps.svc")
    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        meet(foreign, shop["cart"], "cart.apps.svc")


# --- what nobody gets ---------------------------------------------------------------------------------------------------


def test_a_bot_does_not_get_the_path_of_another_bot(tenant: Tenant, stage: Stage) -> None:
    tenant.bot("other", roles=(stage.role(allow=ALLOW),))
    for number, path in enumerate((f"/ns/{tenant.namespace}/bot/other", "/ns/elsewhere/bot/deployer", "/ns/a/bot/b/c")):
        tenant.output(f"stolen-{number}", x509SVID={"path": path})
        message = tenant.refused("PathOfAnotherBot", f"stolen-{number}")["message"]
        assert path in message
        assert f"/ns/{tenant.namespace}/bot/deployer" in message, "what to write instead"
        assert not tenant.has("Secret", f"stolen-{number}")


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a path": ({"spiffePaths": ["/ns/other/*"]}, {"path": "/ns/shop/sa/web"}, "SPIFFE path '/ns/shop/sa/web'"),
    "its own path": ({"logins": ["deploy"]}, {}, "SPIFFE path '/ns/"),
    "a DNS name": ({"spiffePaths": ["/ns/*"]}, {"dnsNames": ["web.apps.svc"]}, "DNS name 'web.apps.svc'"),
}


@pytest.mark.parametrize(("allow", "spec", "what"), REFUSED.values(), ids=REFUSED)
def test_what_no_role_of_the_bot_allows_is_refused_and_told_which_would(
    tenant: Tenant, stage: Stage, allow: dict[str, Any], spec: dict[str, Any], what: str
) -> None:
    name = f"poor-{_name(spec)}"
    tenant.bot(name, roles=(stage.role(allow=allow),))
    tenant.output(name, bot=name, x509SVID=spec)
    message = tenant.refused("NameNotAllowed", name)["message"]
    assert f"no role allows the {what}" in message
    assert "'svid-everything'" in message
    assert not tenant.has("Secret", name)


def test_a_denied_path_is_refused_though_it_is_allowed(tenant: Tenant, stage: Stage) -> None:
    role = stage.role(allow=ALLOW, deny={"spiffePaths": ["/ns/prod/*"]})
    tenant.bot("denied", roles=(role,))
    tenant.output("denied", bot="denied", x509SVID={"path": "/ns/prod/sa/web"})
    assert "'/ns/prod/sa/web'" in tenant.refused("NameDenied", "denied")["message"]


def _name(spec: dict[str, Any]) -> str:
    """A name for an output, of what is set."""
    return "-".join(["svid", *(field.lower() for field in spec)])
