"""For what another process knows and tells by no event: it is asked again until it gives an answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T | None]], *, within_s: float = 60, every_s: float = 0.1) -> T:
    """The first true answer of `ask`, which is asked again `every_s` seconds after each other one.

    Raises:
        TimeoutError: there was none for `within_s` seconds, or an answer takes longer.
    """
    async with asyncio.timeout(within_s):
        while True:
            if answer := await ask():
                return answer
            await asyncio.sleep(every_s)
