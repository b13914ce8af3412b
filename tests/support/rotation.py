"""An authority that rotates its CAs, and an operator whose clock is moved through it while programs go by the machine's own time."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from support.clock import SteppedClock
from support.inprocess import RunningOperator
from support.stage import Stage, Tenant

OVERLAP = timedelta(hours=26)
EVERY = timedelta(hours=100)
"""Long after one generation signs, the next one has no heir yet: two generations at most."""


@dataclass(frozen=True)
class Rotation:
    """A tenant whose authority rotates its CAs.

    Programs go by the machine's own time, so that the operator's clock is brought back to it for every log-in: what it then
    stores is of the stage of rotation that it has reached, and good now.
    """

    tenant: Tenant
    running: RunningOperator
    clock: SteppedClock

    def at(self, offset: timedelta) -> None:
        """Bring the operator's clock to that far from the machine's, and have it do all that is due."""
        self.running.step(offset - self.clock.offset)
        self.running.settle()


@contextlib.contextmanager
def rotation(stage: Stage, little: timedelta) -> Iterator[Rotation]:
    """The authority is made so far in the past that its heir is due a little ago; the clock stands a little before that."""
    clock = SteppedClock()
    clock.step(-(EVERY - OVERLAP) - little)
    name = stage.authority(embedded={"rotation": {"every": "100h", "overlap": "26h"}})
    with stage.tenant(name) as tenant, stage.operator(clock=clock, watch_namespaces=(tenant.namespace,)) as running:
        running.wait_leading()
        stage.authority_ready(name)
        found = Rotation(tenant, running, clock)
        found.at(-2 * little)
        yield found
