"""What a person sees while a command takes its time: a line on the terminal's standard error, and nothing elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.status import Status
from rich.text import Text

from machinebot.cli.tables import printable


@dataclass(frozen=True, slots=True)
class Progress:
    """Says how far the work is.

    Attributes:
        line: The line on the terminal; None where nobody looks.
    """

    line: Status | None

    def say(self, text: str) -> None:
        """Puts the text in the place of the last one."""
        if self.line is not None:
            self.line.update(Text(printable(text)))


@contextmanager
def progress(begin: str) -> Iterator[Progress]:
    """A line for the length of the block, where standard error is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(None)
        return
    with console.status(Text(begin)) as line:
        yield Progress(line)
