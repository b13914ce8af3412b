"""Authorities on a real API server: CA keys are made once, kept, rotated before they end, and never guessed."""

import asyncio
import base64
import copy
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controlplane.cluster import ControlPlane
from machinebot.authority.stored import load
from machinebot.clock import SystemClock
from machinebot.errors import Conflict
from machinebot.kube.client import ApiServer, KubeClient, load_configuration
from machinebot.kube.events import EventRecorder
from machinebot.kube.resources import AUTHORITIES
from machinebot.kube.secrets import SecretStore
from machinebot.kube.tokens import TokenReviews
from machinebot.metrics import Metrics
from machinebot.policy.credential import Purpose, TrustAnchor
from machinebot.reconcile.authorities import Authorities, AuthorityReconciler, secret_name
from machinebot.reconcile.keys import Key, Sort
from machinebot.reconcile.world import World
from support.credentials import StoredSecret, openssl_verifies, ssh_keygen_shows, write_all
from support.inprocess import RunningOperator
from support.line import Call
from support.stage import Stage, Tenant, condition, told, unique
from support.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cleared")]
pytest_plugins = ["support.fixtures"]

CONTENT = "generations.json"


def ca_secrets(stage: Stage, name: str) -> dict[Purpose, StoredSecret]:
    """The CA Secrets of an authority that are there."""
    return {purpose: secret for purpose in Purpose if (secret := stage.ca_secret(name, purpose)) is not None}


def of_authority(name: str) -> Callable[[Call], bool]:
    names = {secret_name(name, purpose) for purpose in Purpose}
    return lambda call: call.resource == "secrets" and call.name in names


def ca_writes(stage: Stage, mark: int, name: str) -> list[str]:
    """What the operator wrote to the CA Secrets of the authority since the mark."""
    names = {secret_name(name, purpose) for purpose in Purpose}
    writes = stage.audit.since(mark, user=stage.release.operator_user, namespace=stage.own_namespace)
    return [str(write) for write in writes if write.name in names]


def authority(stage: Stage, name: str) -> dict[str, Any]:
    body = stage.cluster.get("MachineAuthority", "", name)
    assert body is not None
    return body


def refused(stage: Stage, name: str, reason: str) -> str:
    """Wait until the authority is not ready for that reason; returns the message."""
    body = eventually(f"{name}: {reason}", lambda: stage._told("MachineAuthority", "", name, "False", reason))
    return str((condition(body) or {})["message"])


# --- made once ----------------------------------------------------------------------------------------------------------


def test_a_ca_for_each_purpose_is_made_once_and_told_in_status(stage: Stage, running: RunningOperator) -> None:
    mark = stage.audit.mark()
    name = stage.authority()
    body = stage.authority_ready(name)
    secrets = ca_secrets(stage, name)
    assert set(secrets) == set(Purpose)
    for purpose, secret in secrets.items():
        assert secret.labels == {"app.kubernetes.io/managed-by": "machinebot", "machinebot.dev/authority": name}
        assert secret.owners == []
        (generation,) = load(purpose, secret.data[CONTENT])
        assert generation.state == "Active"
    published = {(anchor["purpose"], anchor["state"]) for anchor in body["status"]["authorities"]}
    assert published == {(str(purpose), "Active") for purpose in Purpose}
    for _ in range(2):
        running.settle()
    assert ca_writes(stage, mark, name) == ["create secrets"] * len(Purpose)
    running.stop()
    running.start()
    running.wait_leading()
    running.settle()
    assert ca_writes(stage, mark, name) == ["create secrets"] * len(Purpose)


def test_no_two_cas_share_a_key(stage: Stage, running: RunningOperator) -> None:
    assert running.running
    names = [stage.authority(), stage.authority()]
    bodies = [stage.authority_ready(name) for name in names]
    fingerprints = [anchor["fingerprint"] for body in bodies for anchor in body["status"]["authorities"]]
    assert len(set(fingerprints)) == len(fingerprints) == 2 * len(Purpose)


def test_nothing_secret_stands_in_the_status(stage: Stage, running: RunningOperator) -> None:
    assert running.running
    name = stage.authority()
    text = json.dumps(stage.authority_ready(name))
    for secret in ca_secrets(stage, name).values():
        for generation in json.loads(secret.data[CONTENT])["generations"]:
            lines = generation["privateKey"].splitlines()
            assert not [line for line in lines if line in text]


@dataclass(frozen=True)
class Starting:
    """What one operator has when it looks at an authority for the first time."""

    world: World
    authorities: Authorities
    reconciler: AuthorityReconciler

    @classmethod
    def make(cls, client: KubeClient, namespace: str) -> "Starting":
        world, metrics = World(), Metrics(CollectorRegistry())
        authorities = Authorities(world, TokenReviews(client), "https://machinebot.test")
        reconciler = AuthorityReconciler(
            client=client,
            world=world,
            secrets=SecretStore(client),
            authorities=authorities,
            events=EventRecorder(client, metrics, instance="test"),
            clock=SystemClock(),
            namespace=namespace,
            publication=lambda _: None,
            enqueue=lambda _: None,
        )
        return cls(world, authorities, reconciler)

    async def look(self, stage: Stage, name: str) -> None:
        """Reconcile as often as another one writes the status meanwhile."""
        while True:
            self.world.observe(AUTHORITIES, authority(stage, name), gone=False)
            try:
                await self.reconciler.reconcile(Key(Sort.AUTHORITY, "", name))
            except Conflict:
                continue
            return

    def anchors(self, name: str) -> set[TrustAnchor]:
        return set(self.authorities.get(name).trust().anchors)


@pytest.fixture
async def clients(plane: ControlPlane) -> AsyncIterator[list[ApiServer]]:
    made = [
        ApiServer(await load_configuration(plane.admin_kubeconfig), Metrics(CollectorRegistry()), timeout=30) for _ in range(3)
    ]
    yield made
    for client in made:
        await client.close()


async def test_operators_that_start_together_end_with_the_same_cas(stage: Stage, clients: list[ApiServer]) -> None:
    for _ in range(12):
        name = stage.authority()
        starting = [Starting.make(client, stage.own_namespace) for client in clients]
        await asyncio.gather(*(each.look(stage, name) for each in starting))
        stored = {
            generation.anchor
            for purpose, secret in ca_secrets(stage, name).items()
            for generation in load(purpose, secret.data[CONTENT])
        }
        assert len(stored) == len(Purpose)
        assert [each.anchors(name) for each in starting] == [stored] * len(starting)
        assert {anchor["fingerprint"] for anchor in authority(stage, name)["status"]["authorities"]} == {
            anchor.fingerprint for anchor in stored
        }


# --- kept ---------------------------------------------------------------------------------------------------------------


def test_where_its_secrets_cannot_be_read_nothing_is_made(
    stage: Stage, tenant: Tenant, role: str, running: RunningOperator
) -> None:
    name = unique("authority")
    mark = stage.audit.mark()
    with running.line.failing(lambda call: call.verb == "get" and of_authority(name)(call)):
        stage.authority(name)
        tenant.bot(roles=(role,), authority=name)
        tenant.output()
        refused(stage, name, "ApiServerAway")
        tenant.refused("AuthorityNotReady")
        running.settle()
        running.step(timedelta(minutes=1))
        running.wait_quiet()
        assert ca_writes(stage, mark, name) == []
        assert not tenant.has("Secret", "web")
    running.step(timedelta(minutes=1))
    stage.authority_ready(name)
    tenant.ready()
    assert ca_writes(stage, mark, name) == ["create secrets"] * len(Purpose)


def test_an_existing_ca_that_cannot_be_read_goes_on_signing_from_memory(
    stage: Stage, tenant: Tenant, role: str, running: RunningOperator
) -> None:
    name = stage.authority()
    before = {purpose: secret.version for purpose, secret in ca_secrets_when_ready(stage, name).items()}
    with running.line.failing(lambda call: call.verb == "get" and of_authority(name)(call)) as met:
        running.settle()
        eventually("the trouble is met", lambda: met)
        tenant.bot(roles=(role,), authority=name)
        tenant.output()
        tenant.ready()
    running.step(timedelta(minutes=1))
    stage.authority_ready(name)
    assert {purpose: secret.version for purpose, secret in ca_secrets(stage, name).items()} == before


def ca_secrets_when_ready(stage: Stage, name: str) -> dict[Purpose, StoredSecret]:
    stage.authority_ready(name)
    return ca_secrets(stage, name)


@pytest.mark.parametrize("purpose", [Purpose.IDENTITY, Purpose.SSH_USER])
def test_a_ca_secret_deleted_while_the_operator_runs_is_restored_with_the_same_key(
    stage: Stage, tenant: Tenant, role: str, running: RunningOperator, purpose: Purpose
) -> None:
    name = stage.authority()
    old = ca_secrets_when_ready(stage, name)[purpose]
    tenant.bot(roles=(role,), authority=name)
    tenant.output()
    tenant.ready()
    credential = tenant.secret()
    stage.cluster.delete("Secret", stage.own_namespace, old.name)
    eventually("the Secret is restored", lambda: stage.ca_secret(name, purpose))
    restored = ca_secrets(stage, name)[purpose]
    assert restored.uid != old.uid
    assert restored.data == old.data
    running.settle()
    assert told(authority(stage, name), "True")
    assert tenant.secret().version == credential.version


def test_a_ca_secret_deleted_while_the_operator_is_down_is_missed_and_not_made_again(
    stage: Stage, tenant: Tenant, role: str, running: RunningOperator
) -> None:
    name = stage.authority()
    secrets = ca_secrets_when_ready(stage, name)
    lost = secrets[Purpose.IDENTITY]
    tenant.bot(roles=(role,), authority=name)
    tenant.bot("neighbour", roles=(role,))
    tenant.output()
    tenant.output("neighbour", bot="neighbour")
    tenant.ready()
    tenant.ready("neighbour")
    running.settle()
    credential = tenant.secret()
    before = authority(stage, name)["status"]["authorities"]
    running.stop()
    stage.cluster.delete("Secret", stage.own_namespace, lost.name)
    running.start()
    running.wait_leading()
    message = refused(stage, name, "CASecretMissing")
    assert lost.name in message
    assert "restore it from a backup" in message
    running.settle()
    running.step(timedelta(minutes=1))
    running.wait_quiet()
    assert stage.ca_secret(name, Purpose.IDENTITY) is None
    assert authority(stage, name)["status"]["authorities"] == before
    assert tenant.secret().version == credential.version
    assert told(tenant.get("MachineOutput", "web"), "True")
    tenant.output("later", bot="neighbour")
    tenant.ready("later")
    reasons = [event["reason"] for event in stage.cluster.list("Event", "default") if event["regarding"]["name"] == name]
    assert reasons == ["CASecretMissing"]
    body = copy.deepcopy(lost.body)
    for field in ("resourceVersion", "uid"):
        del body["metadata"][field]
    stage.cluster.create(body)
    stage.authority_ready(name)
    running.settle()
    assert told(tenant.get("MachineOutput", "web"), "True")
    assert condition(tenant.get("MachineOutput", "web"), "Renewing") is None
    assert tenant.secret().version == credential.version


def test_an_authority_from_before_there_was_a_purpose_gets_its_ca_at_the_next_start(
    stage: Stage, tenant: Tenant, role: str, running: RunningOperator
) -> None:
    """As an upgrade finds it: the status lists six purposes, and their Secrets are there."""
    name = stage.authority()
    secrets = ca_secrets_when_ready(stage, name)
    tenant.bot(roles=(role,), authority=name)
    tenant.output()
    tenant.ready()
    running.settle()
    credential = tenant.secret()
    running.stop()
    earlier = [each for each in authority(stage, name)["status"]["authorities"] if each["purpose"] != Purpose.BOT]
    assert len(earlier) == len(Purpose) - 1
    stage.cluster.patch("MachineAuthority", "", name, {"status": {"authorities": earlier}}, subresource="status")
    stage.cluster.delete("Secret", stage.own_namespace, secrets[Purpose.BOT].name)
    mark = stage.audit.mark()
    running.start()
    running.wait_leading()
    stage.authority_ready(name)
    running.settle()
    assert ca_writes(stage, mark, name) == ["create secrets"]
    made = ca_secrets(stage, name)
    assert made[Purpose.BOT].data != secrets[Purpose.BOT].data
    others = set(Purpose) - {Purpose.BOT}
    assert {purpose: made[purpose].version for purpose in others} == {purpose: secrets[purpose].version for purpose in others}
    body = authority(stage, name)
    assert [each for each in body["status"]["authorities"] if each["purpose"] != Purpose.BOT] == earlier
    assert {each["purpose"] for each in body["status"]["authorities"]} == {str(purpose) for purpose in Purpose}
    assert tenant.secret().version == credential.version, "nothing is issued for it"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "no JSON": lambda _: b"not JSON",
    "cut short": lambda content: content[: len(content) // 2],
    "no generation": lambda content: json.dumps({**json.loads(content), "generations": []}).encode(),
    "another purpose": lambda content: content.replace(b'"purpose":"identity"', b'"purpose":"database"'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_ca_secret_is_told_and_not_overwritten(
    stage: Stage, running: RunningOperator, damage: Callable[[bytes], bytes]
) -> None:
    name = stage.authority()
    old = ca_secrets_when_ready(stage, name)[Purpose.IDENTITY]
    content = base64.b64encode(damage(old.data[CONTENT])).decode()
    spoilt = StoredSecret(stage.cluster.patch("Secret", stage.own_namespace, old.name, {"data": {CONTENT: content}}))
    message = refused(stage, name, "CASecretDamaged")
    assert "restore its Secret from a backup" in message
    assert "PRIVATE KEY" not in message
    running.settle()
    running.stop()
    running.start()
    running.wait_leading()
    running.settle()
    assert ca_secrets(stage, name)[Purpose.IDENTITY].version == spoilt.version
    assert told(authority(stage, name), "False", "CASecretDamaged")
    stage.cluster.patch("Secret", stage.own_namespace, old.name, {"data": old.body["data"]})
    stage.authority_ready(name)


def test_a_foreign_secret_in_the_place_of_a_ca_is_left_alone(stage: Stage, running: RunningOperator) -> None:
    name = unique("authority")
    foreign = stage.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret_name(name, Purpose.WORKLOAD), "namespace": stage.own_namespace},
            "stringData": {"password": "of somebody else"},
        }
    )
    stage.authority(name)
    assert "delete it" in refused(stage, name, "CASecretConflict")
    running.settle()
    secret = ca_secrets(stage, name)[Purpose.WORKLOAD]
    assert secret.version == foreign["metadata"]["resourceVersion"]
    stage.cluster.delete("Secret", stage.own_namespace, secret.name)
    running.step(timedelta(minutes=1))
    stage.authority_ready(name)


def test_an_authority_deleted_and_made_again_keeps_its_cas(stage: Stage, running: RunningOperator) -> None:
    name = stage.authority()
    before = {purpose: secret.version for purpose, secret in ca_secrets_when_ready(stage, name).items()}
    stage.cluster.delete("MachineAuthority", "", name)
    running.settle()
    stage.authority(name)
    stage.authority_ready(name)
    assert {purpose: secret.version for purpose, secret in ca_secrets(stage, name).items()} == before


# --- rotated ------------------------------------------------------------------------------------------------------------

STEP = timedelta(hours=5)
"""Below half of a credential's life: no step jumps over a renewal."""


def trust_of(running: RunningOperator, name: str) -> tuple[TrustAnchor, ...]:
    picture = running.operator._picture
    assert picture is not None
    return picture.authorities.get(name).trust().anchors


def bundle(anchors: Iterable[TrustAnchor], purpose: Purpose, path: Path) -> Path:
    path.write_bytes(b"".join(anchor.public for anchor in anchors if anchor.purpose is purpose))
    return path


def verifies(secret: StoredSecret, anchors: tuple[TrustAnchor, ...], running: RunningOperator, folder: Path) -> bool:
    """Whether a verifier with that trust bundle takes every certificate of the Secret now."""
    files = write_all(folder, secret.data)
    if "ssh_host-cert.pub" in files:
        hosts = {anchor.fingerprint for anchor in anchors if anchor.purpose is Purpose.SSH_HOST}
        return ssh_keygen_shows(files["ssh_host-cert.pub"]).authority in hosts
    users = {anchor.fingerprint for anchor in anchors if anchor.purpose is Purpose.SSH_USER}
    authorities = bundle(anchors, Purpose.IDENTITY, folder / "bundle.pem")
    return ssh_keygen_shows(files["key-cert.pub"]).authority in users and openssl_verifies(
        files["tls.crt"], authorities, running.clock.now()
    )


def test_a_rotation_is_prepared_published_and_finished_with_every_credential_good_all_the_time(
    stage: Stage, running: RunningOperator, tmp_path: Path
) -> None:
    running.stop()
    name = stage.authority(embedded={"rotation": {"every": "50h", "overlap": "25h"}})
    role = stage.role(allow={"logins": ["deploy"], "hostPrincipals": ["*.node.example.test"]})
    seen: list[tuple[str, ...]] = []
    with stage.tenant(name) as tenant, stage.operator(watch_namespaces=(tenant.namespace,)) as stepped:
        stepped.wait_leading()
        tenant.bot(roles=(role,))
        tenant.output()
        tenant.output("host", sshHost={"principals": ["web.node.example.test"]})
        tenant.ready()
        tenant.ready("host")
        first = earlier = trust_of(stepped, name)
        for _ in range(16):
            stepped.step(STEP)
            stepped.wait_quiet()
            stepped.settle()
            anchors = trust_of(stepped, name)
            for output in ("web", "host"):
                secret = tenant.secret(output)
                assert verifies(secret, anchors, stepped, tmp_path / output)
                assert verifies(secret, earlier, stepped, tmp_path / output), "for a verifier that is one step behind"
                assert told(tenant.get("MachineOutput", output), "True")
            states = tuple(anchor.state.value for anchor in anchors if anchor.purpose is Purpose.IDENTITY)
            published = tenant.secret().data["ca.crt"].count(b"BEGIN CERTIFICATE")
            assert len(tenant.secret().data["known_hosts"].splitlines()) == published
            if (now := (*states, f"{published} in the Secret")) not in seen[-1:]:
                seen.append(now)
            earlier = anchors
    # Published, then picked up by the next renewal, then signing, then the old one gone; and so on with the next.
    assert seen == [
        ("Active", "1 in the Secret"),
        ("Active", "Prepared", "1 in the Secret"),
        ("Active", "Prepared", "2 in the Secret"),
        ("Active", "Old", "2 in the Secret"),
        ("Active", "Prepared", "2 in the Secret"),
    ]
    assert not {anchor.id for anchor in earlier} & {anchor.id for anchor in first}


def test_a_change_of_the_trust_bundle_alone_issues_nothing(stage: Stage, running: RunningOperator) -> None:
    running.stop()
    name = stage.authority(embedded={"rotation": {"every": "50h", "overlap": "25h"}})
    role = stage.role()
    with stage.tenant(name) as tenant, stage.operator(watch_namespaces=(tenant.namespace,)) as stepped:
        stepped.wait_leading()
        tenant.bot(roles=(role,))
        tenant.output()
        tenant.ready()
        stepped.step(timedelta(hours=22))
        stepped.wait_quiet()
        stepped.settle()
        secret = tenant.secret()
        before = len(trust_of(stepped, name))
        stepped.step(timedelta(hours=4))
        stepped.wait_quiet()
        stepped.settle()
        assert len(trust_of(stepped, name)) == before + len(Purpose)
        assert tenant.secret().version == secret.version


def test_a_generation_that_is_no_longer_trusted_is_replaced_at_once(stage: Stage, running: RunningOperator) -> None:
    name = stage.authority()
    role = stage.role()
    with stage.tenant(name) as tenant:
        secrets = ca_secrets_when_ready(stage, name)
        tenant.bot(roles=(role,))
        tenant.output()
        tenant.ready()
        running.settle()
        secret = tenant.secret()
        running.stop()
        stage.cluster.delete("MachineAuthority", "", name)
        stage.cluster.delete("Secret", stage.own_namespace, secrets[Purpose.IDENTITY].name)
        stage.authority(name)
        running.start()
        running.wait_leading()
        tenant.issued_anew(secret, "CARotated")
