"""What waits for its turn at one viewer: large frames and groups of pictures leave in slices, because a burst overflows the viewer's last
hop. Sans-IO.

What is kept true: what waits is out by the time that it was given, as gently as that allows. On a way that is too narrow that is no faster
than it carries, as far as the bound on waiting allows: each frame has its own time, and one that comes while others wait hastens none.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from protocols.webrtc.send.history import SLICE, Run, SentFrame

PACE_NS = 2_000_000
UNPACED = 48


class Pace(NamedTuple):
    """How a frame leaves, in packets: up to `unpaced` (of a key frame `unpaced_key`) at once, of a larger one `slice` and the rest in turns
    of `PACE_NS`."""

    unpaced: int
    unpaced_key: int
    slice: int
    least: int  # in a turn: 0 where there may be turns without any


WIDE = Pace(UNPACED, UNPACED, SLICE, least=1)
NARROW = Pace(unpaced=4, unpaced_key=1, slice=1, least=0)
"""On a way that is too narrow. Its queue may be full when a key frame comes: that fits in as slowly only as the queue empties."""

FRAME_DRAIN_NS = 20_000_000
JOIN_DRAIN_NS = 200_000_000
"""A large frame, a group of pictures is out after this."""
NARROW_DRAIN_NS = 200_000_000
"""A frame is out after this on a way that is too narrow, if it carries it or not."""


@dataclass(slots=True)
class _Batch:
    """Of packets that are to be out by the same time."""

    drained: int
    packets: int


class PacingQueue:
    """Runs in order, each with its timestamp. False while nothing waits."""

    __slots__ = ("_allowance", "_batches", "_least", "_runs", "packets")

    def __init__(self) -> None:
        self.packets = 0
        self._runs: deque[tuple[Run, int, int]] = deque()
        self._batches: deque[_Batch] = deque()
        self._least = 0
        self._allowance = 0.0  # packets that may leave now; not above 0 where a run went beyond

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def since(self) -> int:
        """When the oldest began to wait; there is one."""
        return self._runs[0][2]

    @property
    def drained(self) -> int:
        """When the newest is to be out; there is one."""
        return self._batches[-1].drained

    def add(self, frame: SentFrame, timestamp: int, now: int, drained: int, pace: Pace) -> None:
        """It is to be out by `drained`, or with what waits before it where that is later."""
        if not self._runs:
            self._allowance, self._least = pace.slice, pace.least
        parts = frame.slices if pace.slice == SLICE else [part for run in frame.runs for part in run.parts(pace.slice)]
        self._runs.extend((part, timestamp, now) for part in parts)
        self.packets += frame.count
        if self._batches and drained <= self.drained:
            self._batches[-1].packets += frame.count
        else:
            self._batches.append(_Batch(drained, frame.count))

    def clear(self) -> None:
        self._runs.clear()
        self._batches.clear()
        self.packets = 0

    def due(self, now: int) -> Iterator[tuple[Run, int]]:
        """The slice of this turn. It may be cleared while it is walked."""
        runs, batches = self._runs, self._batches
        while runs and self._allowance > 0:
            run, timestamp, _ = runs.popleft()
            count = len(run.packets)
            self._allowance -= count
            self.packets -= count
            batches[0].packets -= count
            if not batches[0].packets:
                batches.popleft()
            yield run, timestamp
        if batches:
            turns = max(1, (batches[0].drained - now) // PACE_NS)
            self._allowance += max(self._least, batches[0].packets / turns)
