"""Log lines: JSON for machines, text for people."""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from machinebot.errors import Denied
from machinebot.logs import configure
from machinebot.reconcile.keys import Key, Sort

pytestmark = pytest.mark.usefixtures("_logging_as_before")

log = logging.getLogger("machinebot.somewhere")


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one line that was written, read."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (text,) = captured.err.splitlines()
    read: dict[str, Any] = json.loads(text)
    return read


def test_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    log.info("issued %s", "once", extra={"output": "out", "serial": 42, "roles": ["access"]})
    found = line(capsys)
    moment = datetime.fromisoformat(found.pop("time"))
    assert moment.tzinfo is not None
    assert abs(datetime.now(UTC) - moment).total_seconds() < 60
    assert found == {
        "level": "INFO",
        "logger": "machinebot.somewhere",
        "message": "issued once",
        "output": "out",
        "serial": 42,
        "roles": ["access"],
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        pytest.param(Key(Sort.BOT, "ci", "deployer"), None, id="a value of ours"),
        pytest.param(Sort.BOT, "MachineBot", id="a word of an enumeration"),
        pytest.param(datetime(2027, 1, 1, tzinfo=UTC), None, id="a time"),
        pytest.param("\ud800", "\ud800", id="half a character"),
        pytest.param(Denied("Forbidden", "no"), None, id="an error"),
        pytest.param(b"\xff", None, id="bytes"),
        pytest.param({1, 2}, None, id="a set"),
        pytest.param(None, None, id="none"),
        pytest.param('a "quoted"\nline\u2028', 'a "quoted"\nline\u2028', id="a text with newlines stays on its line"),
    ],
)
def test_whatever_is_told_is_one_line(capsys: pytest.CaptureFixture[str], value: Any, written: str | None) -> None:
    configure("json", "info")
    log.info("told", extra={"value": value})
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    found = json.loads(captured)["value"]
    if written is not None:
        assert found == written


def test_an_exception_is_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "info")
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.exception("crashed", extra={"key": "x"})
    found = line(capsys)
    assert found["level"] == "ERROR"
    assert "ZeroDivisionError: division by zero" in found["exc_info"]
    assert found["key"] == "x"


def test_a_console_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console", "info")
    log.warning("refused %d", 2, extra={"output": "out", "reason": "RoleNotFound"})
    log.info("plain")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING refused 2  output=out reason=RoleNotFound", lines[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    plain", lines[1])


def test_a_console_line_is_one_line_whatever_a_client_sends(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console", "info")
    log.info("join refused", extra={"join_token": "x\n12:00:00 INFO    joined  bot=root", "roles": ["a"], "detail": "two words"})
    (text,) = capsys.readouterr().err.splitlines()
    assert text.endswith(r'''join_token="x\n12:00:00 INFO    joined  bot=root" roles=['a'] detail="two words"''')


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("INFO", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(capsys: pytest.CaptureFixture[str], log_format: Any, level: str, heard: list[str]) -> None:
    configure(log_format, level)
    for word in ("debug", "info", "warning", "error"):
        log.log(logging.getLevelName(word.upper()), "said %s", word)
    lines = capsys.readouterr().err.splitlines()
    assert [next(word for word in ("debug", "info", "warning", "error") if f"said {word}" in each) for each in lines] == heard


def test_libraries_speak_from_warnings_on_and_kopf_from_errors_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "debug")
    for name in ("aiohttp", "kopf", "kopf.objects"):
        for level in (logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "spoken")
    found = [json.loads(each) for each in capsys.readouterr().err.splitlines()]
    assert [(each["logger"], each["level"]) for each in found] == [
        ("aiohttp", "WARNING"),
        ("aiohttp", "ERROR"),
        ("kopf", "ERROR"),
        ("kopf.objects", "ERROR"),
    ]


def test_set_up_twice_each_line_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure("console", "info")
    configure("json", "info")
    log.info("once")
    assert line(capsys)["message"] == "once"
