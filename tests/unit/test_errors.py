"""The few kinds of failure."""

import re

import pytest

from machinebot import errors
from machinebot.errors import Conflict, Denied, Invalid, LeadershipLost, MachinebotError, NotFound, Unavailable

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MachinebotError)]


@pytest.mark.parametrize(
    ("kind", "retried"),
    [
        (MachinebotError, False),
        (Invalid, False),
        (Denied, False),
        (Unavailable, True),
        (Conflict, True),
        (NotFound, True),
        (LeadershipLost, True),
    ],
)
def test_which_kinds_are_tried_again(kind: type[MachinebotError], retried: bool) -> None:
    assert kind.retried is retried
    assert issubclass(kind, Unavailable) is retried


def test_every_kind_is_in_the_table_above() -> None:
    assert set(KINDS) == {MachinebotError, Invalid, Denied, Unavailable, Conflict, NotFound, LeadershipLost}


@pytest.mark.parametrize("kind", KINDS)
def test_reason_and_message(kind: type[MachinebotError]) -> None:
    error = kind("SomeReason", "what to do")
    assert (error.reason, error.message) == ("SomeReason", "what to do")
    assert str(error) == "SomeReason: what to do"


def test_the_other_side_may_say_when() -> None:
    assert Unavailable("Away", "").retry_after is None
    assert Unavailable("Away", "", retry_after=7).retry_after == 7
    assert Conflict("Conflict", "", retry_after=0.5).retry_after == 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_kinds_say_what_they_are_for(kind: type[MachinebotError]) -> None:
    assert kind.__doc__
    assert re.match(r"[A-Z].*\.", kind.__doc__)
