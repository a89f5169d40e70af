"""How much comes in over an encoder's connection, whatever becomes of it: media that make no frame, and what nobody takes, count too.

Kept true: who sends more than two and a half times what a track may have is told so within seconds. That is a picture and a sound, or the
layers of a picture, of which each has at most a quarter of the one above, and room for packets and repair.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic_ns

from protocols.publisher import Publisher


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """How a connection is looked at."""

    window: int = 5_000_000_000  # ns, as of a track: what a stall held back is no high rate
    every_s: float = 0.5


class SocketRate:
    """Bits per second over the last `window` ns, of a count of bytes that only grows. Sans-IO."""

    def __init__(self, window: int) -> None:
        self._full = window * 4 // 5
        self._seen: deque[tuple[int, int]] = deque()

    def note(self, total: int, now: int) -> int:
        """`total` bytes have come until `now` (monotonic ns). 0 until the window is nearly full."""
        seen = self._seen
        seen.append((now, total))
        while len(seen) > 2 and now - seen[1][0] >= self._full:
            seen.popleft()
        begun, before = seen[0]
        return (total - before) * 8_000_000_000 // (now - begun) if now - begun >= self._full else 0


@asynccontextmanager
async def watched(
    publisher: Publisher,
    policy: WatchPolicy,
    max_bitrate: int,
    on_excess: Callable[[str], None],
    on_look: Callable[[int, int], None],
) -> AsyncIterator[None]:
    """While `publisher` is read: `on_excess` is told once, in words for the streamer, that it sends too much where a track may have
    `max_bitrate` (bits per second; 0: no limit), and `on_look` until then how many bytes have come by when (monotonic ns)."""
    loop, rate = asyncio.get_running_loop(), SocketRate(policy.window)
    timer: asyncio.TimerHandle | None = None
    most = max_bitrate * 5 // 2

    def look() -> None:
        nonlocal timer
        received, now = publisher.stats.bytes_received, monotonic_ns()
        on_look(received, now)
        found = rate.note(received, now)
        if max_bitrate and found > most:
            on_excess(
                f"the connection carries {found / 1e6:.1f} Mbit/s, more than the {most / 1e6:.1f} Mbit/s allowed here: lower the "
                "encoder's bitrate"
            )
        else:
            timer = loop.call_later(policy.every_s, look)

    look()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
