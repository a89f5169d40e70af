"""How much one viewer may have sent again: a NACK costs its sender a few bytes, and us whole packets. Sans-IO.

What is kept true: a packet is sent again once in half a round trip, at most `AT_ONCE` are looked at in one, and no more bytes are
sent again than a quarter of what was sent plus one burst. On a way that is too narrow, a quarter of what it carries and so many
milliseconds of that: repairs that fill it delay or push out what they are to save.
"""

from collections import deque

from protocols.webrtc.send.target import LEAST

AT_ONCE = 256
SHARE = 4
BURST = 128 << 10
NARROW_BURST_NS = 150_000_000

_ROUND_TRIPS = 8
_ROUND_TRIP_MINIMUM, _ROUND_TRIP_MAXIMUM = 10_000_000, 300_000_000


class RepairBudget:
    """Of one sender. Times are monotonic ns."""

    __slots__ = ("_answered", "_begun", "_count", "_counted", "_credit", "_paid", "_round_trip", "_round_trips")

    def __init__(self) -> None:
        self._credit = BURST
        self._begun = self._count = 0
        self._paid = self._counted = 0  # bytes that were sent until the last NACK, and when that was
        self._round_trip = _ROUND_TRIP_MINIMUM
        self._round_trips: deque[int] = deque(maxlen=_ROUND_TRIPS)
        self._answered: dict[int, int] = {}

    def measured(self, round_trip: int) -> None:
        """The least of the last few counts: one that a busy moment has stretched must hold back no repair."""
        self._round_trips.append(round_trip)
        self._round_trip = min(max(min(self._round_trips), _ROUND_TRIP_MINIMUM), _ROUND_TRIP_MAXIMUM)

    def begin(self, sent: int, now: int, carried: int | None) -> None:
        """A NACK has come when `sent` bytes were sent in all. `carried`: what the way has for this stream, in bit/s, where that is too
        little; None: enough."""
        earned, burst = sent - self._paid, BURST
        if carried is not None:
            carried = max(carried, LEAST)
            earned = min(earned, carried * (now - self._counted) // 8_000_000_000)
            burst = min(burst, carried * NARROW_BURST_NS // 8_000_000_000)
        self._credit = min(burst, self._credit + earned // SHARE)
        self._paid, self._counted = sent, now
        if now - self._begun >= self._round_trip:
            self._begun, self._count = now, 0
            self._answered = {sequence: at for sequence, at in self._answered.items() if now - at < self._round_trip}

    def look(self) -> bool:
        """Whether one more sequence number may be looked at."""
        self._count += 1
        return self._count <= AT_ONCE and self._credit > 0

    def due(self, sequence: int, now: int) -> bool:
        """False while the last answer for this packet is surely on its way. Half of the round trip: the receiver asks again after what it
        takes the round trip for, which may be less than what we take it for."""
        at = self._answered.get(sequence)
        return at is None or now - at >= self._round_trip // 2

    def spend(self, sequence: int, size: int, now: int) -> None:
        self._answered[sequence] = now
        self._credit -= size
