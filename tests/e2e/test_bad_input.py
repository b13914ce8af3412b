"""What people get wrong, by `kubectl apply` with the operator at work: a clear word, one Event, nothing half-made, no harm to others."""

import json
import secrets as chance
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from controlplane.cluster import ControlPlane, KubectlError
from e2e.support.objects import OURS, Json, bot, condition, create, get, items, output, role, secret, wait_ready
from e2e.support.whole import check_whole
from support.waiting import eventually
from workbench.operator import OperatorProcess

pytestmark = pytest.mark.cluster

SWEEP = "machinebot_last_sweep_timestamp_seconds"


@dataclass(frozen=True)
class Wrong:
    """A bot and an output of it that the API server takes and the operator refuses.

    Attributes:
        reason: Of the condition and of the Event.
        words: What the message says; `{role}` and such stand for names of the test.
        bot: The bot's spec, where it differs from the good one.
        output: The output's spec, where it differs.
        refuses_bot: Whether the bot is refused as well.
    """

    reason: str
    words: tuple[str, ...]
    bot: Json = field(default_factory=dict)
    output: Json = field(default_factory=dict)
    refuses_bot: bool = False


WRONG = {
    "unknown-role": Wrong(
        "RoleNotFound", ("there is no MachineRole 'no-such-role'", "spec.roles"), {"roles": ["no-such-role"]}, refuses_bot=True
    ),
    "role-elsewhere": Wrong(
        "RoleNotForNamespace", ("'{elsewhere}'", "spec.namespaces"), {"roles": ["{elsewhere}"]}, refuses_bot=True
    ),
    "mfa": Wrong("SessionMFARequired", ("'{mfa}'", "requireSessionMFA"), {"roles": ["{mfa}"]}, refuses_bot=True),
    "no-logins": Wrong("NoLogins", ("'{good}'", "login"), {"logins": []}),
    "trait-newline-like": Wrong(
        "InvalidLogin", ("'{free}'", "deploy me", "trait"), {"roles": ["{free}"], "traits": {"team": ["deploy me"]}}
    ),
    "trait-comma": Wrong("InvalidLogin", ("'{free}'", "a,b", "trait"), {"roles": ["{free}"], "traits": {"team": ["a,b"]}}),
    "unknown-bot": Wrong("BotMissing", ("there is no MachineBot 'nobody'", "spec.bot"), output={"bot": "nobody"}),
    "not-its-role": Wrong("RoleNotOfBot", ("'{free}'", "spec.roles"), output={"roles": ["{free}"]}),
    "taken": Wrong("SecretConflict", ("'taken'", "secret.name"), output={"secret": {"name": "taken"}}),
    "no-account": Wrong(
        "ServiceAccountMissing", ("'nobody'", "serviceAccountName"), {"serviceAccountName": "nobody"}, refuses_bot=True
    ),
    "no-authority": Wrong("AuthorityMissing", ("'no-such'", "spec.authority"), {"authority": "no-such"}, refuses_bot=True),
}


@dataclass(frozen=True)
class Place:
    """A namespace with a good bot and output beside all the wrong ones, and the names of its roles."""

    cluster: ControlPlane
    namespace: str
    names: dict[str, str]
    operator: OperatorProcess

    def fill(self, thing: Any) -> Any:
        text = json.dumps(thing)
        for name, value in self.names.items():
            text = text.replace("{" + name + "}", value)
        return json.loads(text)


@pytest.fixture(scope="module")
def place(plane: ControlPlane, operator: OperatorProcess) -> Iterator[Place]:
    """All the wrong ones are applied at once; the good neighbour comes last and becomes Ready."""
    token = chance.token_hex(3)
    names = {name: f"{name}-{token}" for name in ("good", "elsewhere", "mfa", "free")}
    made = Place(plane, f"bad-{token}", names, operator)
    plane.kubectl("create", "namespace", made.namespace)
    create(
        plane,
        role(names["good"], [made.namespace]),
        role(names["elsewhere"], ["another-namespace"]),
        role(names["mfa"], [made.namespace], options={"requireSessionMFA": True}),
        role(names["free"], [made.namespace], allow={"logins": ["{{ external.team }}"]}),
        secret(made.namespace, "taken", {"password": b"valuable"}),
    )
    bots, outputs = [], []
    for name, wrong in WRONG.items():
        spec = {"logins": ["deploy"], "roles": [names["good"]]} | made.fill(wrong.bot)
        bots.append(bot(made.namespace, name, *spec.pop("roles"), **spec))
        outputs.append(output(made.namespace, name, **({"bot_name": name} | _renamed(made.fill(wrong.output)))))
    apply(plane, *bots)
    eventually("each bot was looked at", lambda: all(map(_is_answered, items(plane, "machinebots", made.namespace))))
    good = bot(made.namespace, "good", names["good"]), output(made.namespace, "good", "good")
    apply(plane, *outputs, *good)
    wait_ready(plane, made.namespace, "machineoutput/good")
    eventually("each output was looked at", lambda: all(map(_is_answered, items(plane, "machineoutputs", made.namespace))))
    for name in WRONG:
        eventually("an Event", lambda: warnings(made, "MachineOutput", name))  # noqa: B023 - used at once
    two_sweeps(made)
    yield made
    plane.kubectl("delete", "namespace", made.namespace, "--wait=false")


def _renamed(spec: Json) -> Json:
    return {"bot_name" if name == "bot" else name: value for name, value in spec.items()}


def apply(cluster: ControlPlane, *things: Json) -> None:
    cluster.kubectl("apply", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": things}))


def _is_answered(thing: Json) -> bool:
    return condition(thing).get("status") in ("True", "False")


def warnings(place: Place, kind: str, name: str) -> list[Json]:
    return [
        event
        for event in items(place.cluster, "events.events.k8s.io", place.namespace)
        if (event["regarding"]["kind"], event["regarding"]["name"], event["type"]) == (kind, name, "Warning")
    ]


def two_sweeps(place: Place) -> None:
    """The operator has looked at everything twice more: what it wanted to say, it has said."""
    for _ in range(2):
        before = place.operator.metrics()[SWEEP]
        eventually("a sweep", lambda: place.operator.metrics()[SWEEP] > before)  # noqa: B023 - used at once


@pytest.mark.parametrize("name", WRONG)
def test_what_the_operator_refuses_shows_on_that_object_and_leaves_nothing_half_made(place: Place, name: str):
    wrong = WRONG[name]
    found = get(place.cluster, "machineoutput", place.namespace, name)
    told = condition(found)
    assert (told["status"], told["reason"]) == ("False", wrong.reason), told
    for words in wrong.words:
        assert place.fill(words) in told["message"]
    assert "secret" not in found["status"]
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    its_bot = get(place.cluster, "machinebot", place.namespace, name)
    assert condition(its_bot)["status"] == ("False" if wrong.refuses_bot else "True"), condition(its_bot)

    for kind, is_refused in (("MachineOutput", True), ("MachineBot", wrong.refuses_bot)):
        events = warnings(place, kind, name)
        assert [event["reason"] for event in events] == ([wrong.reason] if is_refused else []), [each["note"] for each in events]


def test_the_good_neighbour_is_ready_and_nothing_is_written_any_more(place: Place):
    check_whole(*(get(place.cluster, kind, place.namespace, "good") for kind in ("machineoutput", "secret")))
    assert warnings(place, "MachineOutput", "good") == warnings(place, "MachineBot", "good") == []
    before = versions(place)
    two_sweeps(place)
    assert versions(place) == before


def versions(place: Place) -> dict[str, str]:
    """Of everything but what is tried again with a back-off, which is kept in status: a ServiceAccount may still appear."""
    kinds = ("secrets", "machinebots", "machineoutputs")
    found = [thing for kind in kinds for thing in items(place.cluster, kind, place.namespace)]
    names = {f"{thing['kind']}/{thing['metadata']['name']}": thing["metadata"]["resourceVersion"] for thing in found}
    return {name: version for name, version in names.items() if not name.endswith("/no-account")}


def test_nothing_is_made_for_those_that_are_refused(place: Place):
    ours = items(place.cluster, "secrets", place.namespace, f"--selector={OURS}")
    owners = {thing["metadata"]["ownerReferences"][0]["name"] for thing in ours}
    assert owners.isdisjoint(WRONG)
    taken = get(place.cluster, "secret", place.namespace, "taken")
    assert taken["data"] == secret(place.namespace, "taken", {"password": b"valuable"})["data"]
    assert "labels" not in taken["metadata"]
    accounts = items(place.cluster, "serviceaccounts", place.namespace, f"--selector={OURS}")
    refused = {f"machinebot-{name}" for name, wrong in WRONG.items() if wrong.refuses_bot}
    assert refused.isdisjoint(account["metadata"]["name"] for account in accounts)


@pytest.mark.parametrize(
    ("spec", "where", "words"),
    [
        pytest.param({"logins": ["deploy\nroot"]}, "spec.logins[0]", "newlines", id="login with a newline"),
        pytest.param({"logins": ["deploy,root"]}, "spec.logins[0]", "commas", id="login with a comma"),
        pytest.param({"logins": ["-oProxyCommand"]}, "spec.logins[0]", "dash in front", id="login that is an option"),
        pytest.param({"logins": ["*"]}, "spec.logins[0]", "wildcards", id="login that is a wildcard"),
        pytest.param({"logins": [""]}, "spec.logins[0]", "account name", id="empty login"),
        pytest.param({"traits": {"logins": ["a\nb"]}}, "spec.traits", "newlines", id="logins trait with a newline"),
        pytest.param({"traits": {"logins": ["a,b"]}}, "spec.traits", "commas", id="logins trait with a comma"),
        pytest.param({"traits": {"team": ["{{ internal.logins }}"]}}, "spec.traits", "templates", id="trait with a template"),
        pytest.param({"traits": {"team": ["a\nb"]}}, "spec.traits", "newlines", id="trait with a newline"),
        pytest.param({"maxSessionTTL": "0"}, "spec.maxSessionTTL", "duration", id="no life"),
        pytest.param({"roles": []}, "spec.roles", "at least 1", id="no roles"),
    ],
)
def test_a_bot_that_the_schema_refuses_is_told_which_field(place: Place, spec: Json, where: str, words: str):
    roles = spec.pop("roles", [place.names["good"]]) if "roles" in spec else [place.names["good"]]
    check_refused(place, bot(place.namespace, "refused", *roles, **spec), where, words)


@pytest.mark.parametrize(
    ("spec", "where", "words"),
    [
        pytest.param({"credentialTTL": "0"}, "spec.credentialTTL", "duration of at least 5m", id="TTL 0"),
        pytest.param({"credentialTTL": "abc"}, "spec.credentialTTL", "duration of at least 5m", id="TTL abc"),
        pytest.param({"credentialTTL": "-1h"}, "spec.credentialTTL", "duration of at least 5m", id="negative TTL"),
        pytest.param({"credentialTTL": "1d"}, "spec.credentialTTL", "duration of at least 5m", id="TTL in days"),
        pytest.param({"credentialTTL": 3600}, "spec.credentialTTL", "string", id="TTL that is a number"),
        pytest.param({"identity": None}, "spec", "exactly one type", id="no type"),
        pytest.param({"sshHost": {"principals": ["a.test"]}}, "spec", "exactly one type", id="two types"),
        pytest.param({"renewBefore": "1h", "renewBeforePercentage": 50}, "spec.renewBefore", "exclude", id="both renewals"),
        pytest.param({"secret": {"name": "Not_A_Name"}}, "spec.secret.name", "name of an object", id="Secret's name"),
        pytest.param({"credentialTtl": "1h"}, "credentialTtl", "unknown field", id="misspelt field"),
    ],
)
def test_an_output_that_the_schema_refuses_is_told_which_field(place: Place, spec: Json, where: str, words: str):
    thing = output(place.namespace, "refused", "good")
    thing["spec"] = {name: value for name, value in {**thing["spec"], **spec}.items() if value is not None}
    check_refused(place, thing, where, words)


def check_refused(place: Place, thing: Json, where: str, words: str) -> None:
    with pytest.raises(KubectlError) as caught:
        apply(place.cluster, thing)
    assert where in str(caught.value)
    assert words in str(caught.value)
    kind = thing["kind"].lower()
    assert place.cluster.kubectl("get", kind, "refused", f"--namespace={place.namespace}", "--ignore-not-found") == ""


def test_a_life_above_the_limits_is_reduced_and_said_so(place: Place):
    apply(place.cluster, output(place.namespace, "long", "good", credentialTTL="48h"))
    wait_ready(place.cluster, place.namespace, "machineoutput/long")
    found = get(place.cluster, "machineoutput", place.namespace, "long")
    assert found["spec"]["credentialTTL"] == "48h"
    assert found["status"]["ttl"] == "24h"
    assert "24h" in found["status"]["ttlReducedBy"]
    check_whole(found, get(place.cluster, "secret", place.namespace, "long"))


def test_what_was_wrong_becomes_ready_once_it_is_put_right(place: Place):
    """By the object itself, by its bot and by its role: each is looked at again at once."""
    token = chance.token_hex(3)
    later = f"later-{token}"
    apply(
        place.cluster,
        bot(place.namespace, f"role-{token}", later),
        output(place.namespace, f"role-{token}", f"role-{token}"),
        output(place.namespace, f"bot-{token}", f"bot-{token}"),
        output(place.namespace, f"self-{token}", "good", roles=["no-such-role"]),
    )
    names = [f"role-{token}", f"bot-{token}", f"self-{token}"]
    for name in names:
        eventually(
            "it is refused",
            lambda: condition(get(place.cluster, "machineoutput", place.namespace, name)).get("status") == "False",  # noqa: B023
        )
    apply(
        place.cluster,
        role(later, [place.namespace]),
        bot(place.namespace, f"bot-{token}", place.names["good"]),
        output(place.namespace, f"self-{token}", "good"),
    )
    wait_ready(place.cluster, place.namespace, *(f"machineoutput/{name}" for name in names), seconds=60)
    place.cluster.kubectl("delete", "machinerole", later)
