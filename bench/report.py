"""What a run of the benchmark has found: each figure is printed when it is there, and kept with its verdict."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    value: str
    budget: str
    met: bool | None


class Report:
    """The figures so far."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def heading(self, text: str) -> None:
        """Prints what the figures below it are about."""
        print(text, flush=True)

    def say(self, what: str, value: str, budget: str = "", *, met: bool | None = None) -> None:
        """Notes and prints a figure."""
        self.figures.append(Figure(what, value, budget, met))
        mark = {True: "met", False: "MISSED", None: ""}[met]
        print(f"  {what:<62} {value:<28} {budget:<14} {mark}", flush=True)

    @property
    def met(self) -> bool:
        """Whether no budget was missed."""
        return all(figure.met is not False for figure in self.figures)
