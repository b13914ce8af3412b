"""Who joins the embedded authority, and who does not."""

from typing import Any

import pytest

from machinebot.authority.embedded import IDENTITY_LIFE, MAX_TOKEN
from machinebot.errors import Denied, Unavailable
from machinebot.policy.credential import BotRef
from unit.authority.builders import (
    CLUSTER,
    NOW,
    REF,
    World,
    bot,
    joined,
    request,
    ssh_of,
)


async def test_join_gives_an_identity_for_an_hour() -> None:
    world = World()
    identity = await joined(world.authority())
    assert world.reviews == [("good", CLUSTER)]
    assert (identity.bot, identity.authority) == (REF, "default")
    assert (identity.service_account.name, identity.service_account.uid) == ("machinebot-deployer", "sa-1")
    assert (identity.joined_at, identity.expires_at) == (NOW, NOW + IDENTITY_LIFE)


def moved(world: Any, **changes: Any) -> None:
    for name, value in changes.items():
        setattr(world, name, value)


@pytest.mark.parametrize(
    ("change", "reason", "asked"),
    [
        pytest.param({"bots": {}}, "BotNotFound", False, id="no such bot"),
        pytest.param({"bots": {REF: bot({"deletion_timestamp": "x"})}}, "BotDeleting", False, id="bot being deleted"),
        pytest.param({"bots": {REF: bot(authority="other")}}, "WrongAuthority", False, id="bot of another authority"),
        pytest.param({"bots": {REF: bot({"namespace": "prod"})}}, "BotNotFound", False, id="directory gives another namespace"),
        pytest.param({"bots": {REF: bot({"name": "other"})}}, "BotNotFound", False, id="directory gives another name"),
        pytest.param({"bots": {REF: bot(serviceAccountName="runner")}}, "WrongServiceAccount", True, id="another account"),
        pytest.param(
            {
                "account": "system:serviceaccount:prod:machinebot-deployer",
                "uids": {"system:serviceaccount:prod:machinebot-deployer": "sa-1"},
            },
            "WrongServiceAccount",
            True,
            id="account of the same name in another namespace",
        ),
        pytest.param(
            {"uids": {"system:serviceaccount:ci:machinebot-deployer": "sa-2"}}, "ServiceAccountReplaced", True, id="UID"
        ),
    ],
)
async def test_join_is_denied(change: Any, reason: Any, asked: Any) -> None:
    world = World()
    authority = world.authority()
    moved(world, **change)
    with pytest.raises(Denied) as caught:
        await joined(authority)
    assert caught.value.reason == reason
    assert bool(world.reviews) == asked


@pytest.mark.parametrize("token", ["", "x" * (MAX_TOKEN + 1)], ids=["empty", "too long"])
async def test_token_is_bounded_before_it_is_sent(token: Any) -> None:
    world = World()
    with pytest.raises(Denied) as caught:
        await world.authority().join(REF, token, expected_uid="sa-1", now=NOW)
    assert (caught.value.reason, world.reviews) == ("TokenNotAuthenticated", [])


async def test_bad_token_is_denied_and_not_repeated() -> None:
    with pytest.raises(Denied) as caught:
        await World().authority().join(REF, "stolen-token", expected_uid="sa-1", now=NOW)
    assert caught.value.reason == "TokenNotAuthenticated"
    assert "stolen-token" not in str(caught.value)


async def test_no_expected_uid_is_never_right() -> None:
    world = World(uids={"system:serviceaccount:ci:machinebot-deployer": ""})
    with pytest.raises(Denied):
        await joined(world.authority(), uid="")
    with pytest.raises(Denied) as caught:
        await joined(World().authority(), uid="")
    assert caught.value.reason == "ServiceAccountReplaced"


async def test_api_server_that_is_away_is_not_a_denial() -> None:
    world = World()

    async def away(token: str, audience: str) -> Any:  # noqa: ARG001 - as the protocol has it
        raise Unavailable("APIServerAway", "try again")

    world.review = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await joined(world.authority())


async def test_bot_that_goes_while_the_api_server_is_asked_does_not_join() -> None:
    world = World()
    ask = world.review

    async def slow(token: Any, audience: Any) -> Any:
        world.bots.clear()
        return await ask(token, audience)

    world.review = slow  # type: ignore[method-assign]
    with pytest.raises(Denied) as caught:
        await joined(world.authority())
    assert caught.value.reason == "BotNotFound"


async def test_two_bots_may_share_a_service_account() -> None:
    other = BotRef("ci", "other")
    world = World()
    world.bots = {
        REF: bot(serviceAccountName="machinebot-deployer"),
        other: bot({"name": "other", "uid": "bot-2"}, serviceAccountName="machinebot-deployer"),
    }
    authority = world.authority()
    one = await joined(authority)
    two = await authority.join(other, "good", expected_uid="sa-1", now=NOW)
    assert one.service_account == two.service_account
    assert ssh_of(await authority.issue(two, request(), now=NOW)).key_id == b"bot:ci:other"
    assert ssh_of(await authority.issue(one, request(), now=NOW)).key_id == b"bot:ci:deployer"
