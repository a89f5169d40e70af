"""What arrival shows over minutes of the tracks' clocks against each other: tracks that arrive together stay together. Sans-IO.

A track is *apart* from another by how much later than the other's newest packet most of its packets of the last seconds come at least:
what spurts and stalls do to single packets is not in it, nor what the path or the encoder's clock do to both. Where it moves along a
straight line, by `DRIFTED` within any of some spans of seconds to half an hour, one of the two clocks drifts: that which moves more
against arrival. Its offset is slewed from then on by a PI controller, at most by `MOST`, so that what they were apart when it began comes
back and stays, until its clock is right for `HEALED`. Faster clocks are another's matter (`arrival_clock.py`).

Kept true: without drift nothing is moved, to the nanosecond; what is moved goes smoothly, with the track's own time. A step is no drift,
and stays: who is suddenly apart by `STEP` more sends otherwise than before.
"""

from collections import deque
from dataclasses import dataclass, field
from statistics import correlation, linear_regression
from typing import NamedTuple

from gateway.sessions.arrival_clock import ClockFault, OnFault, StampPace

LOOK = 500_000_000  # ns of arrival
LOOKS = 4  # of which the packets count together: spurts of a second are whole in them
ACTIVE = 2_000_000_000  # ns; a track without a packet for so long says nothing of others
POINTS = 11  # of a span, the shortest of which has one for each look
FEWEST = 6  # points that show a line
SCALES = 9  # spans, each twice as long as the one before
DRIFTED = 25_000_000  # ns
START = 12_000_000_000  # ns; a drift that is found so early was there from the first packet on
NOISE = 20_000_000  # ns from look to look; what is more is a step
CLEAR = 6  # times the noise
STRAIGHT = 0.98  # of the variance is that of the line (R squared): three quarters would be a step
ENDS = 0.75  # of what such a line of `FEWEST` to `POINTS` points moves, its ends lie apart at least
MOST = 0.06  # of the track's time
SETTLING = 4e9  # ns; time constant of the controller
STEP = 60_000_000  # ns between two looks: no clock drifts so fast
HEALED = 60_000_000_000  # ns
RIGHT = 0.0001  # of its time: no drift that would have been found in so long


class _Point(NamedTuple):
    apart: float
    own: float  # the track's own delay


class _Drift(NamedTuple):
    begin: float  # what the track was apart then
    rate: float  # of real time
    span: int  # ns since then


@dataclass(slots=True)
class _TrackClock:
    """What is seen is that of the corrected stamps, so that it shows what is left to do."""

    born: int  # arrival of its first packet
    stamp: int
    arrival: int
    seen: list[_Point] = field(default_factory=list)  # since the last look
    looks: deque[list[_Point]] = field(default_factory=lambda: deque(maxlen=LOOKS))
    correction: float = 0.0
    rate: float = 0.0  # of its time, at which the correction grows
    drift: float = 0.0  # what the controller has learned of it
    anchor: float | None = None  # what the tracks were apart before it drifted; None unless it does
    apart: float = 0.0  # at the last look
    moved: float = 0.0  # in that
    noise: float = 0.0  # by how much that differs from look to look
    right_since: int = 0
    spans: list[deque[_Point]] = field(default_factory=lambda: [deque(maxlen=POINTS) for _ in range(SCALES)])
    halves: list[_Point | None] = field(default_factory=lambda: [None] * SCALES)  # the first of two points that become one

    @property
    def point(self) -> _Point | None:
        """What most packets of the last looks are apart at least, and their least delay."""
        seen = [point for look in self.looks for point in look]
        if len(self.looks) < LOOKS or not seen:
            return None
        return _Point(sorted(point.apart for point in seen)[len(seen) // 8], min(point.own for point in seen))

    def note_noise(self, apart: float) -> None:
        moved = apart - self.apart
        self.noise += (min(abs(moved - self.moved), NOISE) - self.noise) / 16
        self.apart, self.moved = apart, moved

    def forget(self) -> None:
        for scale, span in enumerate(self.spans):
            span.clear()
            self.halves[scale] = None


class TrackDrift:
    """Corrections for all tracks of one publisher; `on_fault` is told of each that drifts, once."""

    def __init__(self, on_fault: OnFault) -> None:
        self._on_fault = on_fault
        self._tracks: dict[int, _TrackClock] = {}
        self._looked = 0
        self._told: set[int] = set()

    def steers(self, track: int) -> bool:
        """Whether it drifts."""
        it = self._tracks.get(track)
        return it is not None and it.anchor is not None

    def restart(self, track: int) -> None:
        """Its stamps have jumped: what they said is over."""
        self._tracks.pop(track, None)

    def note(self, track: int, stamp: int, arrival: int) -> int:
        """A packet of it has got this stamp, or will get it once all is taken in; corrections included, all in ns. What is to be added to
        the next."""
        it = self._tracks.get(track)
        if it is None:
            it = self._tracks[track] = _TrackClock(arrival, stamp, arrival)
            self._looked = self._looked or arrival
        elif it.rate:
            it.correction += it.rate * min(max(0, stamp - it.stamp), LOOK)
        it.stamp, it.arrival = stamp, arrival
        delay = arrival - stamp
        apart = [
            delay - (each.arrival - each.stamp)
            for each in self._tracks.values()
            if each is not it and each.anchor is None and arrival - each.arrival < ACTIVE
        ]
        if apart:
            it.seen.append(_Point(min(apart, key=abs), delay))
        if arrival - self._looked >= LOOK:
            self._look(arrival)
        return round(it.correction)

    def _look(self, now: int) -> None:
        elapsed, self._looked = now - self._looked, now
        for id, it in self._tracks.items():
            it.looks.append(it.seen)
            it.seen = []
            if (point := it.point) is None:
                continue
            it.note_noise(point.apart)
            if it.anchor is not None:
                _steer(it, now, elapsed)
            elif (found := _drifting(it, point)) is not None:
                self._follow(id, it, found, now)

    def _follow(self, id: int, it: _TrackClock, found: _Drift, now: int) -> None:
        it.anchor, it.drift = found.begin, found.rate
        before = now - found.span - LOOKS * LOOK // 2 - it.born
        if before <= START:
            it.anchor -= found.rate * before
        it.rate = it.drift
        it.right_since = now
        for each in self._tracks.values():
            each.forget()
        if id not in self._told:
            self._told.add(id)
            self._on_fault(ClockFault(id, StampPace.DRIFTING, 1 - it.drift))


def _steer(it: _TrackClock, now: int, elapsed: int) -> None:
    assert it.anchor is not None
    if abs(it.moved) > STEP:
        it.anchor += it.moved
    error = it.apart - it.anchor
    elapsed = min(elapsed, 2 * LOOK)  # after a stall there is one look alone
    it.drift = max(-MOST, min(MOST, it.drift + error * elapsed / (4 * SETTLING * SETTLING)))
    it.rate = max(-MOST, min(MOST, it.drift + error / SETTLING))
    if abs(it.drift) > RIGHT:
        it.right_since = now
    elif now - it.right_since >= HEALED:
        it.anchor, it.rate, it.drift = None, 0.0, 0.0


def _drifting(it: _TrackClock, point: _Point) -> _Drift | None:
    """What the points show, with this one."""
    least = max(DRIFTED, CLEAR * it.noise)
    for scale, span in enumerate(it.spans):
        span.append(point)
        for count in range(FEWEST, len(span) + 1):
            if abs(point.apart - span[-count].apart) < ENDS * least:
                continue
            steps, points = range(count), list(span)[-count:]
            apart = [each.apart for each in points]
            slope, begin = linear_regression(steps, apart)  # by least squares
            if abs(slope) * (count - 1) < least or correlation(steps, apart) ** 2 < STRAIGHT:
                continue
            moves, rate = linear_regression(steps, [each.own for each in points]).slope, slope / (LOOK << scale)
            if abs(moves) >= abs(moves - slope) and abs(rate) <= MOST:  # more than the other does
                return _Drift(begin, rate, (count - 1) * (LOOK << scale))
        half = it.halves[scale]
        if half is None:
            it.halves[scale] = point
            break
        it.halves[scale] = None
        point = _Point((half.apart + point.apart) / 2, (half.own + point.own) / 2)
    return None
