"""The authority names the audience; the agent asks its platform for no token by which somebody else would be served."""

import pytest
import yaml

from machinebot.agent.audiences import check_audience
from machinebot.agent.config import parse_config
from machinebot.client.api import JoinClient
from machinebot.errors import Denied, Invalid
from unit.agent.api import Rig
from unit.authority.builders import CLUSTER, NOW
from unit.authority.desk_world import join_token

ASKED = ["azure", "gcp", "github"]
FOUND = ["gitlab", "kubernetes", "oidc", "terraform_cloud"]
NONE = ["azure_devops", "bitbucket", "circleci", "iam", "spacelift", "token"]

ELSEWHERE = [
    "sts.amazonaws.com",
    "STS.amazonaws.com",
    "sigstore",
    "pypi",
    "testpypi",
    "vault",
    "api://AzureADTokenExchange",
    "https://kubernetes.default.svc",
    "https://kubernetes.default.svc.cluster.local",
    "kubernetes.default.svc",
    "https://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/github",
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/ci/providers/github",
    "https://github.com/acme",
    "https://orders-x7ab.a.run.app",
    "https://orders-x7ab.a.run.app:443/path",
    " sts.amazonaws.com",
    "https://europe-west1-acme.cloudfunctions.net/orders",
    "123-abc.apps.googleusercontent.com",
]
OURS = ["example.test", "vault.example.test", "machinebot", "https://management.azure.com/", "https://example.test/pypi"]


def denied(method: str, offered: str, expected: str | None = None) -> str:
    with pytest.raises(Denied) as caught:
        check_audience(method, offered, expected)
    assert caught.value.reason == "AudienceNotExpected"
    return caught.value.message


@pytest.mark.parametrize("method", ASKED)
@pytest.mark.parametrize("audience", ELSEWHERE)
def test_an_audience_of_another_service_takes_a_person_who_has_written_it(method: str, audience: str) -> None:
    message = denied(method, audience)
    assert repr(audience[:64])[:-1] in message
    assert "onboarding.audience" in message
    check_audience(method, audience, audience)


@pytest.mark.parametrize("method", ASKED + FOUND)
@pytest.mark.parametrize("audience", OURS)
def test_an_audience_of_its_own_is_asked_for(method: str, audience: str) -> None:
    check_audience(method, audience, None)
    check_audience(method, audience, audience)


@pytest.mark.parametrize("method", ASKED + FOUND)
@pytest.mark.parametrize("offered", ["other.test", "example.test.", "Example.test", "sts.amazonaws.com", ""])
def test_what_is_written_must_be_what_comes(method: str, offered: str) -> None:
    message = denied(method, offered, "example.test")
    assert "'example.test'" in message
    assert repr(offered) in message


@pytest.mark.parametrize("method", FOUND)
def test_a_token_whose_audience_the_platform_was_told_by_a_person_may_have_any(method: str) -> None:
    check_audience(method, "https://kubernetes.default.svc", None)


def test_a_long_audience_is_told_in_part() -> None:
    assert len(denied("github", "x" * 100_000, "example.test")) < 1000


# --- the configuration ----------------------------------------------------------------------------------------------------


def read(method: str, audience: object) -> str | None:
    onboarding = {"namespace": "ci", "joinToken": "r", "method": method, "audience": audience}
    config = {
        "server": "https://m.example.test",
        "onboarding": onboarding,
        "outputs": [{"name": "a", "identity": {}, "directory": {"path": "/o"}}],
    }
    return parse_config(yaml.safe_dump(config).encode()).onboarding.audience


@pytest.mark.parametrize("method", ASKED + FOUND)
@pytest.mark.parametrize("audience", ["example.test", "x" * 253, "two words", "ü", None])
def test_an_audience_is_read(method: str, audience: str | None) -> None:
    assert read(method, audience) == audience


@pytest.mark.parametrize("audience", ["", "x" * 254, "a\nb", "a\0b", "a\x7f", "a\x85", "\u2028", 5, ["a"]])
def test_what_is_no_audience_is_told(audience: object) -> None:
    with pytest.raises(Invalid, match=r"onboarding\.audience: ") as caught:
        read("github", audience)
    assert caught.value.reason == "InvalidConfig"


@pytest.mark.parametrize("method", NONE)
def test_an_audience_of_a_method_that_is_asked_for_none_is_a_mistake(method: str) -> None:
    with pytest.raises(Invalid, match="leave it out"):
        read(method, "example.test")


# --- joining --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What GitHub is asked for."""
    rig.output("ssh")
    seen: list[str | None] = []

    def prove(_settings: object, wanted: object) -> dict[str, str]:
        seen.append(getattr(wanted, "audience", None))
        return {"token": "a.b.c"}

    monkeypatch.setattr("machinebot.agent.proofs.github.prove", prove)
    return seen


def joined(rig: Rig, audience: str | None = None, expected: str | None = None) -> tuple[str, str]:
    """Reason and message of a join by GitHub, which has no token that the server takes."""
    settings = {"allow": [{"repositoryID": "1"}], **({} if audience is None else {"audience": audience})}
    rig.api.world.tokens["runners"] = join_token(github=settings)
    onboarding = {"namespace": "ci", "joinToken": "runners", "method": "github"}
    rig.more["onboarding"] = onboarding if expected is None else {**onboarding, "audience": expected}
    agent = rig.agent()
    agent.round(NOW)
    state = agent.state(NOW)
    return state.identity_reason, state.identity_message


@pytest.mark.parametrize(
    ("audience", "expected", "fine"),
    [
        pytest.param(None, None, True, id="clusterName"),
        pytest.param("ci.example.test", "ci.example.test", True, id="as written"),
        pytest.param("sts.amazonaws.com", "sts.amazonaws.com", True, id="another service's, as written"),
        pytest.param("sts.amazonaws.com", None, False, id="another service's"),
        pytest.param("ci.example.test", CLUSTER, False, id="not as written"),
        pytest.param(None, "ci.example.test", False, id="clusterName, and another one is written"),
    ],
)
def test_the_platform_is_asked_only_for_what_is_expected(
    rig: Rig, asked: list[str | None], audience: str | None, expected: str | None, *, fine: bool
) -> None:
    reason, message = joined(rig, audience, expected)
    assert asked == ([audience or CLUSTER] if fine else [])
    assert (reason == "AudienceNotExpected") != fine
    assert fine or "onboarding.audience" in message


def test_a_name_of_the_cluster_in_the_place_of_the_audience_is_checked_too(
    rig: Rig, asked: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge = JoinClient.challenge
    foreign = {"audience": None, "cluster_name": "sts.amazonaws.com"}
    monkeypatch.setattr(JoinClient, "challenge", lambda self, request: challenge(self, request).model_copy(update=foreign))
    assert joined(rig)[0] == "AudienceNotExpected"
    assert asked == []


def test_a_join_by_kubernetes_takes_the_audience_that_is_written(rig: Rig) -> None:
    rig.output("ssh")
    for audience, ready in ((CLUSTER, True), ("other.test", False)):
        written = dict(rig.written["onboarding"])
        rig.more["onboarding"] = {**written, "audience": audience}
        rig.more["storage"] = None
        agent = rig.agent()
        agent.request()
        agent.round(NOW)
        assert (agent.state(NOW).identity_reason == "") == ready
