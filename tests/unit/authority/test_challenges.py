"""Challenges: good for one client's key, one join token and two minutes, at every replica, and for nobody else."""

import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinebot.authority import challenges
from machinebot.authority.challenges import LIFE, Challenged
from machinebot.authority.rotation import advance
from machinebot.errors import Denied
from machinebot.policy.credential import Purpose
from unit.authority.builders import CLUSTER, NOW, ROTATION, ca, der, subject_key

BOUND = Challenged("ci", "runners", "token-1", der(subject_key().public_key()))
SECOND = timedelta(seconds=1)


def refusal(challenge: str | None, bound: Challenged = BOUND, now: object = NOW, generations: object = None) -> str:
    with pytest.raises(Denied) as caught:
        challenges.check(challenge, bound, generations or [ca(Purpose.BOT)], now)  # type: ignore[arg-type]
    return caught.value.reason


def test_a_challenge_is_good_until_its_end() -> None:
    challenge, end = challenges.make(BOUND, ca(Purpose.BOT), NOW)
    assert end == NOW + LIFE
    assert len(challenge) == 32  # the longest nonce that Azure's metadata service takes
    for moment in (NOW, NOW + SECOND, end - SECOND):
        assert challenges.check(challenge, BOUND, [ca(Purpose.BOT)], moment) == challenge
    assert refusal(challenge, now=end) == "ChallengeExpired"


def test_two_of_one_second_differ() -> None:
    assert len({challenges.make(BOUND, ca(Purpose.BOT), NOW)[0] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "bound",
    [
        replace(BOUND, namespace="prod"),
        replace(BOUND, join_token="others"),
        replace(BOUND, join_token_uid="token-2"),
        replace(BOUND, public_key=BOUND.public_key[:-1] + b"x"),
        replace(BOUND, namespace="cir", join_token="unners"),
    ],
    ids=["namespace", "join token", "join token made anew", "public key", "the same letters"],
)
def test_for_anything_else_it_is_none(bound: Challenged) -> None:
    challenge, _ = challenges.make(BOUND, ca(Purpose.BOT), NOW)
    assert refusal(challenge, bound) == "ChallengeInvalid"


def test_another_ca_has_not_made_it_and_an_older_one_still_counts() -> None:
    other = advance((), NOW, purpose=Purpose.BOT, algorithm="ECDSA-P256", cluster_name=CLUSTER, rotation=ROTATION)[0]
    challenge, _ = challenges.make(BOUND, ca(Purpose.BOT), NOW)
    assert refusal(challenge, generations=[other]) == "ChallengeInvalid"
    assert challenges.check(challenge, BOUND, [other, ca(Purpose.BOT)], NOW) == challenge


@pytest.mark.parametrize("challenge", [None, "", "x", "A" * 31, "A" * 32, "A" * 64, "ü" * 32, "A" * 31 + "="])
def test_what_is_none(challenge: str | None) -> None:
    assert refusal(challenge) == "ChallengeInvalid"


@given(st.integers(0, 23), st.integers(1, 255))
def test_no_byte_of_it_can_be_changed(place: int, flip: int) -> None:
    challenge, _ = challenges.make(BOUND, ca(Purpose.BOT), NOW)
    raw = bytearray(base64.urlsafe_b64decode(challenge))
    raw[place] ^= flip
    assert refusal(base64.urlsafe_b64encode(bytes(raw)).decode()) == "ChallengeInvalid"
