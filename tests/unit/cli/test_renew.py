"""Which outputs are renewed, and when they are."""

from datetime import UTC, datetime
from typing import Any

import pytest

from machinebot.cli.cluster import Scope
from machinebot.cli.renew import Chosen, Waiting, check, is_renewed, why_not
from machinebot.errors import Invalid
from machinebot.resources.output import RENEW_ANNOTATION

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = "2026-01-01T00:00:00+00:00"
Json = dict[str, Any]


def body(*, wanted: str | None = ASKED, fulfilled: str | None = ASKED, serial: str | None = "2", name: str = "web") -> Json:
    annotations = {} if wanted is None else {RENEW_ANNOTATION: wanted}
    return {
        "metadata": {"namespace": "ci", "name": name, "annotations": annotations},
        "spec": {},
        "status": {"renewToken": fulfilled, "serial": serial},
    }


@pytest.mark.parametrize(
    ("output", "serial", "renewed"),
    [
        pytest.param(body(), "1", True, id="renewed"),
        pytest.param(body(), None, True, id="issued for the first time"),
        pytest.param(body(serial="1"), "1", False, id="the same credential"),
        pytest.param(body(serial=None), "1", False, id="none"),
        pytest.param(body(fulfilled="earlier"), "1", False, id="for an earlier wish"),
        pytest.param(body(fulfilled=None), "1", False, id="for another reason"),
        pytest.param(body(wanted="later", fulfilled="later"), "1", True, id="for a later wish of somebody else"),
        pytest.param(body(wanted="later"), "1", True, id="for ours, while a later one waits"),
        pytest.param(body(wanted=None, fulfilled=None), "1", False, id="a wish that was taken back"),
        pytest.param({"metadata": {"namespace": "ci", "name": "web"}}, "1", False, id="no status"),
    ],
)
def test_when_an_output_is_renewed(output: Json, serial: str | None, renewed: bool) -> None:
    assert is_renewed(output, serial, ASKED) is renewed


def test_what_is_waited_for_is_told_once() -> None:
    waiting = Waiting({("ci", "a"): body(name="a"), ("ci", "b"): body(name="b")}, {("ci", "a"): "1", ("ci", "b"): None}, ASKED)
    assert waiting.see(body(name="other")) is None
    assert waiting.see(body(name="a", fulfilled="earlier")) is None
    assert waiting.left.keys() == {("ci", "a"), ("ci", "b")}
    assert waiting.see(body(name="a")) == "ci/a renewed: serial 1 -> 2, ends -"
    assert waiting.see(body(name="a")) is None
    assert waiting.see(body(name="b", serial=None), deleted=True) == "ci/b was deleted"
    assert waiting.left == {}


@pytest.mark.parametrize(
    ("chosen", "namespace", "words"),
    [
        pytest.param(Chosen(), "ci", "exactly one of these", id="nothing"),
        pytest.param(Chosen(("web",), every=True), "ci", "exactly one of these", id="names and all"),
        pytest.param(Chosen(selector="a=b", every=True), "ci", "exactly one of these", id="labels and all"),
        pytest.param(Chosen(("web",)), "", "write -n NAMESPACE instead of -A", id="names of all namespaces"),
        pytest.param(Chosen(("../web",)), "ci", "cannot be the name of an output", id="no name"),
    ],
)
def test_no_choice(chosen: Chosen, namespace: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check(Scope(None, namespace), chosen)


@pytest.mark.parametrize("chosen", [Chosen(("a", "b")), Chosen(selector="a=b"), Chosen(every=True)])
def test_a_choice(chosen: Chosen) -> None:
    check(Scope(None, "ci"), chosen)


def test_why_an_output_was_not_renewed() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "BotMissing", "message": "there is none"}
    assert why_not({**body(), "status": {"conditions": [condition]}}, NOW) == "BotMissing: there is none"
    ready = {"type": "Ready", "status": "True", "reason": "Issued", "message": ""}
    assert "does it run?" in why_not({**body(), "status": {"conditions": [ready]}}, NOW)
