"""PKCS #12 files in Secrets on a real API server: their passwords, made or given, and what Java's own keytool finds in them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.credentials import StoredSecret, keytool_lists, write_all
from support.inprocess import RunningOperator
from support.stage import Stage, Tenant

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

ALLOW: dict[str, Any] = {
    "logins": ["{{ internal.logins }}"],
    "kubernetesGroups": ["viewers"],
    "dbUsers": ["app"],
    "dnsNames": ["*.data.svc"],
    "spiffePaths": ["/ns/*"],
}
SPECS: dict[str, dict[str, Any]] = {
    "identity": {"identity": {}},
    "application": {"application": {}},
    "database": {"database": {"user": "app"}},
    "server": {"database": {"server": True, "dnsNames": ["db.data.svc"]}},
    "kubernetes": {"kubernetes": {}},
    "svid": {"x509SVID": {}},
}
"""Every type that holds an X.509 certificate."""

MADE: dict[str, Any] = {"pkcs12": {}}
GIVEN: dict[str, Any] = {"pkcs12": {"passwordSecretRef": {"name": "java"}}}
FILES = {"keystore.p12", "truststore.p12"}

LONGER = timedelta(seconds=30)
"""Above the pause after which a password that was missing is looked for again."""


@pytest.fixture
def served(tenant: Tenant, stage: Stage) -> Tenant:
    """The tenant with a bot that may have every certificate."""
    tenant.bot(roles=(stage.role(allow=ALLOW),))
    return tenant


def password(tenant: Tenant, text: str, *, name: str = "java", key: str = "password") -> None:
    """A Secret with a password, as a person makes it."""
    metadata = {"name": name, "namespace": tenant.namespace}
    tenant.stage.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {key: text}})


def check(secret: StoredSecret, given: str, directory: Path) -> None:
    """Have keytool read both files."""
    paths = write_all(directory, {key: text for key, text in secret.data.items() if key in FILES})
    assert keytool_lists(paths["keystore.p12"], given) == {"machinebot": "PrivateKeyEntry"}
    trusted = keytool_lists(paths["truststore.p12"], given)
    assert trusted
    assert set(trusted.values()) == {"trustedCertEntry"}


def test_every_type_with_a_certificate_has_keystores_with_a_password_of_their_own(served: Tenant, tmp_path: Path) -> None:
    for name, spec in SPECS.items():
        served.output(name, keystores=MADE, **spec)
    passwords = set()
    for name in SPECS:
        served.ready(name)
        secret = served.secret(name)
        made = secret.data["keystore.password"].decode()
        check(secret, made, tmp_path / name)
        passwords.add(made)
    assert len(passwords) == len(SPECS)


def test_a_password_that_was_made_is_new_with_each_issue(served: Tenant, tmp_path: Path) -> None:
    served.output(application={}, keystores=MADE)
    served.ready()
    old = served.secret()
    served.annotate("web", renew="1")
    new = served.issued_anew(old, "Requested")
    assert new.data["keystore.password"] != old.data["keystore.password"]
    check(new, new.data["keystore.password"].decode(), tmp_path)


def test_a_password_that_was_given_protects_the_files_and_is_not_copied(served: Tenant, tmp_path: Path) -> None:
    password(served, "correct horse")
    served.output(application={}, keystores=GIVEN)
    served.ready()
    secret = served.secret()
    assert set(secret.data) == {"tls.crt", "tls.key", "ca.crt"} | FILES
    check(secret, "correct horse", tmp_path)
    assert "correct horse" not in str(served.get("MachineOutput", "web"))
    assert "correct horse" not in str(served.events("web"))


def test_a_changed_password_counts_from_the_next_issue(served: Tenant, running: RunningOperator, tmp_path: Path) -> None:
    password(served, "correct horse")
    served.output(application={}, keystores=GIVEN)
    served.ready()
    old = served.secret()
    running.settle()
    mark = served.mark()
    served.touch_secret("java", {"stringData": {"password": "battery staple"}})
    running.settle()
    assert served.summary(mark, "web") == []
    served.annotate("web", renew="1")
    check(served.issued_anew(old, "Requested"), "battery staple", tmp_path)


def test_from_a_made_password_to_a_given_one_and_back(served: Tenant, tmp_path: Path) -> None:
    password(served, "correct horse", key="store")
    served.output(application={}, keystores=MADE)
    served.ready()
    made = served.secret()
    served.change("MachineOutput", "web", keystores={"pkcs12": {"passwordSecretRef": {"name": "java", "key": "store"}}})
    given = served.issued_anew(made, "GrantChanged")
    assert "keystore.password" not in given.data
    check(given, "correct horse", tmp_path)
    served.change("MachineOutput", "web", keystores=None)
    assert set(served.issued_anew(given, "GrantChanged").data) == {"tls.crt", "tls.key", "ca.crt"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "PasswordMissing"), ("five5", "PasswordInvalid"), ("correct horse\n", "PasswordInvalid")],
    ids=["missing", "too short", "a newline"],
)
def test_without_a_password_nothing_is_minted_until_there_is_one(
    served: Tenant, running: RunningOperator, text: str | None, reason: str
) -> None:
    if text is not None:
        password(served, text)
    served.output(application={}, keystores=GIVEN)
    message = served.refused(reason)["message"]
    assert "'java'" in message
    assert "horse" not in message
    assert not served.has("Secret", "web")
    if text is None:
        password(served, "correct horse")
    else:
        served.touch_secret("java", {"stringData": {"password": "correct horse"}})
    running.settle()
    running.step(LONGER)
    served.ready()


def test_a_password_is_never_taken_from_a_secret_of_ours(served: Tenant) -> None:
    """Who may write outputs but read no Secret could else learn the content of one by opening the files."""
    served.output("other", application={}, keystores=MADE)
    served.ready("other")
    served.output(application={}, keystores={"pkcs12": {"passwordSecretRef": {"name": "other", "key": "keystore.password"}}})
    message = served.refused("PasswordMissing")["message"]
    assert "one that Machinebot wrote does not count" in message
    assert not served.has("Secret", "web")


def test_a_password_that_is_gone_at_a_renewal_leaves_the_old_credential(served: Tenant) -> None:
    password(served, "correct horse")
    served.output(application={}, keystores=GIVEN)
    served.ready()
    old = served.secret()
    served.delete("Secret", "java")
    served.annotate("web", renew="1")
    served.refused("PasswordMissing")
    assert served.secret().version == old.version
