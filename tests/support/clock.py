"""A clock that a test can step: the machine's own time, moved."""

from datetime import UTC, datetime, timedelta


class SteppedClock:
    """Tells the time as the machine does, moved by what the test has stepped so far."""

    def __init__(self) -> None:
        self._offset = timedelta(0)

    @property
    def offset(self) -> timedelta:
        """How far it was moved."""
        return self._offset

    def now(self) -> datetime:
        """UTC, whole seconds."""
        return (datetime.now(UTC) + self._offset).replace(microsecond=0)

    def step(self, length: timedelta) -> None:
        """Move it, forward or back."""
        self._offset += length
