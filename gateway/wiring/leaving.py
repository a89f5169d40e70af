"""From the signal to the goodbye: streams may end first, or the process makes room for the next one at once."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from gateway.node.drain import Drain
from gateway.wiring.protocol import Listening

SETTLE_S: Final = 0.3  # in which who was taken just before a restart says what they want, and is answered

StopAccepting = Callable[[], None]
"""Who comes from here on waits for the next process that has the socket."""


def accepting(server: StopAccepting, listening: Sequence[Listening]) -> Sequence[StopAccepting]:
    """How to stop it, of the HTTP server and of each listener that has TCP sockets."""
    return [server, *(each.stop_accepting for each in listening if each.stop_accepting is not None)]


async def make_way(sockets: Sequence[StopAccepting]) -> None:
    """Another process is to have the sockets."""
    for stop in sockets:
        stop()
    await asyncio.sleep(SETTLE_S)


async def drained(drain: Drain, limit_s: float, at_once: asyncio.Event) -> None:
    """No new streams are taken, and those that are live may go on for so long, or until there is no more time."""
    drain.begin("the process was told to end")
    await _first(drain.finished(limit_s), at_once.wait())


async def _first(*waiting: Coroutine[object, object, object]) -> None:
    """Returns as soon as one of them does; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
