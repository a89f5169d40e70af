"""The media between a connection's socket and its session: bounded, and never dropped from, as the socket can be made to wait.

It is `high` from half of its bound in milliseconds, bytes or items until it has fallen to a quarter; the connection stops reading while it
is. So it holds at most that half and what one read of the socket gave.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket
from protocols.rtmp.tracks import MediaItem

_MAX_ITEMS = 8192


class Backlog:
    """A queue with one writer and one reader; `lowered` is called when it is no longer high."""

    def __init__(self, limit_ms: int, limit_bytes: int, lowered: Callable[[], None]) -> None:
        self.high = False
        self._limit_ns = limit_ms * 1_000_000
        self._limit_bytes = limit_bytes
        self._lowered = lowered
        self._items: deque[MediaItem] = deque()
        self._bytes = 0
        self._newest: EncodedPacket | None = None
        self._more = asyncio.Event()
        self._finished = False
        self._error: ProtocolError | None = None

    def put(self, item: MediaItem) -> None:
        if self._finished:
            return
        self._items.append(item)
        if isinstance(item, EncodedPacket):
            self._bytes += len(item.data)
            self._newest = item
        self.high = self.high or self._holds_a(2)
        self._more.set()

    def finish(self, error: ProtocolError | None = None) -> None:
        """Nothing more comes; `error` is raised to the reader after what is there. Only the first call counts."""
        if not self._finished:
            self._finished, self._error = True, error
            self._more.set()

    async def items(self) -> AsyncIterator[MediaItem]:
        while True:
            while self._items:
                item = self._items.popleft()
                if isinstance(item, EncodedPacket):
                    self._bytes -= len(item.data)
                if self.high and not self._holds_a(4):
                    self.high = False
                    self._lowered()
                yield item
            if self._finished:
                break
            self._more.clear()
            await self._more.wait()
        if self._error:
            raise self._error

    def _holds_a(self, divisor: int) -> bool:
        """Whether one part in `divisor` of a bound is reached."""
        return (
            self._bytes * divisor >= self._limit_bytes
            or len(self._items) * divisor >= _MAX_ITEMS
            or self._span() * divisor >= self._limit_ns
        )

    def _span(self) -> int:
        """Ns of media from the oldest to the newest packet."""
        oldest = next((item for item in self._items if isinstance(item, EncodedPacket)), None)
        return abs(self._newest.dts - oldest.dts) if self._newest and oldest else 0
