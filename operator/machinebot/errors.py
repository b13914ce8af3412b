"""The few kinds of failure, each with a stable CamelCase reason that shows up in conditions, events, logs and metrics.

MachinebotError
 |- Invalid        what a person wrote cannot work: never retried, the message says what to write instead
 |- Denied         a rule forbids it: never retried, audited, the message names the rule and the way out
 |- Unavailable    something outside is away: retried with a delay
     |- Conflict        the object changed since it was read, or its name is taken: read it again
     |- NotFound        what was asked for, or was to be changed, is not there
     |- LeadershipLost  this process may no longer write
"""

from typing import ClassVar


class MachinebotError(Exception):
    """Base of every failure that Machinebot raises on purpose.

    Args:
        reason: CamelCase word, stable over releases; usable as a condition reason and a metric label.
        message: A sentence for a person. Never holds a secret.
    """

    retried: ClassVar[bool] = False

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Invalid(MachinebotError):  # noqa: N818 - the design's own word
    """What a person wrote cannot work. Nothing is tried again until they change it."""


class Denied(MachinebotError):  # noqa: N818 - the design's own word
    """A rule forbids it. Nothing is tried again until the rule or the wish changes."""


class Unavailable(MachinebotError):  # noqa: N818 - the design's own word
    """Something outside is away, slow or full. Tried again later.

    Args:
        retry_after: Seconds that the other side asked us to wait, or None where it did not say.
    """

    retried: ClassVar[bool] = True

    def __init__(self, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason, message)
        self.retry_after = retry_after


class Conflict(Unavailable):
    """The object is no longer the one that the decision was made on, or a name is taken. Read again, decide again."""


class NotFound(Unavailable):
    """What was asked for, or was to be changed, is not there."""


class LeadershipLost(Unavailable):
    """This process may no longer write: its Lease is not known to be good."""
