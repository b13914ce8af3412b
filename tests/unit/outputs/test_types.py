"""Every type of output: what it asks for, the keys that it makes, and that its content is read back."""

from itertools import product
from typing import Any, get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from cryptography.x509.oid import NameOID

from machinebot.outputs import inspect
from machinebot.outputs.base import EVERY_ALGORITHM
from machinebot.outputs.registry import OUTPUT_TYPES, MachineOutput
from machinebot.outputs.types.database import CLIENT_FILES, SERVER_FILES
from machinebot.policy.credential import Purpose, Usage
from machinebot.policy.names import NameKind
from machinebot.resources.output import PrivateKeyAlgorithm
from unit.outputs.builders import SPECS, authority, content, material, output

FORMATS = ("tls", "postgres", "mysql", "mongo", "cockroach")

CLIENT = {"format": FORMATS, "user": ("app", "Orders.rw-1"), "database": (None, "orders")}
SERVER = {"format": FORMATS, "server": (True,), "dnsNames": (["db.data.svc"], ["a.data.svc", "b.data.svc"])}
ELSEWHERE = {
    "server": (None, "https://api.staging.example.test:6443"),
    "certificateAuthority": (None, authority().trust().of(Purpose.KUBERNETES)[0].public.decode()),
    "context": (None, "staging"),
    "user": (None, "deployer"),
}
KUBECONFIG = {**ELSEWHERE, "namespace": (None, "apps")}
ARGO_CD = {
    "context": (None, "staging"),
    "argoCD": (True,),
    "project": (None, "web"),
    "namespaces": (["apps"], ["apps", "jobs"]),
    "clusterResources": (None, False, True),
}
SVID = {
    "path": (None, "/ns/ci/web"),
    "dnsNames": ([], ["web.data.svc"]),
    "keys": (None, {"svid": "tls.crt", "key": "tls.key", "bundle": "ca.crt"}, {"bundle": "ca.pem"}),
}

COMBINATIONS: dict[str, list[tuple[str, dict[str, tuple[Any, ...]]]]] = {
    "identity": [("any", {"knownHosts": ([], ["*.lan"]), "mountPath": (None, "/var/run/id")})],
    "sshHost": [("any", {"principals": (["web-1"], ["web-1", "10.0.0.1"])})],
    "application": [("any", {})],
    "database": [("client", CLIENT), ("server", SERVER)],
    "kubernetes": [("kubeconfig", KUBECONFIG), ("Argo CD", ARGO_CD), ("all of Argo CD", {"argoCD": (True,)})],
    "x509SVID": [("any", SVID)],
    "jwtSVID": [("any", {"audiences": (["vault"], ["vault", "https://api.example.test"]), "path": (None, "/ns/ci/web")})],
}
"""Values of each setting; every combination of them is a row of the tests."""


def combinations() -> list[Any]:
    rows = []
    for name, groups in COMBINATIONS.items():
        for title, choices in groups:
            for number, values in enumerate(product(*choices.values())):
                settings = {field: value for field, value in zip(choices, values, strict=True) if value is not None}
                rows.append(pytest.param({name: settings}, id=f"{name}-{title}-{number}"))
    return rows


SERVED: dict[NameKind, tuple[str, ...]] = {NameKind.DNS_NAMES: ("db",)}

ASKED: list[tuple[str, dict[str, Any], set[Usage], dict[NameKind, tuple[str, ...]]]] = [
    ("identity", {}, {Usage.SSH_USER, Usage.IDENTITY}, {}),
    ("sshHost", {"principals": ["b", "a"]}, {Usage.SSH_HOST}, {NameKind.HOST_PRINCIPALS: ("b", "a")}),
    ("application", {}, {Usage.IDENTITY}, {}),
    ("database", {"user": "app"}, {Usage.DATABASE_CLIENT}, {NameKind.DB_USERS: ("app",)}),
    (
        "database",
        {"format": "mongo", "user": "app", "database": "orders"},
        {Usage.DATABASE_CLIENT},
        {NameKind.DB_USERS: ("app",), NameKind.DB_NAMES: ("orders",)},
    ),
    ("database", {"format": "tls", "server": True, "dnsNames": ["db"]}, {Usage.DATABASE_SERVER}, SERVED),
    ("database", {"format": "postgres", "server": True, "dnsNames": ["db"]}, {Usage.DATABASE_SERVER}, SERVED),
    ("database", {"format": "mysql", "server": True, "dnsNames": ["db"]}, {Usage.DATABASE_SERVER}, SERVED),
    (
        "database",
        {"format": "mongo", "server": True, "dnsNames": ["db"]},
        {Usage.DATABASE_NODE},
        {NameKind.DNS_NAMES: ("db",), NameKind.DB_USERS: ("node",)},
    ),
    (
        "database",
        {"format": "cockroach", "server": True, "dnsNames": ["db"]},
        {Usage.DATABASE_NODE},
        {NameKind.DNS_NAMES: ("db",), NameKind.DB_USERS: ("node",)},
    ),
    ("kubernetes", {}, {Usage.KUBERNETES}, {}),
    ("kubernetes", {"argoCD": True, "user": "a"}, {Usage.KUBERNETES}, {NameKind.KUBERNETES_USERS: ("a",)}),
    ("x509SVID", {}, {Usage.WORKLOAD}, {}),
    (
        "x509SVID",
        {"path": "/a", "dnsNames": ["web"]},
        {Usage.WORKLOAD},
        {NameKind.SPIFFE_PATHS: ("/a",), NameKind.DNS_NAMES: ("web",)},
    ),
    ("jwtSVID", {"audiences": ["vault"]}, {Usage.WORKLOAD_TOKEN}, {NameKind.JWT_AUDIENCES: ("vault",)}),
    (
        "jwtSVID",
        {"audiences": ["b", "a"], "path": "/a"},
        {Usage.WORKLOAD_TOKEN},
        {NameKind.JWT_AUDIENCES: ("b", "a"), NameKind.SPIFFE_PATHS: ("/a",)},
    ),
]


@pytest.mark.parametrize(("name", "settings", "usages", "names"), ASKED)
def test_a_type_asks_for_its_usages_and_for_the_names_in_its_settings(
    name: str, settings: dict[str, Any], usages: set[Usage], names: dict[NameKind, tuple[str, ...]]
) -> None:
    kind = OUTPUT_TYPES[name]
    wish = kind.ask(kind.settings.model_validate(settings))
    assert wish.usages == usages
    assert {kind: asked for kind, asked in wish.names.items() if asked} == names


def test_a_kind_that_may_be_many_of_one_form_is_asked_for_once() -> None:
    """A credential holds one of each form: see `Wish.usages`."""
    for name, settings, usages, _ in ASKED:
        assert len({usage.form for usage in usages}) == len(usages), (name, settings)


@pytest.mark.parametrize("spec", combinations())
def test_whatever_the_settings_the_content_has_exactly_the_keys_that_are_told(spec: dict[str, Any]) -> None:
    wanted = output(spec)
    rendered = wanted.type.render(wanted.settings, material(wanted))
    assert rendered.keys() == wanted.type.keys(wanted.settings)
    assert all(rendered.values()), "no key is empty"
    assert inspect.inspect(wanted, content(wanted)).serial > 0


def algorithms() -> list[Any]:
    rows = []
    for name, spec in SPECS.items():
        kind = output(spec).type
        rows += [pytest.param(spec, algorithm, id=f"{name}-{algorithm}") for algorithm in sorted(kind.algorithms)]
    return rows


@pytest.mark.parametrize(("spec", "algorithm"), algorithms())
def test_every_algorithm_of_private_keys_goes_through(spec: dict[str, Any], algorithm: PrivateKeyAlgorithm) -> None:
    wanted = output(spec, privateKey={"algorithm": algorithm})
    made = material(wanted)
    data = wanted.type.render(wanted.settings, made)
    found = inspect.inspect(wanted, data)
    assert (found.serial, found.not_before, found.not_after) == (
        made.issued.serial,
        made.issued.not_before,
        made.issued.not_after,
    )
    parts = wanted.type.parts(wanted.settings, data)
    assert parts.certificates
    assert parts.private_key is not None
    load = load_ssh_private_key if b"OPENSSH" in parts.private_key else load_pem_private_key
    assert type(load(parts.private_key, password=None)) is type(made.key.private_key)


def test_every_type_takes_every_algorithm_or_has_no_private_key() -> None:
    for kind in OUTPUT_TYPES.values():
        assert kind.algorithms in (EVERY_ALGORITHM, frozenset())
    assert set(get_args(PrivateKeyAlgorithm)) == EVERY_ALGORITHM


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_no_key_of_a_content_is_printed(spec: dict[str, Any]) -> None:
    wanted = output(spec)
    made = material(wanted)
    parts = wanted.type.parts(wanted.settings, wanted.type.render(wanted.settings, made))
    for text in (repr(made.private_key), repr(parts)):
        assert "BEGIN" not in text
        assert "token" not in text


def test_a_type_without_a_private_key_has_none_to_render() -> None:
    with pytest.raises(ValueError, match="no private key"):
        _ = material(output(SPECS["jwtSVID"])).key


def test_a_token_stands_alone_without_a_newline() -> None:
    made = material(output(SPECS["jwtSVID"]))
    assert content(output(SPECS["jwtSVID"])).keys() == {"jwt_svid"}
    assert made.issued.token is not None
    assert not made.issued.token.endswith(b"\n")
    assert (made.issued.ssh_certificate, made.issued.x509_certificate) == (None, None)


# --- what certificates say ------------------------------------------------------------------------------------------


def subject(wanted: MachineOutput) -> tuple[x509.Certificate, dict[str, list[str]]]:
    pem = material(wanted).issued.x509_certificate
    assert pem is not None
    certificate = x509.load_pem_x509_certificate(pem)
    words = {"CN": NameOID.COMMON_NAME, "O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME}
    found = {
        word: sorted(str(each.value) for each in certificate.subject.get_attributes_for_oid(oid)) for word, oid in words.items()
    }
    return certificate, {word: names for word, names in found.items() if names}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"application": {}}, {"CN": ["bot:ci:deployer"], "O": ["example.test"]}),
        ({"database": {"user": "app"}}, {"CN": ["app"], "O": ["example.test"]}),
        ({"database": {"user": "app", "database": "orders"}}, {"CN": ["app"], "O": ["example.test"], "OU": ["orders"]}),
        ({"kubernetes": {}}, {"CN": ["deployer"], "O": ["team:deployers", "viewers"]}),
        ({"x509SVID": {}}, {"O": ["example.test"]}),
        ({"database": {"format": "cockroach", "server": True, "dnsNames": ["db"]}}, {"CN": ["node"], "O": ["example.test"]}),
    ],
    ids=["application", "database user", "database user and database", "kubernetes", "x509SVID", "cockroach node"],
)
def test_a_certificate_names_what_its_verifiers_look_for(spec: dict[str, Any], expected: dict[str, list[str]]) -> None:
    _, found = subject(output(spec))
    assert expected.items() <= found.items()


# --- databases ------------------------------------------------------------------------------------------------------

FILES = [
    ("tls", False, {"tls.crt", "tls.key", "ca.crt"}),
    ("tls", True, {"tls.crt", "tls.key", "ca.crt"}),
    ("postgres", False, {"postgresql.crt", "postgresql.key", "root.crt"}),
    ("postgres", True, {"server.crt", "server.key", "root.crt"}),
    ("mysql", False, {"client-cert.pem", "client-key.pem", "ca.pem"}),
    ("mysql", True, {"server-cert.pem", "server-key.pem", "ca.pem"}),
    ("mongo", False, {"mongo.crt", "mongo.cas"}),
    ("mongo", True, {"mongo.crt", "mongo.cas"}),
    ("cockroach", False, {"client.Orders.rw-1.crt", "client.Orders.rw-1.key", "ca.crt"}),
    ("cockroach", True, {"node.crt", "node.key", "ca.crt"}),
]


@pytest.mark.parametrize(("kind", "server", "names"), FILES)
def test_the_files_of_a_database_have_the_names_that_it_looks_for(kind: str, server: bool, names: set[str]) -> None:
    settings = {"server": True, "dnsNames": ["db"]} if server else {"user": "Orders.rw-1"}
    wanted = output({"database": {"format": kind, **settings}})
    data = content(wanted)
    assert data.keys() == names
    parts = wanted.type.parts(wanted.settings, data)
    assert parts.private_key is not None
    assert b"PRIVATE KEY" in parts.private_key
    (certificate,) = parts.certificates.values()
    assert b"BEGIN CERTIFICATE" in certificate
    (authorities,) = [text for name, text in data.items() if text not in (parts.private_key, certificate)]
    assert x509.load_pem_x509_certificates(authorities)


def test_the_table_of_files_has_every_format() -> None:
    assert {kind for kind, _, _ in FILES} == set(CLIENT_FILES) == set(SERVER_FILES) == set(FORMATS)


def test_mongo_reads_key_and_certificate_from_one_file() -> None:
    data = content(output({"database": {"format": "mongo", "user": "app"}}))
    text = data["mongo.crt"]
    assert load_pem_private_key(text, password=None) is not None
    assert len(x509.load_pem_x509_certificates(text)) == 1
    assert text.index(b"PRIVATE KEY") < text.index(b"CERTIFICATE")
