"""The value types between those who want a credential and the authority."""

import dataclasses

import pytest

from machinebot.policy.credential import AnchorState, BotRef, Purpose, TrustAnchor, TrustBundle, Wish
from unit.policy.builders import NOW


@pytest.mark.parametrize(
    ("purpose", "is_ssh"),
    [
        (Purpose.SSH_USER, True),
        (Purpose.SSH_HOST, True),
        (Purpose.IDENTITY, False),
        (Purpose.DATABASE, False),
        (Purpose.KUBERNETES, False),
        (Purpose.WORKLOAD, False),
    ],
)
def test_which_purposes_are_ssh(purpose: Purpose, is_ssh: bool) -> None:
    assert purpose.is_ssh is is_ssh


def test_names_of_a_bot() -> None:
    ref = BotRef("ci", "deployer")
    assert ref == BotRef.of("ci", "deployer")
    assert ref.user == "bot:ci:deployer"
    assert ref.spiffe_id("example.test") == "spiffe://example.test/ns/ci/bot/deployer"


def test_bots_are_ordered_by_namespace_and_name() -> None:
    assert sorted([BotRef("b", "a"), BotRef("a", "b"), BotRef("a", "a")]) == [
        BotRef("a", "a"),
        BotRef("a", "b"),
        BotRef("b", "a"),
    ]


def test_a_wish_cannot_be_changed() -> None:
    wish = Wish(purposes=frozenset({Purpose.SSH_USER}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        wish.host_principals = ("web",)  # type: ignore[misc]


def anchor(purpose: Purpose, name: str, state: AnchorState = AnchorState.ACTIVE) -> TrustAnchor:
    return TrustAnchor(purpose=purpose, id=name, state=state, public=b"", fingerprint="", not_after=NOW)


def test_a_bundle_tells_purposes_apart_and_keeps_their_order() -> None:
    anchors = (
        anchor(Purpose.SSH_USER, "b"),
        anchor(Purpose.SSH_HOST, "c"),
        anchor(Purpose.SSH_USER, "a", AnchorState.OLD),
    )
    bundle = TrustBundle("example.test", anchors)
    assert [each.id for each in bundle.of(Purpose.SSH_USER)] == ["b", "a"]
    assert [each.id for each in bundle.of(Purpose.SSH_HOST)] == ["c"]
    assert bundle.of(Purpose.DATABASE) == ()
