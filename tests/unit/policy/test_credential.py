"""The value types between those who want a credential and the authority."""

import dataclasses

import pytest

from machinebot.policy.credential import AnchorState, BotRef, Form, Purpose, TrustAnchor, TrustBundle, Usage, Wish
from machinebot.policy.names import NameKind
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


@pytest.mark.parametrize(
    ("usage", "purpose", "form"),
    [
        (Usage.SSH_USER, Purpose.SSH_USER, Form.SSH),
        (Usage.SSH_HOST, Purpose.SSH_HOST, Form.SSH),
        (Usage.IDENTITY, Purpose.IDENTITY, Form.X509),
        (Usage.IDENTITY_SERVER, Purpose.IDENTITY, Form.X509),
        (Usage.DATABASE_CLIENT, Purpose.DATABASE, Form.X509),
        (Usage.DATABASE_SERVER, Purpose.DATABASE, Form.X509),
        (Usage.DATABASE_NODE, Purpose.DATABASE, Form.X509),
        (Usage.KUBERNETES, Purpose.KUBERNETES, Form.X509),
        (Usage.WORKLOAD, Purpose.WORKLOAD, Form.X509),
        (Usage.WORKLOAD_TOKEN, Purpose.WORKLOAD, Form.JWT),
    ],
)
def test_which_ca_signs_a_usage_and_what_it_is(usage: Usage, purpose: Purpose, form: Form) -> None:
    assert (usage.purpose, usage.form) == (purpose, form)


def test_every_purpose_is_used() -> None:
    assert {usage.purpose for usage in Usage} == set(Purpose)


def test_a_wish_gives_its_names_by_kind() -> None:
    wish = Wish(usages=frozenset({Usage.SSH_HOST}), names={NameKind.HOST_PRINCIPALS: ("web",)})
    assert wish.of(NameKind.HOST_PRINCIPALS) == ("web",)
    assert wish.of(NameKind.LOGINS) == ()


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
    wish = Wish(usages=frozenset({Usage.SSH_USER}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        wish.usages = frozenset()  # type: ignore[misc]


def anchor(purpose: Purpose, name: str, state: AnchorState = AnchorState.ACTIVE) -> TrustAnchor:
    return TrustAnchor(purpose=purpose, id=name, state=state, public=b"", fingerprint="", not_after=NOW)


def test_a_bundle_tells_purposes_apart_and_keeps_their_order() -> None:
    anchors = (
        anchor(Purpose.SSH_USER, "b"),
        anchor(Purpose.SSH_HOST, "c"),
        anchor(Purpose.SSH_USER, "a", AnchorState.OLD),
    )
    bundle = TrustBundle("example.test", "https://machinebot.example.test", anchors)
    assert [each.id for each in bundle.of(Purpose.SSH_USER)] == ["b", "a"]
    assert [each.id for each in bundle.of(Purpose.SSH_HOST)] == ["c"]
    assert bundle.of(Purpose.DATABASE) == ()
    assert (bundle.cluster_name, bundle.issuer) == ("example.test", "https://machinebot.example.test")
