"""The glob that roles are written with."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.policy.globs import matches, matches_any


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        pytest.param("ci", "ci", True, id="equal"),
        pytest.param("ci", "cia", False, id="anchored at the end"),
        pytest.param("ci", "aci", False, id="anchored at the start"),
        pytest.param("ci", "CI", False, id="case counts"),
        pytest.param("team-*", "team-a", True, id="star at the end"),
        pytest.param("team-*", "team-", True, id="star fits nothing too"),
        pytest.param("team-*", "team", False, id="what stands before the star counts"),
        pytest.param("*-team", "a-team", True, id="star at the start"),
        pytest.param("*-team", "a-teams", False, id="star at the start, anchored"),
        pytest.param("*.example.test", "a.b.example.test", True, id="star goes over dots"),
        pytest.param("*.example.test", "example.test", False, id="the dot is wanted"),
        pytest.param("*.example.test", "xexampleytest", False, id="a dot is a dot"),
        pytest.param("a*b*c", "a-b-c", True, id="several stars"),
        pytest.param("a*b*c", "acb", False, id="several stars in their order"),
        pytest.param("a*bc", "abbc", True, id="the last piece is sought from the end"),
        pytest.param("a*b*b", "ab", False, id="a piece is not used twice"),
        pytest.param("a**b", "ab", True, id="stars beside each other"),
        pytest.param("*", "", True, id="star fits the empty text"),
        pytest.param("*", "a\nb", True, id="star goes over newlines"),
        pytest.param("?", "a", True, id="question mark"),
        pytest.param("?", "", False, id="question mark wants a character"),
        pytest.param("?", "ab", False, id="question mark takes one character"),
        pytest.param("a?*", "a", False, id="question mark and star"),
        pytest.param("*?a", "ba", True, id="star and question mark"),
        pytest.param("", "", True, id="empty fits empty"),
        pytest.param("", "a", False, id="empty fits nothing else"),
        pytest.param("[a-z]*", "b", False, id="no character classes"),
        pytest.param("[a-z]*", "[a-z]b", True, id="brackets are brackets"),
        pytest.param("a|b*", "b", False, id="no alternatives"),
        pytest.param("(*", "(x", True, id="an open bracket is no group"),
        pytest.param("\\*", "\\x", True, id="no escapes"),
        pytest.param("\\*", "*", False, id="a star cannot be escaped"),
        pytest.param("root*", "root\n", True, id="a newline is a character"),
        pytest.param("root?", "root", False, id="a newline is not the end"),
        pytest.param("roo*t", "root\n", False, id="no newline after the end"),
    ],
)
def test_matches(pattern: str, text: str, fits: bool) -> None:
    assert matches(pattern, text) is fits


def test_no_patterns_fit_nothing() -> None:
    assert not matches_any((), "")
    assert not matches_any((), "ci")


def test_one_of_the_patterns_is_enough() -> None:
    assert matches_any(("a", "c?"), "ci")
    assert not matches_any(("a", "b*"), "ci")


def test_many_stars_do_not_multiply_the_time() -> None:
    """With plain backtracking this takes longer than the universe."""
    assert not matches("*a" * 120 + "*b", "a" * 253)
    assert not matches("*a?" * 80 + "*b", "a" * 253)


def reference(pattern: str, text: str) -> bool:
    """The slow and plain reading: what is left of the pattern against what is left of the text."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(reference(pattern[1:], text[cut:]) for cut in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and reference(pattern[1:], text[1:])


@settings(max_examples=300, deadline=None)
@given(st.text("ab*?.", max_size=7), st.text("ab*?.\n", max_size=7))
def test_matches_means_what_the_plain_reading_means(pattern: str, text: str) -> None:
    assert matches(pattern, text) is (reference(pattern, text) or pattern == text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20).filter(lambda text: not re.search(r"[*?]", text)), st.text(max_size=20))
def test_a_name_fits_itself_only(name: str, other: str) -> None:
    assert matches(name, name)
    assert matches(name, other) is (name == other)
