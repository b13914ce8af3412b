"""The method `oidc`: claims that tokens of any issuer must have."""

import re
from typing import Any

import pytest

from machinebot.errors import Denied, Invalid
from machinebot.joins.base import Proved, TokenProof
from machinebot.joins.methods.oidc import METHOD, GenericSettings
from machinebot.joins.registry import MachineJoinToken
from support.issuing import ASKED, CLUSTER, KnownKeys, jwks, keys_of, public_jwk, rsa_key, signed
from support.platforms import BAD_GENERIC, BAD_PATHS, GENERIC, GOOD_ISSUERS, MUST_MATCH, generic

KEY = rsa_key("generic")


async def verified(join_token: MachineJoinToken, outside: KnownKeys | None = None, **changes: Any) -> Proved:
    proof = TokenProof.model_validate({"token": signed(GENERIC.token(**changes), KEY)})
    return await join_token.method.verify(join_token.settings, proof, ASKED, outside or KnownKeys(keys_of(KEY)))


async def test_good_token() -> None:
    outside = KnownKeys(keys_of(KEY))
    assert await verified(generic(), outside) == Proved(subject=MUST_MATCH["sub"], attributes=MUST_MATCH)
    assert outside.asked == [(GENERIC.issuer, "a")]


def test_audience_is_that_of_the_settings() -> None:
    join_token = generic(audience="https://machinebot.example.test")
    assert METHOD.audience(join_token.settings, CLUSTER) == "https://machinebot.example.test"


async def test_keys_of_the_settings() -> None:
    assert await verified(generic(staticJWKS=jwks(public_jwk(KEY))), KnownKeys({}))


@pytest.mark.parametrize("path", MUST_MATCH)
async def test_each_claim_must_match(path: str) -> None:
    assert await verified(generic({path: MUST_MATCH[path]}))
    with pytest.raises(Denied, match="RulesNotMatched"):
        await verified(generic(MUST_MATCH | {path: "something-else"}))


@pytest.mark.parametrize(
    ("path", "wanted", "claims"),
    [
        pytest.param("role", "ci", {}, id="absent"),
        pytest.param("role", "ci", {"role": None}, id="null"),
        pytest.param("role", "ci", {"role": ""}, id="empty"),
        pytest.param("role", "ci", {"role": "CI"}, id="another case"),
        pytest.param("role", "c*", {"role": "ci"}, id="no wildcards"),
        pytest.param("role", "1", {"role": 1.0}, id="a fraction"),
        pytest.param("role", "1", {"role": True}, id="true is no one"),
        pytest.param("role", "True", {"role": True}, id="true is spelled as in JSON"),
        pytest.param("role", "false", {"role": 0}, id="zero is not false"),
        pytest.param("role", "ci", {"role": {"ci": True}}, id="an object"),
        pytest.param("role", "ci", {"role": [["ci"]]}, id="a list in a list"),
        pytest.param("role", "7", {"role": [7]}, id="a number in a list"),
        pytest.param("a.b", "ci", {"a.b": "ci"}, id="a dot in a name is not a step"),
        pytest.param(r"a\.b", "ci", {"a": {"b": "ci"}}, id="a step is not a dot in a name"),
        pytest.param("a.b", "ci", {"a": [{"b": "ci"}]}, id="no steps into lists"),
        pytest.param("a.b", "ci", {"a": "ci"}, id="no steps into texts"),
    ],
)
async def test_claims_that_do_not(path: str, wanted: str, claims: dict[str, Any]) -> None:
    with pytest.raises(Denied, match="RulesNotMatched"):
        await verified(generic({path: wanted}), **claims)


@pytest.mark.parametrize(
    ("path", "wanted", "claims"),
    [
        pytest.param("role", "ci", {"role": ["x", 7, "ci"]}, id="among a list"),
        pytest.param("role", "false", {"role": False}, id="false"),
        pytest.param("role", "true", {"role": "true"}, id="true as text"),
        pytest.param("role", "-7", {"role": -7}, id="a whole number"),
        pytest.param("https://example\\.test/role", "ci", {"https://example.test/role": "ci"}, id="an address as a name"),
        pytest.param("a\\\\.b", "ci", {"a\\": {"b": "ci"}}, id="a backslash before a step"),
        pytest.param("ä ö", "ci", {"ä ö": "ci"}, id="a name with a blank"),
    ],
)
async def test_claims_that_do(path: str, wanted: str, claims: dict[str, Any]) -> None:
    assert (await verified(generic({path: wanted}), **claims)).attributes == {path: wanted}


@pytest.mark.parametrize("path", BAD_PATHS.values(), ids=BAD_PATHS.keys())
def test_claims_that_cannot_be_named(path: str) -> None:
    with pytest.raises(Invalid, match="InvalidSpec"):
        generic({"sub": "x", path: "x"})


@pytest.mark.parametrize("settings", BAD_GENERIC.values(), ids=BAD_GENERIC.keys())
def test_settings_that_are_none(settings: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="InvalidSpec"):
        generic({"sub": "x"}, **settings)


@pytest.mark.parametrize("issuer", GOOD_ISSUERS)
async def test_issuers(issuer: str) -> None:
    assert await verified(generic(issuer=issuer), iss=issuer)


@pytest.mark.parametrize(
    ("must_match", "warnings"),
    [
        pytest.param({"sub": "x"}, (), id="subject"),
        pytest.param({"kubernetes\\.io.namespace": "ci"}, (), id="claims of its own"),
        pytest.param({"sub": "x", "email": "a@b", "email_verified": "true"}, (), id="address beside the subject"),
        pytest.param({"email": "a@b", "email_verified": "true"}, ("email, email_verified alone",), id="address alone"),
        pytest.param({"preferred_username": "x"}, ("preferred_username alone",), id="name alone"),
        pytest.param({"sub": "x", "email": "a@b"}, ("may not have verified",), id="address not verified"),
        pytest.param(
            {"sub": "x", "email": "a@b", "email_verified": "false"}, ("may not have verified",), id="address unverified"
        ),
        pytest.param({"email": "a@b"}, ("email alone", "may not have verified"), id="both"),
    ],
)
def test_warnings(must_match: dict[str, str], warnings: tuple[str, ...]) -> None:
    join_token = generic(must_match)
    told = METHOD.warnings(join_token.settings)
    assert len(told) == len(warnings)
    assert all(re.search(wanted, said) for wanted, said in zip(warnings, told, strict=True))


def test_model_says_what_the_schema_says() -> None:
    schema = GenericSettings.model_json_schema()["properties"]["mustMatch"]
    assert (schema["minProperties"], schema["maxProperties"]) == (1, 16)
    assert len(schema["x-kubernetes-validations"]) == 2
