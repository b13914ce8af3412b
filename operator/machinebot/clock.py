"""Where the time comes from. Decisions take `now` as an argument; only the shell asks a clock."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time. Tests put their own in."""

    def now(self) -> datetime:
        """The time: UTC, whole seconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time: UTC, whole seconds."""
        return datetime.now(UTC).replace(microsecond=0)


def rfc3339(moment: datetime) -> str:
    """A UTC moment as Kubernetes writes it (RFC 3339, whole seconds, `Z`)."""
    return moment.astimezone(UTC).isoformat()[:19] + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The moment that Kubernetes wrote.

    Raises:
        ValueError: The text is no RFC 3339 time with a zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it like 2027-01-01T00:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} lies outside of the years 1 to 9999") from error
