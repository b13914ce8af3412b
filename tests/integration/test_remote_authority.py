"""Two clusters, two operators: the bots of one join the authority of the other by its join API, and their Secrets are filled here.

Here is the session's control plane, its operator in this process. The authority is on another control plane ("there"), its
operator a process, which keeps its port over an end and a start.
"""

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.cluster import ControlPlane, start_control_plane
from machinebot.errors import Denied
from machinebot.issuers.fetching import Issuers
from machinebot.joins.base import Asked, TokenProof
from machinebot.joins.methods.kubernetes import METHOD, KubernetesSettings
from machinebot.policy.credential import Purpose
from support.credentials import StoredSecret, fingerprint, openssl_verifies, ssh_keygen_shows, write_all
from support.inprocess import RunningOperator
from support.joining import join_token
from support.stage import API_VERSION, LOGINS, Stage, Tenant, condition, raise_stage, reason_of, told, unique
from support.verifier import fetch, public_of, trusting
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME, install_chart
from workbench.operator import OperatorProcess

pytestmark = [pytest.mark.cluster]
pytest_plugins = ["support.fixtures"]

Json = dict[str, Any]

ISSUER = "https://kubernetes.default.svc"
"""Of the tokens of the control plane there: a name, as clouds have it, that its serving certificate holds."""

LATER = timedelta(minutes=2)
"""More than the pause after a refusal by the other cluster, or after some failures."""


@pytest.fixture(scope="module")
def there() -> Iterator[Stage]:
    """The cluster of the authority: a control plane of its own, with the chart on it."""
    flags = (f"--service-account-issuer={ISSUER}", f"--service-account-jwks-uri={ISSUER}/openid/v1/jwks")
    with start_control_plane(audit_log=True, api_server_flags=flags) as plane, raise_stage(install_chart(plane)) as raised:
        yield raised


@pytest.fixture(scope="module")
def operator_there(there: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """Its operator."""
    directory = tmp_path_factory.mktemp("there")
    with OperatorProcess.from_release(there.release, directory, flags={"--url": "https://localhost"}) as process:
        process.wait_ready()
        there.authority_ready("default")
        yield process


@pytest.fixture(scope="module")
def remote(there: Stage, operator_there: OperatorProcess) -> Json:
    """What a MachineAuthority says about it."""
    ca = public_of(there.authority_ready("default"), "identity").decode()
    return {"url": f"https://localhost:{operator_there.https_port}", "caBundle": ca}


def make_authority(stage: Stage, **spec: Any) -> str:
    """Make a MachineAuthority that is remote; returns its name."""
    name = unique("remote")
    body = {"clusterName": CLUSTER_NAME, **spec}
    stage.cluster.create({"apiVersion": API_VERSION, "kind": "MachineAuthority", "metadata": {"name": name}, "spec": body})
    stage._authorities.append(name)
    return name


@pytest.fixture(scope="module")
def authority(stage: Stage, remote: Json) -> str:
    """The authority of most tests, as it is called here."""
    return make_authority(stage, remote=remote)


@pytest.fixture
def alive(operator_there: OperatorProcess) -> OperatorProcess:
    """The operator there, which the test before may have ended."""
    if not operator_there.running:
        operator_there.start()
        operator_there.wait_ready()
    return operator_there


@dataclass(frozen=True)
class Pair:
    """One namespace in both clusters.

    Attributes:
        here: Where outputs are.
        there: Where the authority is.
        running: The operator here.
    """

    here: Tenant
    there: Tenant
    running: RunningOperator

    def bot(self, *, logins: tuple[str, ...] = ("deploy",), rule: Json | None = None) -> str:
        """The bot in both clusters, and the join token there."""
        role = self.there.stage.role(**LOGINS)
        self.there.bot(roles=(role,), logins=list(logins))
        keys = self.here.stage.release.cluster.kubectl("get", "--raw", "/openid/v1/jwks")
        account = f"{self.here.namespace}:machinebot-deployer"
        kubernetes = {
            "type": "static_jwks",
            "staticJWKS": {"jwks": keys},
            "allow": [{"serviceAccount": account, "unbound": True} if rule is None else rule],
        }
        join_token(self.there, "deployer", kubernetes=kubernetes)
        self.there.ready("deployer", "MachineJoinToken")
        self.here.bot(roles=(role,), logins=[])
        return role

    def filled(self, name: str = "web", **spec: Any) -> StoredSecret:
        """Make an output here and wait for its Secret."""
        self.here.output(name, **spec)
        self.in_time(lambda: told(self.here.get("MachineOutput", name), "True"), f"{name} is ready")
        return self.here.secret(name)

    def in_time(self, look: Any, what: str) -> None:
        """Wait for it, while time runs here."""

        def stepped() -> bool:
            if look():
                return True
            self.running.step(LATER)
            self.running.wait_quiet()
            return bool(look())

        eventually(what, stepped, interval=0.5)


@pytest.fixture
def pair(stage: Stage, there: Stage, alive: OperatorProcess, tenant: Tenant, running: RunningOperator) -> Iterator[Pair]:
    assert alive.running
    stage.authority_ready(tenant.authority)
    metadata = {"name": tenant.namespace}
    there.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    with there.clearing():
        yield Pair(tenant, Tenant(there, tenant.namespace, "default"), running)
    there.cluster.delete("Namespace", "", tenant.namespace)


def authority_told(stage: Stage, name: str, status: str, reason: str) -> Json:
    """Wait until the authority says so; returns it."""
    return eventually(f"{name}: {reason}", lambda: stage._told("MachineAuthority", "", name, status, reason), interval=0.2)


# --- what is issued -----------------------------------------------------------------------------------------------------


def test_a_secret_here_holds_a_credential_that_the_authority_there_signed(
    pair: Pair, stage: Stage, there: Stage, tmp_path: Path
) -> None:
    pair.bot()
    secret = pair.filled(credentialTTL="8h")
    other = there.authority_ready("default")
    files = write_all(tmp_path, secret.data)
    shown = ssh_keygen_shows(files["key-cert.pub"])
    assert shown.authority == fingerprint(public_of(other, "ssh-user"))
    assert (shown.key_id, shown.principals) == (f"bot:{pair.here.namespace}:deployer", ("deploy",))
    ca = tmp_path / "ca.pem"
    ca.write_bytes(public_of(other, "identity"))
    assert openssl_verifies(files["tlscert"], ca, datetime.now(UTC))
    assert public_of(other, "ssh-host").decode().split()[1] in secret.data["known_hosts"].decode()
    status = pair.here.status()
    (role,) = status["granted"]["roles"]
    assert status["granted"]["logins"] == [{"name": "deploy", "role": role}]
    assert status["ttl"] == "8h"
    assert status["authorities"] == {
        each["purpose"]: each["id"] for each in other["status"]["authorities"] if each["purpose"] in ("ssh-user", "identity")
    }
    assert not [each for each in Purpose if stage.ca_secret(pair.here.authority, each) is not None]


def test_the_authority_here_tells_the_cas_there_and_whom_it_joins(stage: Stage, there: Stage, pair: Pair, remote: Json) -> None:
    body = authority_told(stage, pair.here.authority, "True", "Remote")
    other = there.authority_ready("default")
    assert body["status"]["authorities"] == other["status"]["authorities"]
    assert body["status"]["serverCA"] == remote["caBundle"]
    assert body["status"]["issuer"] == "https://localhost/authorities/default"
    assert remote["url"] in (condition(body) or {})["message"]


def test_a_bot_here_is_one_instance_there_and_joins_once(pair: Pair) -> None:
    pair.bot()
    pair.filled("web")
    pair.filled("db")
    joins = pair.running.value("machinebot_joins_total", method="remote", result="success")
    pair.here.annotate("web", renew="1")
    eventually("issued", lambda: pair.here.status("web").get("renewToken") == "1")
    assert pair.running.value("machinebot_joins_total", method="remote", result="success") == joins
    told_there = eventually("seen", lambda: pair.there.get("MachineBot", "deployer")["status"].get("instances"))
    (instance,) = told_there
    assert (instance["method"], instance["joinToken"]) == ("kubernetes", "deployer")
    assert instance["attributes"] == {"serviceAccount": f"{pair.here.namespace}:machinebot-deployer"}
    ready = pair.here.ready("deployer", "MachineBot")
    assert ready["status"]["serviceAccount"]["name"] == "machinebot-deployer"


def test_an_identity_that_nears_its_end_is_followed_by_another_of_the_same_instance(pair: Pair) -> None:
    pair.bot()
    old = pair.filled()
    eventually("seen", lambda: pair.there.get("MachineBot", "deployer")["status"].get("instances"))
    pair.running.step(timedelta(minutes=56))
    pair.here.annotate("web", renew="1")
    pair.here.issued_anew(old, "Requested")

    def grown() -> bool:
        (instance,) = pair.there.get("MachineBot", "deployer")["status"]["instances"]
        return bool(instance["generation"] == 2)

    eventually("the second generation of one instance", grown)


def test_what_changes_there_is_followed_at_the_next_renewal(pair: Pair) -> None:
    pair.bot()
    old = pair.filled()
    pair.there.change("MachineBot", "deployer", logins=["deploy", "app"])
    pair.there.ready("deployer", "MachineBot")
    pair.running.settle()
    assert pair.here.secret().version == old.version

    def renewed() -> bool:
        names = [each["name"] for each in pair.here.status()["granted"]["logins"]]
        return names == ["app", "deploy"]

    pair.here.annotate("web", renew="1")
    eventually("the new login", renewed)


def test_a_status_that_is_lost_is_told_again_from_the_secret(pair: Pair) -> None:
    pair.bot()
    old = pair.filled()
    before = pair.here.status()
    pair.here.put_status(None)
    eventually("told again", lambda: pair.here.status().get("granted") == before["granted"])
    assert pair.here.secret().version == old.version


def test_limits_here_count_too(pair: Pair, stage: Stage, remote: Json) -> None:
    name = make_authority(stage, remote=remote, maxTTL="2h")
    authority_told(stage, name, "True", "Remote")
    pair.bot()
    pair.here.change("MachineBot", "deployer", authority=name)
    pair.filled()
    status = pair.here.status()
    assert (status["ttl"], status["ttlReducedBy"]) == ("2h", "the authority's maxTTL (2h)")


def test_roles_that_the_bot_here_does_not_name_are_not_asked_for(pair: Pair) -> None:
    """The bot there has two; the one here was given one of them."""
    role = pair.bot()
    more = pair.there.stage.role(allow={"logins": ["root"]})
    pair.there.change("MachineBot", "deployer", roles=[role, more])
    pair.there.ready("deployer", "MachineBot")
    pair.filled()
    assert pair.here.status()["granted"]["roles"] == [role]
    pair.here.output("greedy", roles=[more])
    assert pair.here.refused("RoleNotOfBot", "greedy")


# --- what is refused ----------------------------------------------------------------------------------------------------


def refused_in_time(pair: Pair, reason: str, kind: str = "MachineOutput", name: str = "web") -> str:
    """Wait until it is refused for that reason, while time runs here; returns the message."""
    pair.in_time(lambda: reason_of(pair.here.get(kind, name)) == reason, reason)
    return str((condition(pair.here.get(kind, name)) or {})["message"])


def test_a_rule_without_unbound_lets_no_operator_in(pair: Pair) -> None:
    pair.bot(rule={"serviceAccount": f"{pair.here.namespace}:machinebot-deployer"})
    pair.here.output()
    assert "unbound" in refused_in_time(pair, "TokenNotBound")
    assert refused_in_time(pair, "TokenNotBound", "MachineBot", "deployer")
    rule = {"serviceAccount": f"{pair.here.namespace}:machinebot-deployer", "unbound": True}
    pair.there.change("MachineJoinToken", "deployer", kubernetes={"allow": [rule]})
    pair.in_time(lambda: told(pair.here.get("MachineOutput", "web"), "True"), "ready without anybody's doing here")
    pair.in_time(lambda: told(pair.here.get("MachineBot", "deployer"), "True"), "the bot too")
    (warning,) = pair.there.ready("deployer", "MachineJoinToken")["status"]["warnings"]
    assert "bound to no pod" in warning


def test_a_bot_that_nobody_knows_there_is_refused(pair: Pair, remote: Json) -> None:
    pair.here.bot(roles=("access",))
    pair.here.output()
    message = refused_in_time(pair, "JoinTokenUnknown")
    assert message.startswith(f"{remote['url']} says: ")


def test_a_join_token_of_another_bot_lets_nobody_in(pair: Pair, stage: Stage, remote: Json) -> None:
    name = make_authority(stage, remote={**remote, "joinToken": "deployer"})
    authority_told(stage, name, "True", "Remote")
    role = pair.bot(rule={"serviceAccount": f"{pair.here.namespace}:machinebot-other", "unbound": True})
    pair.here.bot("other", roles=(role,), authority=name)
    pair.here.output(bot="other")
    assert "remote.joinToken" in refused_in_time(pair, "WrongBot")


def test_a_lock_there_stops_renewals_here_and_takes_nothing_away(pair: Pair, there: Stage) -> None:
    pair.bot()
    old = pair.filled()
    lock = unique("lock")
    target = {"bot": {"namespace": pair.there.namespace, "name": "deployer"}}
    spec = {"target": target, "message": "a laptop was stolen"}
    there.cluster.create({"apiVersion": API_VERSION, "kind": "MachineLock", "metadata": {"name": lock}, "spec": spec})
    try:
        eventually("locked", lambda: reason_of(pair.there.get("MachineBot", "deployer")) == "Locked")
        pair.here.annotate("web", renew="1")
        message = refused_in_time(pair, "Locked")
        assert lock in message
        assert "a laptop was stolen" in message
        assert pair.here.secret().version == old.version
    finally:
        there.cluster.delete("MachineLock", "", lock)
    pair.in_time(lambda: pair.here.status().get("renewToken") == "1", "renewed without anybody's doing here")


def test_a_lock_here_counts_too(pair: Pair, stage: Stage) -> None:
    pair.bot()
    old = pair.filled()
    lock = unique("lock")
    target = {"bot": {"namespace": pair.here.namespace, "name": "deployer"}}
    stage.cluster.create(
        {"apiVersion": API_VERSION, "kind": "MachineLock", "metadata": {"name": lock}, "spec": {"target": target}}
    )
    try:
        assert lock in pair.here.refused("Locked")["message"]
    finally:
        stage.cluster.delete("MachineLock", "", lock)
    pair.here.ready()
    assert pair.here.secret().version == old.version


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({"clusterName": "other.test"}, "WrongClusterName", id="another cluster name"),
        pytest.param({"remote": {"authority": "nobody"}}, "RemoteUnavailable", id="no such authority there"),
        pytest.param({"remote": {"url": "https://localhost:1"}}, "RemoteUnavailable", id="nobody there"),
        pytest.param({"remote": {"caBundle": None}}, "RemoteUnavailable", id="a server that is not trusted"),
        pytest.param(
            {"remote": {"caBundle": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}}, "InvalidCA", id="no CA"
        ),
    ],
)
@pytest.mark.usefixtures("alive", "cleared", "running")
def test_authorities_that_cannot_be_used_say_why(stage: Stage, remote: Json, spec: Json, reason: str) -> None:
    merged = {name: value for name, value in (remote | spec.get("remote", {})).items() if value is not None}
    name = make_authority(stage, **{**spec, "remote": merged})
    body = authority_told(stage, name, "False", reason)
    assert "authorities" not in body["status"]


def test_the_address_here_says_where_the_authority_is(stage: Stage, running: RunningOperator, pair: Pair, remote: Json) -> None:
    eventually("it serves", lambda: running.get("/readyz")[0] == 200)
    tls = trusting(public_of(stage.authority_ready("default"), "identity"), any_time=True)  # its clock was stepped
    answer = fetch(running.https_port, f"/authorities/{pair.here.authority}/trust", tls)
    assert answer.status == 404
    problem = json.loads(answer.body)
    assert problem["reason"] == "AuthorityElsewhere"
    assert f"{remote['url']}/authorities/default" in problem["message"]


def test_the_trust_bundle_there_is_published_here(stage: Stage, there: Stage, pair: Pair) -> None:
    other = there.authority_ready("default")
    spec = {"trustBundle": {"namespaces": [pair.here.namespace]}}
    stage.cluster.patch("MachineAuthority", "", pair.here.authority, {"spec": spec})
    try:
        name = f"machinebot-trust-{pair.here.authority}"
        eventually("published", lambda: pair.here.has("ConfigMap", name))
        assert public_of(other, "ssh-user").decode() in pair.here.get("ConfigMap", name)["data"]["ssh-user-ca"]
    finally:
        stage.cluster.patch("MachineAuthority", "", pair.here.authority, {"spec": {"trustBundle": None}})


# --- outages ------------------------------------------------------------------------------------------------------------


def test_while_the_authority_is_away_the_old_secret_stays_and_then_it_is_renewed(
    pair: Pair, stage: Stage, operator_there: OperatorProcess
) -> None:
    pair.bot()
    old = pair.filled()
    operator_there.kill9()
    pair.here.annotate("web", renew="1")

    def renewing() -> Json | None:
        return condition(pair.here.get("MachineOutput", "web"), "Renewing")

    pair.in_time(lambda: renewing() is not None, "trouble is told")
    trouble = renewing() or {}
    assert (trouble["status"], trouble["reason"]) == ("False", "JoinAPIUnreachable")
    assert told(pair.here.get("MachineOutput", "web"), "True")
    assert pair.here.secret().version == old.version
    pair.running.step(timedelta(minutes=6))
    body = authority_told(stage, pair.here.authority, "False", "RemoteUnavailable")
    assert body["status"]["authorities"]
    operator_there.start()
    operator_there.wait_ready()
    pair.in_time(lambda: pair.here.status().get("renewToken") == "1", "renewed")
    assert pair.here.secret().version != old.version
    assert renewing() is None
    authority_told(stage, pair.here.authority, "True", "Remote")


def test_an_operator_that_starts_while_the_authority_is_away_writes_nothing_to_outputs(
    pair: Pair, stage: Stage, operator_there: OperatorProcess
) -> None:
    pair.bot()
    pair.filled()
    pair.running.settle()
    mark = pair.here.mark()
    operator_there.kill9()
    pair.running.stop()
    pair.running.start()
    pair.running.wait_leading()
    body = authority_told(stage, pair.here.authority, "False", "RemoteUnavailable")
    pair.running.settle()
    assert body["status"]["authorities"]
    assert pair.here.summary(mark, "web") == []
    operator_there.start()
    operator_there.wait_ready()
    pair.in_time(lambda: stage._told("MachineAuthority", "", pair.here.authority, "True", "Remote"), "there again")
    pair.running.settle()
    assert pair.here.summary(mark, "web") == []


# --- keys that are fetched ----------------------------------------------------------------------------------------------


@pytest.fixture
async def outside(there: Stage) -> AsyncIterator[Issuers]:
    """Who asks the API server there for its keys, as any OpenID issuer: its name is mapped to where it is."""
    plane = there.release.cluster
    port = int(plane.url.rpartition(":")[2])
    tls = ssl.create_default_context(cadata=plane.ca_pem.decode())
    _everybody_discovers(plane)
    path = "/.well-known/openid-configuration"
    eventually("it is discovered", lambda: fetch(port, path, tls).status == 200)

    async def no_review(_token: str, _audience: str) -> Json:
        raise AssertionError("a review")

    issuers = Issuers(review=no_review, ssl_context=tls, connect={"kubernetes.default.svc": ("127.0.0.1", port)})
    yield issuers
    await issuers.close()


def _everybody_discovers(plane: ControlPlane) -> None:
    """What docs/remote.md says: discovery is for ServiceAccounts alone, unless it is given to all."""
    role, group = "--clusterrole=system:service-account-issuer-discovery", "--group=system:unauthenticated"
    binding = plane.kubectl("create", "clusterrolebinding", "discovery", role, group, "--dry-run=client", "--output=yaml")
    plane.kubectl("apply", "--server-side", "--filename=-", input=binding)


async def test_tokens_of_an_operator_are_verified_by_the_keys_of_its_issuer(there: Stage, outside: Issuers) -> None:
    """What the operator of a cluster asks for, held against the discovery document and the keys of that real cluster."""
    command = ("create", "token", "default", "--namespace=default", f"--audience={CLUSTER_NAME}", "--duration=600s")
    token = there.release.cluster.kubectl(*command).strip()
    proof = TokenProof.model_validate({"token": token})
    asked = Asked(cluster_name=CLUSTER_NAME, challenge=None, now=datetime.now(UTC))

    def settings(*, unbound: bool) -> KubernetesSettings:
        rule = {"serviceAccount": "default:default", "unbound": unbound}
        return KubernetesSettings.model_validate({"type": "oidc", "oidc": {"issuer": ISSUER}, "allow": [rule]})

    proved = await METHOD.verify(settings(unbound=True), proof, asked, outside)
    assert proved.subject == "system:serviceaccount:default:default"
    with pytest.raises(Denied, match="TokenNotBound"):
        await METHOD.verify(settings(unbound=False), proof, asked, outside)
