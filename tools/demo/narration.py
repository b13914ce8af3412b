"""What the demo prints: numbered steps, commands as a person would type them, and their output."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

INDENT = "    "
"""Before everything that a program printed."""


class Narrator:
    """Tells the steps.

    Args:
        out: Where to.
        total: How many steps there will be.
    """

    def __init__(self, out: TextIO, total: int) -> None:
        self._out = out
        self._total = total
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step; the time that it took is told at its end."""
        self._number += 1
        self.say(f"\n[{self._number}/{self._total}] {title}")
        begun = time.monotonic()
        yield
        self.say(f"{INDENT}({time.monotonic() - begun:.1f} s)")

    def say(self, line: str = "") -> None:
        """One line in plain words."""
        print(line, file=self._out, flush=True)

    def explain(self, *lines: str) -> None:
        """Lines in plain words below a step."""
        for line in lines:
            self.say(f"{INDENT}{line}")

    def command(self, line: str) -> None:
        """A command that is run now, as a person would type it."""
        self.say(f"{INDENT}$ {line}")

    def output(self, text: str) -> None:
        """What a program printed."""
        for line in text.rstrip("\n").splitlines():
            self.say(f"{INDENT}  {line}")
