"""What arrival says of the publisher's time stamps: media that keep coming steadily are live, whatever their stamps say. Sans-IO.

A track's *lag* is by how much its stamps have fallen behind arrival since its first packet, below 0 where they have run ahead. One
estimator knows it (a critically damped alpha-beta filter: level and slope). Where stamps are right, nothing is corrected, to the
nanosecond; a track whose stamps part from arrival is *followed*: its correction takes in what the estimator says, so that it goes on by
arrival, until its lag has kept still for `HEALED`. What parts them:

* the lag has left the track's usual one by `PARTED`, still moving; stamps that run ahead only where another track's do not, since all
  of a file come faster than real time;
* or the track alone has moved away from another in each of the last `DRIFTS` looks. A path that gets longer does so for both.

A stall is no such thing: what a gap in arrival adds to the lag is a debt, which the backlog behind it pays back, and late stays late. What
is unpaid when the track is followed was its clock's as well; before its clock can be known nobody can say which. Sound that comes in spurts
while pictures keep coming has such gaps as well; what a spurt leaves unpaid is lag. Of a spurt the last packet counts (`spurts.py`).
A clock that drifts more slowly than that against another track's is steered by another (`track_drift.py`).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from statistics import mean, median
from typing import NamedTuple

from gateway.sessions.spurts import Spurts
from protocols.media import Kind

PARTED = 450_000_000  # ns; what jitter of a network does is less, what the pacer takes for late is more
GAP = 300_000_000  # ns without a packet
LOOK = 150_000_000  # ns between two looks at where a lag is
GROWS = 5_000_000  # ns in two looks: a clock wrong by 2 %
DRIFTS = 14  # looks
DRIFTED = 40_000_000  # ns in so many: a clock that is wrong by 2 %
DRIFTS_BY = 0.018  # of real time, where looks are rare: what is slower is another's matter (`track_drift.py`)
SETTLING = 400_000_000  # ns; time constant of the estimator
TYPICAL = 200_000_000  # ns; the longest step between packets for which it is laid out
CATCH_UP = 0.2  # of real time: how fast the lag that there was before a track was followed is taken in
MOST_TAKEN_IN = 600_000_000  # ns so; what is beyond is, at once
KNOWN = 1_500_000_000  # ns after a track's first packet a clock of half the speed is known
STILL = 60_000_000  # ns; a lag that moves in such a band keeps still
QUIET = 4_000_000_000  # ns of that, and it is the track's usual lag
HEALED = 10_000_000_000  # ns of that, and its stamps are right again
ACTIVE = 2_000_000_000  # ns; a track without a packet for so long says nothing of others
JUDGED = 1_000_000_000  # ns for which a track is followed before it is said how its clock runs
STANDS = 0.05  # of real time
ALIKE = 0.1  # of real time: clocks that differ by less are one


class StampPace(StrEnum):
    """How time stamps run that are not live's."""

    STANDING = "stand still"
    SLOW = "run slower than real time"
    FAST = "run faster than real time"
    DRIFTING = "drift"  # against another track's


@dataclass(frozen=True, slots=True)
class ClockFault:
    """The stamps of one track, or of all (None), are not live's: they run at `rate` of real time."""

    track: int | None
    pace: StampPace
    rate: float

    def text(self, kind: Kind | None) -> str:
        """For the streamer; `kind` is the track's, None for all."""
        if kind is None and self.pace is StampPace.SLOW:
            return (
                f"The encoder is slower than real time ({self.rate:.2f} of it), so that it is shown as it comes: choose a faster preset, a "
                "smaller picture or fewer frames per second."
            )
        whose = {None: "The", Kind.VIDEO: "The picture's", Kind.AUDIO: "The sound's"}[kind]
        if self.pace is StampPace.DRIFTING:
            other = "sound's" if kind is Kind.VIDEO else "picture's"
            return (
                f"{whose} clock runs {abs(1 - self.rate) * 100:.2g} % {'slow' if self.rate < 1 else 'fast'} against the {other}, so that "
                "it is moved to stay in step: give the encoder one clock for both, or its sound the right sampling rate."
            )
        rate = "" if self.pace is StampPace.STANDING else f" ({self.rate:.2f} of it)"
        return f"{whose} time stamps {self.pace.value}{rate}, so that it is shown as it comes: correct the encoder's clock or frame rate."


OnFault = Callable[[ClockFault], None]


class Correction(NamedTuple):
    """What is to be added to a stamp, and what will be in the end, so that what parted it from arrival is taken in; ns. `settling`: until
    then how late packets are says nothing, nor after a gap until it is known how the clock runs."""

    offset: int
    to_come: int
    settling: bool


UNCORRECTED = Correction(0, 0, settling=False)


@dataclass(slots=True)
class _Lag:
    """Of one track. `usual` is that of its right stamps, as far as they are corrected."""

    newest: int  # stamp, of a spurt under way as well
    stamp: int
    arrival: int
    origin: int  # arrival less stamp, of the first packet
    born: int  # arrival of that
    lag: int = 0
    debt: int = 0
    spurts: bool = False  # the debt is from a gap of this track alone
    unknown: bool = True  # how its clock runs: it is too young
    level: float = 0.0
    slope: float = 0.0
    step: float = 20_000_000.0  # between packets
    usual: float = 0.0
    correction: float = 0.0
    excess: float = (
        0.0  # what will be added to the correction, so that what parted the track is taken in; 0 unless it is followed
    )
    followed_since: int | None = None
    followed_from: int = 0  # the lag there
    judged: bool = False
    low: float = 0.0
    high: float = 0.0
    still_since: int = 0
    looked: int = 0
    looks: deque[int] = field(default_factory=lambda: deque(maxlen=3))  # the lag at each
    levels: deque[float] = field(default_factory=lambda: deque(maxlen=DRIFTS))
    times: deque[int] = field(default_factory=lambda: deque(maxlen=DRIFTS))
    apart: deque[float] = field(default_factory=lambda: deque(maxlen=DRIFTS))  # from the other track

    @property
    def parted(self) -> float:
        return self.lag - self.correction - self.usual

    def leads(self, other: "_Lag") -> bool:
        """Its stamps are ahead of the other's by themselves, not only by when they came: those of a file never are."""
        return self.stamp + self.correction > other.newest + other.correction + PARTED / 2

    @property
    def uncorrected(self) -> float:
        """The usual lag, of a track that is followed."""
        return self.level - self.correction - self.excess

    @property
    def moved(self) -> float:
        return abs(self.levels[-1] - self.levels[0]) if self.levels else 0.0

    def follow(self, now: int) -> None:
        """From here on it goes by arrival. What a gap has left unpaid was its clock's as well."""
        self.lag, self.level, self.debt = self.lag + self.debt, self.level + self.debt, 0
        self.followed_since, self.followed_from, self.judged = now, self.lag, False
        parted = self.level - self.usual - self.correction
        self.excess = max(-MOST_TAKEN_IN, min(MOST_TAKEN_IN, parted))
        self.begin_band(now)

    def begin_band(self, now: int) -> None:
        self.low = self.high = self.level
        self.still_since = now


class ArrivalClock:
    """Corrections for all tracks of one publisher; `on_fault` is told of each pace of a track, or of all, once."""

    def __init__(self, on_fault: OnFault) -> None:
        self._on_fault = on_fault
        self._lags: dict[int, _Lag] = {}
        self._spurts: dict[int, Spurts[tuple[int, int]]] = {}  # stamp and arrival
        self._newest = 0  # arrival
        self._silent_until = 0  # when the last gap of all tracks ended
        self._told: set[tuple[int | None, StampPace]] = set()

    def restart(self, track: int) -> None:
        """Its stamps have jumped: what they said is over."""
        self._lags.pop(track, None)
        self._spurts.pop(track, None)

    def correct(self, track: int, stamp: int, arrival: int, *, steered: bool) -> Correction:
        """Of this stamp (all in ns); it counts as the track's newest. `steered`: another keeps it beside the others."""
        if arrival - self._newest > GAP:
            self._silent_until = arrival
        self._newest = max(self._newest, arrival)
        if (spurts := self._spurts.get(track)) is None:
            spurts = self._spurts[track] = Spurts()
        for counting in spurts.counting(arrival, (stamp, arrival)):
            self._observe(track, *counting, steered)
        it = self._lags.get(track)
        if it is not None:
            it.newest = stamp
        if it is None or not (it.correction or it.excess or it.debt):
            return UNCORRECTED
        settling = it.excess != 0 or (it.debt > 0 and it.unknown and not it.spurts)
        return Correction(round(it.correction), round(it.excess), settling)

    def _observe(self, track: int, stamp: int, arrival: int, steered: bool) -> None:
        it = self._lags.get(track)
        if it is None:
            it = self._lags[track] = _Lag(stamp, stamp, arrival, arrival - stamp, arrival, still_since=arrival, looked=arrival)
            it.looks.append(0)
            return
        arrival = max(arrival, it.arrival)
        elapsed, moved = arrival - it.arrival, stamp - it.stamp
        self._note_debt(it, elapsed, moved)
        it.stamp, it.arrival, it.lag = stamp, arrival, arrival - stamp - it.origin - it.debt
        _estimate(it, elapsed)
        if it.followed_since is not None:
            _follow(it, elapsed, moved)
        _keep_still(it, arrival)
        if arrival - it.looked >= LOOK:
            self._look(track, it, arrival, steered)

    def _note_debt(self, it: _Lag, elapsed: int, moved: int) -> None:
        grown = elapsed - moved
        if elapsed > GAP:
            if it.spurts:
                it.debt = 0
            it.unknown = it.unknown and it.arrival - it.born < KNOWN
            it.spurts = self._silent_until <= it.arrival
        if grown < 0:
            it.debt = max(0, it.debt + grown)
        elif elapsed > GAP and (it.spurts or it.followed_since is None):
            it.debt += grown

    def _look(self, track: int, it: _Lag, now: int, steered: bool) -> None:
        it.looked = now
        it.looks.append(it.lag)
        it.levels.append(it.uncorrected)
        it.times.append(now)
        others = [each for id, each in self._lags.items() if id != track and now - each.arrival < ACTIVE]
        if others:
            it.apart.append(min((it.uncorrected - each.uncorrected for each in others), key=abs))
        else:
            it.apart.clear()
        if it.followed_since is None and (self._parts(it, others) or (not steered and self._drifts(it, others))):
            it.follow(now)
        if it.followed_since is not None and not it.judged:
            self._judge(now)

    @staticmethod
    def _parts(it: _Lag, others: list[_Lag]) -> bool:
        if abs(it.parted) < PARTED or len(it.looks) < 3:
            return False
        ahead = it.parted < 0
        if ahead and not any(each.parted > it.parted + PARTED / 2 and it.leads(each) for each in others):
            return False
        first, second, last = (-lag if ahead else lag for lag in it.looks)
        return first < second < last and last - first >= GROWS

    @staticmethod
    def _drifts(it: _Lag, others: list[_Lag]) -> bool:
        """Away from the others, and it is this one's stamps that move against arrival more than those of others, if these are believed.
        Where a few steps make most of it, that is no drift."""
        apart = list(it.apart)
        least = max(DRIFTED, DRIFTS_BY * (it.looked - it.times[0]))
        if len(apart) < DRIFTS or abs(apart[-1] - apart[0]) < least:
            return False
        if any(each.followed_since is None and each.moved > it.moved for each in others):
            return False
        sign = 1 if apart[-1] > apart[0] else -1
        steps = [sign * (later - earlier) for earlier, later in pairwise(apart)]
        return min(steps) > 0 and 2 * median(steps) >= mean(steps)

    def _judge(self, now: int) -> None:
        """Say of those that are followed for long enough how their clocks run; of all of them together where they run alike."""
        active = {id: each for id, each in self._lags.items() if now - each.arrival < ACTIVE}
        rates: dict[int, float] = {}
        for id, each in active.items():
            since = each.followed_since
            if now - since < JUDGED if since is not None else abs(each.parted) > PARTED / 2:
                return  # it is about to join them
            if since is not None:
                rates[id] = max(0.0, 1 - (each.lag - each.followed_from) / max(1, each.arrival - since))
        for id in rates:
            active[id].judged = True
        if len(rates) == len(active) and max(rates.values()) - min(rates.values()) < ALIKE:
            self._tell(None, sum(rates.values()) / len(rates))
            return
        for id, rate in rates.items():
            self._tell(id, rate)

    def _tell(self, track: int | None, rate: float) -> None:
        pace = StampPace.STANDING if rate < STANDS else StampPace.SLOW if rate < 1 else StampPace.FAST
        if not {(track, pace), (None, pace)} & self._told:
            self._told.add((track, pace))
            self._on_fault(ClockFault(track, pace, rate))


def _estimate(it: _Lag, elapsed: int) -> None:
    """Level and slope follow the lag: critically damped, with the time constant `SETTLING`."""
    it.step += (min(elapsed, TYPICAL) - it.step) / 16
    gain = max(it.step, 1_000_000) / SETTLING
    predicted = it.level + it.slope * elapsed
    error = it.lag - predicted
    it.level = predicted + error * (1 if elapsed > GAP else min(1.0, 2 * gain))
    # A burst is no rate: packets that come together count as one
    it.slope = min(1.0, it.slope + error * gain / SETTLING * min(1.0, elapsed / it.step))


def _follow(it: _Lag, elapsed: int, moved: int) -> None:
    least = it.correction - max(0, moved)  # so that what is given does not go back where its stamps do not
    most = CATCH_UP * elapsed
    it.excess -= max(-most, min(most, it.excess))
    it.correction = max(least, it.level - it.usual - it.excess)


def _keep_still(it: _Lag, now: int) -> None:
    """A lag that has kept still is the usual one; if the track was followed, its stamps are right again."""
    it.low, it.high = min(it.low, it.level), max(it.high, it.level)
    if it.high - it.low > STILL:
        it.begin_band(now)
    elif now - it.still_since >= (QUIET if it.followed_since is None else HEALED):
        it.usual = it.level - it.correction
        it.followed_since, it.excess, it.unknown = None, 0.0, False
        it.begin_band(now)
