"""Events: bounded, slow where they must be, and never in the way."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from machinebot.errors import Denied, Unavailable
from machinebot.kube import events as events_module
from machinebot.kube.events import MAX_NOTE, MAX_WAITING, PER_SECOND, EventRecorder, Subject
from machinebot.kube.resources import EVENTS, Resource
from machinebot.metrics import Metrics
from unit.controller.virtual import run, seconds

SUBJECT = Subject("MachineOutput", "ci", "deployer", "uid-1", "7")


class Api:
    """Takes Events down, with their second; may refuse them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.posted: list[tuple[str, dict[str, Any], float]] = []
        self.error = error

    async def create(self, resource: Resource, namespace: str, body: dict[str, Any]) -> None:
        assert resource == EVENTS
        self.posted.append((namespace, body, seconds()))
        if self.error is not None:
            raise self.error


class Desk:
    """A recorder, and what it posted."""

    def __init__(self, api: Api | None = None, instance: str = "pod-a") -> None:
        self.api = api or Api()
        self.metrics = Metrics(CollectorRegistry())
        self.recorder = EventRecorder(self.api, self.metrics, instance=instance)  # type: ignore[arg-type]  # the one verb of it

    def say(self, note: str = "a note", *, subject: Subject = SUBJECT, kind: Any = "Warning", reason: str = "Away") -> None:
        self.recorder.record(subject, kind, reason, note, action="Issue")

    async def post(self, length: float) -> None:
        """Posts for some seconds."""
        task = asyncio.create_task(self.recorder.run())
        await asyncio.sleep(length)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @property
    def notes(self) -> list[str]:
        return [body["note"] for _, body, _ in self.api.posted]

    @property
    def dropped(self) -> float | None:
        return self.metrics.registry.get_sample_value("machinebot_events_dropped_total")


def posted(*notes: str, **fields: Any) -> list[tuple[str, dict[str, Any], float]]:
    async def story() -> list[tuple[str, dict[str, Any], float]]:
        desk = Desk()
        for note in notes:
            desk.say(note, **fields)
        await desk.post(1000)
        return desk.api.posted

    return run(story())


def test_an_event_as_it_is_posted() -> None:
    ((namespace, body, _),) = posted("a note")
    assert namespace == "ci"
    assert re.fullmatch(r"deployer\.[0-9a-f]{16}", body["metadata"].pop("name"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", body.pop("eventTime"))
    assert body == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "ci"},
        "reportingController": "machinebot.dev/operator",
        "reportingInstance": "pod-a",
        "action": "Issue",
        "reason": "Away",
        "type": "Warning",
        "note": "a note",
        "regarding": {
            "apiVersion": "machinebot.dev/v1alpha1",
            "kind": "MachineOutput",
            "namespace": "ci",
            "name": "deployer",
            "uid": "uid-1",
            "resourceVersion": "7",
        },
    }


def test_an_event_about_what_has_no_namespace() -> None:
    ((namespace, body, _),) = posted("a note", subject=Subject("MachineRole", "", "access", "uid-2"))
    assert namespace == body["metadata"]["namespace"] == "default"
    assert body["regarding"]["namespace"] == ""


def test_long_names_fit() -> None:
    async def story() -> None:
        desk = Desk(instance="p" * 300)
        desk.say(subject=Subject("MachineRole", "", "r" * 253, "uid-2"))
        await desk.post(1)
        ((_, body, _),) = desk.api.posted
        assert len(body["metadata"]["name"]) <= 253
        assert len(body["reportingInstance"]) == 128

    run(story())


# --- notes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        pytest.param("x" * 1024, "x" * 1024, id="just fits"),
        pytest.param("x" * 1025, "x" * 1024, id="one too many"),
        pytest.param("é" * 513, "é" * 512, id="two bytes a character, on the border"),
        pytest.param("x" + "é" * 512, "x" + "é" * 511, id="two bytes a character, across the border"),
        pytest.param("xx" + "€" * 341, "xx" + "€" * 340, id="three bytes"),
        pytest.param("x" + "🤖" * 256, "x" + "🤖" * 255, id="four bytes"),
    ],
)
def test_a_note_is_cut_between_characters(note: str, expected: str) -> None:
    assert [body["note"] for _, body, _ in posted(note)] == [expected]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=600).map(lambda text: text * 3))
def test_any_note_is_a_beginning_that_fits(note: str) -> None:
    ((_, body, _),) = posted(note)
    assert note.startswith(body["note"])
    assert len(body["note"].encode()) <= MAX_NOTE
    assert len(body["note"].encode()) > min(MAX_NOTE, len(note.encode())) - 4


# --- how often -----------------------------------------------------------------------------------------------------


def test_the_same_warning_in_a_row_is_said_once() -> None:
    assert len(posted("a", "a", "a")) == 1
    assert len(posted("a", "b", "a")) == 3
    assert len(posted("a", "a", kind="Normal")) == 2, "two rotations are two rotations"


def test_a_warning_is_said_again_after_something_else() -> None:
    async def story() -> None:
        desk = Desk()
        desk.say("a")
        desk.say("a", reason="Other")
        desk.say("a")
        desk.say("a", kind="Normal")
        desk.say("a")
        await desk.post(10)
        assert len(desk.notes) == 5

    run(story())


def test_each_object_has_its_own_say() -> None:
    async def story() -> None:
        desk = Desk()
        for number in range(10):
            for _ in range(2):
                desk.say("a", subject=Subject("MachineOutput", "ci", "deployer", f"uid-{number}"))
        await desk.post(10)
        assert len(desk.notes) == 10
        assert len({body["metadata"]["name"] for _, body, _ in desk.api.posted}) == 10

    run(story())


def test_what_was_said_is_remembered_of_so_many_objects() -> None:
    async def story() -> None:
        desk = Desk()
        for number in range(3 * MAX_WAITING):
            desk.say("a", subject=Subject("MachineOutput", "ci", "deployer", f"uid-{number}"))
        assert len(desk.recorder._last) == MAX_WAITING

    run(story())


def test_a_storm_is_bounded_and_what_is_dropped_is_counted() -> None:
    async def story() -> None:
        desk = Desk()
        for number in range(MAX_WAITING + 500):
            desk.say(f"note {number}", kind="Normal")
        assert desk.dropped == 500
        await desk.post(10.01)
        assert len(desk.notes) == 10 * PER_SECOND + 1
        assert desk.notes[:3] == ["note 0", "note 1", "note 2"]
        desk.say("later", kind="Normal")
        assert desk.dropped == 500

    run(story())


@pytest.mark.parametrize("error", [Unavailable("Away", ""), Denied("NamespaceTerminating", "")], ids=repr)
def test_an_event_that_is_refused_is_counted_and_not_tried_again(error: Exception) -> None:
    async def story() -> None:
        desk = Desk(Api(error))
        desk.say("a")
        desk.say("b")
        await desk.post(10)
        assert desk.notes == ["a", "b"]
        assert desk.dropped == 2
        desk.api.error = None
        desk.say("c")
        await desk.post(10)
        assert desk.notes[-1] == "c"
        assert desk.dropped == 2

    run(story())


def test_the_figures_are_those_of_kubernetes() -> None:
    assert events_module.MAX_NOTE == 1024
