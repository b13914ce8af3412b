"""The Kubernetes CA and the key of tokens are rotated while a bot goes on at a real API server: what it must be told, and when."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from controlplane.cluster import ControlPlane, KubectlError
from support.kubernetes_access import Kubectl, User, kubectl_with, user_of_token
from support.rotation import OVERLAP, Rotation, rotation
from support.stage import Stage
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

MINUTE = timedelta(minutes=1)

AUDIENCE = "https://api.staging.example.test"
ALLOW = {"kubernetesGroups": ["machinebot:viewers"], "spiffePaths": ["/ns/*"], "jwtAudiences": [AUDIENCE]}


@dataclass(frozen=True)
class Rotating(Rotation):
    """A bot with a kubeconfig, whose authority rotates its CAs."""

    plane: ControlPlane
    folder: Path

    def renewed(self, number: int) -> tuple[Kubectl, bytes]:
        """Kubectl with a certificate made now, and the CAs that stand beside it."""
        serial = self.tenant.status("cluster")["serial"]
        self.tenant.annotate("cluster", renew=str(number))
        eventually("it is renewed", lambda: self.tenant.status("cluster")["serial"] != serial)
        data = self.tenant.secret("cluster").data
        return kubectl_with(self.plane, data["kubeconfig.yaml"], self.folder), data["ca.crt"]

    def token(self, name: str) -> str:
        """A token made now."""
        self.tenant.output(name, jwtSVID={"audiences": [AUDIENCE]})
        self.tenant.ready(name)
        return self.tenant.secret(name).data["jwt_svid"].decode()

    @property
    def user(self) -> User:
        """Whom every certificate is for."""
        return User(f"bot:{self.tenant.namespace}:deployer", ("machinebot:viewers",))


@pytest.fixture
def rotating(stage: Stage, plane: ControlPlane, tmp_path: Path) -> Iterator[Rotating]:
    """The authority is made so far in the past that its heir is due ten minutes ago, and the output ten minutes before that."""
    with rotation(stage, 10 * MINUTE) as made:
        tenant = made.tenant
        tenant.bot(roles=(stage.role(allow=ALLOW),))
        tenant.output("cluster", kubernetes={})
        tenant.ready("cluster")
        yield Rotating(tenant, made.running, made.clock, plane, tmp_path)


def test_a_bundle_that_is_brought_up_to_date_within_the_overlap_never_refuses(rotating: Rotating, plane: ControlPlane) -> None:
    early, alone = rotating.renewed(1)
    rotating.at(timedelta(0))
    between, both = rotating.renewed(2)
    assert (alone.count(b"BEGIN CERT"), both.count(b"BEGIN CERT")) == (1, 2)

    with plane.accepting_clients(alone):
        assert [each.whoami() for each in (early, between)] == [rotating.user] * 2

        rotating.at(OVERLAP + MINUTE)
        rotating.at(timedelta(0))
        late, _ = rotating.renewed(3)
        with pytest.raises(KubectlError, match="Unauthorized"):
            late.whoami()

        with plane.accepting_clients(both):
            assert [each.whoami() for each in (early, between, late)] == [rotating.user] * 3


def test_a_token_by_the_next_key_is_taken_at_once_since_the_key_was_published_before(
    rotating: Rotating, stage: Stage, plane: ControlPlane
) -> None:
    tenant = rotating.tenant
    issuer = f"https://localhost:{rotating.running.https_port}/authorities/{tenant.authority}"
    stage.cluster.patch("MachineAuthority", "", tenant.authority, {"spec": {"issuer": issuer}})
    stage.authority_ready(tenant.authority)
    tenant.bot("tls", roles=(stage.role(),), authority="default")
    tenant.output("tls", bot="tls", application={})
    tenant.ready("tls")
    early = rotating.token("early")
    rotating.at(timedelta(0))
    # The API server fetches the keys once now, and none of them within the five minutes that it may keep them.
    with plane.accepting_tokens(shortest(issuer, tenant.secret("tls").data["ca.crt"].decode())):
        who = User(f"machinebot:spiffe://{CLUSTER_NAME}/ns/{tenant.namespace}/bot/deployer", ())
        assert user_of_token(plane, early) == who

        rotating.at(OVERLAP + MINUTE)
        rotating.at(timedelta(0))
        late = rotating.token("late")
        assert key_id(late) != key_id(early)
        rotating.running.stop()
        assert [user_of_token(plane, token) for token in (early, late)] == [who, who]


def shortest(issuer: str, certificate_authority: str) -> dict[str, Any]:
    """The least that an entry of `jwt` must say."""
    return {
        "issuer": {"url": issuer, "audiences": [AUDIENCE], "certificateAuthority": certificate_authority},
        "claimMappings": {"username": {"claim": "sub", "prefix": "machinebot:"}},
    }


def key_id(token: str) -> str:
    """The `kid` of a token (RFC 7515, section 4.1.4)."""
    return str(jwt.get_unverified_header(token)["kid"])
