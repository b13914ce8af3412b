"""A `jwtSVID` at a real API server, which finds our keys by OpenID Connect Discovery (structured authentication configuration)."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.cluster import ControlPlane, KubectlError
from support.inprocess import RunningOperator
from support.kubernetes_access import User, jwt_authenticator, kubectl_by_flags, user_of_token
from support.stage import Stage, Tenant
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("verified")]
pytest_plugins = ["support.fixtures"]

AUDIENCE = "https://api.staging.example.test"

ROLE: dict[str, Any] = {"allow": {"spiffePaths": ["/ns/*"], "jwtAudiences": ["*"]}}


@pytest.fixture(scope="module")
def operator_of_module(stage: Stage, authority: str) -> Iterator[RunningOperator]:
    """One operator for the whole module, whose authority is found at the address that its HTTPS really has."""
    with stage.operator() as operator:
        operator.wait_leading()
        stage.authority_ready(authority)
        issuer = f"https://localhost:{operator.https_port}/authorities/{authority}"
        stage.cluster.patch("MachineAuthority", "", authority, {"spec": {"issuer": issuer}})
        stage.authority_ready(authority)
        operator.wait_serving()
        yield operator


@pytest.fixture(scope="module")
def identity_ca(stage: Stage, operator_of_module: RunningOperator) -> str:
    """The CA of identities of the authority `default`, which signs our HTTPS, PEM."""
    assert operator_of_module.running
    with stage.tenant() as tenant:
        tenant.bot(roles=(stage.role(),))
        tenant.output(application={})
        tenant.ready()
        return tenant.secret().data["ca.crt"].decode()


@pytest.fixture(scope="module")
def verified(stage: Stage, authority: str, operator_of_module: RunningOperator, identity_ca: str) -> Iterator[str]:
    """The API server takes tokens of the module's authority; its issuer."""
    issuer = f"https://localhost:{operator_of_module.https_port}/authorities/{authority}"
    with stage.release.cluster.accepting_tokens(jwt_authenticator(issuer, AUDIENCE, identity_ca)):
        yield issuer


def token_of(tenant: Tenant, name: str = "token", *, audiences: tuple[str, ...] = (AUDIENCE,), **settings: Any) -> str:
    """The token of an output of the bot deployer: the file jwt_svid, as it is."""
    if not tenant.has("MachineBot", "deployer"):
        tenant.bot(roles=(tenant.stage.role(**ROLE),))
    tenant.output(name, jwtSVID={"audiences": list(audiences), **settings})
    tenant.ready(name)
    return tenant.secret(name).data["jwt_svid"].decode()


def test_kubectl_logs_in_with_the_token(tenant: Tenant, plane: ControlPlane, tmp_path: Path, verified: str) -> None:
    token = token_of(tenant)
    assert claims(token)["iss"] == verified
    authority = tmp_path / "ca.crt"
    authority.write_bytes(plane.ca_pem)
    kubectl = kubectl_by_flags(plane, tmp_path, server=plane.url, certificate_authority=authority, token=token)
    who = f"spiffe://{CLUSTER_NAME}/ns/{tenant.namespace}/bot/deployer"
    assert kubectl.whoami() == User(who, (f"machinebot:{tenant.namespace}",))
    with pytest.raises(KubectlError, match=rf'Forbidden.*User "{who}" cannot list resource "secrets"'):
        kubectl("get", "secrets")
    plane.kubectl(
        "create",
        "rolebinding",
        "bots",
        "--clusterrole=view",
        f"--group=machinebot:{tenant.namespace}",
        f"--namespace={tenant.namespace}",
    )
    listing = ("get", "configmaps", f"--namespace={tenant.namespace}", "--output=name")
    eventually("the role binding counts", lambda: kubectl("auth", "can-i", "list", "configmaps", listing[2]) == "yes\n")
    eventually("the namespace has its ConfigMap", lambda: kubectl(*listing) == "configmap/kube-root-ca.crt\n")


def test_a_token_with_a_path_of_its_own_is_another_user_without_the_group_of_the_bots(
    tenant: Tenant, plane: ControlPlane
) -> None:
    user = user_of_token(plane, token_of(tenant, path=f"/ns/{tenant.namespace}/web"))
    assert user == User(f"spiffe://{CLUSTER_NAME}/ns/{tenant.namespace}/web", ())


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_a_token_for_another_audience_is_unauthorized(tenant: Tenant, plane: ControlPlane, verified: str) -> None:
    token = token_of(tenant, audiences=("https://api.other.example.test",))
    assert claims(token)["iss"] == verified
    assert user_of_token(plane, token) is None


def test_a_token_of_another_authority_is_unauthorized(stage: Stage, plane: ControlPlane, verified: str) -> None:
    other = stage.authority(clusterName=CLUSTER_NAME)
    stage.authority_ready(other)
    with stage.tenant(other) as tenant:
        token = token_of(tenant)
    assert claims(token)["iss"] != verified
    assert user_of_token(plane, token) is None


def test_a_token_of_another_authority_that_names_our_issuer_is_unauthorized(
    stage: Stage, plane: ControlPlane, verified: str
) -> None:
    other = stage.authority(clusterName=CLUSTER_NAME, issuer=verified)
    stage.authority_ready(other)
    with stage.tenant(other) as tenant:
        token = token_of(tenant)
    assert claims(token)["iss"] == verified
    assert user_of_token(plane, token) is None


TAMPERED: dict[str, dict[str, Any]] = {
    "another subject": {"sub": f"spiffe://{CLUSTER_NAME}/ns/kube-system/bot/admin"},
    "another audience": {"aud": [AUDIENCE, "more"]},
    "a longer life": {"exp": 4102444800},
}


@pytest.mark.parametrize("changed", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_token_that_was_tampered_with_is_unauthorized(tenant: Tenant, plane: ControlPlane, changed: dict[str, Any]) -> None:
    token = token_of(tenant)
    header, _, signature = token.split(".")
    assert user_of_token(plane, ".".join((header, encoded({**claims(token), **changed}), signature))) is None
    assert (
        user_of_token(plane, ".".join((encoded({"alg": "none", "typ": "JWT"}), encoded({**claims(token), **changed}), "")))
        is None
    )
    assert user_of_token(plane, token) is not None


# --- without us ---------------------------------------------------------------------------------------------------------


def test_the_api_server_takes_new_tokens_while_the_operator_is_away(
    tenant: Tenant, plane: ControlPlane, running: RunningOperator
) -> None:
    seen, never_seen = token_of(tenant, "seen"), token_of(tenant, "never-seen")
    who = user_of_token(plane, seen)
    assert who is not None
    running.stop()
    assert user_of_token(plane, never_seen) == who


def claims(token: str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def encoded(part: dict[str, Any]) -> str:
    """A part of a token (RFC 7515, section 2: base64url without padding)."""
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
