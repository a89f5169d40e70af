"""How much one viewer's way carries, judged from transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01). Sans-IO.

An AIMD rule on loss and queueing delay, after draft-ietf-rmcat-gcc-02 §5-6, without its filter: a programme does not adapt from second to
second, so the figure chooses a layer or tells a viewer's way from a bad one; it paces nothing. What is kept true: it never rises above
1.5 times what was seen to arrive, and falls by loss or delay alone: who is sent little learns nothing new. It holds
while a queue drains, and near the rate that was too much the last time it rises slowly (§5.5): an encoder that follows it stays just below
what the way carries, and still finds out when that is more.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

_WINDOW_NS = 500_000_000
_HIGH_LOSS = 0.10  # GCC §6: above, decrease; below 2 %, increase
_LOW_LOSS = 0.02
_QUEUEING_NS = (
    40_000_000  # growth of the one-way delay within a window that means: a queue is filling; over the least: it is not empty
)
_GROWTH_NS = 5_000_000  # of a queue that is not empty, from window to window
_BASELINE = 20  # windows in which the shortest way was seen
_DECREASE = 0.85
_INCREASE = 1.08
_NEAR_INCREASE = 1.02
_NEAR = 1.15  # times what arrived when it was too much: up to here it may be too much again
_HEADROOM = 1.5
_FLOOR = 50_000


Arrival: TypeAlias = tuple[int, int | None, int]
"""One packet of ours: when it left, when the viewer got it by its own clock (None: lost), how large it was."""


@dataclass(slots=True)
class _Window:
    begun: int
    packets: int = 0
    lost: int = 0
    bytes: int = 0
    delay: int = 0
    least_delay: int | None = None


class BandwidthEstimator:
    """Feed it feedback; `bits_per_second` is None until half a second was seen."""

    def __init__(self) -> None:
        self.bits_per_second: int | None = None
        self._window: _Window | None = None
        self._least: deque[int] = deque(maxlen=_BASELINE)  # delays, one of each window
        self._too_much: int | None = None  # what arrived when the way was full

    def add(self, arrivals: Iterable[Arrival], now: int) -> None:
        """Arrivals in the order sent. `now` is monotonic ns."""
        window = self._window = self._window or _Window(now)
        least = window.least_delay
        for sent, arrived, size in arrivals:
            window.packets += 1
            if arrived is None:
                window.lost += 1
                continue
            window.bytes += size
            window.delay = delay = arrived - sent
            if least is None or delay < least:
                least = delay
        window.least_delay = least
        if now - window.begun >= _WINDOW_NS and window.packets:
            self._judge(window, now - window.begun)
            self._window = _Window(now)

    def _judge(self, window: _Window, elapsed: int) -> None:
        arrived = window.bytes * 8 * 1_000_000_000 // elapsed
        loss = window.lost / window.packets
        full = filling = queued = False
        if window.least_delay is not None:
            grown = window.least_delay - (self._least[-1] if self._least else window.least_delay)
            self._least.append(window.least_delay)
            queued = window.least_delay - min(self._least) > _QUEUEING_NS
            filling = window.delay - window.least_delay > _QUEUEING_NS or (queued and grown > _GROWTH_NS)
            full = queued and loss > _LOW_LOSS
        current = self.bits_per_second or arrived
        if loss > _HIGH_LOSS or filling or full:
            current = min(current, int(arrived * _DECREASE))
            self._too_much = arrived
        elif loss < _LOW_LOSS and not queued:
            if self._too_much is not None and current > self._too_much * _NEAR:
                self._too_much = None
            increase = _INCREASE if self._too_much is None else _NEAR_INCREASE
            current = max(current, arrived, min(int(current * increase), int(arrived * _HEADROOM)))
        self.bits_per_second = max(_FLOOR, current)
