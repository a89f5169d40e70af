"""How much one viewer's way carries, judged from transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01). Sans-IO.

An AIMD rule on loss and queueing delay, after draft-ietf-rmcat-gcc-02 §5-6, without its filter: a programme does not adapt from second to
second, so the figure chooses a layer, tells a viewer's way from a bad one, and paces what goes into that alone. What is kept true: it never
rises above 1.5 times what was seen to arrive, and falls by loss or delay alone: who is sent little learns nothing new. It holds
while a queue drains, and near the rate that was too much the last time it rises slowly (§5.5): an encoder that follows it stays just below
what the way carries, and still finds out when that is more.

A way that narrows to less than half at one blow shows it in the first feedback where what left together arrives one by one: how far apart
is what the way carries, and a pause, which lets all go together, looks otherwise. Else it shows it within two: the queue grows from one to
the next. The figure falls to what arrives at once, and what left before says nothing any more, nor what left for the full queue.

Not every viewer knows exactly when it got what. Where even the least delayed packets of one feedback are much later, or earlier, than those
of the one before, and again and again, as much of a delay shows no queue.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from protocols.webrtc.rtcp import ARRIVAL_NS

_WINDOW_NS = 500_000_000
_HIGH_LOSS = 0.10  # GCC §6: above, decrease; below 2 %, increase
_LOW_LOSS = 0.02
# Growth of the one-way delay within a window that means: a queue is filling; over the least: it is not empty
_QUEUEING_NS = 40_000_000
_CALM_NS = 20_000_000  # and below this over the least there is none that matters
_GROWTH_NS = 5_000_000  # of a queue that is not empty, from window to window
_BASELINE = 20  # windows in which the shortest way was seen
_DECREASE = 0.85
_INCREASE = 1.08
_NEAR_INCREASE = 1.02
_NEAR = 1.15  # times what arrived when it was too much: up to here it may be too much again
_HEADROOM = 1.5
_FLOOR = 50_000
_SPAN_NS = 45_000_000  # of arrivals, at least: feedback that comes in parts is one
_COLLAPSE = 2  # times as much arrived before
_STRUNG_NS = 30_000_000  # of arrivals one by one, at least, of at least so many
_STRUNG = 3
_FULL_NS = 50_000_000  # after a collapse is known: some of what leaves yet finds the queue full
_DRAINING = 0.7  # of what the way carries: the queue that stands by then is to empty
_GROWING = 4  # a queue that grows by one part in so many of the time: this much and more of what is sent is not carried
_LITTLE = 2  # times what was sent is less than the figure: what arrived of it is not what the way carries
_SENT_WITHIN = 4  # parts of a window, at most: of a few packets that left together no rate is known
_BEFORE = 2  # windows: the last may hold the beginning of it
_BLUR = 3  # times the second largest change of the least delay from one feedback to the next
_CHANGES = 80  # feedbacks in which that is looked for
_BLUR_NS = 120_000_000  # at most: a reference time may be rounded to its 64 ms, and what came to when it was told


@dataclass(slots=True)
class Calm:
    """What one feedback says of packets of ours that have all come, and not late."""

    left: int  # when the last left, monotonic ns
    at: int  # when that came, by the viewer's clock in ns
    least_delay: int  # of the first and the last
    packets: int
    bytes: int


class Heard(NamedTuple):
    """What one feedback says of packets of ours that left together."""

    sent: int  # monotonic ns
    arrivals: Sequence[int]  # of those that came, in the order sent: when by the viewer's clock, in units of `ARRIVAL_NS`
    lost: int
    size: int  # bytes of each


@dataclass(slots=True)
class _Window:
    begun: int
    packets: int = 0
    lost: int = 0
    bytes: int = 0
    delay: int = 0
    least_delay: int | None = None
    left: int = 0  # when the last did


class _Span(NamedTuple):
    """What one feedback told."""

    at: int  # when the last of it arrived, by the viewer's clock
    delay: int  # of that
    bytes: int
    packets: int
    lost: int

    def joined(self, later: "_Span") -> "_Span":
        return _Span(later.at, later.delay, self.bytes + later.bytes, self.packets + later.packets, self.lost + later.lost)

    def worse(self, before: "_Span") -> bool:
        return self.lossy or (self.delay - before.delay) * _GROWING > self.at - before.at

    def rate(self, before: "_Span") -> int:
        """bit/s."""
        return _rate(self.bytes, self.at - before.at)

    @property
    def mostly_lost(self) -> bool:
        return self.lost * 2 > self.packets

    @property
    def lossy(self) -> bool:
        return self.lost > self.packets * _HIGH_LOSS


def _rate(size: int, span: int) -> int:
    """bit/s of so many bytes in so many ns."""
    return size * 8_000_000_000 // span


class BandwidthEstimator:
    """Feed it feedback; `bits_per_second` is None until half a second was seen. `judgements` counts how often it was made anew."""

    def __init__(self) -> None:
        self.bits_per_second: int | None = None
        self.judgements = 0
        self._window: _Window | None = None
        self._least: deque[int] = deque(maxlen=_BASELINE)  # delays, one of each window
        self._baseline: int | None = None  # the least of them
        self._too_much: int | None = None  # what arrived when the way was full
        self._before: deque[int] = deque(maxlen=_BEFORE)  # bit/s that arrived in a window
        self._spans: deque[_Span] = deque(maxlen=3)
        self._shortest: int | None = None  # delay in the feedback before
        self._changes: deque[int] = deque(maxlen=_CHANGES)  # of that
        self._blur = 0
        self._queueing = _QUEUEING_NS  # by the blur of a window before: that of the last may be what a queue does
        self._sent_until = 0  # when the last of the window before left
        self._collapsed = 0  # what left before this left before the way narrowed, or for its full queue

    def calm(self, begun: int, left: int, at: int) -> bool:
        """Whether nothing is to be feared of packets that have all come: the first left at `begun`; the last left at `left`, and came at
        `at` (ns by the viewer's clock)."""
        return self._baseline is not None and at - left - self._baseline < _CALM_NS and begun >= self._collapsed

    def add_calm(self, told: Calm, now: int) -> None:
        """What `calm` is true of. `now` is monotonic ns."""
        delay = told.at - told.left
        window = self._window = self._window or _Window(now)
        window.packets += told.packets
        window.bytes += told.bytes
        self._see(window, _Span(told.at, delay, told.bytes, told.packets, 0), told.least_delay, told.left)
        self._end_window(window, now)

    def add(self, heard: Sequence[Heard], now: int) -> bool:
        """What is heard in the order sent. `now` is monotonic ns. True where the way has narrowed to less than half at one blow."""
        window = self._window = self._window or _Window(now)
        collapsed = self._collapsed
        packets = lost = came = last = left = delay = 0
        least: int | None = None
        for sent, arrivals, missing, size in heard:
            if sent < collapsed:
                continue
            left = sent
            lost += missing
            if not arrivals:
                continue
            packets += len(arrivals)
            came += size * len(arrivals)
            last = arrivals[-1] * ARRIVAL_NS
            delay = last - sent
            shortest = min(arrivals) * ARRIVAL_NS - sent
            if least is None or shortest < least:
                least = shortest
        packets += lost
        if not packets:  # all of it left too early
            self._window = window if window.packets else None
            return False
        window.packets += packets
        window.lost += lost
        window.bytes += came
        window.left = left
        if least is not None:
            self._see(window, _Span(last, delay, came, packets, lost), least, left)
            arrived = self._narrowed() or self._strung(heard, delay)
            if arrived is not None:
                self._collapse(arrived, now)
                return True
        self._end_window(window, now)
        return False

    def _see(self, window: _Window, span: _Span, least: int, left: int) -> None:
        window.left, window.delay = left, span.delay
        if window.least_delay is None or least < window.least_delay:
            window.least_delay = least
        self._compare(least)
        self._note(span)

    def _end_window(self, window: _Window, now: int) -> None:
        if now - window.begun >= _WINDOW_NS:
            self._judge(window, now - window.begun)
            self._window = _Window(now)

    def _compare(self, least: int) -> None:
        """The least delay of one feedback with that of the one before."""
        if self._shortest is not None:
            self._changes.append(abs(self._shortest - least))
        self._shortest = least

    def _note(self, span: _Span) -> None:
        spans = self._spans
        if spans and span.at < spans[-1].at:  # the viewer's clock has begun anew
            spans.clear()
        if len(spans) > 1 and spans[-1].at - spans[-2].at < _SPAN_NS:
            span = spans.pop().joined(span)
        spans.append(span)

    def _narrowed(self) -> int | None:
        """What arrives (bit/s) where two feedbacks in a row show a queue that grows or overflows, and not half of what arrived before; or
        that what left since the way narrowed is still too much."""
        if len(self._spans) < 3 or self._baseline is None:
            return None
        first, middle, last = self._spans
        queued = last.delay - self._baseline > 2 * self._queueing
        mostly_lost = middle.mostly_lost and last.mostly_lost
        if not (queued or mostly_lost) or not (middle.worse(first) and last.worse(middle)) or last.at - middle.at < _SPAN_NS:
            return None
        arrived = last.rate(middle)  # the middle one may hold the end of what was before
        if self._before:
            return arrived if arrived * _COLLAPSE <= max(self._before) else None
        return arrived if self._collapsed and middle.lossy and last.lossy else None

    def _strung(self, heard: Sequence[Heard], delay: int) -> int | None:
        """What arrives (bit/s) where one feedback shows a queue, and each packet in it so long after the one before that this is not half
        of what arrived before."""
        if not self._before or self._baseline is None or delay - self._baseline <= self._queueing:
            return None
        came = [(at * ARRIVAL_NS, each.size) for each in heard if each.sent >= self._collapsed for at in each.arrivals]
        span = came[-1][0] - came[0][0]
        if len(came) < _STRUNG or span < _STRUNG_NS:
            return None
        most = max(self._before) // _COLLAPSE
        if any(size * 8_000_000_000 > most * (later - earlier) for (earlier, _), (later, size) in pairwise(came)):
            return None
        return _rate(sum(size for _, size in came[1:]), span)

    def _collapse(self, arrived: int, now: int) -> None:
        self._too_much = arrived
        self.bits_per_second = max(_FLOOR, int(min(arrived, self.bits_per_second or arrived) * _DRAINING))
        self._collapsed, self._sent_until = now + _FULL_NS, now
        self._window = None
        self._before.clear()
        self._spans.clear()

    def _sent(self, window: _Window, elapsed: int) -> int:
        """bit/s at which what arrived in the window had left."""
        return _rate(window.bytes, max(window.left - self._sent_until, elapsed // _SENT_WITHIN))

    def _judge(self, window: _Window, elapsed: int) -> None:
        self.judgements += 1
        arrived = _rate(window.bytes, elapsed)
        self._before.append(arrived)
        loss = window.lost / window.packets
        full = filling = queued = False
        if window.least_delay is not None:
            grown = window.least_delay - (self._least[-1] if self._least else window.least_delay)
            self._least.append(window.least_delay)
            self._baseline = min(self._least)
            queued = window.least_delay - self._baseline > self._queueing
            filling = window.delay - window.least_delay > self._queueing or (queued and grown > _GROWTH_NS)
            full = queued and loss > _LOW_LOSS
        current = self.bits_per_second or arrived
        if loss > _HIGH_LOSS or filling or full:
            if loss < _LOW_LOSS and self._sent(window, elapsed) * _LITTLE < current:
                current = int(current * _DECREASE)
            else:
                current = min(current, int(arrived * _DECREASE))
                self._too_much = arrived
        elif loss < _LOW_LOSS and not queued:
            if self._too_much is not None and current > self._too_much * _NEAR:
                self._too_much = None
            near = self._too_much is not None and current >= int(self._too_much * _DECREASE)
            increase = _NEAR_INCREASE if near else _INCREASE
            current = max(current, arrived, min(int(current * increase), int(arrived * _HEADROOM)))
        self.bits_per_second = max(_FLOOR, current)
        self._sent_until = window.left
        self._queueing = _QUEUEING_NS + self._blur
        self._blur = min(_BLUR * sorted(self._changes)[-2], _BLUR_NS) if len(self._changes) > 1 else 0
