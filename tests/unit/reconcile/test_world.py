"""What has been seen of the cluster, and whom a change concerns."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import Invalid
from machinebot.kube.resources import AUTHORITY_LABEL, OUTPUTS, ROLES, SECRETS, SERVICE_ACCOUNTS
from machinebot.policy.credential import BotRef
from machinebot.policy.locks import Lock
from machinebot.reconcile import world as world_module
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.world import OutputFacts, SecretEntry, World
from machinebot.resources.output import RENEW_ANNOTATION
from unit.reconcile.builders import Json, authority, body, bot, join_token, key, lock, metadata_only, output, role, see, told

OUT, DEPLOYER, ACCESS = "MachineOutput/ci/out", "MachineBot/ci/deployer", "MachineRole/access"
COUNTED = f"MachineBot/ci/deployer in {world_module.COUNT_DELAY:g} s"
NEW = f"MachineBot/ci/deployer in {world_module.NEW_BOT_DELAY:g} s"


def secret(world: World, name: str = "out", *, gone: bool = False, **fields: Any) -> list[Due]:
    return world.observe(SECRETS, metadata_only(name, **fields), gone=gone)


def filled() -> World:
    """Two bots with the role `access`, one with another role; two outputs, one of them of the first bot."""
    world = World()
    for sort, document in (
        (Sort.AUTHORITY, authority()),
        (Sort.ROLE, role("access")),
        (Sort.ROLE, role("admin")),
        (Sort.BOT, bot("deployer", "access", "admin")),
        (Sort.BOT, bot("builder", "access")),
        (Sort.BOT, bot("keeper", "admin")),
        (Sort.OUTPUT, output("out", "deployer")),
        (Sort.OUTPUT, output("built", "builder")),
    ):
        see(world, sort, document)
    return world


# --- what is news --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "news"),
    [
        pytest.param("10", True, id="newer"),
        pytest.param("9", False, id="equal"),
        pytest.param("8", False, id="older"),
        pytest.param("100", True, id="more digits"),
        pytest.param("x", True, id="no number: different is newer"),
    ],
)
def test_only_what_is_newer_is_news(version: str, news: bool) -> None:
    world = World()
    assert told(see(world, Sort.BOT, bot(version=9))) == {NEW}
    dues = see(world, Sort.BOT, bot("deployer", "other", version=version, generation=2))
    assert bool(dues) is news
    entry = world.entry(key(Sort.BOT, "deployer"))
    assert entry is not None
    assert entry.version == (version if news else "9")
    assert entry.links == (("other",) if news else ("access",))


def test_versions_that_are_no_numbers_are_compared_for_being_equal() -> None:
    world = World()
    see(world, Sort.BOT, bot(version="x"))
    assert see(world, Sort.BOT, bot(version="x")) == []
    assert see(world, Sort.BOT, bot(version="y")) != []


def test_our_own_write_concerns_nobody() -> None:
    world = filled()
    world.remember(key(Sort.OUTPUT, "out"), output(version=5, status={"type": "identity"}))
    assert see(world, Sort.OUTPUT, output(version=5)) == []
    assert told(see(world, Sort.OUTPUT, output(version=6))) == {OUT}


def test_an_old_answer_to_our_own_write_does_not_undo_what_was_seen_since() -> None:
    world = filled()
    see(world, Sort.OUTPUT, output(version=9, generation=2))
    world.remember(key(Sort.OUTPUT, "out"), output(version=5))
    entry = world.entry(key(Sort.OUTPUT, "out"))
    assert entry is not None
    assert entry.version == "9"


def test_what_was_deleted_is_not_brought_back_by_an_older_look() -> None:
    world = filled()
    see(world, Sort.OUTPUT, output(), gone=True)
    assert see(world, Sort.OUTPUT, output(version=99)) == []
    assert world.entry(key(Sort.OUTPUT, "out")) is None
    assert world.outputs_of(BotRef("ci", "deployer")) == frozenset()
    world.remember(key(Sort.OUTPUT, "out"), output(version=100))
    assert world.entry(key(Sort.OUTPUT, "out")) is None


def test_another_one_of_the_same_name_is_news() -> None:
    world = filled()
    see(world, Sort.OUTPUT, output(), gone=True)
    assert told(see(world, Sort.OUTPUT, output(uid="second", version=9))) == {OUT, COUNTED}


def test_the_end_of_an_earlier_one_of_that_name_takes_nothing_away() -> None:
    world = filled()
    see(world, Sort.OUTPUT, output(uid="second", version=9))
    assert see(world, Sort.OUTPUT, output(), gone=True) == []
    assert world.entry(key(Sort.OUTPUT, "out")) is not None


def test_the_end_of_what_was_never_seen_concerns_nobody() -> None:
    world = World()
    assert see(world, Sort.OUTPUT, output(), gone=True) == []
    assert see(world, Sort.OUTPUT, output(version=99)) == [], "an older look at it"


@pytest.mark.parametrize(
    ("metadata", "known"),
    [
        pytest.param({"version": 9}, True, id="this version"),
        pytest.param({"version": 8}, True, id="an older version"),
        pytest.param({"version": 10}, False, id="a newer version"),
        pytest.param({"version": 9, "uid": "second"}, False, id="another one of that name"),
    ],
)
def test_knows_what_was_seen(metadata: dict[str, Any], known: bool) -> None:
    world = World()
    see(world, Sort.OUTPUT, output(version=9))
    assert world.knows(OUTPUTS, output(**metadata)["metadata"]) is known
    assert not world.knows(OUTPUTS, output("other", **metadata)["metadata"])
    see(world, Sort.ROLE, role(version=9))
    assert world.knows(ROLES, role(version=9)["metadata"])


def test_tombstones_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "TOMBSTONES", 3)
    world = World()
    for number in range(5):
        see(world, Sort.ROLE, role("r", uid=f"uid-{number}"), gone=True)
    assert see(world, Sort.ROLE, role("r", uid="uid-1", version=9)) != [], "long forgotten"
    assert see(world, Sort.ROLE, role("r", uid="uid-4", version=99)) == []


# --- whom it concerns ----------------------------------------------------------------------------------------------


def test_an_output_that_is_new_or_gone_concerns_itself_and_the_count_of_its_bot() -> None:
    world = World()
    assert told(see(world, Sort.OUTPUT, output())) == {OUT, COUNTED}
    assert told(see(world, Sort.OUTPUT, output(), gone=True)) == {OUT, COUNTED}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param(output(version=2, status={"type": "identity"}), {OUT}, id="status"),
        pytest.param(output(version=2, generation=2, spec={"credentialTTL": "8h"}), {OUT}, id="spec"),
        pytest.param(
            output(version=2, generation=2, bot="other"), {OUT, COUNTED, COUNTED.replace("deployer", "other")}, id="another bot"
        ),
        pytest.param(output(version=2, annotations={RENEW_ANNOTATION: "1"}), {OUT}, id="annotation"),
        pytest.param(output(version=2, uid="second"), {OUT}, id="replaced without a word"),
    ],
)
def test_a_changed_output_concerns_itself(changed: Json, expected: set[str]) -> None:
    assert told(see(filled(), Sort.OUTPUT, changed)) == expected


def test_outputs_are_found_by_their_bot() -> None:
    world = filled()
    see(world, Sort.OUTPUT, output("second", "deployer"))
    assert world.outputs_of(BotRef("ci", "deployer")) == {"out", "second"}
    see(world, Sort.OUTPUT, output("out", "builder", version=2, generation=2))
    assert world.outputs_of(BotRef("ci", "deployer")) == {"second"}
    assert world.outputs_of(BotRef("ci", "builder")) == {"built", "out"}
    see(world, Sort.OUTPUT, output("second", "deployer"), gone=True)
    assert world.outputs_of(BotRef("ci", "deployer")) == frozenset()
    assert world.outputs_of(BotRef("prod", "builder")) == frozenset()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param(bot("deployer", "access", "admin", version=2, status={"outputs": 1}), {DEPLOYER}, id="status"),
        pytest.param(bot("deployer", "access", version=2, generation=2), {DEPLOYER, OUT}, id="spec"),
        pytest.param(bot("deployer", "access", "admin", version=2, uid="second"), {DEPLOYER, OUT}, id="replaced without a word"),
    ],
)
def test_a_changed_bot_concerns_its_outputs_where_its_spec_changed(changed: Json, expected: set[str]) -> None:
    assert told(see(filled(), Sort.BOT, changed)) == expected


def test_a_bot_that_comes_or_goes_concerns_its_outputs() -> None:
    world = World()
    see(world, Sort.OUTPUT, output())
    assert told(see(world, Sort.BOT, bot())) == {NEW, OUT}
    assert told(see(world, Sort.BOT, bot(), gone=True)) == {DEPLOYER, OUT}
    assert world.bot(BotRef("ci", "deployer")) is None


def test_a_role_concerns_the_bots_that_have_it_and_their_outputs() -> None:
    world = filled()
    everybody = {ACCESS, DEPLOYER, OUT, "MachineBot/ci/builder", "MachineOutput/ci/built"}
    assert told(see(world, Sort.ROLE, role("access", version=2, generation=2))) == everybody
    assert told(see(world, Sort.ROLE, role("admin", version=2, generation=2))) == {
        "MachineRole/admin",
        DEPLOYER,
        OUT,
        "MachineBot/ci/keeper",
    }
    assert told(see(world, Sort.ROLE, role("access", version=3, generation=2, status={"observedGeneration": 2}))) == {ACCESS}
    assert told(see(world, Sort.ROLE, role("access"), gone=True)) == everybody


def test_a_role_that_comes_after_its_bots_concerns_them() -> None:
    world = World()
    see(world, Sort.BOT, bot("deployer", "late"))
    see(world, Sort.OUTPUT, output())
    assert told(see(world, Sort.ROLE, role("late"))) == {"MachineRole/late", DEPLOYER, OUT}


def test_a_bot_that_lost_a_role_is_no_longer_concerned() -> None:
    world = filled()
    see(world, Sort.BOT, bot("deployer", "admin", version=2, generation=2))
    assert told(see(world, Sort.ROLE, role("access", version=2, generation=2))) == {
        ACCESS,
        "MachineBot/ci/builder",
        "MachineOutput/ci/built",
    }
    see(world, Sort.BOT, bot("builder"), gone=True)
    assert told(see(world, Sort.ROLE, role("access", version=3, generation=3))) == {ACCESS}


def test_an_authority_concerns_everyone_where_its_spec_changed() -> None:
    world = filled()
    everyone = {str(due.key) for due in world.everyone()}
    assert everyone == {
        DEPLOYER,
        "MachineBot/ci/builder",
        "MachineBot/ci/keeper",
        OUT,
        "MachineOutput/ci/built",
    }
    own = {"MachineAuthority/default"}
    assert told(see(world, Sort.AUTHORITY, authority(version=2, status={"observedGeneration": 1}))) == own
    assert told(see(world, Sort.AUTHORITY, authority(version=3, generation=2))) == own | everyone
    assert told(see(world, Sort.AUTHORITY, authority(), gone=True)) == own | everyone


# --- locks and join tokens -----------------------------------------------------------------------------------------

LEAK, TOKEN = "MachineLock/leak", "MachineJoinToken/ci/ci"
INSTANCE = "0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11"
EVERYBODY_WITH_ACCESS = {DEPLOYER, OUT, "MachineBot/ci/builder", "MachineOutput/ci/built"}


def with_tokens() -> World:
    """`filled`, and three join tokens: of the first bot, of the second, and one whose secret an instance has used up."""
    world = filled()
    see(world, Sort.JOIN_TOKEN, join_token())
    see(world, Sort.JOIN_TOKEN, join_token("other", "builder"))
    see(world, Sort.JOIN_TOKEN, join_token("used", "keeper", status={"instance": {"id": INSTANCE}}))
    return world


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param({"bot": {"namespace": "ci", "name": "deployer"}}, {DEPLOYER, OUT, TOKEN}, id="bot"),
        pytest.param({"bot": {"namespace": "prod", "name": "deployer"}}, {"MachineBot/prod/deployer"}, id="of another namespace"),
        pytest.param({"bot": {"namespace": "ci", "name": "nobody"}}, {"MachineBot/ci/nobody"}, id="a bot that there is not"),
        pytest.param({"role": "access"}, EVERYBODY_WITH_ACCESS, id="role"),
        pytest.param({"role": "nothing"}, set(), id="a role of nobody"),
        pytest.param({"joinToken": {"namespace": "ci", "name": "ci"}}, {TOKEN}, id="join token"),
        pytest.param({"instance": INSTANCE}, {"MachineJoinToken/ci/used"}, id="instance that has used a secret up"),
        pytest.param({"instance": INSTANCE.replace("0d", "0e")}, set(), id="another instance"),
    ],
)
def test_a_lock_concerns_whom_it_stops_as_it_comes_changes_and_goes(target: Json, expected: set[str]) -> None:
    world = with_tokens()
    assert told(see(world, Sort.LOCK, lock(target=target))) == expected | {LEAK}
    assert told(see(world, Sort.LOCK, lock(target=target, version=2, status={"observedGeneration": 1}))) == {LEAK}
    assert told(see(world, Sort.LOCK, lock(target=target, version=3, generation=2, spec={"message": "why"}))) == expected | {LEAK}
    assert {str(due.key) for due in world.stopped_by(key(Sort.LOCK, "leak"))} == expected
    assert told(see(world, Sort.LOCK, lock(target=target), gone=True)) == expected | {LEAK}
    assert world.stopped_by(key(Sort.LOCK, "leak")) == []


def test_a_lock_that_is_turned_on_another_concerns_both() -> None:
    world = with_tokens()
    see(world, Sort.LOCK, lock())
    changed = lock(target={"bot": {"namespace": "ci", "name": "builder"}}, version=2, generation=2)
    assert told(see(world, Sort.LOCK, changed)) == {
        LEAK,
        DEPLOYER,
        OUT,
        TOKEN,
        "MachineBot/ci/builder",
        "MachineOutput/ci/built",
        "MachineJoinToken/ci/other",
    }


def test_locks_are_known_as_they_are_written_last() -> None:
    world = World()
    assert world.locks() == ()
    see(world, Sort.LOCK, lock())
    see(world, Sort.LOCK, lock("second", {"role": "access"}))
    first, second = Lock("leak", bot=BotRef("ci", "deployer")), Lock("second", role="access")
    assert set(world.locks()) == {first, second}
    known = world.locks()
    see(world, Sort.LOCK, lock(version=2, status={"observedGeneration": 1}))
    assert world.locks() is known, "a status is no news"
    see(world, Sort.LOCK, lock("second", {"role": "admin"}, version=2, generation=2))
    assert set(world.locks()) == {first, Lock("second", role="admin")}
    see(world, Sort.LOCK, lock(), gone=True)
    assert world.locks() == (Lock("second", role="admin"),)
    world.missing(Sort.LOCK, [("", "second")], "")
    assert world.locks() == ()


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="empty"),
        pytest.param({"target": None}, id="null"),
        pytest.param({"target": {"bot": "ci/deployer"}}, id="another shape"),
        pytest.param({"target": {"role": "*"}}, id="no name"),
        pytest.param({"target": {"role": "access"}, "expires": "tomorrow"}, id="no time"),
        pytest.param({"target": {"role": "access"}, "expires": "2027-02-30T00:00:00Z"}, id="no day of the calendar"),
    ],
)
def test_a_lock_that_cannot_be_read_stops_no_other_and_stays_what_it_was(spec: Json) -> None:
    world = filled()
    see(world, Sort.LOCK, lock("good", {"role": "admin"}))
    see(world, Sort.LOCK, lock("bad"))
    before = world.locks()
    assert len(before) == 2
    broken = body(Sort.LOCK, "bad", spec, version=2, generation=2)
    assert DEPLOYER in told(see(world, Sort.LOCK, broken))
    assert world.locks() == before
    with pytest.raises(Invalid):
        world.lock(key(Sort.LOCK, "bad"))
    see(world, Sort.LOCK, body(Sort.LOCK, "never-read", spec))
    assert world.locks() == before
    see(world, Sort.LOCK, broken, gone=True)
    assert world.lock(key(Sort.LOCK, "bad")) is None
    assert world.locks() == (Lock("good", role="admin"),)


@pytest.mark.parametrize(
    ("sort", "document", "target"),
    [
        pytest.param(Sort.BOT, bot("late"), {"bot": {"namespace": "ci", "name": "late"}}, id="bot"),
        pytest.param(Sort.ROLE, role("late"), {"role": "late"}, id="role"),
        pytest.param(Sort.JOIN_TOKEN, join_token("late"), {"joinToken": {"namespace": "ci", "name": "late"}}, id="join token"),
    ],
)
def test_a_lock_hears_of_what_it_is_about(sort: Sort, document: Json, target: Json) -> None:
    world = World()
    see(world, Sort.LOCK, lock(target=target))
    assert LEAK in told(see(world, sort, document))
    assert LEAK not in told(see(world, sort, document | {"metadata": document["metadata"] | {"resourceVersion": "2"}}))
    assert LEAK in told(see(world, sort, document, gone=True))


def test_a_join_token_concerns_itself_and_hears_of_its_bot() -> None:
    world = World()
    assert told(see(world, Sort.JOIN_TOKEN, join_token())) == {TOKEN}
    assert told(see(world, Sort.BOT, bot())) == {NEW, TOKEN}
    assert told(see(world, Sort.BOT, bot(version=2, status={"outputs": 1}))) == {DEPLOYER}
    assert told(see(world, Sort.JOIN_TOKEN, join_token(bot="other", version=2, generation=2))) == {TOKEN}
    assert told(see(world, Sort.BOT, bot(), gone=True)) == {DEPLOYER}
    assert told(see(world, Sort.BOT, bot("other"))) == {NEW.replace("deployer", "other"), TOKEN}
    see(world, Sort.JOIN_TOKEN, join_token(), gone=True)
    assert told(see(world, Sort.BOT, bot("other"), gone=True)) == {"MachineBot/ci/other"}


def test_a_join_token_is_read_or_told_what_is_wrong_with_it() -> None:
    world = World()
    see(world, Sort.JOIN_TOKEN, join_token())
    read = world.join_token(key(Sort.JOIN_TOKEN, "ci"))
    assert read is not None
    assert (read.method.name, read.spec.bot, read.metadata.namespace) == ("github", "deployer", "ci")
    see(world, Sort.JOIN_TOKEN, join_token("bad", spec={"jenkins": {}}))
    with pytest.raises(Invalid, match="exactly one join method"):
        world.join_token(key(Sort.JOIN_TOKEN, "bad"))
    assert world.join_token(key(Sort.JOIN_TOKEN, "none")) is None


# --- Secrets -------------------------------------------------------------------------------------------------------

OWNER = ("MachineOutput", "out", "machineoutput-out")


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        pytest.param("out", {"owner": OWNER}, {OUT}, id="owner and namesake are one"),
        pytest.param("web-tls", {"owner": OWNER}, {OUT}, id="owner"),
        pytest.param("built", {"owner": OWNER}, {OUT, "MachineOutput/ci/built"}, id="owner and namesake"),
        pytest.param("out", {}, {OUT}, id="namesake"),
        pytest.param("web-tls", {}, set(), id="of nobody"),
        pytest.param("web-tls", {"owner": ("MachineOutput", "gone", "u")}, set(), id="of an output that is not there"),
        pytest.param("web-tls", {"owner": ("Deployment", "out", "u")}, set(), id="of another kind of that name"),
        pytest.param("out", {"namespace": "prod"}, set(), id="namesake of another namespace"),
        pytest.param("ca", {"labels": {AUTHORITY_LABEL: "default"}}, {"MachineAuthority/default"}, id="of an authority"),
    ],
)
def test_a_secret_concerns_its_owner_and_its_namesake(name: str, fields: dict[str, Any], expected: set[str]) -> None:
    world = filled()
    namespace = fields.get("namespace", "ci")
    assert told(secret(world, name, **fields)) == expected
    assert secret(world, name, **fields) == [], "known already"
    entry = world.secret(namespace, name)
    assert entry is not None
    assert entry.version == "1"
    assert told(secret(world, name, **fields, version=2)) == expected
    assert told(secret(world, name, **fields, version=3, gone=True)) == expected
    assert world.secret(namespace, name) is None
    assert secret(world, name, **fields, version=3, gone=True) == [], "gone already"


def test_a_secret_that_lost_our_label_is_as_good_as_gone() -> None:
    world = filled()
    secret(world, owner=OWNER)
    assert told(secret(world, owner=OWNER, managed=False, version=2)) == {OUT}
    assert world.secret("ci", "out") is None
    assert secret(world, owner=OWNER, managed=False, version=3) == []


def test_a_secret_that_is_not_ours_is_not_looked_at() -> None:
    world = filled()
    assert secret(world, managed=False) == []
    assert world.secret("ci", "out") is None


def test_the_end_of_an_earlier_secret_of_that_name_takes_nothing_away() -> None:
    world = filled()
    secret(world, uid="second", version=9)
    assert secret(world, uid="first", gone=True) == []
    assert secret(world, uid="first", managed=False) == []
    assert world.secret("ci", "out") is not None


def test_our_own_write_of_a_secret_concerns_nobody() -> None:
    world = filled()
    world.remember_secret("ci", "out", SecretEntry(uid="uid-out", version="5", owner_uid="machineoutput-out"))
    assert secret(world, owner=OWNER, version=5) == []
    assert secret(world, owner=OWNER, version=4) == []
    assert told(secret(world, owner=OWNER, version=6)) == {OUT}
    world.remember_secret("ci", "out", None)
    world.remember_secret("ci", "out", None)
    assert world.secret("ci", "out") is None


@pytest.mark.parametrize(
    ("references", "owner_uid"),
    [
        pytest.param(None, None, id="none"),
        pytest.param([], None, id="empty"),
        pytest.param([{"kind": "MachineOutput", "name": "out", "uid": "u"}], None, id="no controller"),
        pytest.param(
            [{"kind": "X", "name": "x", "uid": "x"}, {"kind": "Y", "name": "y", "uid": "y", "controller": True}], "y", id="second"
        ),
    ],
)
def test_the_owner_is_the_controller(references: Any, owner_uid: str | None) -> None:
    world = filled()
    document = metadata_only("out")
    document["metadata"]["ownerReferences"] = references
    world.observe(SECRETS, document, gone=False)
    entry = world.secret("ci", "out")
    assert entry is not None
    assert entry.owner_uid == owner_uid


# --- statuses that somebody else has changed -------------------------------------------------------------------------

OUTPUT_KEY = Key(Sort.OUTPUT, "ci", "out")


def test_a_status_that_somebody_else_has_changed_is_doubted_until_the_output_goes() -> None:
    world = filled()
    assert world.doubted == set()
    body = output(version="900") | {"status": {"serial": "1"}}
    world.observe(OUTPUTS, body, gone=False)
    assert world.doubted == {OUTPUT_KEY}
    world.observe(OUTPUTS, body, gone=True)
    assert world.doubted == set()


def test_a_change_of_the_spec_doubts_no_status() -> None:
    world = filled()
    world.observe(OUTPUTS, output(version="900", generation=2), gone=False)
    assert world.doubted == set()


def test_our_own_write_is_not_doubted_whichever_of_answer_and_watch_comes_first() -> None:
    world = filled()
    body = output(version="900") | {"status": {"serial": "1"}}
    world.remember(OUTPUT_KEY, body)
    world.observe(OUTPUTS, body, gone=False)
    assert world.doubted == set()
    body = output(version="901") | {"status": {"serial": "2"}}
    world.observe(OUTPUTS, body, gone=False)
    world.remember(OUTPUT_KEY, body)
    assert world.doubted == set()


# --- ServiceAccounts -----------------------------------------------------------------------------------------------

BOT_OWNER = ("MachineBot", "deployer", "machinebot-deployer")


def account(world: World, *, gone: bool, **fields: Any) -> list[Due]:
    return world.observe(SERVICE_ACCOUNTS, metadata_only("machinebot-deployer", **fields), gone=gone)


def test_a_service_account_that_is_deleted_is_lost_to_its_bot() -> None:
    world = filled()
    assert account(world, gone=False, owner=BOT_OWNER) == []
    assert world.lost_accounts == set()
    assert told(account(world, gone=True, owner=BOT_OWNER)) == {DEPLOYER, "MachineOutput/ci/out"}
    assert world.lost_accounts == {BotRef("ci", "deployer")}


def test_the_end_of_an_earlier_bots_service_account_frees_the_way_of_the_bot_that_has_its_name_and_of_its_outputs() -> None:
    world = filled()
    due = account(world, gone=True, owner=("MachineBot", "deployer", "an-earlier-one"))
    assert told(due) == {DEPLOYER, "MachineOutput/ci/out"}
    assert world.lost_accounts == set()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="of nobody"),
        pytest.param({"owner": ("MachineBot", "gone", "u")}, id="of a bot that is not there"),
        pytest.param({"owner": ("Deployment", "deployer", "machinebot-deployer")}, id="of another kind"),
        pytest.param({"owner": BOT_OWNER, "namespace": "prod"}, id="of another namespace"),
    ],
)
def test_the_end_of_other_service_accounts_concerns_nobody(fields: dict[str, Any]) -> None:
    world = filled()
    assert account(world, gone=True, **fields) == []
    assert world.lost_accounts == set()


# --- the sweep -----------------------------------------------------------------------------------------------------


def test_what_a_full_list_does_not_show_is_gone() -> None:
    world = filled()
    assert told(world.missing(Sort.OUTPUT, {("ci", "out")}, "")) == {OUT, COUNTED}
    assert world.entry(key(Sort.OUTPUT, "out")) is None
    assert see(world, Sort.OUTPUT, output(version=99)) == []
    assert world.missing(Sort.OUTPUT, {("ci", "out"), ("ci", "never")}, "") == []


def test_the_list_of_one_namespace_says_nothing_of_others() -> None:
    world = filled()
    assert world.missing(Sort.OUTPUT, {("ci", "out")}, "prod") == []
    assert told(world.missing(Sort.OUTPUT, {("ci", "out")}, "ci")) == {OUT, COUNTED}
    secret(world)
    assert world.missing_secrets({("ci", "out")}, "prod") == []
    assert world.secret("ci", "out") is not None


def test_secrets_that_a_full_list_does_not_show_are_gone() -> None:
    world = filled()
    secret(world, "built")
    secret(world, "ca", labels={AUTHORITY_LABEL: "default"})
    places = world.secret_places()
    assert places == {("ci", "built"), ("ci", "ca")}
    assert told(world.missing_secrets(places, "")) == {"MachineOutput/ci/built"}
    assert world.secret_places() == set()
    assert world.missing_secrets(places, "") == []


def test_a_missing_role_concerns_as_much_as_a_deleted_one() -> None:
    world = filled()
    assert DEPLOYER in told(world.missing(Sort.ROLE, {("", "access")}, ""))
    assert "access" not in world.roles()


# --- reading -------------------------------------------------------------------------------------------------------


def test_what_decisions_need_is_read_back() -> None:
    world = filled()
    see(
        world,
        Sort.OUTPUT,
        output(version=2, annotations={RENEW_ANNOTATION: "1", "kubectl.kubernetes.io/last-applied-configuration": "x" * 10_000}),
    )
    found = world.output(key(Sort.OUTPUT, "out"))
    assert found is not None
    assert (found.spec.bot, found.type.name) == ("deployer", "identity")
    assert found.metadata.annotations == {RENEW_ANNOTATION: "1"}
    entry = world.entry(key(Sort.OUTPUT, "out"))
    assert entry is not None
    assert len(entry.body) < 1000, "nothing is kept that no decision uses"
    deployer = world.bot(BotRef("ci", "deployer"))
    assert deployer is not None
    assert deployer.spec.roles == ("access", "admin")
    assert set(world.roles()) == {"access", "admin"}
    default = world.authority("default")
    assert default is not None
    assert default.spec.cluster_name == "example.test"


def test_a_bot_that_is_being_deleted_says_so() -> None:
    world = World()
    see(world, Sort.BOT, bot(deletionTimestamp="2027-01-01T00:00:00Z"))
    deployer = world.bot(BotRef("ci", "deployer"))
    assert deployer is not None
    assert deployer.metadata.deletion_timestamp == "2027-01-01T00:00:00Z"


def test_what_is_not_there_is_none() -> None:
    world = World()
    assert world.output(key(Sort.OUTPUT, "out")) is None
    assert world.bot(BotRef("ci", "deployer")) is None
    assert world.authority("default") is None
    assert world.secret("ci", "out") is None
    assert world.everyone() == []


def test_keys_and_counts() -> None:
    world = filled()
    assert set(world.keys(Sort.ROLE)) == {Key(Sort.ROLE, "", "access"), Key(Sort.ROLE, "", "admin")}
    assert world.count(Sort.BOT) == 3
    for each in world.keys(Sort.ROLE):  # what is listed may change meanwhile
        see(world, Sort.ROLE, role(each.name), gone=True)
    assert world.count(Sort.ROLE) == 0


def test_objects_that_do_not_fit_the_model_harm_nobody_else() -> None:
    world = filled()
    see(world, Sort.ROLE, body(Sort.ROLE, "access", {"allow": {"logins": ["a b"]}}, version=2, generation=2))
    assert set(world.roles()) == {"admin"}, "unreadable is unknown"
    see(world, Sort.ROLE, role("access", version=3, generation=3))
    assert set(world.roles()) == {"access", "admin"}
    see(world, Sort.OUTPUT, output(version=2, spec={"sshHost": {"principals": ["x"]}}))
    with pytest.raises(Invalid):
        world.output(key(Sort.OUTPUT, "out"))
    see(world, Sort.AUTHORITY, body(Sort.AUTHORITY, "default", {"clusterName": "Not A Name"}, version=2))
    with pytest.raises(Invalid) as caught:
        world.authority("default")
    assert caught.value.reason == "InvalidSpec"
    assert world.output(key(Sort.OUTPUT, "built")) is not None


def test_facts_for_metrics() -> None:
    world = World()
    status = {
        "type": "identity",
        "notBefore": "2027-01-01T00:00:00Z",
        "notAfter": "2027-01-02T00:00:00Z",
        "renewAt": "2027-01-01T12:00:00Z",
        "conditions": [{"type": "Renewing", "status": "True"}, {"type": "Ready", "status": "False"}],
    }
    see(world, Sort.OUTPUT, output("out", status=status))
    see(world, Sort.OUTPUT, output("fresh"))
    assert sorted(world.output_facts(), key=lambda facts: facts.name) == [
        OutputFacts("ci", "fresh", "", None, None, None, "Unknown"),
        OutputFacts("ci", "out", "identity", "2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z", "2027-01-01T12:00:00Z", "False"),
    ]


def test_keys_as_text() -> None:
    assert str(Key(Sort.ROLE, "", "access")) == "MachineRole/access"
    assert str(Key(Sort.BOT, "ci", "deployer")) == "MachineBot/ci/deployer"


# --- whatever comes in whatever order -------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]), st.booleans(), st.integers(1, 3)), max_size=12
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.randoms(use_true_random=False))
def test_the_order_and_number_of_looks_does_not_matter(events: list[tuple[str, str, bool, int]], random: Any) -> None:
    """The history of a few outputs, told in order; and the same with each word repeated and old words between."""
    history: list[tuple[Json, bool]] = []
    incarnation = dict.fromkeys("ab", 0)
    for (name, bot_name, gone, _), version in zip(events, itertools.count(1), strict=False):
        document = output(name, bot_name, version=version, generation=version, uid=f"{name}-{incarnation[name]}")
        history.append((document, gone))
        incarnation[name] += gone
    plain, noisy = World(), World()
    for place, (document, gone) in enumerate(history):
        see(plain, Sort.OUTPUT, document, gone=gone)
        see(noisy, Sort.OUTPUT, document, gone=gone)
        for old, old_gone in random.sample(history[: place + 1], min(place + 1, 3)):
            see(noisy, Sort.OUTPUT, old, gone=old_gone)
    assert set(noisy.keys(Sort.OUTPUT)) == set(plain.keys(Sort.OUTPUT))
    for bot_name in "xy":
        assert noisy.outputs_of(BotRef("ci", bot_name)) == plain.outputs_of(BotRef("ci", bot_name))
