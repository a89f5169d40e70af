"""RTP timestamps on one time line for all streams of a peer. Sans-IO.

A stream starts at once, by the arrival of its first frame. Sender reports (RFC 3550 §6.4.1) then say how the peer's streams really lie to
each other, and the others move to where the leading one (the sound) is, so slowly that nobody sees it. What is kept true: media time never
jumps; the leading stream keeps its own clock, and another moves against its own by at most `SLEW` of it.
"""

SLEW = 50
"""One part in so many: 20 ms in a second."""
_UNBELIEVABLE_NS = 2_000_000_000  # two streams this far apart: the peer's wall clock was set, or its reports are wrong


class WallClock:
    """Where the peer's NTP clock stands on the time line: media time minus NTP time in ns, from the first report on. `led`: it is the
    leading stream that says so."""

    def __init__(self) -> None:
        self.offset: int | None = None
        self.led = False


class StreamClock:
    """Of one SSRC, at `rate` ticks a second; `leads` if the peer's others are to follow it."""

    def __init__(self, rate: int, wall: WallClock, *, leads: bool = False) -> None:
        self._leads = leads
        self._rate = rate
        self._wall = wall
        self._last = 0  # timestamp, not wrapped
        self._offset: int | None = None  # media time minus the stream's own, in ns
        self._target = 0

    def media(self, timestamp: int, arrival: int) -> int:
        """The media time (ns) of a frame with this timestamp (32 bits); the first is at its `arrival` (monotonic ns)."""
        if self._offset is None:
            self._last = timestamp
            self._offset = self._target = arrival - timestamp * 1_000_000_000 // self._rate
            return arrival
        last = self._last
        ticks = last + ((timestamp - last + 0x80000000 & 0xFFFFFFFF) - 0x80000000)
        behind = self._target - self._offset
        if behind and ticks > last:
            most = (ticks - last) * 1_000_000_000 // self._rate // SLEW
            self._offset += max(-most, min(most, behind))
        self._last = ticks
        return ticks * 1_000_000_000 // self._rate + self._offset

    def report(self, ntp: int, timestamp: int) -> None:
        """A sender report: its 64-bit NTP time and the timestamp (32 bits) of the same instant."""
        if self._offset is None or not ntp:  # RFC 3550 §6.4.1: a sender without a clock says 0
            return
        last = self._last
        ticks = last + ((timestamp - last + 0x80000000 & 0xFFFFFFFF) - 0x80000000)
        own = ticks * 1_000_000_000 // self._rate
        wall = ntp * 1_000_000_000 >> 32
        shared = self._wall
        if self._leads:
            shared.offset, shared.led = own + self._offset - wall, True
        elif shared.offset is None or (not shared.led and self._far(wall + shared.offset - own)):
            shared.offset = own + self._offset - wall
        target = wall + shared.offset - own
        self._target = self._offset if self._far(target) else target

    def _far(self, target: int) -> bool:
        return self._offset is not None and abs(target - self._offset) > _UNBELIEVABLE_NS
