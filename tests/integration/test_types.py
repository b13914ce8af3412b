"""Every type of output on a real API server: from the object to the Secret, its keys, its names and what status tells of them."""

import functools
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from machinebot.outputs.base import EVERY_ALGORITHM
from machinebot.outputs.registry import OUTPUT_TYPES
from support.credentials import StoredSecret, ssh_certificate
from support.inprocess import RunningOperator
from support.stage import Stage, Tenant
from support.waiting import eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

ALLOW: dict[str, Any] = {
    "logins": ["{{ internal.logins }}"],
    "hostPrincipals": ["*.node.example.test"],
    "kubernetesUsers": ["team:deployer"],
    "kubernetesGroups": ["viewers", "team:deployers"],
    "dbUsers": ["app", "orders_*", "node"],
    "dbNames": ["orders"],
    "dnsNames": ["*.data.svc"],
    "spiffePaths": ["/ns/*"],
    "jwtAudiences": ["vault", "https://*.example.test"],
}
"""What a role that serves every type allows."""

CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "kubernetes": ({"kubernetes": {}}, {"kubeconfig.yaml", "ca.crt"}),
    "kubernetes for Argo CD": ({"kubernetes": {"argoCD": True}}, {"name", "server", "config"}),
    "application": ({"application": {}}, {"tls.crt", "tls.key", "ca.crt"}),
    "database tls": ({"database": {"user": "app"}}, {"tls.crt", "tls.key", "ca.crt"}),
    "database postgres": (
        {"database": {"format": "postgres", "user": "app", "database": "orders"}},
        {"postgresql.crt", "postgresql.key", "root.crt"},
    ),
    "database mysql": ({"database": {"format": "mysql", "user": "app"}}, {"client-cert.pem", "client-key.pem", "ca.pem"}),
    "database mongo": ({"database": {"format": "mongo", "user": "app"}}, {"mongo.crt", "mongo.cas"}),
    "database cockroach": (
        {"database": {"format": "cockroach", "user": "app"}},
        {"client.app.crt", "client.app.key", "ca.crt"},
    ),
    "server tls": ({"database": {"server": True, "dnsNames": ["db.data.svc"]}}, {"tls.crt", "tls.key", "ca.crt"}),
    "server cockroach": (
        {"database": {"server": True, "format": "cockroach", "dnsNames": ["db.data.svc"]}},
        {"node.crt", "node.key", "ca.crt"},
    ),
    "x509SVID": ({"x509SVID": {}}, {"svid.pem", "svid_key.pem", "svid_bundle.pem"}),
    "x509SVID with other keys": (
        {"x509SVID": {"path": "/ns/ci/web", "keys": {"svid": "a", "key": "b", "bundle": "c"}}},
        {"a", "b", "c"},
    ),
    "jwtSVID": ({"jwtSVID": {"audiences": ["vault"]}}, {"jwt_svid"}),
}


@pytest.mark.parametrize(("spec", "keys"), CASES.values(), ids=CASES.keys())
def test_a_type_becomes_ready_with_exactly_its_keys(tenant: Tenant, stage: Stage, spec: dict[str, Any], keys: set[str]) -> None:
    role = stage.role(allow=ALLOW)
    tenant.bot(roles=(role,))
    tenant.output(**spec)
    tenant.ready()
    assert set(tenant.secret().data) == keys


FORMS: dict[str, dict[str, Any]] = {
    "identity": {"identity": {}},
    "ssh-host": {"sshHost": {"principals": ["web-1.node.example.test"]}},
    **{name.lower().replace(" ", "-"): spec for name, (spec, _) in CASES.items()},
}
"""Every type, and each of its forms."""

GROUPS: dict[str, tuple[type, int]] = {
    "ECDSA-P256": (ec.EllipticCurvePublicKey, 256),
    "ECDSA-P384": (ec.EllipticCurvePublicKey, 384),
    "Ed25519": (ed25519.Ed25519PublicKey, 0),
    "RSA-2048": (rsa.RSAPublicKey, 2048),
    "RSA-4096": (rsa.RSAPublicKey, 4096),
}
"""What the public key of each algorithm is, and its size in bits where one algorithm has several."""

QUICK = ("identity", "ssh-host", "application", "database-tls", "database-mongo", "kubernetes", "x509svid")
"""One form of each type that has a private key, and the one file of MongoDB: each with every algorithm."""


@pytest.fixture
def served(tenant: Tenant, stage: Stage) -> Tenant:
    """The tenant with a bot that may have credentials of every type."""
    tenant.bot(roles=(stage.role(allow=ALLOW),))
    return tenant


def test_the_tables_have_every_type() -> None:
    assert {name for spec in FORMS.values() for name in spec} == set(OUTPUT_TYPES)
    assert {name for form in QUICK for name in FORMS[form]} == {kind.name for kind in OUTPUT_TYPES.values() if kind.algorithms}
    assert set(GROUPS) == EVERY_ALGORITHM


def test_every_type_takes_every_algorithm_of_private_keys(served: Tenant) -> None:
    names = {f"{form}-{algorithm.lower()}": (form, algorithm) for form in QUICK for algorithm in GROUPS}
    for name, (form, algorithm) in names.items():
        served.output(name, privateKey={"algorithm": algorithm}, **FORMS[form])
    for name, (form, algorithm) in names.items():
        status, secret = served.ready(name)["status"], served.secret(name)
        assert status["serial"] == secret.serial, name
        certificate = ssh_certificate(secret.data["ssh_host-cert.pub"]) if form == "ssh-host" else secret.certificate
        kind, bits = GROUPS[algorithm]
        public = certificate.public_key()
        assert isinstance(public, kind), name
        assert getattr(public, "key_size", 0) == bits, name


def test_status_shows_each_name_with_the_role_and_the_trait_that_it_came_from(tenant: Tenant, stage: Stage) -> None:
    allow = {
        **ALLOW,
        "kubernetesGroups": ["viewers", "{{ internal.kubernetes_groups }}"],
        "dbUsers": ["{{ internal.db_users }}_*", "node"],
    }
    role = stage.role(allow=allow)
    tenant.bot(roles=(role,), traits={"kubernetes_groups": ["developers"], "db_users": ["orders"]})
    wanted: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "identity": ({"identity": {}}, {"logins": [("deploy", "logins")]}),
        "host": ({"sshHost": {"principals": ["a.node.example.test"]}}, {"hostPrincipals": [("a.node.example.test", None)]}),
        "application": ({"application": {}}, {}),
        "kubernetes": (
            {"kubernetes": {}},
            {
                "kubernetesUsers": [("team:deployer", None)],
                "kubernetesGroups": [("developers", "kubernetes_groups"), ("viewers", None)],
            },
        ),
        "client": (
            {"database": {"user": "orders_rw", "database": "orders"}},
            {"dbUsers": [("orders_rw", "db_users")], "dbNames": [("orders", None)]},
        ),
        "node": (
            {"database": {"format": "cockroach", "server": True, "dnsNames": ["b.data.svc", "a.data.svc"]}},
            {"dbUsers": [("node", None)], "dnsNames": [("a.data.svc", None), ("b.data.svc", None)]},
        ),
        "svid": (
            {"x509SVID": {"path": "/ns/ci/web", "dnsNames": ["a.data.svc"]}},
            {"spiffePaths": [("/ns/ci/web", None)], "dnsNames": [("a.data.svc", None)]},
        ),
        "token": (
            {"jwtSVID": {"audiences": ["vault", "https://api.example.test"]}},
            {
                "spiffePaths": [(f"/ns/{tenant.namespace}/bot/deployer", None)],
                "jwtAudiences": [("https://api.example.test", None), ("vault", None)],
            },
        ),
    }
    for name, (spec, _) in wanted.items():
        tenant.output(name, **spec)
    for name, (_, names) in wanted.items():
        granted = tenant.ready(name)["status"]["granted"]
        assert granted.pop("roles") == [role]
        found = {kind: [(each["name"], each.get("trait")) for each in origins] for kind, origins in granted.items() if origins}
        assert found == names, name
        assert {each["role"] for origins in granted.values() for each in origins} <= {role}


# --- the Secret -----------------------------------------------------------------------------------------------------

TLS = "kubernetes.io/tls"


@pytest.mark.parametrize(("first", "second"), [("Opaque", TLS), (TLS, "Opaque")], ids=["to TLS", "back"])
def test_a_secret_of_another_type_is_made_anew_with_a_new_credential(
    served: Tenant, running: RunningOperator, first: str, second: str
) -> None:
    served.output(application={}, secret={"type": first})
    served.ready()
    old = served.secret()
    assert old.type == first
    running.settle()
    mark = served.mark()
    served.change("MachineOutput", "web", secret={"type": second})
    new = served.issued_anew(old, "GrantChanged")
    assert (new.type, new.name) == (second, old.name)
    assert new.uid != old.uid
    assert new.data.keys() == old.data.keys()
    assert all(new.data[key] != old.data[key] for key in ("tls.crt", "tls.key"))
    running.settle()
    assert served.summary(mark, "web") == ["delete secrets", "create secrets", "patch machineoutputs/status"]
    assert secrets_of(served) == ["web"]


def secrets_of(tenant: Tenant) -> list[str]:
    """Names of the Secrets of outputs in the namespace."""
    found = map(StoredSecret, tenant.stage.cluster.list("Secret", tenant.namespace))
    return sorted(each.name for each in found if "machinebot.dev/output-uid" in each.labels)


def test_a_type_that_the_keys_do_not_fit_is_refused_and_the_old_secret_stays(served: Tenant, running: RunningOperator) -> None:
    served.output(database={"format": "postgres", "user": "app"})
    served.ready()
    old = served.secret()
    served.change("MachineOutput", "web", secret={"type": TLS})
    assert "postgresql.crt, postgresql.key, root.crt" in served.refused("NotTLS")["message"]
    assert served.secret().version == old.version
    served.change("MachineOutput", "web", secret={"keys": {"postgresql.crt": "tls.crt", "postgresql.key": "tls.key"}})
    new = served.issued_anew(old, "GrantChanged")
    assert (new.type, set(new.data)) == (TLS, {"tls.crt", "tls.key", "root.crt"})
    running.settle()
    assert secrets_of(served) == ["web"]


def test_keys_have_the_names_that_are_wished_and_no_others(served: Tenant) -> None:
    served.output(application={}, secret={"keys": {"tls.crt": "client.pem", "ca.crt": "authority.pem"}})
    served.ready()
    old = served.secret()
    assert set(old.data) == {"client.pem", "tls.key", "authority.pem"}
    served.change("MachineOutput", "web", secret={"keys": {"tls.crt": "tls.key", "tls.key": "tls.crt", "ca.crt": None}})
    new = served.issued_anew(old, "GrantChanged")
    assert set(new.data) == {"tls.crt", "tls.key", "ca.crt"}
    assert b"PRIVATE KEY" in new.data["tls.crt"]
    assert b"BEGIN CERTIFICATE" in new.data["tls.key"]
    assert new.uid == old.uid


def test_a_key_under_another_name_that_was_taken_away_by_hand_comes_back(served: Tenant) -> None:
    served.output(x509SVID={}, secret={"keys": {"svid.pem": "web.pem"}})
    served.ready()
    old = served.secret()
    served.touch_secret("web", {"data": {"web.pem": None, "svid.pem": old.body["data"]["web.pem"]}})
    new = served.issued_anew(old, "SecretChanged")
    assert set(new.data) == {"web.pem", "svid_key.pem", "svid_bundle.pem"}


ARGO_CD = "argocd.argoproj.io/secret-type"


def test_the_label_of_argo_cd_comes_and_goes_and_those_of_others_stay(served: Tenant) -> None:
    served.output(kubernetes={"argoCD": True}, secret={"labels": {"team": "blue"}})
    served.ready()
    old = served.secret()
    assert {ARGO_CD: "cluster", "team": "blue"}.items() <= old.labels.items()
    served.touch_secret("web", {"metadata": {"labels": {"example.test/theirs": "kept"}, "annotations": {"theirs": "kept"}}})
    served.change("MachineOutput", "web", kubernetes={"argoCD": False})
    plain = served.issued_anew(old, "GrantChanged")
    assert set(plain.data) == {"kubeconfig.yaml", "ca.crt"}
    assert ARGO_CD not in plain.labels
    assert {"team": "blue", "example.test/theirs": "kept"}.items() <= plain.labels.items()
    served.change("MachineOutput", "web", kubernetes={"argoCD": True}, secret={"labels": None})
    again = served.issued_anew(plain, "GrantChanged")
    assert {ARGO_CD: "cluster", "example.test/theirs": "kept"}.items() <= again.labels.items()
    assert "team" not in again.labels
    assert again.annotations["theirs"] == "kept"


# --- refusals -------------------------------------------------------------------------------------------------------

WISHES: dict[str, tuple[dict[str, Any], str, str]] = {
    "host name": ({"sshHost": {"principals": ["web.prod.test"]}}, "PrincipalNotAllowed", "host name 'web.prod.test'"),
    "Kubernetes user": ({"kubernetes": {"user": "root"}}, "NameNotAllowed", "Kubernetes user 'root'"),
    "database user": ({"database": {"user": "postgres"}}, "NameNotAllowed", "database user 'postgres'"),
    "database": ({"database": {"user": "app", "database": "payroll"}}, "NameNotAllowed", "database 'payroll'"),
    "DNS name": (
        {"database": {"server": True, "dnsNames": ["db.data.svc", "db.prod.svc"]}},
        "NameNotAllowed",
        "DNS name 'db.prod.svc'",
    ),
    "SPIFFE path": ({"x509SVID": {"path": "/admin"}}, "NameNotAllowed", "SPIFFE path '/admin'"),
    "audience": ({"jwtSVID": {"audiences": ["sts"]}}, "NameNotAllowed", "audience 'sts'"),
}
OTHERS: dict[str, Any] = {
    "hostPrincipals": ["*.prod.test"],
    "kubernetesUsers": ["root"],
    "dbUsers": ["postgres"],
    "dbNames": ["payroll"],
    "dnsNames": ["*.prod.svc"],
    "spiffePaths": ["/admin"],
    "jwtAudiences": ["sts"],
}
"""What another role allows, which the bot does not have."""


def test_a_name_that_no_role_of_the_bot_allows_is_refused_with_the_role_that_would(served: Tenant, stage: Stage) -> None:
    other = stage.role(allow=OTHERS)
    for name, (spec, _, _) in WISHES.items():
        served.output(name.lower().replace(" ", "-"), **spec)
    for name, (_, reason, words) in WISHES.items():
        output = name.lower().replace(" ", "-")
        ready = served.refused(reason, output)
        assert f"no role allows the {words}" in ready["message"]
        # Other tests' roles may allow it too, for they have no namespace; the way out names some of them.
        assert f"{other!r}" in ready["message"] or "allow it" in ready["message"]
        assert not served.has("Secret", output)
        (event,) = eventually("the event is there", functools.partial(served.events, output))
        assert (event["type"], event["reason"]) == ("Warning", reason)
        assert words in event["note"]


def test_a_refusal_ends_once_a_role_allows_the_name(served: Tenant, stage: Stage) -> None:
    served.output(x509SVID={"path": "/admin"})
    served.refused("NameNotAllowed")
    stage.cluster.patch("MachineRole", "", role_of(served), {"spec": {"allow": {"spiffePaths": ["/admin"]}}})
    served.ready()
    granted = served.status()["granted"]["spiffePaths"]
    assert [each["name"] for each in granted] == ["/admin"]


def role_of(tenant: Tenant) -> str:
    (role,) = tenant.get("MachineBot", "deployer")["spec"]["roles"]
    return str(role)


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        pytest.param(
            {"application": {}, "secret": {"keys": {"cert": "a"}}}, "UnknownKey", "write one of these", id="unknown key"
        ),
        pytest.param({"application": {}, "secret": {"keys": {"ca.crt": "tls.crt"}}}, "KeyTwice", "another name", id="key twice"),
        pytest.param({"kubernetes": {}, "secret": {"type": TLS}}, "NotTLS", "leave secret.type out", id="not TLS"),
        pytest.param(
            {"x509SVID": {"path": "/ns/ci/bot/other"}}, "PathOfAnotherBot", "only that bot may have it", id="path of another bot"
        ),
        pytest.param(
            {"kubernetes": {"certificateAuthority": "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"}},
            "InvalidSpec",
            "certificateAuthority: ",
            id="certificates that nobody can read",
        ),
    ],
)
def test_what_the_schema_cannot_see_is_refused_on_the_object(
    served: Tenant, spec: dict[str, Any], reason: str, words: str
) -> None:
    served.output(**spec)
    assert words in served.refused(reason)["message"]
    assert not served.has("Secret", "web")
