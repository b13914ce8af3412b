"""docs/agent.md is true: its configuration is read, it names every key, method and metric, and no more."""

import re
from pathlib import Path
from typing import get_args

from machinebot.agent.agent import OutputState, State
from machinebot.agent.config import AgentConfig, DirectoryConfig, MethodName, Onboarding, Strict, parse_config
from machinebot.agent.health import AgentCollector, Board
from machinebot.agent.outputs import SHARED, outputs_of
from machinebot.outputs.registry import OUTPUT_TYPES
from unit.authority.builders import NOW

PAGE = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()


def test_the_configuration_on_the_page_is_read() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    config = parse_config(blocks[0].encode())
    assert [output.type for output in outputs_of(config)] == ["identity", "database", "kubernetes"]


def aliases(model: type[Strict]) -> set[str]:
    return {field.alias or "" for field in model.model_fields.values()}


def test_every_key_is_on_the_page() -> None:
    keys = aliases(AgentConfig) | aliases(DirectoryConfig) | aliases(Onboarding) | set(SHARED) | set(OUTPUT_TYPES)
    for field in Onboarding.model_fields.values():
        block = next((each for each in get_args(field.annotation) if isinstance(each, type) and issubclass(each, Strict)), None)
        keys |= set() if block is None else aliases(block)
    missing = {key for key in keys if not re.search(rf"\b{key}\b", PAGE)}
    assert missing == set()


def test_every_method_has_a_row() -> None:
    table = PAGE.partition("| `method` |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(get_args(MethodName))


def test_every_metric_has_a_row_with_its_labels() -> None:
    output = OutputState("a", "identity", "/o", ready=True, not_before=NOW, not_after=NOW, renew_at=NOW, reason="", message="")
    state = State("ci", NOW, NOW, "", "", (output,), {("token", "success"): 1}, {("identity", "Expiring", "success"): 1})
    found = {
        sample.name: tuple(sample.labels)
        for family in AgentCollector(Board(state)).collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    rows = re.findall(r"^\| `(machinebot_\w+)(?:\{([\w,]+)\})?` \|", PAGE, re.MULTILINE)
    assert {name: tuple(filter(None, labels.split(","))) for name, labels in rows} == found
