"""List, then watch, for ever, whatever breaks; in virtual time."""

import asyncio
import itertools
from typing import Any

import pytest
from typing_extensions import override

from machinebot.errors import Conflict, Denied, Unavailable
from machinebot.kube.client import Page
from machinebot.kube.resources import SECRETS, SELECTOR, Resource
from machinebot.kube.watches import RETRY_SECONDS, MetadataWatch
from unit.controller.virtual import run, seconds
from unit.kube.fakes import Json, Script

AWAY = Unavailable("ApiServerAway", "away")
ENDED = Unavailable("WatchEnded", "broke off")
EXPIRED = Conflict("Expired", "too old")


def item(name: str, version: int = 1) -> Json:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> Json:
    return {"type": kind, "object": item(name, version)}


def page(version: int, *names: str) -> Page:
    return Page([item(name) for name in names], str(version))


class End(BaseException):
    """The story is over."""


def follow(*answers: Any) -> tuple[list[tuple[str, bool]], list[tuple[str, str, float]]]:
    """What was observed, and each call with the version it asked for and the second it came in."""
    observed: list[tuple[str, bool]] = []
    asked: list[tuple[str, str, float]] = []

    class Timed(Script):
        @override
        def _next(self, *call: Any) -> Any:
            asked.append((call[0], call[3].get("resource_version", ""), round(seconds(), 3)))
            return super()._next(*call)

    def observe(resource: Resource, body: Json, gone: bool) -> None:
        assert resource == SECRETS
        observed.append((body["metadata"]["name"], gone))

    async def story() -> None:
        client = Timed(*answers, End())
        watch = MetadataWatch(client, SECRETS, "ci", SELECTOR, observe)  # type: ignore[arg-type]  # the two verbs of it
        with pytest.raises(End):
            await watch.run()
        for verb, _, namespace, fields in client.calls:
            assert namespace == "ci"
            assert fields["selector"] == SELECTOR
            assert fields["metadata_only"] is True, "the content of Secrets stays where it is"
            assert verb in ("pages", "watch")

    run(story())
    return observed, asked


def test_a_list_and_then_events_from_its_version_on() -> None:
    observed, asked = follow(
        [page(7, "a", "b"), page(7, "c")],
        [event("MODIFIED", "a", 8), event("BOOKMARK", "", 20), event("ADDED", "d", 21), event("DELETED", "b", 22)],
        [event("ADDED", "e", 30)],
    )
    assert observed == [("a", False), ("b", False), ("c", False), ("a", False), ("d", False), ("b", True), ("e", False)]
    assert [(verb, version) for verb, version, _ in asked] == [("pages", ""), ("watch", "7"), ("watch", "22"), ("watch", "30")]


def test_a_bookmark_moves_the_version_and_is_no_object() -> None:
    observed, asked = follow([page(7)], [event("BOOKMARK", "", 99)])
    assert observed == []
    assert asked[2][:2] == ("watch", "99")


@pytest.mark.parametrize(
    "expiry",
    [
        pytest.param(EXPIRED, id="as an answer"),
        pytest.param(
            [event("ADDED", "a", 8), {"type": "ERROR", "object": {"code": 410, "message": "too old"}}], id="as an event"
        ),
        pytest.param([{"type": "ERROR", "object": {"code": 500}}], id="another error as an event"),
    ],
)
def test_a_version_that_is_too_old_is_followed_by_a_list(expiry: Any) -> None:
    _, asked = follow([page(7)], expiry, [page(50, "x")])
    assert [(verb, version) for verb, version, _ in asked] == [("pages", ""), ("watch", "7"), ("pages", ""), ("watch", "50")]


def test_a_list_that_expired_half_way_is_begun_anew() -> None:
    observed, asked = follow([page(7, "a"), EXPIRED], [page(9, "a", "b")])
    assert observed == [("a", False), ("a", False), ("b", False)]
    assert [verb for verb, _, _ in asked] == ["pages", "pages", "watch"]


@pytest.mark.parametrize("trouble", [AWAY, Denied("Forbidden", "secrets is forbidden")], ids=["away", "forbidden"])
def test_what_fails_is_tried_again_ever_later(trouble: Exception) -> None:
    _, asked = follow(trouble, trouble, trouble, trouble, trouble, [page(7)])
    times = [moment for _, _, moment in asked]
    pauses = [late - early for early, late in itertools.pairwise(times[:6])]
    assert pauses == [*RETRY_SECONDS, RETRY_SECONDS[-1]]


def test_a_stream_that_broke_off_is_taken_up_again() -> None:
    observed, asked = follow([page(7)], [event("ADDED", "a", 8), ENDED], [event("ADDED", "a", 8), event("ADDED", "b", 9)])
    assert observed == [("a", False), ("a", False), ("b", False)], "twice is fine: a version that is known concerns nobody"
    assert [verb for verb, _, _ in asked] == ["pages", "watch", "watch", "watch"], "and no new list"


def test_a_success_forgets_the_failures_before() -> None:
    _, asked = follow(AWAY, AWAY, AWAY, [page(7)], [], ENDED)
    assert asked[-1][2] - asked[-2][2] == RETRY_SECONDS[0]


@pytest.mark.parametrize("answers", [[[]] * 100, [EXPIRED, [page(7)]] * 50], ids=["ends at once", "expires at once"])
def test_a_stream_that_does_not_last_is_no_hot_loop(answers: list[Any]) -> None:
    _, asked = follow([page(7)], *answers)
    assert asked[-1][2] >= 49


def test_a_watch_that_is_stopped_stops() -> None:
    async def story() -> None:
        client = Script(AWAY, AWAY)
        watch = MetadataWatch(client, SECRETS, "", SELECTOR, lambda *_: None)  # type: ignore[arg-type]  # the two verbs of it
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story())
