"""The packets of one RTP stream back in order, a frame at a time, with no delay beyond what a loss costs. Sans-IO.

What is kept true: a frame leaves the moment it is whole (its marker, or the next timestamp), in order, once; a gap is asked for again and
then given up, after which a frame leaves only if its beginning is there; what waits is bounded in time, packets and bytes, and so is a
frame that does not end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

REORDERING_NS = 20_000_000
"""How long a gap may be mere reordering, where nothing can be asked for again."""
MARGIN_NS = 30_000_000
REPAIR_NS = 120_000_000
"""A short round trip is used for all its tries within this; a long one has one and the margin."""
TRIES = 3
RETRY_NS = 10_000_000  # at least, between two tries: what the peer needs to answer
_LONGEST_TRIP_NS = 400_000_000

_MAX_SPAN = 2048  # packets between the oldest gap and the newest packet; 1.6 s of 12 Mbit/s
_MAX_BYTES = 4 << 20
_GAPS_AT_ONCE = 2 * _MAX_SPAN  # that may be noted before packets have come; each packet lets one more be
FRAME_PACKETS = 8192
FRAME_BYTES = 4 << 20
"""Of one frame: a key frame of 4K at a quality that no way takes live. What is larger, or never ends, is given up."""

NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class ReceivedFrame:
    """Payloads of one timestamp, whole and in order. `continuous`: nothing was lost between the frame before and this one."""

    payload_type: int
    timestamp: int  # as in RTP, 32 bits
    payloads: list[bytes]
    begun: int
    arrival: int
    continuous: bool


Packet = tuple[int, int, bool, bytes, int]
"""(payload type, timestamp, marker, payload, arrival)"""


class Gap:
    """One packet that has not come."""

    __slots__ = ("asked", "due", "since", "tries")

    def __init__(self, now: int) -> None:
        self.since = self.due = now
        self.asked = self.tries = 0


def patience(round_trip: int, repairable: bool) -> int:
    """How long a gap is waited for."""
    if not repairable:
        return REORDERING_NS
    trip = min(round_trip, _LONGEST_TRIP_NS)
    return max(trip, min(TRIES * trip, REPAIR_NS - MARGIN_NS)) + MARGIN_NS


class JitterBuffer:
    """Of one SSRC. Feed it packets with `push`, ask `poll` when `due` has come.

    `repairable`: lost packets can be asked for again. `single`: each packet is a frame (audio). `begins` tells of a payload whether a
    frame can begin with it.
    """

    def __init__(self, begins: Callable[[bytes], bool], *, repairable: bool, single: bool) -> None:
        self.begins = begins
        self.repairable = repairable
        self.lost = self.late = self.repaired = 0
        self.oversized = 0
        """Frames that were given up before their end."""
        self.repair_time = 0
        """How long the last repair took that was asked for once (ns): a round trip, as the media itself sees it."""
        self.highest = 0
        """The highest sequence number that has come, not wrapped; from 65536 on."""
        self._single = single
        self._next = 0  # what the next frame, or the rest of the present one, begins with
        self._early: dict[int, Packet] = {}
        self._early_bytes = 0
        self.gaps: dict[int, Gap] = {}
        """What is missing, by sequence number and in its order: it is found in order."""
        self.news = False
        """Something is missing that was not when `due` was last asked."""
        self._room = _GAPS_AT_ONCE
        self._payloads: list[bytes] = []
        self._frame_bytes = 0
        self._stamp = self._type = self._begun = self._arrival = 0
        self._continuous = True
        self._skipping = True  # up to the next packet that a frame begins with, of another timestamp than `_skipped`
        self._skipped: int | None = None

    def push(self, sequence: int, packet: Packet) -> list[ReceivedFrame]:
        """Takes a packet; gives the frames that it completes."""
        following = self._next
        if not following:
            following = self._next = sequence + 0x10000
            self.highest = following - 1
        self._room += 1
        extended = following + ((sequence - following + 0x8000 & 0xFFFF) - 0x8000)
        frames: list[ReceivedFrame] = []
        if extended == following and not self.gaps:  # nearly always
            self.highest = extended
            self._take(packet, frames)
            return frames
        if not -_MAX_SPAN < extended - following < _MAX_SPAN:
            return self._restart(sequence, packet)
        if extended < following or extended in self._early:
            self.late += 1
            return frames
        missing = extended - self.highest - 1
        if missing > 0:
            self._room = min(self._room, _GAPS_AT_ONCE) - missing
            if self._room < 0:
                return self._restart(sequence, packet)
        self._note(extended, packet[4])
        self._early[extended] = packet
        self._early_bytes += len(packet[3])
        self._drain(frames)
        while self._early_bytes > _MAX_BYTES:
            self._give_up(frames)
        return frames

    def poll(self, now: int, round_trip: int) -> list[ReceivedFrame]:
        """Gives up what has been waited for too long; gives the frames that this frees."""
        frames: list[ReceivedFrame] = []
        limit = now - patience(round_trip, self.repairable)
        while self.gaps and next(iter(self.gaps.values())).since <= limit:
            self._give_up(frames)
        return frames

    def wanted(self, now: int, round_trip: int) -> Iterator[int]:
        """The sequence numbers (16 bits) to ask for now; each counts as asked for."""
        if not self.repairable:
            return
        retry = max(min(round_trip, _LONGEST_TRIP_NS), RETRY_NS)
        for extended, gap in self.gaps.items():
            if gap.due <= now and gap.tries < TRIES:
                gap.tries += 1
                gap.asked, gap.due = now, now + retry
                yield extended & 0xFFFF

    def due(self, round_trip: int) -> int:
        """When something is to be asked for or given up (monotonic ns); `NEVER` without a gap."""
        self.news = False
        if not self.gaps:
            return NEVER
        oldest = next(iter(self.gaps.values())).since + patience(round_trip, self.repairable)
        if not self.repairable:
            return oldest
        return min(oldest, min((gap.due for gap in self.gaps.values() if gap.tries < TRIES), default=NEVER))

    def _note(self, extended: int, now: int) -> None:
        """Keeps the list of gaps true to a packet that came."""
        gap = self.gaps.pop(extended, None)
        if gap is not None and gap.tries:
            self.repaired += 1
            if gap.tries == 1:
                self.repair_time = now - gap.asked
        for missing in range(self.highest + 1, extended):
            self.gaps[missing] = Gap(now)
            self.news = True
        self.highest = max(self.highest, extended)

    def _take(self, packet: Packet, frames: list[ReceivedFrame]) -> None:
        """The packet that is next."""
        payload_type, timestamp, marker, payload, now = packet
        self._next += 1
        if not payload:  # padding alone, for probing the path
            return
        if self._skipping:
            if timestamp == self._skipped or not self.begins(payload):
                self._skipped = timestamp
                self._continuous = False
                return
            self._skipping = False
        payloads = self._payloads
        if payloads and timestamp != self._stamp:
            self._emit(frames)
            payloads = self._payloads
        if not payloads:
            self._type, self._stamp, self._begun, self._arrival = payload_type, timestamp, now, now
            self._frame_bytes = 0
        payloads.append(payload)
        self._frame_bytes += len(payload)
        if self._frame_bytes > FRAME_BYTES or len(payloads) > FRAME_PACKETS:
            self.oversized += 1
            self._break_off()
            return
        if now > self._arrival:
            self._arrival = now
        elif now < self._begun:
            self._begun = now
        if marker or self._single:
            self._emit(frames)

    def _emit(self, frames: list[ReceivedFrame]) -> None:
        frames.append(ReceivedFrame(self._type, self._stamp, self._payloads, self._begun, self._arrival, self._continuous))
        self._payloads = []
        self._continuous = True

    def _drain(self, frames: list[ReceivedFrame]) -> None:
        early = self._early
        while (packet := early.pop(self._next, None)) is not None:
            self._early_bytes -= len(packet[3])
            self._take(packet, frames)

    def _give_up(self, frames: list[ReceivedFrame]) -> None:
        """Go on behind the first gap. There is a packet behind each: it is how a gap is known."""
        at = min(self._early)
        for missing in range(self._next, at):
            self.lost += self.gaps.pop(missing, None) is not None
        self._next = at
        self._break_off()
        self._drain(frames)

    def _break_off(self) -> None:
        self._payloads = []
        self._skipping, self._skipped = True, self._stamp
        self._continuous = False

    def _restart(self, sequence: int, packet: Packet) -> list[ReceivedFrame]:
        """A jump that no loss explains: the sender began anew, or so much is missing that nothing before is of use."""
        self._room = max(0, self._room)
        self.lost += len(self.gaps)
        self.gaps.clear()
        self._early.clear()
        self._early_bytes = 0
        self._break_off()
        self._skipped = None
        self._next = sequence + (self.highest & ~0xFFFF) + 0x10000
        self.highest = self._next
        frames: list[ReceivedFrame] = []
        self._take(packet, frames)
        return frames
