"""What waits for its turn at one viewer: large frames and groups of pictures leave in slices, because a burst overflows the viewer's last
hop. Sans-IO.

What is kept true: what waits is out by the time that it was given, as gently as that allows.
"""

from collections import deque
from collections.abc import Iterator

from protocols.webrtc.send.history import Run, SentFrame

PACE_NS = 2_000_000
SLICE = 16
UNPACED = 48
"""Packets: a frame up to here leaves at once, of a larger one `SLICE` packets and the rest in slices every `PACE_NS`."""
FRAME_DRAIN_NS = 20_000_000
JOIN_DRAIN_NS = 200_000_000
"""A large frame, a group of pictures is out after this."""


class PacingQueue:
    """Runs in order, each with its timestamp. False while nothing waits."""

    def __init__(self) -> None:
        self.packets = 0
        self._runs: deque[tuple[Run, int, int]] = deque()
        self._drained = 0  # when all is to be out
        self._allowance = 0  # packets that may leave now; below 0 where a run went beyond

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def since(self) -> int:
        """When the oldest began to wait; there is one."""
        return self._runs[0][2]

    def add(self, frame: SentFrame, timestamp: int, now: int, drained: int) -> None:
        if not self._runs:
            self._drained, self._allowance = drained, SLICE
        self._runs.extend((run, timestamp, now) for run in frame.runs)
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
        self._allowance += -(-self.packets // max(1, (self._drained - now) // PACE_NS))
