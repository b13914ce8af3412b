"""Command lines, policies and kubeconfigs of the control plane, read as text."""

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane import commands, kubeconfig
from controlplane.binaries import Binaries
from controlplane.commands import Layout
from controlplane.pki import Authority, KeyPair
from controlplane.recipe import PROGRAMS

LAYOUT = Layout(Path("/cluster"), api_port=6443, etcd_port=2379)
BINARIES = Binaries({name: Path("/bin") / name for name in PROGRAMS})


def api_server(*extra: str, audit: bool = False, configurable: bool = True) -> list[str]:
    return [str(word) for word in commands.api_server(BINARIES, LAYOUT, audit=audit, configurable=configurable, extra=extra)]


def test_the_issuer_is_where_discovery_answers() -> None:
    flags = api_server()
    assert "--service-account-issuer=https://127.0.0.1:6443" in flags
    assert "--service-account-jwks-uri=https://127.0.0.1:6443/openid/v1/jwks" in flags
    assert "--api-audiences=https://127.0.0.1:6443,https://kubernetes.default.svc" in flags


def test_another_issuer_takes_the_place_of_ours() -> None:
    """The API server would sign for the first of several."""
    flags = api_server("--service-account-issuer=https://issuer.example.test")
    assert [flag for flag in flags if "issuer=" in flag] == ["--service-account-issuer=https://issuer.example.test"]


def test_nothing_listens_beyond_loopback() -> None:
    words = [*api_server(), *map(str, commands.etcd(BINARIES, LAYOUT))]
    listening = [word for word in words if "listen" in word or "bind" in word]
    assert len(listening) == 3
    assert all("127.0.0.1" in word for word in listening)


def test_default_admission_and_fairness_stay_as_they_are() -> None:
    assert not [flag for flag in api_server() if "admission" in flag or "fairness" in flag or "feature" in flag]


def test_extra_flags_come_last() -> None:
    assert api_server("--profiling=true")[-2:] == ["--profiling=false", "--profiling=true"]


def test_the_audit_log_is_only_kept_on_request() -> None:
    assert not [flag for flag in api_server() if "audit-log" in flag or "audit-policy" in flag]
    assert f"--audit-log-path={LAYOUT.audit_log}" in api_server(audit=True)


def test_an_old_api_server_is_given_no_authentication_configuration() -> None:
    assert [flag for flag in api_server() if "authentic" in flag] == [f"--authentication-config={LAYOUT.authentication_config}"]
    assert not [flag for flag in api_server(configurable=False) if "authentic" in flag]


@pytest.mark.parametrize(("reads", "rest"), [(False, "None"), (True, "Metadata")])
def test_the_audit_policy_never_holds_contents(reads: bool, rest: str) -> None:
    rules = json.loads(commands.audit_policy(reads=reads))["rules"]
    assert rules == [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": rest},
    ]


def test_a_client_certificate_says_user_and_groups() -> None:
    authority = Authority("test")
    pair = authority.client("alice", ["dev", "ops"])
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    assert [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["alice"]
    assert [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["dev", "ops"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("user", ["", "u" * 65])
def test_a_user_that_fits_no_certificate_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Authority("test").client(user)


def test_a_key_does_not_show() -> None:
    assert "secret" not in repr(KeyPair(b"certificate", b"secret"))


def test_a_kubeconfig_holds_everything_inline() -> None:
    content = json.loads(kubeconfig.with_certificate("https://127.0.0.1:1", b"CA", "alice", KeyPair(b"CERT", b"KEY")))
    assert content["clusters"][0]["cluster"] == {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": base64.b64encode(b"CA").decode(),
    }
    assert content["users"][0]["user"] == {
        "client-certificate-data": base64.b64encode(b"CERT").decode(),
        "client-key-data": base64.b64encode(b"KEY").decode(),
    }
    assert content["current-context"] == content["contexts"][0]["name"]
