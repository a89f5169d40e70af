"""The seat's one clock: a publisher's timestamps, of any origin and with any jumps, become nanoseconds from 0. Sans-IO.

What stays true:

* The first packet of the seat is at 0, or where an encoder comes back at what the seat's clock has come to by its arrival, and no dts is
  below that. Each track's dts rises strictly: one that does not is moved up by as little as it takes, never by more than about `BACKWARD`.
  A pts is never below its dts.
* An encoder that comes back has encoded while it connected, and sends that in a burst. It is of the past, up to `BURST`: the clock goes on
  by the packet of its first moments (`BEGINNING`) that was delayed least, and what is earlier than what was given is moved up. Where
  pictures are shown in another order than they come they keep their times, by which they are put in order.
* Tracks on the publisher's same clock are moved by the same offset, so that what the encoder aligned stays aligned to the nanosecond.
  Only a track whose stamps part from arrival for long is moved by more: it goes on by arrival (`arrival_clock.py`), or is slewed where
  its clock drifts against another track's (`track_drift.py`).
* A track *jumps* when its dts goes back by more than `BACKWARD`, or ahead of both the arrival line and every other track by more than
  `FORWARD`. The arrival line is where the seat would be if the least delayed packet of the last seconds had had no delay; a gap
  after a stall, or after an encoder was paused, is explained by it and is no jump.
* A track that jumps takes the offset of a track that jumped before it, if that brings it to where the seat is; else a new offset that
  goes on at the arrival line (or a frame after the newest packet, if the publisher is faster than real time). So when an encoder restarts
  at 0, the first track to restart re-bases the seat and the others follow onto the same clock, whenever they get there and in any
  interleaving; and when one track alone jumps it stays where the viewer needs it, beside the others, which do not move.
"""

from dataclasses import dataclass

from gateway.sessions.arrival_clock import ArrivalClock, OnFault
from gateway.sessions.track_drift import TrackDrift
from protocols.media import EncodedPacket

BACKWARD = 250_000_000  # ns; what an interleaver or millisecond rounding may do to a track
FORWARD = 2_000_000_000  # ns
JOIN_BEHIND = 2_000_000_000  # ns; a track may start this far behind the newest packet of the others
STEP = 1_000_000  # ns; the smallest step between two packets of a track that any output's clock can tell apart
LONGEST_FRAME = 100_000_000  # ns; after a jump a track goes on with the step that it had, up to this
BEGINNING = BURST = 1_000_000_000  # ns
WINDOW = 10_000_000_000  # ns; the arrival line remembers one to two of them, short enough for clock drift not to matter


@dataclass(slots=True)
class _Clock:
    """One track: its offset from the publisher's time to the seat's, the last dts that it gave, and the step to that."""

    offset: int
    last: int
    corrected: int  # the offset with what arrival says of the track's clock
    step: int = STEP
    drift: int = 0  # what the next packet is corrected by for it
    settling: bool = False


class Timeline:
    """Maps packets in the order received; `rebases` counts the jumps for which no known offset was right."""

    def __init__(self, on_fault: OnFault, origin: int = 0, since: int | None = None) -> None:
        """`origin` is the seat time in ns of the first packet or, for an encoder that comes back, of what arrives at monotonic `since`.
        `on_fault` is told of tracks that go on by arrival."""
        self.rebases = 0
        self._arrival_clock = ArrivalClock(on_fault)
        self._drift = TrackDrift(on_fault)
        self._origin = origin
        self._since = since
        self._begun = self._burst = 0  # arrival of the first packet, and what may still be of the past
        self._clocks: dict[int, _Clock] = {}
        self._offset = 0  # the newest, which a new track takes
        self._newest = origin  # the highest dts given
        # Session time minus arrival time of the least delayed packet, of this window and the one before
        self._lead = self._lead_before = 0
        self._window_end = 0

    def map(self, packet: EncodedPacket) -> EncodedPacket:
        """The packet on the seat's time; `begun` and `arrival` stay as they are."""
        arrival = packet.arrival
        if not self._clocks:
            if self._since is not None:
                self._origin = self._newest = self._origin + arrival - self._since
                self._begun, self._burst = arrival, BURST
            self._offset = self._origin - packet.dts
            self._lead = self._lead_before = self._origin - arrival
            self._window_end = arrival + WINDOW
        clock = self._clocks.get(packet.track)
        if clock is None:
            offset = self._offset_of_new()
            clock = self._clocks[packet.track] = _Clock(offset, self._origin - STEP, offset)
            earliest = self._newest - JOIN_BEHIND
        else:
            earliest = clock.last - BACKWARD
        if packet.pts > packet.dts or arrival - self._begun >= BEGINNING:
            self._burst = 0
        if self._burst:
            self._take_back(packet.dts + clock.corrected - (self._origin + arrival - self._begun))
        now = max(self._newest, arrival + max(self._lead, self._lead_before))
        if not earliest <= packet.dts + clock.corrected <= now + FORWARD:
            clock.offset = self._offset_after_jump(packet.dts, earliest, max(now, self._newest + clock.step))
            self._arrival_clock.restart(packet.track)
            self._drift.restart(packet.track)
            clock.drift = 0
        offset = self._correct(packet, clock)
        dts, pts = packet.dts + offset, packet.pts + offset
        if dts <= clock.last:
            dts = clock.last + STEP
        dts = max(dts, self._origin)
        clock.step = min(dts - clock.last, LONGEST_FRAME)
        clock.last = dts
        self._note_arrival(dts, arrival)
        return EncodedPacket(
            packet.track, max(pts, dts), dts, packet.keyframe, packet.data, packet.begun, arrival, packet.layer, packet.payloads
        )

    def _take_back(self, ahead: int) -> None:
        """All tracks by so much, if that is what they are ahead of an encoder's beginning."""
        if not 0 < ahead <= self._burst:
            return
        self._burst -= ahead
        self._offset -= ahead
        for track, clock in self._clocks.items():
            clock.offset -= ahead
            clock.corrected -= ahead
            self._arrival_clock.restart(track)
            self._drift.restart(track)

    def settling(self, track: int) -> bool:
        """What its stamps have parted from arrival by is still being taken in: how late its packets are says nothing yet."""
        return self._clocks[track].settling

    def _correct(self, packet: EncodedPacket, clock: _Clock) -> int:
        """The offset for this packet."""
        track, arrival = packet.track, packet.arrival
        offset = clock.offset + clock.drift
        steered = self._drift.steers(track)
        correction = self._arrival_clock.correct(track, packet.dts + offset, arrival, steered=steered)
        clock.settling = correction.settling
        offset += correction.offset
        clock.drift = self._drift.note(track, packet.dts + offset + correction.to_come, arrival)
        clock.corrected = clock.offset + clock.drift + correction.offset
        return offset

    def _offset_of_new(self) -> int:
        """Of the tracks on the newest clock, that which arrival corrects the least."""
        there = [clock.corrected for clock in self._clocks.values() if clock.offset == self._offset]
        return min(there, key=lambda total: abs(total - self._offset), default=self._offset)

    def _offset_after_jump(self, source: int, earliest: int, now: int) -> int:
        known = {self._offset, *(clock.corrected for clock in self._clocks.values())}
        fitting = [offset for offset in known if earliest <= source + offset <= now + FORWARD]
        if fitting:
            return min(fitting, key=lambda offset: abs(source + offset - now))
        self.rebases += 1
        self._offset = now - source
        return self._offset

    def _note_arrival(self, dts: int, arrival: int) -> None:
        self._newest = max(self._newest, dts)
        lead = dts - arrival
        if arrival >= self._window_end:
            self._lead_before, self._lead = self._lead, lead
            self._window_end = arrival + WINDOW
        elif lead > self._lead:
            self._lead = lead
