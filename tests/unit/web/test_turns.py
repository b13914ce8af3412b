"""Turns: one piece of work in each round of the event loop, in order, and nobody is left behind by one who went away."""

import asyncio
import contextlib

from machinebot.web.turns import Turns


async def test_what_came_together_is_done_in_rounds_of_its_own_and_in_order() -> None:
    turns, loop, seen = Turns(), asyncio.get_running_loop(), list[str]()

    async def work(name: str) -> None:
        await turns.mine()
        seen.append(name)
        # What the work has caused, such as an answer to be sent, comes about before the next piece.
        loop.call_soon(seen.append, f"after {name}")

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            group.create_task(work(name))
    assert seen == ["a", "after a", "b", "after b", "c", "after c"]


async def test_who_waits_for_something_else_does_not_keep_the_turn() -> None:
    turns, answer, seen = Turns(), asyncio.Event(), list[str]()

    async def asks_somebody() -> None:
        await turns.mine()
        await answer.wait()
        seen.append("asked")

    async def asks_nobody() -> None:
        await turns.mine()
        seen.append("done")
        answer.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(asks_somebody())
        group.create_task(asks_nobody())
    assert seen == ["done", "asked"]


async def test_who_goes_away_keeps_nobody_waiting() -> None:
    turns, seen = Turns(), list[str]()

    async def work(name: str) -> None:
        await turns.mine()
        seen.append(name)

    tasks = [asyncio.create_task(work(name)) for name in ("a", "gone", "c")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == ["a", "c"]
