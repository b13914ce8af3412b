"""Tables for people and JSON for machines. On a terminal a table fits its width and has colours; anywhere else it is plain text
that nothing is cut from. What clusters and files say is never let at the terminal raw.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from machinebot.resources.meta import format_duration

_UNPRINTABLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that move the cursor, turn the direction of writing or show nothing: they could forge a table."""


class Look(Enum):
    """How a cell looks on a terminal."""

    PLAIN = ""
    GOOD = "green"
    WARNING = "yellow"
    BAD = "bold red"
    FAINT = "dim"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    look: Look = Look.PLAIN


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings.

    Attributes:
        columns: The headings.
        rows: The rows, each as wide as the headings.
        title: What stands above it; nothing where empty.
    """

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""


def printable(text: str) -> str:
    """The text in one line, each character that would not be seen as itself written as its number."""
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\t\r":
        return " "
    return f"\\u{{{ord(character):x}}}" if unicodedata.category(character) in _UNPRINTABLE else character


def print_tables(tables: Iterable[Table], stream: TextIO, width: int | None = None) -> None:
    """Writes the tables, an empty line between two."""
    console = Console(file=stream, width=width, highlight=False)
    for number, table in enumerate(tables):
        if number:
            stream.write("\n")
        if console.is_terminal:
            console.print(_rich(table))
        else:
            stream.write(plain(table))


def plain(table: Table) -> str:
    """The table as text, each column as wide as its widest cell, without blanks at the ends of lines."""
    lines = [table.columns, *([printable(_cell(each).text) for each in row] for row in table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    title = f"{table.title}\n" if table.title else ""
    rows = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return title + "".join(f"{row}\n" for row in rows)


def _rich(table: Table) -> RichTable:
    drawn = RichTable(title=table.title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        drawn.add_column(column, overflow="fold")
    for row in table.rows:
        cells = [_cell(each) for each in row]
        drawn.add_row(*(Text(printable(cell.text), style=cell.look.value, overflow="fold") for cell in cells))
    return drawn


def _cell(each: str | Cell) -> Cell:
    return each if isinstance(each, Cell) else Cell(each)


def print_json(content: Any, stream: TextIO) -> None:
    """Writes JSON that a program and a person can read, in ASCII."""
    stream.write(json.dumps(content, indent=2) + "\n")


def relative(moment: datetime | None, now: datetime) -> str:
    """How far off a moment is: `in 11h42m`, `3m ago`; a dash for none. Seconds count below ten minutes only."""
    if moment is None:
        return "-"
    seconds = int((moment - now).total_seconds())
    distance = abs(seconds)
    if distance >= 600:  # noqa: PLR2004 - ten minutes
        distance -= distance % 60
    text = _days(distance)
    return f"in {text}" if seconds >= 0 else f"{text} ago"


def _days(seconds: int) -> str:
    """A length, in days and hours from two days on."""
    days, rest = divmod(seconds, 86400)
    if days < 2:  # noqa: PLR2004 - two days
        return format_duration(timedelta(seconds=seconds))
    return f"{days}d{rest // 3600}h" if rest >= 3600 else f"{days}d"  # noqa: PLR2004 - an hour
