"""The audit log as tests read it, while the API server writes it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.audit import Audit


def line(name: str) -> bytes:
    event = {
        "verb": "create",
        "user": {"username": "operator"},
        "objectRef": {"namespace": "ci", "resource": "secrets", "name": name},
    }
    return json.dumps(event).encode() + b"\n"


@pytest.mark.parametrize("cut", [0, 1, 40, -1], ids=["at its end", "after a byte", "in the middle", "before its end"])
def test_a_mark_in_the_middle_of_a_line_takes_what_follows_that_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "audit.log"
    audit = Audit(cast("Any", SimpleNamespace(audit_log=path)))
    assert audit.mark() == 0
    path.write_bytes(line("before") + line("meanwhile")[:cut])
    mark = audit.mark()
    path.write_bytes(line("before") + (line("meanwhile") if cut else b"") + line("after") + line("unfinished")[:-1])
    assert [write.name for write in audit.since(mark, user="operator", namespace="ci")] == ["after"]
    assert audit.since(0, user="operator", namespace="ci")[0].name == "before"
