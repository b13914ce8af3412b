"""Tables and moments for people."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from machinebot.cli import tables
from machinebot.cli.tables import Cell, Look, Table, plain, print_json, print_tables, printable, relative

NOW = datetime(2026, 1, 1, tzinfo=UTC)

HOSTILE = [
    pytest.param("\x1b[2J\x1b[31m", "\\u{1b}[2J\\u{1b}[31m", id="escape sequences"),
    pytest.param("a\nb\tc\r", "a b c ", id="lines"),
    pytest.param("\u202egpj", "\\u{202e}gpj", id="direction of writing"),
    pytest.param("a\u200bb", "a\\u{200b}b", id="zero width"),
    pytest.param("\x00\x7f\x9b", "\\u{0}\\u{7f}\\u{9b}", id="control characters"),
    pytest.param("\u2028", "\\u{2028}", id="line separator"),
    pytest.param("\ud800", "\\u{d800}", id="half a character"),
    pytest.param("Zürich 東京 [bold]", "Zürich 東京 [bold]", id="letters and brackets"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_what_is_shown_can_forge_nothing(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert plain(Table(("x",), [(text,)])).splitlines()[1:] == [shown.rstrip()]


@pytest.mark.parametrize("width", [20, 200])
def test_nothing_is_cut_where_nobody_looks(width: int) -> None:
    name = "n" * 253
    stream = io.StringIO()
    print_tables([Table(("name", "why"), [(name, Cell("because", Look.BAD))])], stream, width)
    assert stream.getvalue() == f"name{' ' * 249}  why\n{name}  because\n"


def test_two_tables_have_an_empty_line_between_them() -> None:
    stream = io.StringIO()
    print_tables([Table(("a",), [("1",)], "first"), Table(("b",), [])], stream)
    assert stream.getvalue() == "first\na\n1\n\nb\n"


def test_on_a_terminal_names_are_folded_and_markup_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    name = "n" * 100
    monkeypatch.setattr(tables, "Console", lambda **options: Console(**options, force_terminal=True))
    print_tables([Table(("name",), [(name,), ("[red]x[/red]\x1b[2J",)], "title")], stream, 40)
    shown = stream.getvalue()
    assert shown.count("n") >= 100
    assert "…" not in shown
    assert "[red]x[/red]\\u{1b}[2J" in shown


def test_json_is_ascii() -> None:
    stream = io.StringIO()
    print_json({"a": "\x1b東"}, stream)
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()
    assert json.loads(stream.getvalue()) == {"a": "\x1b東"}


@pytest.mark.parametrize(
    ("distance", "text"),
    [
        (timedelta(0), "in 0s"),
        (timedelta(seconds=61), "in 1m1s"),
        (timedelta(minutes=10, seconds=1), "in 10m"),
        (timedelta(hours=11, minutes=42, seconds=59), "in 11h42m"),
        (timedelta(seconds=-200), "3m20s ago"),
        (timedelta(hours=47, minutes=1), "in 47h1m"),
        (timedelta(days=2), "in 2d"),
        (timedelta(days=30, hours=5, minutes=7), "in 30d5h"),
        (timedelta(days=-3), "3d ago"),
    ],
)
def test_how_far_off(distance: timedelta, text: str) -> None:
    assert relative(NOW + distance, NOW) == text


def test_no_moment_is_a_dash() -> None:
    assert relative(None, NOW) == "-"
