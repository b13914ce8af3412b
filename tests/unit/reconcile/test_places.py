"""Namespaces and the ConfigMaps in them as they come by watches, lists and our own writes, in whatever order."""

from typing import Any

import pytest

from machinebot.kube.resources import CONFIG_MAPS, NAMESPACES
from machinebot.reconcile.keys import Sort
from machinebot.reconcile.places import Places, authority_of, config_map_name
from machinebot.reconcile.world import World
from unit.reconcile.builders import authority, metadata_only, see, told

DIGEST = "machinebot.dev/digest"


def namespace(name: str = "ci", uid: str = "u", **metadata: Any) -> dict[str, Any]:
    return {"name": name, "uid": uid, "resourceVersion": "1", **metadata}


def config_map(version: int = 1, *, uid: str = "u", managed: bool = True) -> dict[str, Any]:
    owner = ("MachineAuthority", "default", "owner")
    metadata: dict[str, Any] = metadata_only("machinebot-trust", uid=uid, version=version, managed=managed, owner=owner)[
        "metadata"
    ]
    return {**metadata, "annotations": {DIGEST: "d"}}


@pytest.mark.parametrize(
    ("authority", "name"), [("default", "machinebot-trust"), ("other", "machinebot-trust-other"), ("a.b", "machinebot-trust-a.b")]
)
def test_a_config_map_is_named_after_its_authority(authority: str, name: str) -> None:
    assert config_map_name(authority) == name
    assert authority_of(name) == authority


@pytest.mark.parametrize("name", ["other", "machinebot", "machinebot-trustother", "machinebot-trust-default"])
def test_other_names_are_nobodys(name: str) -> None:
    assert authority_of(name) is None


def test_a_namespace_matters_when_it_comes_and_when_it_goes() -> None:
    places = Places()
    assert places.observe_namespace(namespace(), gone=False)
    assert not places.observe_namespace(namespace(labels={"a": "b"}), gone=False), "a label"
    assert places.namespaces() == ["ci"]
    assert places.observe_namespace(namespace(deletionTimestamp="now"), gone=False)
    assert not places.observe_namespace(namespace(deletionTimestamp="now"), gone=True)
    assert places.namespaces() == []
    assert places.observe_namespace(namespace(uid="v"), gone=False), "made again"
    assert not places.observe_namespace(namespace(uid="u"), gone=True), "an old event"
    assert places.has_namespace("ci")


def test_a_namespace_that_is_assumed_needs_no_event() -> None:
    places = Places()
    places.assume(("ci", "team-a"))
    assert sorted(places.namespaces()) == ["ci", "team-a"]


def test_a_config_map_is_news_in_each_later_version_until_it_goes() -> None:
    places = Places()
    assert places.observe_bundle(config_map(1), gone=False)
    assert not places.observe_bundle(config_map(1), gone=False)
    assert places.observe_bundle(config_map(2), gone=False)
    assert not places.observe_bundle(config_map(1), gone=False), "an older list"
    found = places.bundle("ci", "machinebot-trust")
    assert found is not None
    assert (found.version, found.owner_uid, found.digest, found.verified) == ("2", "owner", "d", False)
    assert not places.observe_bundle(config_map(3, uid="other"), gone=True), "of an earlier one"
    assert places.observe_bundle(config_map(3, managed=False), gone=False), "it lost our label"
    assert places.bundles() == []


def test_what_we_wrote_is_verified_and_its_echo_is_no_news() -> None:
    places = Places()
    places.remember_bundle("ci", "machinebot-trust", config_map(5))
    assert not places.observe_bundle(config_map(5), gone=False)
    found = places.bundle("ci", "machinebot-trust")
    assert found is not None
    assert found.verified


def test_a_later_version_that_a_watch_has_shown_before_our_answer_came_stands() -> None:
    places = Places()
    places.observe_bundle(config_map(6), gone=False)
    places.remember_bundle("ci", "machinebot-trust", config_map(5))
    found = places.bundle("ci", "machinebot-trust")
    assert found is not None
    assert (found.version, found.verified) == ("6", False)


def test_a_namespace_concerns_every_authority_and_a_config_map_its_own() -> None:
    world = World()
    for name in ("default", "other"):
        see(world, Sort.AUTHORITY, authority(name))
    both = {"TrustBundle/ci/default", "TrustBundle/ci/other"}
    assert told(world.observe(NAMESPACES, {"metadata": namespace()}, gone=False)) == both
    assert told(world.observe(CONFIG_MAPS, {"metadata": config_map()}, gone=False)) == {"TrustBundle/ci/default"}
    assert world.observe(CONFIG_MAPS, metadata_only("somebody-elses"), gone=False) == []
    assert told(world.missing_bundles([("ci", "machinebot-trust")], "")) == {"TrustBundle/ci/default"}
    assert world.missing_bundles([("ci", "machinebot-trust")], "team-a") == []
    assert told(world.missing_namespaces(["ci", "never-seen"])) == both


def test_an_authoritys_bundles_are_those_that_should_be_and_those_that_are() -> None:
    world = World()
    body = authority("other")
    body["spec"]["trustBundle"] = {"namespaces": ["team-*"]}
    see(world, Sort.AUTHORITY, body)
    for name in ("team-a", "ci", "x"):
        world.observe(NAMESPACES, {"metadata": namespace(name)}, gone=False)
    world.places.remember_bundle("x", "machinebot-trust-other", config_map())
    world.places.remember_bundle("ci", "machinebot-trust", config_map())
    assert told(world.bundles("other")) == {"TrustBundle/team-a/other", "TrustBundle/x/other"}
    assert told(world.bundles("gone")) == set()
