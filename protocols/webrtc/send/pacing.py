"""What waits for its turn at one viewer: large frames and groups of pictures leave in slices, because a burst overflows the viewer's last
hop. Sans-IO.

What is kept true: what waits is out by the time that it was given, as gently as that allows. On a way that is too narrow that is no faster
than it carries, as far as the bound on waiting allows.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from protocols.webrtc.send.history import Run, SentFrame

PACE_NS = 2_000_000
SLICE = 16
UNPACED = 48


class Pace(NamedTuple):
    """How a frame leaves, in packets: up to `unpaced` at once, of a larger one `slice` and the rest in turns of `PACE_NS`."""

    unpaced: int
    slice: int
    least: int  # in a turn: 0 where there may be turns without any


WIDE = Pace(UNPACED, SLICE, least=1)
NARROW = Pace(unpaced=4, slice=2, least=0)
"""On a way that is too narrow."""

FRAME_DRAIN_NS = 20_000_000
JOIN_DRAIN_NS = 200_000_000
"""A large frame, a group of pictures is out after this."""
NARROW_DRAIN_NS = 200_000_000
"""A frame is out after this on a way that is too narrow, if it carries it or not."""


class PacingQueue:
    """Runs in order, each with its timestamp. False while nothing waits."""

    def __init__(self) -> None:
        self.packets = 0
        self._runs: deque[tuple[Run, int, int]] = deque()
        self._drained = 0  # when all is to be out
        self._least = 0
        self._allowance = 0.0  # packets that may leave now; not above 0 where a run went beyond

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def since(self) -> int:
        """When the oldest began to wait; there is one."""
        return self._runs[0][2]

    def add(self, frame: SentFrame, timestamp: int, now: int, drained: int, pace: Pace) -> None:
        """All is to be out by `drained`, if nothing waited before."""
        if not self._runs:
            self._drained, self._allowance, self._least = drained, pace.slice, pace.least
        self._runs.extend((part, timestamp, now) for run in frame.runs for part in run.parts(pace.slice))
        self.packets += frame.count

    def clear(self) -> None:
        self._runs.clear()
        self.packets = 0

    def due(self, now: int) -> Iterator[tuple[Run, int]]:
        """The slice of this turn. It may be cleared while it is walked."""
        runs = self._runs
        while runs and self._allowance > 0:
            run, timestamp, _ = runs.popleft()
            self._allowance -= len(run.packets)
            self.packets -= len(run.packets)
            yield run, timestamp
        self._allowance += max(self._least, self.packets / max(1, (self._drained - now) // PACE_NS))
