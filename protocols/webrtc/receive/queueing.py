"""Whether a queue fills on the way from a peer, from when its frames left and when they came (draft-ietf-rmcat-gcc-02 §4-5). Sans-IO.

What counts is the least delay in each span of a tenth of a second, of the stream that was delayed least: a frame that comes late, a large
one that takes its time, and an encoder or pacer that holds back one stream of several do not raise it. A queue does, for all and time after
time.
"""

from collections import deque

SPAN_NS = 90_000_000
QUEUED_NS = 40_000_000
"""That the way takes longer than the shortest time it took: there is a queue."""

_SAMPLES = 3  # a span is no shorter than these: of so few frames the least delay may be no more than jitter
_SPANS = 100  # in which the shortest way was seen: in 10 s two clocks drift apart by a millisecond or two
_BEGUN_NS = 10_000_000
_STEP_NS = 2_000_000
_JUMP_NS = 2_000_000_000  # no queue holds so much: the sender's clock was set


class DepartureClock:
    """One of the clocks by which a peer stamps its packets: `bits` wide, `rate` ticks a second. What matters is only how it moves against
    ours."""

    def __init__(self, rate: int, bits: int) -> None:
        self._rate = rate
        self._half = 1 << bits - 1
        self._stamp: int | None = None
        self._arrival = 0
        self._way = 0  # ns that the newest took longer than the first
        self._least: int | None = None
        self._spans: deque[int] = deque(maxlen=_SPANS)

    def note(self, stamp: int, arrival: int) -> None:
        """A frame that left at `stamp` came at `arrival` (monotonic ns)."""
        if self._stamp is not None:
            ticks = (stamp - self._stamp + self._half) % (2 * self._half) - self._half
            moved = arrival - self._arrival - ticks * 1_000_000_000 // self._rate
            self._way += moved
            if abs(moved) > _JUMP_NS:
                self._spans.clear()
                self._least = None
        self._stamp, self._arrival = stamp, arrival
        if self._least is None or self._way < self._least:
            self._least = self._way

    def close_span(self) -> int | None:
        """By how much the shortest way of the span was longer than the shortest known (ns); None: nothing came in it."""
        if self._least is None:
            return None
        least, self._least = self._least, None
        self._spans.append(least)
        return least - min(self._spans)


class QueueWatch:
    """Of one peer. `note` a frame of each of its clocks when its first packet comes."""

    def __init__(self) -> None:
        self._clocks: dict[int, DepartureClock] = {}
        self._begun: int | None = None
        self._samples = 0
        self._delays: deque[int] = deque([0, 0, 0], maxlen=3)

    @property
    def delay(self) -> int:
        """By how much the way is longer than the shortest known, in ns."""
        return self._delays[-1]

    @property
    def queued(self) -> bool:
        """Whether there is a queue, filling or not."""
        return self.delay > QUEUED_NS

    @property
    def filling(self) -> bool:
        """Whether there is one and grew twice in a row: what a single burst fills is emptying from then on."""
        before, middle, last = self._delays
        return last > QUEUED_NS and middle > _BEGUN_NS and last - middle > _STEP_NS and middle - before > _STEP_NS

    def note(self, clock: int, rate: int, bits: int, stamp: int, now: int) -> bool:
        """A frame's stamp of the clock with this number. Whether a span ended with it, so that there is something new."""
        known = self._clocks.get(clock)
        if known is None:
            known = self._clocks[clock] = DepartureClock(rate, bits)
        known.note(stamp, now)
        self._samples += 1
        if self._begun is None:
            self._begun = now
        if now - self._begun < SPAN_NS or self._samples < _SAMPLES:
            return False
        self._begun, self._samples = now, 0
        delays = [delay for each in self._clocks.values() if (delay := each.close_span()) is not None]
        self._delays.append(min(delays))
        return True

    def forget(self, clock: int) -> None:
        self._clocks.pop(clock, None)
