"""How long things take: a histogram of plain integers, cheap enough for every packet.

The one definition of latency in the gateway (docs/operators.md and the metrics' help texts repeat it):

* `receive`: from a frame's first byte read to its last; `demux`: from there until the session has the parsed packet; `queue`: held by the
  pacer; `transcode`: into a stage until out of it; `packetize`: payloads made; `send`: until the last packet for the first viewer is with
  the kernel.
* The total runs from the frame's last byte received to its last packet handed to the kernel for the first viewer.
"""

from bisect import bisect_left
from collections import deque
from enum import StrEnum


class Step(StrEnum):
    RECEIVE = "receive"
    DEMUX = "demux"
    QUEUE = "queue"
    TRANSCODE = "transcode"
    PACKETIZE = "packetize"
    SEND = "send"


BOUNDS_NS = tuple(
    int(ms * 1_000_000)
    for ms in (0.1, 0.2, 0.5, 1, 2, 3, 5, 8, 12, 20, 30, 45, 60, 80, 120, 200, 350, 600, 1000, 2000, 5000, 10_000)
)


class Histogram:
    """Counts of durations in ns by `BOUNDS_NS` (upper bounds, inclusive) and one more bucket for what is beyond."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.total = 0

    def observe(self, duration: int) -> None:
        """`duration` in ns; a negative one (clocks read in different order) counts as 0."""
        self.counts[bisect_left(BOUNDS_NS, duration)] += 1
        if duration > 0:
            self.total += duration

    def add(self, other: "Histogram") -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """The `q` quantile in ms by linear interpolation within its bucket; None while empty."""
        count = self.count
        if not count:
            return None
        rank, below = q * count, 0
        for index, n in enumerate(self.counts):
            if n and below + n >= rank:
                if index == len(BOUNDS_NS):
                    return BOUNDS_NS[-1] / 1e6
                lower = BOUNDS_NS[index - 1] if index else 0
                return (lower + (BOUNDS_NS[index] - lower) * (rank - below) / n) / 1e6
            below += n
        return BOUNDS_NS[-1] / 1e6


class Window:
    """The last minute of a histogram that only grows: what its quantiles are now, and not since the start.

    Sans-IO; whoever asks says what time it is (ns). Asked more seldom than once a minute, it tells of the time since it was asked last.
    """

    SPAN = 60_000_000_000
    STEP = 10_000_000_000

    def __init__(self) -> None:
        self._marks: deque[tuple[int, tuple[int, ...]]] = deque()

    def recent(self, histogram: Histogram, now: int) -> Histogram:
        """What `histogram` has counted in the last minute, at first since its start."""
        marks, result = self._marks, Histogram()
        while len(marks) > 1 and now - marks[1][0] >= self.SPAN:
            marks.popleft()
        before = marks[0][1] if marks else (0,) * len(histogram.counts)
        result.counts = [late - early for late, early in zip(histogram.counts, before, strict=True)]
        if not marks:
            marks.append((now, before))
        if now - marks[-1][0] >= self.STEP:
            marks.append((now, tuple(histogram.counts)))
        return result
