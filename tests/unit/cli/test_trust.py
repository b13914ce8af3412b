"""`machinebot trust` where no cluster is needed; tests/integration/test_trust.py has the rest."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from machinebot.cli.main import app
from machinebot.outputs.trust import PIECES

SOURCE = Path(__file__).parents[3] / "operator"


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["trust", *arguments], env={"KUBECONFIG": "/nonexistent"})
    return result.exit_code, result.stdout, result.stderr


def test_without_a_piece_the_pieces_are_listed() -> None:
    code, said, _ = run()
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == list(PIECES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["ssh"], "there is no piece 'ssh': write one of ssh-user-ca", id="unknown"),
        pytest.param(["jwks"], "set KUBECONFIG", id="no kubeconfig"),
        pytest.param(["jwks", "--url", "http://x"], "write one such as https://", id="no TLS"),
        pytest.param(["jwks", "--url", "machinebot.svc"], "write one such as https://", id="no address"),
        pytest.param(["jwks", "--url", "https://"], "write one such as https://", id="no host"),
        pytest.param(["jwks", "--url", "https://x:port"], "cannot be used", id="no port"),
        pytest.param(["jwks", "--url", "https://x", "--ca-file", "/nonexistent"], "cannot be used", id="no CA file"),
        pytest.param(["jwks", "--url", "https://127.0.0.1:1"], "does not answer", id="nobody there"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(arguments: list[str], words: str) -> None:
    code, said, complaint = run(*arguments)
    assert (code, said) == (1, "")
    assert complaint.startswith("machinebot: ")
    assert complaint.count("\n") == 1
    assert words in complaint


def test_other_commands_do_not_load_what_it_needs() -> None:
    code = "import sys, machinebot.cli.main; print([name for name in ('kubernetes', 'aiohttp', 'cryptography', 'kopf', 'uvloop', 'pydantic', 'yaml') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCE)}
    )
    assert done.stdout.strip() == "[]"
