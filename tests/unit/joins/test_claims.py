"""The engine that every platform's table is run by: kinds of matching, what a rule must have, and what is said of it."""

from typing import Any

import pytest
from pydantic import ValidationError

from machinebot.joins.base import no_audience, no_warnings
from machinebot.joins.claims import Claim, Match, alone, any_matches, attributes, matches, rule_model, shown, unknown
from machinebot.joins.jwts import VerifiedClaims
from machinebot.joins.registry import schema_model
from machinebot.resources import crdgen, join_token
from support.issuing import NOW

CLAIMS = (
    Claim("id", "id", "Id.", stable=True, alias="theID"),
    Claim("exact_name", "name", "Name."),
    Claim("pattern", "path", "Path.", Match.GLOB),
    Claim("nested", ("a", "b"), "Nested."),
    Claim("flag", "flag", "Flag.", Match.BOOLEAN),
    Claim("group", "groups", "Group.", Match.MEMBER),
    Claim("places", "place", "Places.", Match.ONE_OF),
    Claim("derived", "name", "Derived.", read=lambda verified: (verified.text("name") or "").split(",")),
)
RULE = rule_model("test", CLAIMS, [("id", "exact_name", "pattern", "nested", "flag", "group", "places", "derived")])


def fits(rule: dict[str, Any], **claims: Any) -> bool:
    return matches(CLAIMS, RULE.model_validate(rule), VerifiedClaims(claims=claims, expires_at=NOW))


ROWS: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("equal", {"exactName": "x"}, {"name": "x"}, True),
    ("another case", {"exactName": "x"}, {"name": "X"}, False),
    ("longer", {"exactName": "x"}, {"name": "xx"}, False),
    ("no wildcard where it is exact", {"exactName": "x*"}, {"name": "xx"}, False),
    ("a wildcard that is meant", {"exactName": "x*"}, {"name": "x*"}, True),
    ("a number as text", {"theID": "7"}, {"id": 7}, True),
    ("true is no text", {"theID": "True"}, {"id": True}, False),
    ("a fraction is no text", {"theID": "7.0"}, {"id": 7.0}, False),
    ("a list is no text", {"theID": "7"}, {"id": ["7"]}, False),
    ("absent", {"theID": "7"}, {}, False),
    ("null", {"theID": "None"}, {"id": None}, False),
    ("glob", {"pattern": "acme/*"}, {"path": "acme/a/b"}, True),
    ("glob is anchored", {"pattern": "acme/*"}, {"path": "x/acme/a"}, False),
    ("glob goes over line breaks", {"pattern": "acme/*"}, {"path": "acme/a\nb"}, True),
    ("glob fits no empty claim", {"pattern": "a*"}, {"path": ""}, False),
    ("nested", {"nested": "x"}, {"a": {"b": "x"}}, True),
    ("nested is not flat", {"nested": "x"}, {"a.b": "x"}, False),
    ("nested in something else", {"nested": "x"}, {"a": "x"}, False),
    ("true", {"flag": True}, {"flag": True}, True),
    ("true as text", {"flag": True}, {"flag": "true"}, True),
    ("true is not false", {"flag": False}, {"flag": True}, False),
    ("false", {"flag": False}, {"flag": False}, True),
    ("false as text", {"flag": False}, {"flag": "false"}, True),
    ("false is not absent", {"flag": False}, {}, False),
    ("false is not null", {"flag": False}, {"flag": None}, False),
    ("false is not empty", {"flag": False}, {"flag": ""}, False),
    ("false is not zero", {"flag": False}, {"flag": 0}, False),
    ("true is not one", {"flag": True}, {"flag": 1}, False),
    ("true is not another text", {"flag": True}, {"flag": "True"}, False),
    ("member", {"group": "b"}, {"groups": ["a", "b"]}, True),
    ("member among other types", {"group": "b"}, {"groups": [1, None, "b"]}, True),
    ("no member", {"group": "c"}, {"groups": ["a", "b"]}, False),
    ("no member of nothing", {"group": "c"}, {"groups": []}, False),
    ("member of a text", {"group": "a"}, {"groups": "a"}, False),
    ("member of a text that holds it", {"group": "a"}, {"groups": "abc"}, False),
    ("member of an object", {"group": "a"}, {"groups": {"a": 1}}, False),
    ("one of", {"places": ["a", "b"]}, {"place": "b"}, True),
    ("none of", {"places": ["a", "b"]}, {"place": "c"}, False),
    ("one of a list", {"places": ["a"]}, {"place": ["a"]}, False),
    ("derived", {"derived": "b"}, {"name": "a,b"}, True),
    ("derived from nothing", {"derived": "b"}, {}, False),
    ("all fields", {"theID": "7", "exactName": "x"}, {"id": "7", "name": "x"}, True),
    ("not all fields", {"theID": "7", "exactName": "x"}, {"id": "7", "name": "y"}, False),
]


@pytest.mark.parametrize(("rule", "claims", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_matching(rule: dict[str, Any], claims: dict[str, Any], expected: bool) -> None:
    assert fits(rule, **claims) is expected


def test_no_rule_lets_nobody_in() -> None:
    verified = VerifiedClaims(claims={"id": "7"}, expires_at=NOW)
    assert not any_matches(CLAIMS, (), verified)
    assert not matches(CLAIMS, RULE.model_construct(), verified)
    assert not matches(CLAIMS, RULE.model_construct(id=""), VerifiedClaims(claims={"id": ""}, expires_at=NOW))


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"unknown": "x"},
        {"theID": None},
        {"theID": ""},
        {"theID": "x" * 513},
        {"theID": 7},
        {"pattern": "*"},
        {"pattern": "x" * 513},
        {"places": []},
        {"places": [""]},
        {"places": ["x" * 513]},
        {"places": ["x"] * 33},
        {"places": "x"},
        {"flag": "perhaps"},
        {"group": ""},
    ],
    ids=repr,
)
def test_rules_that_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RULE.model_validate(rule)


def test_rule_of_one_field_names_it() -> None:
    with pytest.raises(ValidationError, match="a rule must have theID"):
        rule_model("one", CLAIMS, [("id",)]).model_validate({"exactName": "x"})


def test_schema_of_a_rule_has_the_same_checks() -> None:
    schema = rule_model("two", CLAIMS, [("id", "pattern"), ("flag",)]).model_json_schema()
    assert [check["rule"] for check in schema["x-kubernetes-validations"]] == [
        "has(self.theID) || has(self.pattern)",
        "has(self.flag)",
    ]


def test_attributes_have_the_names_of_fields_and_are_short() -> None:
    claims = {"id": 7, "name": "x" * 300, "flag": True, "groups": ["a", "b"], "path": ""}
    told = attributes(CLAIMS, VerifiedClaims(claims=claims, expires_at=NOW))
    assert told == {"theID": "7", "exactName": "x" * 256, "flag": "true", "group": "a, b", "derived": "x" * 256}
    assert shown("y" * 300) == "y" * 256


def test_unknown_claims_are_few_and_short() -> None:
    verified = VerifiedClaims(
        claims={f"{number:03}{'x' * 80}": 1 for number in range(40)} | {"iss": "x", "id": 1}, expires_at=NOW
    )
    told = unknown(verified, frozenset({"id"}))
    assert len(told) == 16
    assert {len(name) for name in told} == {64}


def test_name_without_an_id_is_warned_of() -> None:
    rules = [RULE.model_validate(each) for each in ({"exactName": "x"}, {"exactName": "x", "theID": "7"}, {"flag": True})]
    assert alone(CLAIMS, rules, {"exact_name": "id"}) == (
        "allow[0].exactName is trusted alone, a name that may become somebody else's: add theID",
    )
    assert alone(CLAIMS, rules, {}) == ()


@pytest.mark.parametrize(
    ("pattern", "strangers"),
    [("acme*", True), ("?cme/web", True), ("*", True), ("acme/*", False), ("acme/?", False), ("acme", False), ("a/*/b?", False)],
)
def test_glob_that_leaves_the_owner_open(pattern: str, strangers: bool) -> None:
    rule = RULE.model_construct(**{**dict.fromkeys(RULE.model_fields), "pattern": pattern})
    (said,) = alone(CLAIMS, [rule], {"pattern": "id"})
    assert ("strangers" in said) is strangers


def test_defaults_of_a_method() -> None:
    assert no_audience(None, "example.test") is None
    assert no_warnings(None) == ()


def test_schema_of_all_methods_is_structural_and_bounded() -> None:
    spec = crdgen.generate(join_token.KIND, schema_model())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
        "spec"
    ]
    assert {"github", "gitlab", "azureDevOps", "terraformCloud", "oidc"} <= set(spec["properties"])
