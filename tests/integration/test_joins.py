"""The join API on a real API server: joins, renewals, issues and locks, over real TLS."""

import json
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from controlplane.cluster import ControlPlane
from machinebot.joins.methods.token import secret_hash
from machinebot.protocol.openapi import document
from machinebot.reconcile.ledger import Ledger
from support.inprocess import RunningOperator
from support.joining import SSH, X509, Answered, Client, client_of, join_token, pod_token, request, wanted
from support.stage import API_VERSION, Stage, Tenant, unique
from support.verifier import fetch, trusting
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = [pytest.mark.cluster]
pytest_plugins = ["support.fixtures"]

ROOT = Path(__file__).parents[2]
SECRET = "c" * 64
EXPIRES = "2099-01-01T00:00:00Z"


@pytest.fixture
def client(stage: Stage, running: RunningOperator) -> Client:
    eventually("it is ready", lambda: running.get("/readyz")[0] == 200)
    return client_of(stage, running.https_port)


@pytest.fixture
def bot(tenant: Tenant, role: str) -> str:
    return tenant.bot(roles=(role,))


@pytest.fixture
def runners(tenant: Tenant, bot: str) -> str:
    """A join token for the pods of the namespace's ServiceAccount `default`."""
    return join_token(tenant, bot=bot, kubernetes={"allow": [{"serviceAccount": f"{tenant.namespace}:default"}]})


@pytest.fixture
def secret(tenant: Tenant, bot: str) -> str:
    """A join token for a secret."""
    return join_token(tenant, "machine", bot=bot, expires=EXPIRES, token={"secretHash": secret_hash(SECRET)})


@pytest.fixture
def proof(plane: ControlPlane, tenant: Tenant) -> dict[str, str]:
    """The proof of a pod of the namespace."""
    return {"token": pod_token(plane, tenant.namespace, audience=CLUSTER_NAME)}


def joined(client: Client, tenant: Tenant, name: str, proof: dict[str, str], **fields: Any) -> Answered:
    """Join once the replica has seen the join token."""

    def look() -> Answered:
        answered = client.join(tenant.namespace, name, proof, **fields)
        assert answered.status == 200, answered
        return answered

    return eventually(f"joined by {name}", look)


def seen(client: Client, tenant: Tenant, name: str) -> None:
    """Wait until the replica has seen the join token."""
    body = {"namespace": tenant.namespace, "joinToken": name, "publicKey": client.public_key}
    eventually(f"{name} is seen", lambda: client.post("/v1/challenge", body).status == 200)


# --- joining ------------------------------------------------------------------------------------------------------------


def test_a_pod_joins_and_gets_its_credentials_in_one_request(
    client: Client, tenant: Tenant, runners: str, proof: dict[str, str]
) -> None:
    mark = tenant.mark()
    answered = joined(client, tenant, runners, proof, outputs=[wanted(SSH), wanted(X509)])
    identity, (ssh, tls) = answered.body["identity"], answered.body["outputs"]
    assert (identity["namespace"], identity["bot"], identity["generation"]) == (tenant.namespace, "deployer", 1)
    certificate = load_ssh_public_identity(ssh["credential"]["sshCertificate"].encode())
    assert isinstance(certificate, SSHCertificate)
    assert certificate.valid_principals == [b"deploy"]
    assert x509.load_pem_x509_certificate(tls["credential"]["x509Certificate"].encode())
    assert {anchor["purpose"] for anchor in answered.body["trust"]["anchors"]} >= {"ssh-host", "identity"}
    assert [line for line in tenant.summary(mark, runners) if "status" not in line] == []


def test_no_object_is_written_for_a_join_that_a_platform_vouches_for(
    running: RunningOperator, client: Client, tenant: Tenant, runners: str, proof: dict[str, str]
) -> None:
    joined(client, tenant, runners, proof)
    tenant.ready("deployer", "MachineBot")
    running.settle()
    mark = tenant.mark()
    for _ in range(3):
        assert client.join(tenant.namespace, runners, proof).status == 200
    # Who was here is written every half minute, which may be now.
    assert tenant.summary(mark) in ([], ["patch machinebots/status"])
    ledger: Ledger = running.operator._ledger
    running.call(ledger.flush)
    assert len(tenant.writes(mark, "deployer")) in {1, 2}
    instances = tenant.get("MachineBot", "deployer")["status"]["instances"]
    assert [each["id"] for each in instances] == [client.identity and client.identity["instance"]]
    assert instances[0]["generation"] == 4
    assert instances[0]["attributes"]["serviceAccount"] == f"{tenant.namespace}:default"


def test_an_identity_gets_credentials_over_mutual_tls(
    client: Client, tenant: Tenant, runners: str, proof: dict[str, str]
) -> None:
    joined(client, tenant, runners, proof)
    answered = client.issue(SSH, {**X509, "roles": ["root"]})
    ssh, refused = answered.body["outputs"]
    assert ssh["credential"]["names"] == {"logins": ["deploy"]}
    assert refused["problem"]["reason"] == "RoleNotOfBot"


def test_without_an_identity_there_is_nothing(client: Client, tenant: Tenant, runners: str) -> None:
    seen(client, tenant, runners)
    assert (client.issue(SSH).status, client.issue(SSH).reason) == (403, "IdentityMissing")
    assert client.renew().reason == "IdentityMissing"


def test_a_credential_of_an_output_is_no_identity(client: Client, tenant: Tenant, runners: str, proof: dict[str, str]) -> None:
    """TLS itself refuses a certificate of another CA: the connection ends before anything is asked."""
    answered = joined(client, tenant, runners, proof, outputs=[{**X509, "publicKey": client.public_key}])
    assert client.identity is not None
    client.identity["certificate"] = answered.body["outputs"][0]["credential"]["x509Certificate"]
    with pytest.raises(OSError, match=r"(?i)alert|eof|reset|closed"):
        client.issue(SSH)


@pytest.mark.parametrize(
    ("audience", "account", "reason"),
    [
        pytest.param("https://elsewhere.test", "default", "TokenNotAuthenticated", id="for another audience"),
        pytest.param(CLUSTER_NAME, "other", "RulesNotMatched", id="of another ServiceAccount"),
    ],
)
def test_tokens_that_let_nobody_in(
    plane: ControlPlane, client: Client, tenant: Tenant, runners: str, audience: str, account: str, reason: str
) -> None:
    seen(client, tenant, runners)
    if account != "default":
        tenant.service_account(account)
    token = pod_token(plane, tenant.namespace, account, audience=audience)
    answered = client.join(tenant.namespace, runners, {"token": token})
    assert (answered.status, answered.reason) == (403, reason)
    assert token not in json.dumps(answered.body)


def test_a_token_that_is_bound_to_no_pod_lets_nobody_in(
    plane: ControlPlane, client: Client, tenant: Tenant, runners: str
) -> None:
    seen(client, tenant, runners)
    token = plane.kubectl("create", "token", "default", f"--namespace={tenant.namespace}", f"--audience={CLUSTER_NAME}").strip()
    assert client.join(tenant.namespace, runners, {"token": token}).reason == "TokenNotBound"


def test_a_pod_that_is_gone_lets_nobody_in(plane: ControlPlane, client: Client, tenant: Tenant, runners: str, proof: Any) -> None:
    joined(client, tenant, runners, proof)
    plane.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", f"--namespace={tenant.namespace}")

    def refused() -> bool:
        return client.join(tenant.namespace, runners, proof).reason == "TokenNotAuthenticated"

    eventually("the API server takes the token no more", refused)


# --- the keys of a cluster ----------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(plane: ControlPlane, tenant: Tenant, bot: str) -> str:
    """A join token for pods of a cluster whose keys are given: that it is our own changes nothing."""
    keys = plane.kubectl("get", "--raw", "/openid/v1/jwks")
    rule = {"serviceAccount": f"{tenant.namespace}:default"}
    return join_token(
        tenant, "elsewhere", bot=bot, kubernetes={"type": "static_jwks", "staticJWKS": {"jwks": keys}, "allow": [rule]}
    )


def test_a_pod_of_another_cluster_joins_by_the_keys_of_that_cluster(
    client: Client, tenant: Tenant, elsewhere: str, proof: dict[str, str]
) -> None:
    answered = joined(client, tenant, elsewhere, proof, outputs=[wanted(SSH), wanted(X509)])
    assert all("credential" in each for each in answered.body["outputs"])


def test_a_token_of_another_cluster_that_lives_long_is_refused(
    plane: ControlPlane, client: Client, tenant: Tenant, elsewhere: str
) -> None:
    seen(client, tenant, elsewhere)
    token = pod_token(plane, tenant.namespace, audience=CLUSTER_NAME, seconds=3600)
    assert client.join(tenant.namespace, elsewhere, {"token": token}).reason == "TokenTooLongLived"


def test_a_token_with_another_signature_is_refused(client: Client, tenant: Tenant, elsewhere: str, proof: dict[str, str]) -> None:
    seen(client, tenant, elsewhere)
    head, _, signature = proof["token"].rpartition(".")
    forged = f"{head}.{signature[::-1]}"
    assert client.join(tenant.namespace, elsewhere, {"token": forged}).reason in ("SignatureInvalid", "TokenUnreadable")


# --- secrets ------------------------------------------------------------------------------------------------------------


def test_of_two_clients_that_race_for_one_secret_one_joins(
    stage: Stage, running: RunningOperator, client: Client, tenant: Tenant, secret: str
) -> None:
    seen(client, tenant, secret)
    clients = [client_of(stage, running.https_port) for _ in range(4)]
    answers: list[Answered] = []
    barrier = threading.Barrier(len(clients))

    def race(each: Client) -> None:
        barrier.wait()
        answers.append(each.join(tenant.namespace, secret, {"secret": SECRET}))

    threads = [threading.Thread(target=race, args=(each,)) for each in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.status for each in answers) == [200, *[403] * 3], answers
    assert {each.reason for each in answers if each.status != 200} == {"SecretUsed"}


def test_a_secret_is_used_up_and_its_identity_is_renewed(
    running: RunningOperator, client: Client, tenant: Tenant, secret: str
) -> None:
    joined(client, tenant, secret, {"secret": SECRET})
    first = client.identity
    assert first is not None
    assert first["renewable"]
    answered = client.renew(outputs=[wanted(SSH)])
    assert answered.status == 200, answered
    assert (answered.body["identity"]["instance"], answered.body["identity"]["generation"]) == (first["instance"], 2)
    assert "credential" in answered.body["outputs"][0]
    instance = tenant.get("MachineJoinToken", secret)["status"]["instance"]
    assert (instance["id"], instance["generation"]) == (first["instance"], 2)
    running.settle()
    assert tenant.get("MachineJoinToken", secret)["status"]["instance"] == instance


def test_a_lost_answer_to_a_renewal_is_given_again(client: Client, tenant: Tenant, secret: str) -> None:
    joined(client, tenant, secret, {"secret": SECRET})
    before, old_key = client.identity, client.identity_key
    lost = client.renew()
    assert lost.status == 200
    client.identity, client.identity_key = before, old_key
    again = client.renew(publicKey=client.public_key)
    assert again.body["identity"]["generation"] == 2
    assert client.renew().body["identity"]["generation"] == 3


def test_a_copied_identity_locks_the_instance(stage: Stage, client: Client, tenant: Tenant, secret: str) -> None:
    joined(client, tenant, secret, {"secret": SECRET})
    before, old_key = client.identity, client.identity_key
    assert before is not None
    assert client.renew().status == 200  # one of the two holders
    client.identity, client.identity_key = before, old_key
    assert client.renew().reason == "GenerationMismatch"  # the other one
    lock = stage.cluster.get("MachineLock", "", f"instance-{before['instance']}")
    assert lock is not None
    assert lock["spec"]["target"] == {"instance": before["instance"]}
    assert client.renew().reason == "Locked"
    stage.cluster.delete("MachineLock", "", lock["metadata"]["name"])


def test_a_lock_that_a_person_has_ended_keeps_no_later_one_off(stage: Stage, client: Client, tenant: Tenant, secret: str) -> None:
    joined(client, tenant, secret, {"secret": SECRET})
    before, old_key = client.identity, client.identity_key
    assert before is not None
    target = {"instance": before["instance"]}
    name = f"instance-{before['instance']}"
    over = {"target": target, "expires": "2020-01-01T00:00:00Z"}
    stage.cluster.create({"apiVersion": API_VERSION, "kind": "MachineLock", "metadata": {"name": name}, "spec": over})
    assert client.renew().status == 200
    client.identity, client.identity_key = before, old_key
    assert client.renew().reason == "GenerationMismatch"
    assert client.renew().reason == "Locked"
    lock = stage.cluster.get("MachineLock", "", f"{name}-1")
    assert lock is not None
    assert lock["spec"]["target"] == target
    for each in (name, f"{name}-1"):
        stage.cluster.delete("MachineLock", "", each)


# --- locks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["bot", "instance", "joinToken", "role"])
def test_a_lock_stops_joins_and_issues(
    stage: Stage, client: Client, tenant: Tenant, role: str, runners: str, proof: dict[str, str], target: str
) -> None:
    joined(client, tenant, runners, proof)
    assert client.identity is not None
    place = {"namespace": tenant.namespace}
    targets = {
        "bot": {**place, "name": "deployer"},
        "instance": client.identity["instance"],
        "joinToken": {**place, "name": runners},
        "role": role,
    }
    name = unique("lock")
    stage.cluster.create(
        {
            "apiVersion": "machinebot.dev/v1alpha1",
            "kind": "MachineLock",
            "metadata": {"name": name},
            "spec": {"target": {target: targets[target]}, "message": "leaked key"},
        }
    )

    def refused() -> bool:
        answered = client.issue(SSH)
        problem = answered.body if answered.status != 200 else answered.body["outputs"][0].get("problem", {})
        return bool(problem.get("reason") == "Locked" and "leaked key" in problem["message"])

    eventually("it is locked", refused)
    answered = client.join(tenant.namespace, runners, proof, outputs=[wanted(SSH)])
    told = answered.body if answered.status != 200 else answered.body["outputs"][0]["problem"]
    assert told["reason"] == "Locked"
    stage.cluster.delete("MachineLock", "", name)
    eventually("it is unlocked", lambda: client.issue(SSH).body.get("outputs", [{}])[0].get("credential") is not None)


def test_a_lock_is_in_force_within_a_second(
    stage: Stage, client: Client, tenant: Tenant, runners: str, proof: dict[str, str]
) -> None:
    """The best of some: what others do on this machine is no fault of the product."""
    joined(client, tenant, runners, proof)
    target = {"bot": {"namespace": tenant.namespace, "name": "deployer"}}
    seconds = []
    for _ in range(3):
        name = unique("lock")
        lock = {"apiVersion": API_VERSION, "kind": "MachineLock", "metadata": {"name": name}, "spec": {"target": target}}
        stage.cluster.create(lock)
        begun = time.monotonic()
        eventually("it is locked", lambda: client.issue(SSH).reason == "Locked", interval=0.01)
        seconds.append(time.monotonic() - begun)
        stage.cluster.delete("MachineLock", "", name)
        eventually("it is unlocked", lambda: client.issue(SSH).status == 200)
    assert min(seconds) < 1.0, seconds


def test_a_join_token_that_is_deleted_stops_who_joined_by_it(client: Client, tenant: Tenant, runners: str, proof: Any) -> None:
    joined(client, tenant, runners, proof)
    tenant.delete("MachineJoinToken", runners)
    eventually("it counts", lambda: client.issue(SSH).reason == "JoinTokenUnknown")


def test_an_identity_ends(running: RunningOperator, client: Client, tenant: Tenant, runners: str, proof: dict[str, str]) -> None:
    joined(client, tenant, runners, proof)
    running.step(timedelta(minutes=61))
    assert client.issue(SSH).reason == "IdentityExpired"
    running.step(-timedelta(minutes=61))


# --- messages -----------------------------------------------------------------------------------------------------------

BAD = {
    "no JSON": b"hello",
    "a list": b"[]",
    "a key twice": b'{"namespace":"ci","namespace":"prod","joinToken":"a","publicKey":"b","proof":{}}',
    "not a number": b'{"namespace":NaN}',
    "no UTF-8": b'{"namespace":"\xff"}',
    "nothing": b"{}",
    "an unknown field": b'{"namespace":"ci","joinToken":"a","publicKey":"b","proof":{},"admin":true}',
    "a key that is no base64": b'{"namespace":"ci","joinToken":"a","publicKey":"%%%","proof":{}}',
    "deep": b'{"proof":' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
@pytest.mark.parametrize("path", ["/v1/join", "/v1/challenge"])
def test_messages_that_are_none(client: Client, path: str, body: bytes) -> None:
    answered = client.post(path, body)
    assert answered.status in (400, 403)
    assert set(answered.body) == {"reason", "message"}


def test_a_message_that_is_too_long(client: Client) -> None:
    answered = client.post("/v1/join", b'{"namespace":"' + b"x" * 70_000 + b'"}')
    assert (answered.status, set(answered.body)) == (413, {"reason", "message"})


def test_only_json_is_read(client: Client) -> None:
    assert client.post("/v1/join", b"{}", content_type="text/plain").reason == "MessageUnreadable"


def test_two_outputs_of_one_name(client: Client, tenant: Tenant, runners: str, proof: dict[str, str]) -> None:
    seen(client, tenant, runners)
    answered = client.join(tenant.namespace, runners, proof, outputs=[wanted(SSH), wanted(SSH)])
    assert (answered.status, answered.reason) == (400, "MessageUnreadable")


def test_no_cookie_and_no_word_for_browsers(client: Client, tenant: Tenant, runners: str, proof: dict[str, str]) -> None:
    answered = joined(client, tenant, runners, proof)
    names = {name.lower() for name in answered.headers}
    assert not names & {"set-cookie", "access-control-allow-origin"}
    assert answered.headers["Cache-Control"] == "no-store"


def test_the_document_of_the_api_is_the_one_that_is_checked_in(stage: Stage, running: RunningOperator, client: Client) -> None:
    assert stage
    served = fetch(running.https_port, "/v1/openapi.json", trusting(client.authority)).body
    assert served == document() == (ROOT / "docs" / "openapi.json").read_bytes()


def test_the_trust_bundle_is_public(running: RunningOperator, client: Client) -> None:
    answer = fetch(running.https_port, "/v1/trust", trusting(client.authority))
    assert answer.status == 200
    bundle = json.loads(answer.body)
    assert bundle["clusterName"] == CLUSTER_NAME
    assert "PRIVATE" not in answer.body.decode()


# --- limits and replicas ------------------------------------------------------------------------------------------------


def test_who_asks_too_often_is_told_when_to_come_again(stage: Stage, client: Client) -> None:
    with stage.operator(join_address_rate=0.2, join_address_burst=3) as slow:
        context = trusting(client.authority)

        def ask() -> Answered:
            return request(slow.https_port, context, "/v1/challenge", {"namespace": "x", "joinToken": "y", "publicKey": "eA=="})

        slow.wait_serving()
        answers = [ask() for _ in range(4)]
        assert [each.status for each in answers[:3]] == [answers[0].status] * 3
        assert (answers[3].status, answers[3].reason) == (429, "TooManyRequests")
        assert 1 <= int(answers[3].headers["Retry-After"]) <= 5


def test_a_join_token_has_a_limit_of_its_own(stage: Stage, client: Client, tenant: Tenant, runners: str, secret: str) -> None:
    seen(client, tenant, runners)
    with stage.operator(join_token_rate=0.2, join_token_burst=2) as slow:
        other = client_of(stage, slow.https_port)
        body = {"namespace": tenant.namespace, "publicKey": other.public_key}
        eventually("it serves", lambda: slow.get("/readyz")[0] == 200)
        eventually("it knows", lambda: other.post("/v1/challenge", {**body, "joinToken": secret}).status in (200, 429))
        answers = [other.post("/v1/challenge", {**body, "joinToken": runners}) for _ in range(3)]
        assert [each.status for each in answers] == [200, 200, 429]


def test_a_replica_that_stands_by_lets_bots_join(stage: Stage, client: Client, tenant: Tenant, runners: str, proof: Any) -> None:
    joined(client, tenant, runners, proof)
    with stage.operator(identity="standby") as standby:
        eventually("it is ready", lambda: standby.get("/readyz")[0] == 200)
        assert not standby.operator.leads
        other = client_of(stage, standby.https_port)
        answered = joined(other, tenant, runners, proof, outputs=[wanted(SSH)])
        assert "credential" in answered.body["outputs"][0]
        # An identity of one replica is one of all.
        client.port = standby.https_port
        assert client.issue(SSH).status == 200
