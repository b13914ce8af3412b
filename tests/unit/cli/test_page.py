"""docs/cli.md says what the commands do: what needs no cluster is run, and tables and fields are those of the code."""

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from machinebot.cli import standing
from machinebot.cli.checks import CHECKS, Level
from machinebot.cli.found import Found
from machinebot.cli.inspecting import ROWS, as_object
from machinebot.cli.locks import View
from machinebot.cli.main import app
from machinebot.cli.status import World, report

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sessions() -> list[tuple[str, str]]:
    """Each command of the page's consoles, and what it prints there."""
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [
        (found[1], found[2])
        for block in blocks
        for found in re.finditer(r"^\$ ([^\n]*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def printing() -> list[tuple[str, str]]:
    return [each for each in sessions() if " add " in each[0] and not each[0].startswith("machinebot locks")]


@pytest.mark.parametrize(("command", "printed"), printing(), ids=[command for command, _ in printing()])
def test_what_is_printed_is_what_the_page_shows(command: str, printed: str) -> None:
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert (result.exit_code, result.stdout) == (0, printed)


def test_every_command_of_the_page_is_understood() -> None:
    """Its flags, at least: what needs a cluster has none here."""
    commands = [command for command, _ in sessions()]
    commands += [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in joined(block)]
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command, comments=True)
        if words[0] == "machinebot" and "--install-completion" not in words:
            result = CliRunner().invoke(
                app, words[1 : words.index("|") if "|" in words else None], env={"KUBECONFIG": "/nonexistent"}
            )
            assert result.exit_code != 2, (command, result.output)


def joined(block: str) -> list[str]:
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_every_command_is_on_the_page() -> None:
    group = typer.main.get_command(app)
    names = [*group.commands]  # type: ignore[attr-defined]
    names += [f"{noun} {verb}" for noun in ("bots", "tokens", "locks") for verb in group.commands[noun].commands]  # type: ignore[attr-defined]
    assert [name for name in names if f"`{name}" not in PAGE and name not in ("bots", "tokens", "locks")] == []


def test_every_check_and_level_is_on_the_page() -> None:
    assert re.findall(r"^\| `([A-Za-z ]+)` \|", PAGE.split("| check | fails")[1], re.MULTILINE) == [name for name, _ in CHECKS]
    assert all(f"`{level}`" in PAGE for level in Level)


def test_every_state_is_on_the_page_and_whether_it_is_a_problem() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \|[^|]*\| (yes|no) \|$", PAGE, re.MULTILINE)
    assert {word: answer == "yes" for word, answer in rows} == {word: word in standing.PROBLEMS for word in standing.LOOKS}


def test_every_field_of_the_json_is_on_the_page() -> None:
    body = {"metadata": {"name": "x", "namespace": "ci"}, "spec": {"target": {"role": "x"}}}
    kinds = ("authorities", "bots", "outputs", "joinTokens", "locks")
    content = report(World({kind: [body] for kind in kinds}, NOW))
    fields = {*content, *(field for kind in kinds for field in content[kind][0])}
    fields |= as_object(Found(form="x"), NOW).keys() | View("x", {}, "active", "", None).json().keys()
    assert sorted(field for field in fields if f"`{field}`" not in PAGE) == []


def test_the_rows_of_inspect_are_shown() -> None:
    section = PAGE.split("\n## inspect\n")[1]
    assert all(re.search(rf"^ ?{name} ", section, re.MULTILINE) for name, _ in ROWS if name != "problem")
