"""Trust bundles in ConfigMaps on a real API server: in each namespace that is meant, as they should be, and nobody else's touched."""

import copy
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from machinebot.outputs.trust import pieces
from machinebot.policy.credential import Purpose
from support.cluster import Json
from support.inprocess import RunningOperator
from support.line import Call
from support.stage import Stage, condition, told, unique
from support.waiting import DEADLINE, eventually

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

CONDITION = "TrustBundlePublished"


class Spaces:
    """Namespaces with one prefix of their own, and the ConfigMaps of one authority in them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.prefix = unique("s")
        self.authority = unique("authority")
        self.config_map = f"machinebot-trust-{self.authority}"
        self.made: list[str] = []

    def make(self, name: str) -> str:
        full = f"{self.prefix}-{name}"
        self.stage.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": full}})
        self.made.append(full)
        return full

    def publish(self, *globs: str, **spec: Any) -> None:
        """Make the authority, with globs below the prefix, and wait until it is ready."""
        self.stage.authority(self.authority, trustBundle={"namespaces": self.globs(*globs)}, **spec)
        self.stage.authority_ready(self.authority)

    def change(self, *globs: str) -> None:
        patch = {"spec": {"trustBundle": {"namespaces": self.globs(*globs)}}}
        self.stage.cluster.patch("MachineAuthority", "", self.authority, patch)

    def globs(self, *globs: str) -> list[str]:
        return [f"{self.prefix}-{glob}" for glob in globs]

    def find(self, namespace: str) -> Json | None:
        return self.stage.cluster.get("ConfigMap", namespace, self.config_map)

    def there(self, namespace: str) -> Json:
        """Wait until the ConfigMap is there."""
        found = eventually(f"the ConfigMap in {namespace}", partial(self.find, namespace), interval=0.03)
        assert found is not None
        return found

    def gone(self, namespace: str, *, seconds: float = DEADLINE) -> None:
        eventually(f"no ConfigMap in {namespace}", lambda: self.find(namespace) is None, interval=0.03, seconds=seconds)

    def body(self) -> Json:
        body = self.stage.cluster.get("MachineAuthority", "", self.authority)
        assert body is not None
        return body

    def says(self, status: str, words: str) -> Json:
        """Wait until the authority says so of its ConfigMaps; it stays ready all the time."""

        def look() -> Json:
            body = self.body()
            assert told(body, "True")
            found = condition(body, CONDITION)
            assert found is not None
            assert (found["status"], words in found["message"]) == (status, True), found
            return found

        return eventually(f"the authority says {status}: {words}", look)

    def mark(self) -> int:
        return self.stage.audit.mark()

    def writes(self, mark: int) -> list[str]:
        """What the operator wrote to the ConfigMaps, in the order of the namespaces, and to the authority."""
        user = self.stage.release.operator_user
        found = [write for name in (*sorted(self.made), "") for write in self.stage.audit.since(mark, user=user, namespace=name)]
        mine = [write for write in found if write.name in (self.config_map, self.authority)]
        return [str(write) for write in mine]


@pytest.fixture
def spaces(stage: Stage, authority: str, running: RunningOperator) -> Iterator[Spaces]:
    assert authority
    assert running.running
    held = Spaces(stage)
    with stage.clearing():
        yield held
        for name in held.made:
            stage.cluster.delete("Namespace", "", name)


def data_of(running: RunningOperator, authority: str) -> dict[str, str]:
    """What the ConfigMap is to hold."""
    picture = running.operator._picture
    assert picture is not None
    return {key: content.decode() for key, content in pieces(picture.authorities.get(authority).trust()).items()}


# --- where --------------------------------------------------------------------------------------------------------------


def test_each_matching_namespace_gets_a_config_map_with_every_piece(spaces: Spaces, running: RunningOperator) -> None:
    matching, other = [spaces.make("team-a"), spaces.make("team-b")], spaces.make("other")
    spaces.publish("team-*")
    for namespace in matching:
        body = spaces.there(namespace)
        assert body["data"] == data_of(running, spaces.authority)
        assert body["metadata"]["labels"] == {
            "app.kubernetes.io/managed-by": "machinebot",
            "machinebot.dev/authority": spaces.authority,
        }
        (owner,) = body["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("MachineAuthority", spaces.body()["metadata"]["uid"])
        assert owner["blockOwnerDeletion"] is False
    running.settle()
    assert spaces.find(other) is None
    found = spaces.says("True", f"the ConfigMap {spaces.config_map} is in 2 namespaces")
    assert found["reason"] == "Published"
    text = str(spaces.there(matching[0])["data"])
    assert "PRIVATE KEY" not in text
    assert text.count("BEGIN CERTIFICATE") >= 4
    assert "@cert-authority" in text


def test_the_authority_default_has_the_short_name(stage: Stage, running: RunningOperator) -> None:
    name = unique("s")
    stage.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    before = (stage.cluster.get("MachineAuthority", "", "default") or {})["spec"].get("trustBundle")
    stage.cluster.patch("MachineAuthority", "", "default", {"spec": {"trustBundle": {"namespaces": [name]}}})
    eventually("the ConfigMap", lambda: stage.cluster.get("ConfigMap", name, "machinebot-trust"))
    stage.cluster.patch("MachineAuthority", "", "default", {"spec": {"trustBundle": before or {"namespaces": []}}})
    eventually("no ConfigMap", lambda: stage.cluster.get("ConfigMap", name, "machinebot-trust") is None)
    stage.cluster.delete("Namespace", "", name)
    running.settle()


def test_a_new_namespace_has_it_within_a_second_or_so(spaces: Spaces) -> None:
    spaces.publish("*")
    spaces.make("first")
    spaces.there(f"{spaces.prefix}-first")
    took = []
    for name in ("second", "third", "fourth"):
        begun = time.monotonic()
        spaces.there(spaces.make(name))
        took.append(time.monotonic() - begun)
    assert min(took) < 5, "far below that on an idle machine"
    spaces.says("True", "is in 4 namespaces")


def test_two_authorities_publish_side_by_side(spaces: Spaces, stage: Stage) -> None:
    space = spaces.make("a")
    spaces.publish("*")
    other = stage.authority(trustBundle={"namespaces": spaces.globs("*")})
    spaces.there(space)
    found = eventually("the other one", lambda: stage.cluster.get("ConfigMap", space, f"machinebot-trust-{other}"))
    assert found is not None
    assert found["data"] != spaces.there(space)["data"]


def test_globs_that_change_publish_and_withdraw(spaces: Spaces, running: RunningOperator) -> None:
    first, second = spaces.make("a"), spaces.make("b")
    spaces.publish("a")
    spaces.there(first)
    spaces.change("b")
    spaces.there(second)
    spaces.gone(first)
    spaces.says("True", "is in 1 namespace")
    mark = spaces.mark()
    spaces.change()
    spaces.gone(second)
    eventually("the condition goes", lambda: condition(spaces.body(), CONDITION) is None)
    running.settle()
    assert sorted(spaces.writes(mark)) == ["delete configmaps", "patch machineauthorities/status"]


def test_a_deleted_authority_takes_its_config_maps_along(spaces: Spaces, stage: Stage) -> None:
    space = spaces.make("a")
    spaces.publish("*")
    spaces.there(space)
    mark = spaces.mark()
    stage.cluster.delete("MachineAuthority", "", spaces.authority)
    spaces.gone(space, seconds=120)  # the garbage collector knows a new kind only after half a minute
    assert "delete configmaps" not in spaces.writes(mark), "the garbage collector's work"


def test_a_namespace_goes_away_without_a_storm(spaces: Spaces, stage: Stage, running: RunningOperator) -> None:
    space, other = spaces.make("a"), spaces.make("b")
    spaces.publish("*")
    spaces.there(space)
    spaces.there(other)
    spaces.says("True", "is in 2 namespaces")
    running.settle()
    mark = spaces.mark()
    stage.cluster.delete("Namespace", "", space)
    eventually("the namespace is gone", lambda: stage.cluster.get("Namespace", "", space) is None)
    running.settle()
    assert [write for write in spaces.writes(mark) if write != "patch machineauthorities/status"] == []


# --- as it should be ----------------------------------------------------------------------------------------------------


def edit(body: Json) -> None:
    body["data"]["jwks"] = '{"keys":[]}'


def emptied(body: Json) -> None:
    del body["data"]


def added(body: Json) -> None:
    body["data"]["mine"] = "1"


def binary(body: Json) -> None:
    body["binaryData"] = {"mine": "MQ=="}


def frozen(body: Json) -> None:
    body["data"]["jwks"] = '{"keys":[]}'
    body["immutable"] = True


def without_digest(body: Json) -> None:
    del body["metadata"]["annotations"]


def without_owner(body: Json) -> None:
    del body["metadata"]["ownerReferences"]


def of_another_authority(body: Json) -> None:
    body["metadata"]["labels"]["machinebot.dev/authority"] = "another"


@pytest.mark.parametrize(
    "change",
    [edit, emptied, added, binary, frozen, without_digest, without_owner, of_another_authority],
    ids=lambda each: each.__name__,
)
def test_what_somebody_changes_is_put_right(spaces: Spaces, stage: Stage, running: RunningOperator, change: Any) -> None:
    space = spaces.make("a")
    spaces.publish("*")
    good = spaces.there(space)
    spaces.says("True", "is in 1 namespace")
    running.settle()
    mark = spaces.mark()
    body = copy.deepcopy(good)
    change(body)
    stage.cluster.replace(body)

    def right() -> bool:
        found = spaces.find(space)
        assert found is not None
        kept = [found.get("data"), found.get("binaryData"), found.get("immutable")]
        kept += [found["metadata"].get(name) for name in ("labels", "annotations", "ownerReferences")]
        return kept == [good["data"], None, None] + [
            good["metadata"][name] for name in ("labels", "annotations", "ownerReferences")
        ]

    eventually("it is as it was", right)
    running.settle()
    writes = [write for write in spaces.writes(mark) if write != "patch machineauthorities/status"]
    assert writes == (["delete configmaps", "create configmaps"] if change is frozen else ["update configmaps"])


def test_a_deleted_one_is_made_again(spaces: Spaces, stage: Stage) -> None:
    space = spaces.make("a")
    spaces.publish("*")
    old = spaces.there(space)
    stage.cluster.delete("ConfigMap", space, spaces.config_map)
    anew = eventually(
        "a new one", lambda: (found := spaces.find(space)) and found["metadata"]["uid"] != old["metadata"]["uid"] and found
    )
    assert anew
    assert anew["data"] == old["data"]


def test_labels_and_annotations_of_others_stay(spaces: Spaces, stage: Stage, running: RunningOperator) -> None:
    space = spaces.make("a")
    spaces.publish("*")
    spaces.there(space)
    running.settle()
    mark = spaces.mark()
    patch = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}
    stage.cluster.patch("ConfigMap", space, spaces.config_map, patch)
    running.settle()
    assert spaces.writes(mark) == []
    stage.cluster.patch("ConfigMap", space, spaces.config_map, {"data": {"mine": "1"}})
    eventually("it is put right", lambda: "mine" not in spaces.there(space)["data"])
    metadata = spaces.there(space)["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]["note"]) == ("a", "b")


def test_nothing_is_written_or_read_where_nothing_changed(spaces: Spaces, stage: Stage, running: RunningOperator) -> None:
    for name in ("a", "b", "c"):
        spaces.make(name)
    spaces.publish("*")
    spaces.says("True", "is in 3 namespaces")
    running.settle()
    mark, reads = spaces.mark(), running.total("machinebot_api_requests_total", verb="get", resource="configmaps")
    for _ in range(3):
        running.settle()
    assert running.total("machinebot_api_requests_total", verb="get", resource="configmaps") == reads
    assert spaces.writes(mark) == []
    running.stop()
    stage.cluster.patch("ConfigMap", f"{spaces.prefix}-b", spaces.config_map, {"data": {"jwks": "{}"}})
    running.start()
    running.wait_leading()
    running.settle()
    assert spaces.writes(mark) == ["update configmaps"], "what was changed while nobody looked, and nothing else"
    assert spaces.there(f"{spaces.prefix}-b")["data"] == data_of(running, spaces.authority)


def test_what_happened_while_the_operator_was_down_is_made_up_for(spaces: Spaces, stage: Stage, running: RunningOperator) -> None:
    kept, deleted = spaces.make("a"), spaces.make("b")
    spaces.publish("*")
    spaces.there(kept)
    spaces.there(deleted)
    running.settle()
    running.stop()
    stage.cluster.delete("ConfigMap", deleted, spaces.config_map)
    later = spaces.make("c")
    spaces.change("b", "c")
    running.start()
    running.wait_leading()
    spaces.there(deleted)
    spaces.there(later)
    spaces.gone(kept)


def test_a_rotated_ca_reaches_every_namespace_with_one_write_each(spaces: Spaces, stage: Stage, running: RunningOperator) -> None:
    running.stop()
    names = [spaces.make("a"), spaces.make("b")]
    stage.authority(
        spaces.authority, embedded={"rotation": {"every": "50h", "overlap": "25h"}}, trustBundle={"namespaces": spaces.globs("*")}
    )
    with stage.operator() as stepped:
        stepped.wait_leading()
        spaces.says("True", "is in 2 namespaces")
        stepped.settle()
        before = spaces.there(names[0])["data"]
        mark = spaces.mark()
        stepped.step(timedelta(hours=26))
        eventually("the new CAs are published", lambda: spaces.there(names[0])["data"] != before)
        stepped.wait_quiet()
        stepped.settle()
        after = data_of(stepped, spaces.authority)
        assert [spaces.there(name)["data"] for name in names] == [after, after]
        assert after["identity-ca"].count("BEGIN CERTIFICATE") == 2
        assert [write for write in spaces.writes(mark) if "configmaps" in write] == ["update configmaps"] * 2


# --- what stands in the way ---------------------------------------------------------------------------------------------


def foreign(spaces: Spaces, namespace: str) -> Json:
    metadata = {"name": spaces.config_map, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    return spaces.stage.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})


def test_a_foreign_config_map_is_told_and_left_alone_until_it_goes(
    spaces: Spaces, stage: Stage, running: RunningOperator
) -> None:
    taken, free = spaces.make("a"), spaces.make("b")
    before = foreign(spaces, taken)
    spaces.publish("*")
    spaces.there(free)
    found = spaces.says("False", "not published in 1 of 2 namespaces")
    assert found["reason"] == "TrustBundleConflict"
    assert f"in the namespace '{taken}' is not ours" in found["message"]
    assert "delete it, or leave the namespace out of spec.trustBundle.namespaces" in found["message"]
    for _ in range(2):
        running.step(timedelta(minutes=1))
        running.settle()
    unchanged = spaces.find(taken)
    assert unchanged is not None
    assert unchanged["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    events = [event for event in stage.cluster.list("Event", "default") if event["regarding"]["name"] == spaces.authority]
    assert [(event["type"], event["reason"]) for event in events] == [("Warning", "TrustBundleConflict")]
    stage.cluster.delete("ConfigMap", taken, spaces.config_map)
    running.step(timedelta(minutes=10))
    assert spaces.there(taken)["data"] == data_of(running, spaces.authority)
    spaces.says("True", "is in 2 namespaces")


def test_one_that_lost_our_label_is_left_alone_until_it_has_it_again(spaces: Spaces, stage: Stage) -> None:
    space = spaces.make("a")
    spaces.publish("*")
    spaces.there(space)
    patch: Json = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}, "data": {"mine": "1"}}
    stage.cluster.patch("ConfigMap", space, spaces.config_map, patch)
    spaces.says("False", "where it lost the label, put it back")
    assert spaces.there(space)["data"]["mine"] == "1"
    stage.cluster.patch(
        "ConfigMap", space, spaces.config_map, {"metadata": {"labels": {"app.kubernetes.io/managed-by": "machinebot"}}}
    )
    spaces.says("True", "is in 1 namespace")
    assert "mine" not in spaces.there(space)["data"]


def test_a_namespace_that_cannot_be_written_harms_no_other(spaces: Spaces, running: RunningOperator) -> None:
    bad, good = spaces.make("a"), spaces.make("b")

    def to_bad(call: Call) -> bool:
        return (call.resource, call.namespace, call.verb) == ("configmaps", bad, "create")

    with running.line.failing(to_bad) as met:
        spaces.publish("*")
        spaces.there(good)
        eventually("the trouble is met", lambda: met)
        running.wait_quiet()
        assert spaces.find(bad) is None
        assert told(spaces.body(), "True")
    running.step(timedelta(seconds=30))
    spaces.there(bad)
    spaces.says("True", "is in 2 namespaces")


def test_where_only_some_namespaces_are_served_no_other_gets_one(spaces: Spaces, stage: Stage, running: RunningOperator) -> None:
    running.stop()
    served, other = spaces.make("a"), spaces.make("b")
    with stage.operator(watch_namespaces=(served, f"{spaces.prefix}-not-there")) as narrow:
        narrow.wait_leading()
        spaces.publish("*")
        spaces.there(served)
        spaces.says("True", "is in 1 namespace")
        narrow.settle()
        assert spaces.find(other) is None
        assert narrow.total("machinebot_api_requests_total", resource="namespaces") == 0
        stage.cluster.delete("ConfigMap", served, spaces.config_map)
        spaces.there(served)


def test_every_ca_of_the_bundle_is_a_published_one(spaces: Spaces) -> None:
    space = spaces.make("a")
    spaces.publish("*")
    data = spaces.there(space)["data"]
    published = {anchor["purpose"]: anchor["public"] for anchor in spaces.body()["status"]["authorities"]}
    for purpose in (Purpose.IDENTITY, Purpose.DATABASE, Purpose.KUBERNETES, Purpose.WORKLOAD):
        assert data[f"{purpose}-ca"] == published[purpose]
    assert data["ssh-user-ca"].strip() == published[Purpose.SSH_USER].strip()
