"""Turns: work that takes milliseconds is done one piece in each round of the event loop, in the order in which it came."""

import asyncio


class Turns:
    """Keeps requests that came together from being one long piece of work.

    The event loop sends answers at the end of a round, and reads what has come at the beginning of the next one. Sixteen joins in
    one round would all be answered after the last of them, and whatever comes meanwhile, a probe or a watch, would wait for all.
    """

    def __init__(self) -> None:
        self._gate = asyncio.Lock()

    async def mine(self) -> None:
        """Returns when it is the caller's turn: in a round of its own, until it waits for something the next time."""
        async with self._gate:
            await asyncio.sleep(0)
