"""The method `token`: a secret is compared by its hash."""

from typing import Any

import pytest

from machinebot.errors import Denied, Invalid
from machinebot.joins.methods.token import METHOD, SECRET_BYTES, SecretProof, TokenSettings, secret_hash
from machinebot.joins.registry import parse_join_token
from support.issuing import ASKED, KnownKeys

SECRET = "5f" * SECRET_BYTES
SETTINGS = TokenSettings(secret_hash=secret_hash(SECRET))


async def test_the_secret_is_let_in() -> None:
    proof = SecretProof.model_validate({"secret": SECRET})
    assert (await METHOD.verify(SETTINGS, proof, ASKED, KnownKeys({}))).subject == "whoever holds the secret"


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("", id="empty"),
        pytest.param(SECRET[:-1], id="shorter"),
        pytest.param(SECRET + "5", id="longer"),
        pytest.param(SECRET + "\n", id="with a line break"),
        pytest.param(SECRET.upper(), id="another case"),
        pytest.param("0" * 64, id="another"),
        pytest.param(SETTINGS.secret_hash, id="its hash"),
        pytest.param("ä" * 64, id="no ASCII"),
        pytest.param("5" * 100_000, id="very long"),
    ],
)
async def test_everything_else_is_not(secret: str) -> None:
    proof = SecretProof.model_validate({"secret": secret})
    with pytest.raises(Denied) as caught:
        await METHOD.verify(SETTINGS, proof, ASKED, KnownKeys({}))
    assert caught.value.reason == "SecretInvalid"
    assert not secret or secret not in str(caught.value)


async def test_secret_that_can_be_guessed_is_no_secret() -> None:
    short = "a" * 31
    with pytest.raises(Denied, match="SecretInvalid"):
        await METHOD.verify(
            TokenSettings(secret_hash=secret_hash(short)), SecretProof.model_validate({"secret": short}), ASKED, KnownKeys({})
        )


@pytest.mark.parametrize("stored", ["", "sha256:", SECRET, f"sha256:{'0' * 63}", f"sha256:{'A' * 64}", f"sha512:{'0' * 64}", 7])
def test_hashes_that_are_none(stored: Any) -> None:
    spec = {"bot": "deployer", "expires": "2027-01-01T00:00:00Z", "token": {"secretHash": stored}}
    with pytest.raises(Invalid, match="InvalidSpec"):
        parse_join_token({"metadata": {"name": "t", "uid": "u"}, "spec": spec})


def test_proof_does_not_print_its_secret() -> None:
    proof = SecretProof.model_validate({"secret": SECRET})
    assert SECRET not in repr(proof) + proof.model_dump_json()


def test_it_alone_is_renewed() -> None:
    assert METHOD.renewable
    assert METHOD.audience(SETTINGS, "example.test") is None
    assert METHOD.warnings(SETTINGS) == ()
