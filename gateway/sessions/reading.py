"""A publisher is read until it ends, until it has given nothing of use for too long, or until somebody breaks that off."""

import asyncio
from collections.abc import Awaitable, Callable

from protocols.media import EncodedPacket, LeftOut, TracksChanged
from protocols.publisher import Publisher

Item = EncodedPacket | TracksChanged | LeftOut


class Reading:
    """Of a seat's publishers, one after the other."""

    def __init__(self) -> None:
        self.aborted = False
        """The present publisher is not to be read any more, nor the next before this is False again."""
        self._scope: asyncio.Timeout | None = None

    async def run(self, publisher: Publisher, within_s: float | None, take: Callable[[Item], Awaitable[None]]) -> None:
        """To its end. Raises `TimeoutError` where it is broken off, or `found` is not called in time (None: that has no end), and what the
        publisher and `take` raise."""
        try:
            async with asyncio.timeout(0 if self.aborted else within_s) as self._scope:
                async for item in publisher:
                    await take(item)
        finally:
            self._scope = None

    def found(self) -> None:
        """It has given something of use."""
        if self._scope is not None and not self.aborted:
            self._scope.reschedule(None)

    def abort(self) -> None:
        self.aborted = True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())
