"""Outputs on a real API server: what is issued, why, with which writes, and what is left alone."""

import base64
import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from machinebot.clock import parse_rfc3339
from machinebot.errors import Unavailable
from support.cluster import RefusedError
from support.credentials import (
    StoredSecret,
    fingerprint,
    openssl_public_key,
    openssl_verifies,
    public_half,
    ssh_keygen_shows,
    ssh_public_key_as_pem,
    write_all,
)
from support.inprocess import RunningOperator
from support.line import Call
from support.stage import LOGINS, Stage, Tenant, condition, told, unique
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

IDENTITY_KEYS = {"key", "key.pub", "key-cert.pub", "tlscert", "known_hosts", "ssh_config", "tls.crt", "tls.key", "ca.crt"}
SSH_HOST_KEYS = {"ssh_host", "ssh_host.pub", "ssh_host-cert.pub", "ssh_host-user-ca.pub"}
FIRST_ISSUE = ["create secrets", "patch machineoutputs/status"]
RENEWAL = ["update secrets", "patch machineoutputs/status"]
HOST_ROLE: dict[str, Any] = {"allow": {"hostPrincipals": ["*.node.example.test"]}}


def issued(tenant: Tenant, role: str, name: str = "web", **spec: Any) -> StoredSecret:
    """A bot called deployer with one output that is Ready; returns its Secret."""
    if not tenant.has("MachineBot", "deployer"):
        tenant.bot(roles=(role,))
    tenant.output(name, **spec)
    tenant.ready(name)
    return tenant.secret(spec.get("secret", {}).get("name", name))


def untouched(tenant: Tenant, running: RunningOperator, mark: int) -> list[str]:
    """What the operator wrote since the mark, asked only after it has looked at everything once more."""
    running.settle()
    return [str(write) for write in tenant.writes(mark)]


# --- what is issued -----------------------------------------------------------------------------------------------------


def test_an_identity_output_becomes_ready_with_exactly_the_documented_keys(tenant: Tenant, role: str) -> None:
    secret = issued(tenant, role)
    assert set(secret.data) == IDENTITY_KEYS
    assert all(secret.data.values())
    assert secret.data["tlscert"] == secret.data["tls.crt"]
    assert secret.body["type"] == "Opaque"


def test_its_key_fits_the_ssh_certificate_as_ssh_keygen_shows_it(tenant: Tenant, role: str, tmp_path: Path) -> None:
    secret = issued(tenant, role)
    files = write_all(tmp_path, secret.data)
    shown = ssh_keygen_shows(files["key-cert.pub"])
    public = files["key.pub"].read_bytes()
    assert public_half(files["key"]).encode() == b" ".join(public.split()[:2])
    assert (shown.kind, shown.key, shown.serial) == ("user", fingerprint(public), tenant.status()["serial"])
    assert shown.principals == ("deploy",)
    assert shown.key_id == f"bot:{tenant.namespace}:deployer"
    status = tenant.status()
    assert shown.valid == (status["notBefore"].removesuffix("Z"), status["notAfter"].removesuffix("Z"))


def test_its_key_fits_the_x509_certificate_which_openssl_verifies(
    tenant: Tenant, role: str, running: RunningOperator, tmp_path: Path
) -> None:
    secret = issued(tenant, role)
    files = write_all(tmp_path, secret.data)
    of_key = openssl_public_key(files["tls.key"], certificate=False)
    assert openssl_public_key(files["tls.crt"], certificate=True) == of_key
    assert ssh_public_key_as_pem(files["key.pub"]) == of_key
    assert openssl_verifies(files["tls.crt"], files["ca.crt"], running.clock.now())
    assert not openssl_verifies(files["tls.crt"], files["ca.crt"], running.clock.now() + timedelta(hours=25))
    assert secret.serial == tenant.status()["serial"]


def test_its_known_hosts_trust_the_host_ca_for_the_cluster_and_the_wished_patterns(tenant: Tenant, role: str) -> None:
    lines = issued(tenant, role, identity={"knownHosts": ["*.backup.internal"]}).data["known_hosts"].splitlines()
    assert [line.split()[:2] for line in lines] == [
        [b"@cert-authority", f"{CLUSTER_NAME},*.{CLUSTER_NAME},*.backup.internal".encode()]
    ]


def test_its_secret_belongs_to_the_output_and_carries_nothing_but_our_labels(tenant: Tenant, role: str) -> None:
    secret = issued(tenant, role)
    uid = tenant.get("MachineOutput", "web")["metadata"]["uid"]
    assert secret.labels == {"app.kubernetes.io/managed-by": "machinebot", "machinebot.dev/output-uid": uid}
    assert secret.owners == [
        {
            "apiVersion": "machinebot.dev/v1alpha1",
            "kind": "MachineOutput",
            "name": "web",
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]


def test_its_status_tells_everything(tenant: Tenant, role: str, authority: str, running: RunningOperator) -> None:
    secret = issued(tenant, role)
    body = tenant.get("MachineOutput", "web")
    status, ready = body["status"], condition(body)
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("True", "Issued")
    assert (status["observedGeneration"], status["type"]) == (body["metadata"]["generation"], "identity")
    assert (status["secret"]["name"], status["secret"]["resourceVersion"]) == ("web", secret.version)
    assert status["secret"]["digest"] == secret.annotations["machinebot.dev/digest"]
    assert (status["serial"], status["ttl"], status["issueReason"]) == (secret.serial, "24h", "SecretMissing")
    assert status["inputs"] == secret.annotations["machinebot.dev/inputs"]
    begin, renew, end = (parse_rfc3339(status[name]) for name in ("notBefore", "renewAt", "notAfter"))
    assert end - begin == timedelta(hours=24)
    assert timedelta(hours=9.6) <= renew - begin <= timedelta(hours=12)
    assert abs(begin - running.clock.now()) < timedelta(minutes=2)
    anchors = {
        (anchor["purpose"], anchor["id"])
        for anchor in tenant.stage.authority_ready(authority)["status"]["authorities"]
        if anchor["state"] == "Active"
    }
    assert set(status["authorities"]) == {"ssh-user", "identity"}
    assert set(status["authorities"].items()) <= anchors
    assert ready["message"] == f"valid until {status['notAfter']}, renewed at {status['renewAt']}"
    assert status["granted"]["roles"] == [role]
    assert status["granted"]["logins"] == [{"name": "deploy", "role": role, "trait": "logins"}]
    assert not status["granted"].get("hostPrincipals")
    assert {"ttlReducedBy", "warnings", "retryAt"} & set(status) == set()
    assert not status.get("failedAttempts")


def test_an_ssh_host_output_becomes_ready_with_exactly_the_documented_keys(tenant: Tenant, stage: Stage, tmp_path: Path) -> None:
    role = stage.role(**HOST_ROLE)
    secret = issued(tenant, role, "host", sshHost={"principals": ["web-1.node.example.test", "web.node.example.test"]})
    assert set(secret.data) == SSH_HOST_KEYS
    files = write_all(tmp_path, secret.data)
    shown = ssh_keygen_shows(files["ssh_host-cert.pub"])
    public = files["ssh_host.pub"].read_bytes()
    assert public_half(files["ssh_host"]).encode() == b" ".join(public.split()[:2])
    assert (shown.kind, shown.key) == ("host", fingerprint(public))
    assert shown.principals == ("web-1.node.example.test", "web.node.example.test")
    status = tenant.status("host")
    assert (status["type"], status["serial"], set(status["authorities"])) == ("sshHost", shown.serial, {"ssh-host"})
    assert [granted["name"] for granted in status["granted"]["hostPrincipals"]] == list(shown.principals)
    assert not status["granted"].get("logins")


def test_users_and_hosts_trust_each_other_through_what_their_secrets_hold(tenant: Tenant, stage: Stage, tmp_path: Path) -> None:
    role = stage.role(allow={"logins": ["deploy"], "hostPrincipals": ["*.node.example.test"]})
    user = issued(tenant, role)
    host = issued(tenant, role, "host", sshHost={"principals": ["web-1.node.example.test"]})
    files = write_all(tmp_path, {**user.data, **host.data})
    trusted_users = {fingerprint(line) for line in host.data["ssh_host-user-ca.pub"].splitlines()}
    trusted_hosts = {fingerprint(line.split(maxsplit=2)[2]) for line in user.data["known_hosts"].splitlines()}
    assert ssh_keygen_shows(files["key-cert.pub"]).authority in trusted_users
    assert ssh_keygen_shows(files["ssh_host-cert.pub"]).authority in trusted_hosts
    assert not trusted_users & trusted_hosts


@pytest.mark.parametrize(
    ("algorithm", "word"),
    [("ECDSA-P256", b"ecdsa-sha2-nistp256"), ("ECDSA-P384", b"ecdsa-sha2-nistp384"), ("Ed25519", b"ssh-ed25519")],
)
def test_the_private_key_is_of_the_wished_algorithm(tenant: Tenant, role: str, algorithm: str, word: bytes) -> None:
    assert issued(tenant, role, privateKey={"algorithm": algorithm}).data["key.pub"].startswith(word + b" ")


# --- with which writes --------------------------------------------------------------------------------------------------


def test_an_issue_costs_two_writes_and_one_event(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    running.settle()
    mark = tenant.mark()
    tenant.output()
    tenant.ready()
    running.settle()
    assert tenant.summary(mark, "web") == FIRST_ISSUE
    assert [(event["type"], event["reason"]) for event in tenant.events("web")] == [("Normal", "Issued")]


def test_a_renewal_costs_two_writes_and_one_event(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret = issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    tenant.annotate("web", renew="now")
    tenant.issued_anew(secret, "Requested")
    running.settle()
    assert tenant.summary(mark, "web") == RENEWAL
    assert len(tenant.events("web")) == 2


def test_a_new_bot_costs_its_service_account_and_its_status(tenant: Tenant, role: str, running: RunningOperator) -> None:
    mark = tenant.mark()
    tenant.bot(roles=(role,))
    tenant.ready("deployer", "MachineBot")
    assert untouched(tenant, running, mark) == ["create serviceaccounts", "patch machinebots/status"]


def test_idle_means_no_write_at_all(tenant: Tenant, role: str, running: RunningOperator) -> None:
    for name in ("web", "db", "queue"):
        issued(tenant, role, name)
    running.settle()
    mark = tenant.mark()
    for _ in range(3):
        running.settle()
    assert tenant.writes(mark) == []


def test_a_restart_writes_nothing(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secrets = [issued(tenant, role, name) for name in ("web", "db", "queue")]
    running.settle()
    running.wait_quiet()
    mark = tenant.mark()
    running.stop()
    running.start()
    running.wait_leading()
    assert untouched(tenant, running, mark) == []
    assert [tenant.secret(secret.name).version for secret in secrets] == [secret.version for secret in secrets]


def test_a_restart_keeps_what_another_controller_touched_without_a_write(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret = issued(tenant, role)
    running.settle()
    tenant.touch_secret("web", {"metadata": {"labels": {"team": "web"}}})
    mark = tenant.mark()
    running.stop()
    running.start()
    running.wait_leading()
    assert untouched(tenant, running, mark) == []
    assert tenant.secret().serial == secret.serial


def test_a_crash_between_the_two_writes_issues_nothing_a_second_time(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    running.settle()
    mark = tenant.mark()
    running.line.cut_after(lambda call: (call.verb, call.resource, call.namespace) == ("create", "secrets", tenant.namespace))
    tenant.output()
    eventually("the Secret is stored and the line is cut", lambda: running.line.is_cut)
    running.crash()
    secret = tenant.secret()
    assert "serial" not in tenant.status()
    running.start()
    running.wait_leading()
    tenant.ready()
    running.settle()
    assert (tenant.status()["serial"], tenant.status()["issueReason"]) == (secret.serial, "SecretMissing")
    assert tenant.secret().version == secret.version
    assert tenant.summary(mark, "web") == FIRST_ISSUE


def test_a_crash_between_the_two_writes_of_a_renewal_fulfils_the_wish_once(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    running.line.cut_after(lambda call: (call.verb, call.resource, call.namespace) == ("update", "secrets", tenant.namespace))
    tenant.annotate("web", renew="now")
    eventually("the Secret is stored and the line is cut", lambda: running.line.is_cut)
    running.crash()
    secret = tenant.secret()
    running.start()
    running.wait_leading()
    eventually("the status follows", lambda: tenant.status()["serial"] == secret.serial)
    running.settle()
    assert tenant.status()["renewToken"] == "now"
    assert tenant.summary(mark, "web") == RENEWAL


# --- why it is issued again ---------------------------------------------------------------------------------------------


def test_a_deleted_secret_is_issued_again(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret = issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    tenant.delete("Secret", "web")
    tenant.issued_anew(secret, "SecretMissing")
    running.settle()
    assert tenant.summary(mark, "web") == FIRST_ISSUE


CHANGES: dict[str, Callable[[StoredSecret], dict[str, Any]]] = {
    "one key replaced": lambda _: {"data": {"key": base64.b64encode(b"mine").decode()}},
    "one key removed": lambda _: {"data": {"key-cert.pub": None}},
    "one key added": lambda _: {"data": {"mine": base64.b64encode(b"mine").decode()}},
    "everything removed": lambda _: {"data": None},
    "known_hosts shortened": lambda _: {"data": {"known_hosts": ""}},
    "our digest removed": lambda _: {"metadata": {"annotations": {"machinebot.dev/digest": None}}},
    "our authorities spoilt": lambda _: {"metadata": {"annotations": {"machinebot.dev/authorities": "?"}}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_secret_changed_by_hand_is_issued_again_once(
    tenant: Tenant, role: str, running: RunningOperator, change: Callable[[StoredSecret], dict[str, Any]]
) -> None:
    secret = issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    tenant.touch_secret("web", change(secret))
    anew = tenant.issued_anew(secret, "SecretChanged")
    running.settle()
    assert set(anew.data) == IDENTITY_KEYS
    assert tenant.summary(mark, "web") == RENEWAL


def test_a_key_of_another_issue_put_into_the_secret_is_noticed(tenant: Tenant, role: str, running: RunningOperator) -> None:
    one, other = issued(tenant, role), issued(tenant, role, "other")
    running.settle()
    mark = tenant.mark()
    tenant.touch_secret("web", {"data": {"tls.key": other.body["data"]["tls.key"], "key": other.body["data"]["key"]}})
    tenant.issued_anew(one, "SecretChanged")
    running.settle()
    assert tenant.summary(mark, "web") == RENEWAL
    assert tenant.secret("other").version == other.version


def test_a_foreign_label_and_annotation_cause_no_write_and_outlive_the_next_rotation(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret = issued(tenant, role)
    running.settle()
    running.settle()
    mark = tenant.mark()
    touched = tenant.touch_secret("web", {"metadata": {"labels": {"team": "web"}, "annotations": {"seen-by": "reloader"}}})
    assert untouched(tenant, running, mark) == []
    assert tenant.secret().version == touched.version
    tenant.annotate("web", renew="now")
    anew = tenant.issued_anew(secret, "Requested")
    assert (anew.labels["team"], anew.annotations["seen-by"]) == ("web", "reloader")


def test_a_login_added_to_the_role_is_issued_once(tenant: Tenant, stage: Stage, running: RunningOperator, tmp_path: Path) -> None:
    role = stage.role(allow={"logins": ["deploy"]})
    secret = issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    stage.cluster.patch("MachineRole", "", role, {"spec": {"allow": {"logins": ["deploy", "backup"]}}})
    anew = tenant.issued_anew(secret, "GrantChanged")
    running.settle()
    assert tenant.summary(mark, "web") == RENEWAL
    assert ssh_keygen_shows(write_all(tmp_path, anew.data)["key-cert.pub"]).principals == ("backup", "deploy")


IRRELEVANT: dict[str, dict[str, Any]] = {
    "a host principal": {"allow": {"hostPrincipals": ["*.node.example.test"]}},
    "a denial of what it does not have": {"deny": {"logins": ["root"]}},
    "a namespace of others": {"namespaces": ["*", "team-a"]},
    "a login that the bot's trait gives too": {"allow": {"logins": ["{{ internal.logins }}", "deploy"]}},
    "a longer limit": {"options": {"maxSessionTTL": "48h"}},
}


@pytest.mark.parametrize("change", IRRELEVANT.values(), ids=IRRELEVANT)
def test_a_change_of_the_role_that_does_not_concern_the_credential_issues_nothing(
    tenant: Tenant, role: str, running: RunningOperator, change: dict[str, Any]
) -> None:
    secret = issued(tenant, role)
    running.settle()
    changed = tenant.stage.cluster.patch("MachineRole", "", role, {"spec": change})
    eventually("the role was looked at", lambda: told(tenant.stage.cluster.get("MachineRole", "", role) or changed, "True"))
    running.settle()
    assert tenant.secret().version == secret.version


def test_logins_changed_on_the_bot_reach_every_output_of_it(tenant: Tenant, role: str) -> None:
    web, db = issued(tenant, role), issued(tenant, role, "db")
    tenant.change("MachineBot", "deployer", logins=["deploy", "backup"])
    tenant.issued_anew(web, "GrantChanged")
    tenant.issued_anew(db, "GrantChanged", "db")
    assert [login["name"] for login in tenant.status()["granted"]["logins"]] == ["backup", "deploy"]


def test_each_new_value_of_the_renewal_annotation_is_fulfilled_once(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret = issued(tenant, role)
    running.settle()
    for value in ("1", "2", "1"):
        mark = tenant.mark()
        tenant.annotate("web", renew=value)
        secret = tenant.issued_anew(secret, "Requested")
        running.settle()
        assert tenant.status()["renewToken"] == value
        assert tenant.summary(mark, "web") == RENEWAL
    mark = tenant.mark()
    tenant.annotate("web", renew="1")
    tenant.annotate("web", renew=None)
    running.settle()
    assert tenant.summary(mark, "web") == []


def test_a_renewal_annotation_that_is_there_from_the_start_is_fulfilled_by_the_first_issue(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    tenant.bot(roles=(role,))
    running.settle()
    mark = tenant.mark()
    tenant.output(annotations={"machinebot.dev/renew": "1"})
    tenant.ready()
    running.settle()
    assert tenant.summary(mark, "web") == FIRST_ISSUE
    assert tenant.status()["renewToken"] == "1"


# --- the Secret's name and looks ----------------------------------------------------------------------------------------


def test_a_new_name_for_the_secret_makes_it_there_and_deletes_the_old_one(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    issued(tenant, role)
    tenant.change("MachineOutput", "web", secret={"name": "other"})
    eventually("the old Secret is gone", lambda: not tenant.has("Secret", "web"))
    tenant.ready()
    running.settle()
    assert tenant.status()["secret"]["name"] == "other"
    assert tenant.secret("other").serial == tenant.status()["serial"]


def test_a_new_name_that_is_taken_leaves_the_old_secret_alone_until_the_name_is_free(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret = issued(tenant, role)
    foreign = tenant.plain_secret("other")
    tenant.change("MachineOutput", "web", secret={"name": "other"})
    tenant.refused("SecretConflict")
    running.settle()
    assert (tenant.secret().version, tenant.secret("other").version) == (secret.version, foreign.version)
    tenant.delete("Secret", "other")
    running.step(timedelta(seconds=30))
    eventually("the old Secret is gone", lambda: not tenant.has("Secret", "web"))
    assert tenant.ready()["status"]["secret"]["name"] == "other"


def test_the_old_secret_stays_until_the_new_one_is_stored(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret = issued(tenant, role)
    running.settle()
    with running.line.failing(lambda call: (call.verb, call.resource, call.name) == ("create", "secrets", "other")) as met:
        tenant.change("MachineOutput", "web", secret={"name": "other"})
        eventually("the new Secret cannot be stored", lambda: met)
        running.settle()
        assert tenant.secret().version == secret.version
    running.step(timedelta(seconds=30))
    eventually("the old Secret is gone", lambda: not tenant.has("Secret", "web"))
    assert tenant.ready()["status"]["secret"]["name"] == "other"


def test_labels_and_annotations_of_the_template_come_and_go_and_those_of_others_stay(tenant: Tenant, role: str) -> None:
    secret = issued(tenant, role, secret={"labels": {"team": "web", "tier": "1"}, "annotations": {"note": "one"}})
    assert secret.labels["team"] == "web"
    assert secret.annotations["note"] == "one"
    tenant.touch_secret("web", {"metadata": {"labels": {"foreign": "kept"}}})
    tenant.change("MachineOutput", "web", secret={"labels": {"team": None, "tier": "2"}, "annotations": {"note": None}})
    anew = tenant.issued_anew(secret, "GrantChanged")
    assert (anew.labels["tier"], anew.labels["foreign"]) == ("2", "kept")
    assert "team" not in anew.labels
    assert "note" not in anew.annotations
    assert anew.uid == secret.uid


# --- whose the Secret is ------------------------------------------------------------------------------------------------


FOREIGN: dict[str, dict[str, Any]] = {
    "plain": {},
    "owned by something else": {
        "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": True}]
    },
    "with our label and no owner": {"labels": {"app.kubernetes.io/managed-by": "machinebot"}},
}


@pytest.mark.parametrize("metadata", FOREIGN.values(), ids=FOREIGN)
def test_a_secret_of_somebody_else_is_never_touched_and_its_end_heals_the_output(
    tenant: Tenant, role: str, running: RunningOperator, metadata: dict[str, Any]
) -> None:
    metadata = copy.deepcopy(metadata)
    for owner in metadata.get("ownerReferences", []):
        owner["uid"] = tenant.service_account("owner")
        owner |= {"kind": "ServiceAccount", "name": "owner"}
    tenant.bot(roles=(role,))
    running.settle()
    foreign = tenant.plain_secret("web", **metadata)
    mark = tenant.mark()
    tenant.output()
    ready = tenant.refused("SecretConflict")
    assert "choose another secret.name" in ready["message"]
    running.settle()
    running.settle()
    assert tenant.secret().version == foreign.version
    assert tenant.summary(mark, "web").count("create secrets") <= 1
    assert [str(write) for write in tenant.writes(mark, "web") if write.code < 300] == ["patch machineoutputs/status"]
    assert [(event["type"], event["reason"]) for event in tenant.events("web")] == [("Warning", "SecretConflict")]
    tenant.delete("Secret", "web")
    running.step(timedelta(seconds=30))
    tenant.ready()
    assert set(tenant.secret().data) == IDENTITY_KEYS


def test_of_two_outputs_with_one_secret_one_wins_and_the_other_keeps_its_hands_off(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret = issued(tenant, role, "first", secret={"name": "shared"})
    running.settle()
    mark = tenant.mark()
    tenant.output("second", secret={"name": "shared"})
    assert "belongs to another output" in tenant.refused("SecretConflict", "second")["message"]
    for _ in range(3):
        running.settle()
        running.step(timedelta(seconds=30))
    running.settle()
    assert tenant.secret("shared").version == secret.version
    assert told(tenant.get("MachineOutput", "first"), "True")
    assert tenant.summary(mark, "first", "second", "shared") == ["patch machineoutputs/status"]
    tenant.delete("MachineOutput", "first")
    tenant.delete("Secret", "shared")  # as the garbage collector does, which knows a new kind only after half a minute
    running.step(timedelta(seconds=30))
    tenant.ready("second")
    assert tenant.secret("shared").owners[0]["name"] == "second"


TAKEN_AWAY: dict[str, tuple[dict[str, Any], str]] = {
    "our label": ({"labels": {"app.kubernetes.io/managed-by": None}}, "app.kubernetes.io/managed-by=machinebot"),
    "the owner": ({"ownerReferences": None}, "is not this output's"),
}


@pytest.mark.parametrize(("metadata", "words"), TAKEN_AWAY.values(), ids=TAKEN_AWAY)
def test_a_secret_that_no_longer_says_that_it_is_ours_is_left_alone_until_it_does_again(
    tenant: Tenant, role: str, running: RunningOperator, metadata: dict[str, Any], words: str
) -> None:
    secret = issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    touched = tenant.touch_secret("web", {"metadata": metadata})
    assert words in tenant.refused("SecretConflict")["message"]
    running.settle()
    assert tenant.secret().version == touched.version
    assert tenant.summary(mark, "web") == ["patch machineoutputs/status"]
    tenant.touch_secret("web", {"metadata": {"labels": secret.labels, "ownerReferences": secret.owners}})
    tenant.ready()
    running.settle()
    assert (tenant.secret().serial, tenant.status()["serial"]) == (secret.serial, secret.serial)
    assert tenant.summary(mark, "web") == ["patch machineoutputs/status"] * 2


# --- what can be lost ---------------------------------------------------------------------------------------------------


def test_a_lost_status_is_made_again_from_the_secret_alone(tenant: Tenant, role: str, running: RunningOperator) -> None:
    secret = issued(tenant, role)
    running.settle()
    before = tenant.status()
    mark = tenant.mark()
    tenant.put_status(None)
    tenant.ready()
    running.settle()
    after = tenant.status()
    assert [each.pop("conditions")[0]["reason"] for each in (before, after)] == ["Issued", "Issued"]
    assert after == before
    assert tenant.secret().version == secret.version
    assert tenant.summary(mark, "web") == ["patch machineoutputs/status"]


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"serial": "1"}, id="the serial"),
        pytest.param({"notAfter": "2099-01-01T00:00:00Z", "renewAt": "2099-01-01T00:00:00Z"}, id="a life without end"),
        pytest.param(
            {"notBefore": "2098-12-31T12:00:00Z", "notAfter": "2099-01-01T00:00:00Z", "renewAt": "2099-01-01T00:00:00Z"},
            id="a life in the future",
        ),
        pytest.param({"inputs": "0" * 64}, id="the inputs"),
        pytest.param({"authorities": {"identity": "0" * 16}}, id="the CAs"),
    ],
)
def test_a_forged_status_is_made_again_from_the_secret_alone(
    tenant: Tenant, role: str, running: RunningOperator, forged: dict[str, Any]
) -> None:
    secret = issued(tenant, role)
    running.settle()
    before = tenant.status()
    mark = tenant.mark()
    tenant.put_status(forged)
    eventually("the status is true again", lambda: tenant.status() == before)
    running.settle()
    assert tenant.secret().version == secret.version
    assert tenant.summary(mark, "web") == ["patch machineoutputs/status"]


def test_a_restored_older_secret_is_adopted_and_nothing_is_issued_while_it_is_valid(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    backup = issued(tenant, role)
    tenant.delete("Secret", "web")
    newer = tenant.issued_anew(backup, "SecretMissing")
    running.settle()
    mark = tenant.mark()
    body = copy.deepcopy(backup.body)
    body["metadata"] |= {"resourceVersion": newer.version, "uid": newer.uid}
    restored = StoredSecret(tenant.stage.cluster.replace(body))
    eventually("the status tells of the older one", lambda: tenant.status()["serial"] == backup.serial)
    running.settle()
    assert tenant.secret().version == restored.version
    assert told(tenant.get("MachineOutput", "web"), "True")
    assert tenant.summary(mark, "web") == ["patch machineoutputs/status"]


def test_a_restored_secret_that_was_deleted_meanwhile_is_adopted_too(tenant: Tenant, role: str, running: RunningOperator) -> None:
    backup = issued(tenant, role)
    running.stop()
    tenant.delete("Secret", "web")
    body = copy.deepcopy(backup.body)
    for name in ("resourceVersion", "uid"):
        del body["metadata"][name]
    tenant.stage.cluster.create(body)
    mark = tenant.mark()
    running.start()
    running.wait_leading()
    running.settle()
    assert tenant.secret().serial == tenant.status()["serial"] == backup.serial
    assert "update secrets" not in tenant.summary(mark)
    assert "create secrets" not in tenant.summary(mark)


def test_a_deleted_output_takes_its_secret_along_and_causes_no_event(tenant: Tenant, role: str, running: RunningOperator) -> None:
    issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    events = len(tenant.events("web"))
    tenant.delete("MachineOutput", "web")
    eventually("the Secret is gone", lambda: not tenant.has("Secret", "web"))
    running.settle()
    assert tenant.summary(mark, "web") == []
    assert len(tenant.events("web")) == events


def test_a_deleted_bot_withdraws_its_credentials_and_one_made_again_gets_new_ones(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret = issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    tenant.delete("MachineBot", "deployer")
    ready = tenant.refused("BotMissing")
    assert "create it, or correct spec.bot" in ready["message"]
    running.settle()
    assert not tenant.has("Secret", "web")
    assert {"serial", "secret", "notAfter", "renewAt", "granted"} & set(tenant.status()) == set()
    assert tenant.summary(mark, "web") == ["delete secrets", "patch machineoutputs/status"]
    tenant.bot(roles=(role,))
    tenant.delete("ServiceAccount", "machinebot-deployer")  # as the garbage collector does, up to half a minute later
    tenant.ready()
    tenant.issued_anew(secret, "SecretMissing")


# --- in which order -----------------------------------------------------------------------------------------------------


def test_authority_role_bot_and_output_may_be_applied_in_any_order(
    tenant: Tenant, stage: Stage, running: RunningOperator
) -> None:
    orders = list(permutations(("authority", "role", "bot", "output")))
    base = unique("order")

    def make(what: str, number: int) -> None:
        name = f"{base}-{number}"
        if what == "authority":
            stage.authority(name)
        elif what == "role":
            stage.role(name)
        elif what == "bot":
            tenant.bot(name, roles=(name,), authority=name)
        else:
            tenant.output(name, bot=name)

    for step in range(4):
        for number, order in enumerate(orders):
            make(order[step], number)
        running.settle()
    for number in range(len(orders)):
        tenant.ready(f"{base}-{number}")


def test_a_namespace_goes_away_with_everything_in_it_and_without_a_storm(
    stage: Stage, authority: str, role: str, running: RunningOperator
) -> None:
    with stage.tenant(authority) as tenant:
        for name in ("web", "db", "queue", "cache"):
            issued(tenant, role, name)
        running.settle()
        mark = tenant.mark()
        stage.cluster.delete("Namespace", "", tenant.namespace)
        eventually("the namespace is gone", lambda: stage.cluster.get("Namespace", "", tenant.namespace) is None)
        running.settle()
        running.step(timedelta(minutes=1))
        running.settle()
        writes = [write for write in tenant.writes(mark) if write.resource != "events"]
        assert len(writes) <= 12, writes
        assert not [key for sort in running.world._entries.values() for key in sort if key[0] == tenant.namespace]


# --- what the credential carries ----------------------------------------------------------------------------------------


def test_deny_wins_whichever_role_allows(tenant: Tenant, stage: Stage, tmp_path: Path) -> None:
    generous = stage.role(allow={"logins": ["root", "deploy", "backup-1", "{{ internal.logins }}"]})
    strict = stage.role(deny={"logins": ["root", "backup-*"]})
    tenant.bot(roles=(generous, strict), logins=["root", "web"])
    tenant.output()
    tenant.ready()
    shown = ssh_keygen_shows(write_all(tmp_path, tenant.secret().data)["key-cert.pub"])
    assert shown.principals == ("deploy", "web")


def test_an_output_carries_its_own_roles_only(tenant: Tenant, stage: Stage) -> None:
    one, other = stage.role(allow={"logins": ["one"]}), stage.role(allow={"logins": ["other"]})
    tenant.bot(roles=(one, other))
    tenant.output(roles=[one])
    tenant.output("all")
    tenant.ready()
    tenant.ready("all")
    assert tenant.status()["granted"]["logins"] == [{"name": "one", "role": one}]
    assert [login["name"] for login in tenant.status("all")["granted"]["logins"]] == ["one", "other"]


def test_ssh_options_are_the_strictest_of_the_roles(tenant: Tenant, stage: Stage, tmp_path: Path) -> None:
    one = stage.role(allow={"logins": ["deploy"]}, options={"forwardAgent": True})
    other = stage.role(allow={"logins": ["deploy"]}, options={"forwardAgent": True, "permitPTY": False})
    tenant.bot(roles=(one, other))
    tenant.output()
    tenant.ready()
    shown = ssh_keygen_shows(write_all(tmp_path, tenant.secret().data)["key-cert.pub"])
    assert set(shown.extensions) == {"permit-agent-forwarding", "permit-port-forwarding"}


def test_a_wish_for_48_hours_is_reduced_to_24_and_says_by_what(tenant: Tenant, role: str) -> None:
    issued(tenant, role, credentialTTL="48h")
    status = tenant.status()
    assert (status["ttl"], parse_rfc3339(status["notAfter"]) - parse_rfc3339(status["notBefore"])) == ("24h", timedelta(hours=24))
    assert status["ttlReducedBy"] == "the 24h maximum for machine credentials"


def test_the_lowest_limit_of_all_reduces_the_life_and_is_named(tenant: Tenant, stage: Stage) -> None:
    long, short = stage.role(), stage.role(**LOGINS, options={"maxSessionTTL": "6h"})
    low = stage.authority(maxTTL="2h")
    tenant.bot("by-role", roles=(long, short), maxSessionTTL="8h")
    tenant.bot("by-itself", roles=(long, short), maxSessionTTL="3h")
    tenant.bot("by-authority", roles=(long, short), authority=low)
    told_by = {}
    for bot in ("by-role", "by-itself", "by-authority"):
        tenant.output(bot, bot=bot)
        status = tenant.ready(bot)["status"]
        told_by[bot] = (status["ttl"], status["ttlReducedBy"])
    assert told_by == {
        "by-role": ("6h", f"role {short} (maxSessionTTL 6h)"),
        "by-itself": ("3h", "the bot's maxSessionTTL (3h)"),
        "by-authority": ("2h", "the authority's maxTTL (2h)"),
    }


def test_a_trait_that_reaches_two_roles_is_warned_of(tenant: Tenant, stage: Stage) -> None:
    one, other = sorted([stage.role(), stage.role()])
    tenant.bot(roles=(one, other))
    tenant.output(roles=[one])
    warnings = tenant.ready()["status"]["warnings"]
    assert len(warnings) == 1
    assert f"the trait 'logins' reaches the roles '{one}', '{other}'" in warnings[0]
    assert tenant.ready("deployer", "MachineBot")["status"]["warnings"] == warnings


def test_every_login_names_the_role_and_the_trait_that_it_came_from(tenant: Tenant, stage: Stage) -> None:
    role = stage.role(allow={"logins": ["{{ internal.logins }}", "{{ external.team }}-ci", "backup"]})
    tenant.bot(roles=(role,), traits={"team": ["web", "db"]})
    tenant.output()
    assert tenant.ready()["status"]["granted"]["logins"] == [
        {"name": "backup", "role": role},
        {"name": "db-ci", "role": role, "trait": "team"},
        {"name": "deploy", "role": role, "trait": "logins"},
        {"name": "web-ci", "role": role, "trait": "team"},
    ]


# --- what is refused ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """An output that cannot be fulfilled, and what its status says."""

    reason: str
    words: str
    roles: tuple[dict[str, Any], ...] = (LOGINS,)
    bot: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    authority: dict[str, Any] | None = None


BROKEN = {
    "a template that there is not": Broken(
        "UnknownTemplate",
        "write {{ external.nonsense }} for a trait of your own",
        ({"allow": {"logins": ["{{ internal.nonsense }}"]}},),
    ),
    "an unknown role": Broken("RoleNotFound", "create it, or correct the bot's spec.roles", bot={"roles": ["made-by-nobody"]}),
    "a role of another namespace": Broken(
        "RoleNotForNamespace", "an administrator can add the namespace", ({**LOGINS, "namespaces": ["elsewhere"]},)
    ),
    "a role for nobody": Broken("RoleNotForNamespace", "an administrator can add the namespace", ({**LOGINS, "namespaces": []},)),
    "a role with per-session MFA": Broken(
        "SessionMFARequired", "give the bot a role without it", ({**LOGINS, "options": {"requireSessionMFA": True}},)
    ),
    "a role with Device Trust": Broken(
        "DeviceTrustRequired", "use `required-for-humans`", ({**LOGINS, "options": {"deviceTrustMode": "required"}},)
    ),
    "per-session MFA of the whole cluster": Broken(
        "SessionMFARequired", "require it on the roles that people use", authority={"requireSessionMFA": True}
    ),
    "Device Trust of the whole cluster": Broken(
        "DeviceTrustRequired", "use `required-for-humans`", authority={"deviceTrustMode": "required"}
    ),
    "an authority of another namespace": Broken(
        "AuthorityNotForNamespace", "name another one in the bot's spec.authority", authority={"namespaces": ["elsewhere"]}
    ),
    "no login at all": Broken("NoLogins", "put logins into the bot's spec.logins", bot={"logins": []}),
    "a trait with a comma": Broken(
        "InvalidLogin",
        "no blank, comma or newline",
        ({"allow": {"logins": ["{{ external.team }}"]}},),
        {"traits": {"team": ["a,root"]}},
    ),
    "a trait with a blank": Broken(
        "InvalidLogin",
        "no blank, comma or newline",
        ({"allow": {"logins": ["{{ external.team }}"]}},),
        {"traits": {"team": ["a root"]}},
    ),
    "a role that the bot does not have": Broken(
        "RoleNotOfBot", "add it to the bot's spec.roles or remove it from the output's", output={"roles": ["access"]}
    ),
    "a host name that no role allows": Broken(
        "PrincipalNotAllowed",
        "an administrator can add it to allow.hostPrincipals",
        (HOST_ROLE,),
        output={"sshHost": {"principals": ["web.elsewhere.test"]}},
    ),
    "a host name that is denied": Broken(
        "PrincipalDenied",
        "denies the host name 'a.node.example.test'",
        ({**HOST_ROLE, "deny": {"hostPrincipals": ["a.*"]}},),
        output={"sshHost": {"principals": ["a.node.example.test"]}},
    ),
    "a source address that is no network": Broken(
        "InvalidSourceAddress", "write CIDR such as 10.0.0.0/8", ({**LOGINS, "options": {"sourceAddresses": ["10.0.0.1/8"]}},)
    ),
    "source addresses with nothing in common": Broken(
        "NoSourceAddress",
        "use one output for each role",
        (
            {**LOGINS, "options": {"sourceAddresses": ["10.0.0.0/8"]}},
            {**LOGINS, "options": {"sourceAddresses": ["192.168.0.0/16"]}},
        ),
    ),
    "an unknown bot": Broken("BotMissing", "create it, or correct spec.bot", output={"bot": "made-by-nobody"}),
    "an unknown authority": Broken(
        "AuthorityMissing", "create it, or correct the bot's spec.authority", bot={"authority": "made-by-nobody"}
    ),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN)
def test_what_is_broken_says_so_on_itself_and_harms_no_neighbour(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator, case: Broken
) -> None:
    neighbour = issued(tenant, role, "neighbour")
    spec = {"roles": tuple(stage.role(**rules) for rules in case.roles), **case.bot}
    if case.authority is not None:
        spec["authority"] = stage.authority(**case.authority)
        stage.authority_ready(spec["authority"])
    tenant.bot("broken", **spec)
    running.settle()
    mark = tenant.mark()
    tenant.output("broken", **{"bot": "broken", **case.output})
    ready = tenant.refused(case.reason, "broken")
    assert case.words in ready["message"]
    issued(tenant, role, "later")
    running.settle()
    assert [(event["type"], event["reason"]) for event in tenant.events("broken")] == [("Warning", case.reason)]
    assert not tenant.has("Secret", "broken")
    assert tenant.summary(mark, "broken") in (
        ["patch machineoutputs/status"],
        ["patch machineoutputs/status", "patch machinebots/status"],
    )
    assert tenant.secret("neighbour").version == neighbour.version
    assert tenant.summary(mark, "neighbour") == []


def test_a_newline_in_a_trait_is_refused_before_it_is_stored(tenant: Tenant, role: str) -> None:
    with pytest.raises(RefusedError, match="without newlines"):
        tenant.bot(roles=(role,), traits={"team": ["a\nroot"]})


def test_what_was_broken_becomes_ready_once_it_is_mended(tenant: Tenant, stage: Stage) -> None:
    role = stage.role(namespaces=("elsewhere",), **LOGINS)
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.refused("RoleNotForNamespace")
    stage.cluster.patch("MachineRole", "", role, {"spec": {"namespaces": [tenant.namespace]}})
    tenant.ready()
    tenant.ready("deployer", "MachineBot")


def test_a_credential_whose_role_is_withdrawn_stays_until_its_end_and_is_said_to_be_refused(
    tenant: Tenant, stage: Stage, role: str, running: RunningOperator
) -> None:
    secret = issued(tenant, role)
    running.settle()
    mark = tenant.mark()
    stage.cluster.delete("MachineRole", "", role)
    tenant.refused("RoleNotFound")
    running.settle()
    assert tenant.secret().version == secret.version
    assert tenant.summary(mark, "web") == ["patch machineoutputs/status"]
    stage.role(role)
    tenant.ready()
    running.settle()
    assert tenant.secret().version == secret.version


# --- what fails for a while ---------------------------------------------------------------------------------------------


def secret_writes(tenant: Tenant) -> Callable[[Call], bool]:
    return lambda call: call.namespace == tenant.namespace and call.resource == "secrets" and call.verb in ("create", "update")


def test_a_first_issue_that_fails_is_tried_again_and_counted_in_status(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    tenant.bot(roles=(role,))
    running.settle()
    with running.line.failing(secret_writes(tenant), Unavailable("ApiServerAway", "no room on the disk")):
        tenant.output()
        ready = tenant.refused("ApiServerAway")
        assert ready["message"] == "no room on the disk"
        assert tenant.status()["failedAttempts"] == 1
        running.step(timedelta(seconds=5))
        eventually("it is tried again", lambda: tenant.status()["failedAttempts"] == 2)
    running.step(timedelta(seconds=10))
    status = tenant.ready()["status"]
    assert not status.get("failedAttempts")
    assert "retryAt" not in status


def test_a_renewal_that_fails_leaves_the_output_ready_and_says_so_beside(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    secret = issued(tenant, role)
    running.settle()
    with running.line.failing(secret_writes(tenant)):
        tenant.annotate("web", renew="now")
        eventually("the trouble shows", lambda: condition(tenant.get("MachineOutput", "web"), "Renewing"))
        body = tenant.get("MachineOutput", "web")
        renewing = condition(body, "Renewing")
        assert renewing is not None
        assert (renewing["status"], renewing["reason"]) == ("False", "ApiServerAway")
        assert told(body, "True")
        assert tenant.secret().version == secret.version
    running.step(timedelta(seconds=10))
    tenant.issued_anew(secret, "Requested")
    assert condition(tenant.get("MachineOutput", "web"), "Renewing") is None


def attempted_after(tenant: Tenant, attempts: int) -> bool:
    """Whether there were more failed attempts than these."""
    return int(tenant.status()["failedAttempts"]) > attempts


def test_the_pauses_between_attempts_outlive_a_restart(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    running.settle()
    with running.line.failing(secret_writes(tenant)):
        tenant.output()
        tenant.refused("ApiServerAway")
        while (before := tenant.status())["failedAttempts"] < 5:
            running.step(parse_rfc3339(before["retryAt"]) - running.clock.now())
            eventually("one more attempt", functools.partial(attempted_after, tenant, before["failedAttempts"]))
        running.stop()
    running.start()
    running.wait_leading()
    mark = tenant.mark()
    assert parse_rfc3339(before["retryAt"]) - running.clock.now() > timedelta(seconds=20)
    running.settle()
    assert tenant.summary(mark, "web") == []
    running.step(timedelta(minutes=1))
    tenant.ready()


def test_an_output_that_changes_while_it_is_issued_is_looked_at_anew_and_issued_once(
    tenant: Tenant, role: str, running: RunningOperator
) -> None:
    """The status was worked out from an output that is no longer the one stored: one conflict, no pause, no second Secret."""
    tenant.bot(roles=(role,))
    running.settle()
    mark = tenant.mark()
    changed: list[str] = []

    def change(call: Call) -> bool:
        if not changed and (call.resource, call.namespace) == ("machineoutputs/status", tenant.namespace):
            changed.append(call.name)
            tenant.annotate(call.name, note="by somebody else")
        return False

    with running.line.failing(change):
        tenant.output()
        tenant.ready()
    running.settle()
    assert changed == ["web"]
    written = [(str(write), write.code) for write in tenant.writes(mark, "web") if write.resource != "events"]
    assert written == [("create secrets", 201), ("patch machineoutputs/status", 409), ("patch machineoutputs/status", 200)]


def test_a_status_that_cannot_be_written_costs_no_second_issue(tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    running.settle()
    mark = tenant.mark()
    with running.line.failing(
        lambda call: call.resource == "machineoutputs/status" and call.namespace == tenant.namespace
    ) as met:
        tenant.output()
        eventually("the status cannot be written", lambda: met)
        secret = tenant.secret()
    running.step(timedelta(seconds=30))
    tenant.ready()
    running.settle()
    assert tenant.status()["serial"] == secret.serial
    assert tenant.summary(mark, "web") == FIRST_ISSUE
