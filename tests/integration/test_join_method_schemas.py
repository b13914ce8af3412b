"""Settings of OpenID Connect methods on a real API server: it refuses what the models refuse, and takes what they take."""

import secrets
from collections.abc import Iterator

import pytest

from controlplane.cluster import ControlPlane
from machinebot.errors import Invalid
from machinebot.joins.registry import JOIN_METHODS
from machinebot.kube.client import ApiServer
from machinebot.kube.resources import JOIN_TOKENS
from support.issuing import CLUSTER, Json
from support.platforms import GENERIC, GOOD_ISSUERS, MUST_MATCH, SAMPLES, join_token, refused_settings
from workbench.chart import Release

pytestmark = pytest.mark.cluster

REFUSED = refused_settings()


@pytest.fixture(scope="module")
def place(plane: ControlPlane, release: Release) -> Iterator[str]:
    """A namespace of all tests here, since there are hundreds of them."""
    assert release
    name = f"t-{secrets.token_hex(4)}"
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")


async def stored(api: ApiServer, namespace: str, method: str, settings: Json) -> Json:
    """The settings as the API server keeps them."""
    body = {
        "apiVersion": "machinebot.dev/v1alpha1",
        "kind": "MachineJoinToken",
        "metadata": {"name": f"t-{secrets.token_hex(4)}", "namespace": namespace},
        "spec": {"bot": "deployer", method: settings},
    }
    created = await api.create(JOIN_TOKENS, namespace, body)
    answer: Json = created["spec"][method]
    return answer


@pytest.mark.parametrize("name", SAMPLES)
async def test_every_field_of_a_platform_is_kept(api: ApiServer, place: str, name: str) -> None:
    settings = {**SAMPLES[name].settings, "allow": [SAMPLES[name].rule]}
    assert await stored(api, place, name, settings) == settings


@pytest.mark.parametrize("name", SAMPLES)
async def test_the_most_rules_are_taken(api: ApiServer, place: str, name: str) -> None:
    longest = {field: "x" * 512 if isinstance(value, str) else value for field, value in SAMPLES[name].rule.items()}
    settings = {**SAMPLES[name].settings, "allow": [longest] * 32}
    assert join_token(name, settings)
    assert await stored(api, place, name, settings) == settings


async def test_every_claim_of_the_generic_method_is_kept(api: ApiServer, place: str) -> None:
    settings = {"issuer": GENERIC.issuer, "audience": CLUSTER, "mustMatch": MUST_MATCH}
    assert await stored(api, place, "oidc", settings) == settings
    most = settings | {"mustMatch": {f"{number:02}{'x' * 198}": "y" * 512 for number in range(16)}}
    assert await stored(api, place, "oidc", most) == most


async def test_issuers_are_taken(api: ApiServer, place: str) -> None:
    for issuer in GOOD_ISSUERS:
        assert await stored(api, place, "oidc", {"issuer": issuer, "audience": CLUSTER, "mustMatch": {"sub": "x"}})


@pytest.mark.parametrize(("method", "settings"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_the_models_refuse_the_api_server_refuses(api: ApiServer, place: str, method: str, settings: Json) -> None:
    with pytest.raises(Invalid, match="InvalidSpec"):
        join_token(method, settings)
    with pytest.raises(Invalid) as caught:
        await stored(api, place, method, settings)
    assert f"spec.{method}" in caught.value.message
    assert JOIN_METHODS[method].field == method
