"""What a connection has received and its session has not yet taken: the one bounded queue between socket and session, for all protocols.
No I/O but the future that wakes the reader.

Live means late is worse than lost, so an inbox holds no more than some milliseconds, bytes and items. What gives way when it is full is up
to the transport: where the sender can be made to wait (TCP) it waits, and nothing is lost; elsewhere the oldest media is dropped.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Kind, LeftOut, TracksChanged

MAX_ITEMS: Final = 8192  # each costs some 300 bytes beside its data

Item = TracksChanged | EncodedPacket | LeftOut


class Held:
    """The items of an inbox, the oldest first, and how far they fill it."""

    def __init__(self, span_ns: int, max_bytes: int, clock: Callable[[EncodedPacket], int]) -> None:
        """`clock` gives the time of a packet (ns) by which the span from the oldest to the newest is measured."""
        self.items: deque[Item] = deque()
        self._span = span_ns
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._newest: EncodedPacket | None = None

    def append(self, item: Item) -> None:
        self.items.append(item)
        if isinstance(item, EncodedPacket):
            self._bytes += len(item.data)
            self._newest = item

    def popleft(self) -> Item:
        item = self.items.popleft()
        if isinstance(item, EncodedPacket):
            self._bytes -= len(item.data)
        return item

    def replace(self, items: list[Item]) -> None:
        """Hold these instead."""
        self.items.clear()
        self._bytes = 0
        for item in items:
            self.append(item)

    @property
    def fill(self) -> float:
        """1.0: a bound is reached, of time, bytes or items."""
        if len(self.items) < 2:
            return self._bytes / self._max_bytes
        return max(self._bytes / self._max_bytes, len(self.items) / MAX_ITEMS, self._spanned() / self._span)

    def _spanned(self) -> int:
        for item in self.items:
            if isinstance(item, EncodedPacket) and self._newest is not None:
                return abs(self._clock(self._newest) - self._clock(item))
        return 0


class WhenFull(Protocol):
    """What gives way when an inbox is full."""

    def clock(self, packet: EncodedPacket) -> int:
        """The time of a packet (ns) by which the inbox is bounded."""

    def takes(self, item: Item) -> bool:
        """Whether the item may come in."""

    def put(self, held: Held) -> None:
        """One has come in."""

    def taken(self, held: Held) -> None:
        """One has been taken by the reader."""


class Inbox:
    """A queue with one writer and one reader, who iterates. What is put after the end is not taken."""

    def __init__(self, span_ms: int, max_bytes: int, when_full: WhenFull) -> None:
        self.over = False
        """Nothing more comes."""
        self.error: ProtocolError | None = None
        """What it ended with, if not in order."""
        self._when_full = when_full
        self._held = Held(span_ms * 1_000_000, max_bytes, when_full.clock)
        self._waiting: asyncio.Future[None] | None = None  # the reader, while nothing is there

    def put(self, item: Item) -> None:
        if not self.over and self._when_full.takes(item):
            self._held.append(item)
            self._when_full.put(self._held)
            self._wake()

    def end(self, error: ProtocolError | None) -> None:
        """Nothing more comes; an error is raised to the reader after what is there. Only the first call counts."""
        if not self.over:
            self.over, self.error = True, error
            self._wake()

    async def __aiter__(self) -> AsyncIterator[Item]:
        """What comes, until the end; raises the `ProtocolError` that it ended with."""
        held = self._held
        while True:
            while held.items:
                item = held.popleft()
                self._when_full.taken(held)
                yield item
            if self.over:
                break
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        if self.error is not None:
            raise self.error

    def _wake(self) -> None:
        if self._waiting is not None:
            if not self._waiting.done():
                self._waiting.set_result(None)
            self._waiting = None


class PauseSender:
    """Nothing is dropped: the owner reads no more from its socket while this is `high`, from half of a bound until it has fallen to a
    quarter. So the inbox holds at most that half and what one read of the socket gave. Its time is the media's: what waited in the socket
    arrives all at once."""

    def __init__(self, on_relief: Callable[[], None]) -> None:
        """`on_relief` is called when it is no longer high."""
        self.high = False
        self._on_relief = on_relief

    def clock(self, packet: EncodedPacket) -> int:
        return packet.dts

    def takes(self, item: Item) -> bool:
        return True

    def put(self, held: Held) -> None:
        self.high = self.high or held.fill >= 0.5

    def taken(self, held: Held) -> None:
        if self.high and held.fill < 0.25:
            self.high = False
            self._on_relief()


class DropToKeyframe:
    """Everything up to the newest video key frame is dropped, of all tracks together; without one, until the next comes. Every other video
    track (a layer of the same picture) then waits for a key frame of its own. A `TracksChanged` is never dropped, only overtaken by a later
    one. Its time is that of arrival."""

    def __init__(self, on_drop: Callable[[int], None]) -> None:
        """`on_drop` is told how many packets were dropped."""
        self._on_drop = on_drop
        self._video: frozenset[int] = frozenset()
        self._waiting: set[int] = set()  # video tracks that wait for their key frame, after an overflow
        self._stopped = False  # no key frame of any track has come since the overflow: nothing is taken

    def clock(self, packet: EncodedPacket) -> int:
        return packet.arrival

    def takes(self, item: Item) -> bool:
        if isinstance(item, TracksChanged):
            self._video = frozenset(track.id for track in item.tracks if track.kind is Kind.VIDEO)
            self._waiting &= self._video
            self._stopped = self._stopped and bool(self._video)
        elif isinstance(item, EncodedPacket) and self._waiting and not self._fits(item):
            self._on_drop(1)
            return False
        return True

    def put(self, held: Held) -> None:
        if held.fill > 1:
            self._overflow(held)

    def taken(self, held: Held) -> None:
        """Room is no news: who sends does not wait for it."""

    def _fits(self, packet: EncodedPacket) -> bool:
        """Whether a packet can be shown, while some track waits for its key frame."""
        if self._is_key(packet):
            self._waiting.discard(packet.track)
            self._stopped = False
        return not self._stopped and packet.track not in self._waiting

    def _is_key(self, item: Item) -> bool:
        return isinstance(item, EncodedPacket) and item.keyframe and item.track in self._video

    def _overflow(self, held: Held) -> None:
        items = list(held.items)
        first = next((index for index, item in enumerate(items) if isinstance(item, EncodedPacket)), len(items))
        newest = max((index for index, item in enumerate(items) if self._is_key(item)), default=first)
        keep = newest if newest > first else len(items)  # one that nothing goes before does not help
        if not self._video:  # every packet of sound is a place to start: the newer half stays
            keep = len(items) // 2 or 1
        else:
            self._waiting, self._stopped = set(self._video), keep == len(items)
        tracks = [item for item in items[:keep] if isinstance(item, TracksChanged)]
        told = [item for item in items[:keep] if isinstance(item, LeftOut)]
        kept = [item for item in items[keep:] if not (isinstance(item, EncodedPacket) and self._waiting) or self._fits(item)]
        held.replace([*tracks[-1:], *told, *kept])
        self._on_drop(len(items) - len(tracks) - len(told) - len(kept))
