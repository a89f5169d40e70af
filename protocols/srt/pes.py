"""The packet layer of a transport stream: packets in any split to whole PES payloads of one programme (ISO/IEC 13818-1 §2.4). Sans-IO.

Kept true here:
* A PES leaves as soon as its end can be known: by its length, or, of unknown length (all video), by the stuffing in its last packet's
  adaptation field. A muxer that also stuffs in the middle gives itself away within its first frames: a PID is trusted after three PES
  that ended so, and never again after one that went on; without trust a PES ends when the next begins.
* A length that is wrong (it wraps at 65536 in some muxers) shows in what stands behind it, and is not believed again. What goes on behind
  a PES that has been given out is given out, too, as one without times: nothing is lost.
* Lost packets are noticed by the continuity counter and mark the PES, duplicates are dropped, lost sync is found again.
* Memory is bounded: per PES, in all, and in the number of streams.
* Tables that change are read so often a second; one that comes too soon is read when it is repeated.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from protocols.rate_limit import TokenBucket
from protocols.srt.packet_sync import PACKET, PacketSync
from protocols.srt.packets import RUN, alike, is_stuffed
from protocols.srt.psi import ElementaryInfo, ProgrammeMap, SectionReader, parse_pat, parse_pmt

MAX_VIDEO_PES: Final = 8 << 20
MAX_AUDIO_PES: Final = 256 << 10
MAX_OPEN_BYTES: Final = 16 << 20  # over all streams
MAX_STREAMS: Final = 16
_MAX_PARTS: Final = 65536  # packets of one PES, however little each holds
_MAX_PROGRAMMES: Final = 64
_PROGRAMME_WAIT_NS: Final = 1_000_000_000  # for the tables of all programmes before one without video is taken
_TABLES_PER_SECOND: Final = 16  # that are not as they were; muxers repeat theirs 2 to 40 times a second
_TABLES_AT_ONCE: Final = 80  # those of all programmes
_PAT_PID: Final = 0
_NULL_PID: Final = 0x1FFF
_TRUSTED: Final = 3
_NEVER: Final = -(1 << 30)
_WEIGHED: Final = 1 << 20  # bytes: how often it is looked at what is open
_BODY: Final = PACKET - 4
_HEADER: Final = Struct(">I").unpack_from


@dataclass(frozen=True, slots=True)
class Pes:
    """One PES payload. Times are raw 90 kHz ticks, 33 bits; `begun` is the ns at which its first packet was fed."""

    pid: int
    data: bytes
    pts: int | None
    dts: int | None
    broken: bool  # packets of it were lost
    begun: int


@dataclass(slots=True)
class PacketCounts:
    """Totals since the start."""

    packets: int = 0
    ignored: int = 0  # of PIDs that are not taken
    continuity_errors: int = 0
    transport_errors: int = 0  # marked broken by the sender's side
    scrambled: int = 0
    sync_lost: int = 0  # bytes
    section_errors: int = 0
    oversized: int = 0  # PES over the limit
    ended_wrongly: int = 0  # PES given out before their end: at most two per PID


class _PesStream:
    """One PID's PES in the making."""

    __slots__ = (
        "at_start", "begun", "broken", "counter", "dts", "expected", "given", "known",
        "left", "length", "limit", "parts", "pid", "pts", "said", "stuffed", "surplus", "trust", "wrong",
    )  # fmt: skip

    def __init__(self, pid: int, limit: int) -> None:
        self.pid = pid
        self.limit = limit
        self.counter = -1  # continuity counter of the last packet, -1: not known
        self.expected = -1  # the header word of a packet that just goes on with an open PES, -1: look closely
        self.at_start = False  # the last packet began a PES
        self.parts: list[bytes] = []
        self.left = 0  # bytes to the end if `known`, to the limit if not; 0: no PES is open
        self.known = False
        self.length = 0  # bytes of payload that the header says
        self.wrong = False  # such lengths are
        self.said, self.surplus = 0, 0  # parts at which the length was passed, and bytes of the last of them behind it
        self.stuffed = False  # the last packet of the open PES was stuffed
        self.given = False  # the last PES was given out before the next began
        self.trust = 0
        self.broken = False
        self.pts: int | None = None
        self.dts: int | None = None
        self.begun = 0

    def close(self) -> None:
        self.counter = self.last_counter
        self.expected = -1
        self.at_start = self.at_start and len(self.parts) <= 1
        self.parts = []
        self.left = self.said = self.surplus = 0
        self.stuffed = self.broken = False

    @property
    def last_counter(self) -> int:
        return self.expected - 1 & 15 if self.expected >= 0 else self.counter


class _Candidate(NamedTuple):
    """A programme that could be followed."""

    programme: ProgrammeMap
    has_video: bool


class PesReader:
    """Follows one programme: the first with video, or else the first.

    `take` chooses what of a programme is wanted (PIDs to their limit of bytes), `has_video` which programme is preferred.
    """

    def __init__(
        self,
        take: Callable[[ProgrammeMap], Iterable[tuple[int, int]]],
        has_video: Callable[[ElementaryInfo], bool],
    ) -> None:
        self.counts = PacketCounts()
        self.programmes: dict[int, int] = {}  # of the PAT: number to PMT PID
        self.programme: ProgrammeMap | None = None
        self._take = take
        self._has_video = has_video
        self._candidates: dict[int, _Candidate] = {}  # by programme number
        self._first_map_at: int | None = None
        self._changes = TokenBucket(_TABLES_PER_SECOND, _TABLES_AT_ONCE)
        self._sections: dict[int, SectionReader] = {_PAT_PID: SectionReader()}
        self._streams: dict[int, _PesStream] = {}
        self._sync = PacketSync()
        self._rest = b""
        self._unweighed = 0  # bytes that came since the open PES were weighed

    def feed(self, data: bytes, now: int) -> list[Pes]:
        """Bytes in any split; gives what became whole. Raises `ProtocolError` if this is not MPEG-TS."""
        if self._rest:
            data = self._rest + data
        sync, rest = self._sync, b""
        if sync.stride != PACKET:
            data, rest = sync.packets(data)
        out: list[Pes] = []
        position, end = 0, len(data) - PACKET + 1
        skipped = taken = 0
        streams = self._streams
        while position < end:
            (header,) = _HEADER(data, position)
            stream = streams.get(header >> 8 & 0x1FFF)
            if stream is not None and header == stream.expected:  # three of four packets end here, most of them together
                count = min((end - position + PACKET - 1) // PACKET, -(-stream.left // _BODY), RUN)
                if count > 1:
                    count = alike(header & 15, data, position, position + count * PACKET)
                stop = position + count * PACKET
                stream.parts += [data[at + 4 : at + PACKET] for at in range(position, stop, PACKET)]
                stream.expected = header & ~15 | (header + count & 15)
                stream.left -= _BODY * count
                position = stop
                if stream.left <= 0:
                    self._filled(stream, out)
                continue
            if header >> 24 != 0x47:
                at = sync.find(data, position)
                skipped += at - position
                position = at
                if sync.stride != PACKET:
                    taken += position
                    data, rest = sync.packets(data[position:])
                    position, end = 0, len(data) - PACKET + 1
                continue
            if stream is not None:
                self._packet(stream, header, data[position : position + PACKET], now, out)
            elif self._other(header, data[position : position + PACKET], now):
                streams = self._streams
            position += PACKET
        self._rest = data[position:] + rest
        in_sync = taken + position - skipped
        self.counts.packets += in_sync // PACKET
        self.counts.sync_lost = sync.lost
        sync.judge(in_sync)
        self._bound_open(len(data))
        return out

    def progress(self, pid: int) -> tuple[int, int]:
        """Another with each packet of this PID."""
        stream = self._streams.get(pid)
        return (stream.last_counter, len(stream.parts)) if stream is not None else (-1, 0)

    def settle(self, pid: int) -> list[Pes]:
        """Nothing more comes of this PID for now: its PES of unknown length is given out. If it goes on nevertheless, so does this."""
        out: list[Pes] = []
        stream = self._streams.get(pid)
        if stream is not None and stream.parts and not stream.known:
            self._give(stream, out)
            stream.given = True
        return out

    def _filled(self, stream: _PesStream, out: list[Pes]) -> None:
        if not stream.known:
            self.counts.oversized += 1
            stream.close()
        elif stream.left == 0:
            self._give(stream, out)
            stream.given = True
        else:  # there are bytes behind its end: do more follow?
            stream.known = False
            stream.said, stream.surplus = len(stream.parts), -stream.left
            stream.left += stream.limit - stream.length

    def _give(self, stream: _PesStream, out: list[Pes]) -> None:
        data = b"".join(stream.parts)
        if stream.surplus:
            if len(stream.parts) == stream.said:
                data = data[: -stream.surplus]
            else:
                stream.wrong = True
        elif stream.known and stream.left > 0 and not stream.broken:
            stream.wrong = True
        out.append(Pes(stream.pid, data, stream.pts, stream.dts, stream.broken, stream.begun))
        stream.close()

    def _packet(self, stream: _PesStream, header: int, packet: bytes, now: int, out: list[Pes]) -> None:
        """A packet of a wanted stream that is not plainly the next one of an open PES."""
        if header & 0x800000:  # transport_error_indicator: nothing in it can be relied on
            self.counts.transport_errors += 1
            stream.broken = True
            return
        if header & 0xC0:
            self.counts.scrambled += 1
            return
        at, stuffed = 4, False
        if header & 0x20:
            at = 5 + packet[4]
            stuffed = is_stuffed(packet)
            if packet[4] and packet[5] & 0x80:  # discontinuity_indicator
                stream.counter, stream.expected = -1, -1
        if not header & 0x10 or at >= PACKET:
            return
        starts, counter, last = bool(header & 0x400000), header & 15, stream.last_counter
        lost = last >= 0 and counter != last + 1 & 15
        if lost:
            if counter == last and starts == (stream.at_start and len(stream.parts) <= 1):
                return  # §2.4.3.3: a packet may be sent twice
            self.counts.continuity_errors += 1
            stream.broken = True
            if stream.left <= 0:  # of what was before, or of a PES that never began
                out.append(Pes(stream.pid, b"", None, None, True, now))
        stream.counter, stream.expected = counter, -1
        if starts:
            self._begin(stream, packet[at:], now, out)
        elif stream.left > 0:
            if stream.stuffed and not stream.known:
                stream.trust = _NEVER
            stream.parts.append(packet[at:])
            stream.left -= PACKET - at
            if len(stream.parts) > _MAX_PARTS:
                stream.left, stream.known = 0, False
        elif stream.given and not lost:
            self._go_on(stream, packet[at:], now)
        else:
            stream.given = stream.at_start = False
            return
        stream.at_start = starts
        self._after(stream, header, stuffed, out)

    def _after(self, stream: _PesStream, header: int, stuffed: bool, out: list[Pes]) -> None:
        """Decide how the open PES goes on after a packet of it."""
        if stream.left <= 0:
            if stream.parts:
                self._filled(stream, out)
        elif stuffed and not stream.known:
            if stream.trust >= _TRUSTED:
                self._give(stream, out)
                stream.given = True
            else:
                stream.stuffed = True
        else:
            stream.stuffed = False
            stream.expected = 0x47000010 | stream.pid << 8 | (header + 1 & 15)

    def _begin(self, stream: _PesStream, payload: bytes, now: int, out: list[Pes]) -> None:
        """A PES packet header (§2.4.3.6) ends the one before."""
        if stream.left > 0:
            if stream.stuffed and not stream.known:
                stream.trust += 1
            self._give(stream, out)
        stream.given = False
        if len(payload) < 9 or payload[:3] != b"\0\0\1":
            return
        size, flags, header = payload[4] << 8 | payload[5], payload[7] >> 6, payload[8]
        stream.pts = _timestamp(payload, 9) if flags & 2 and len(payload) >= 14 else None
        stream.dts = _timestamp(payload, 14) if flags == 3 and len(payload) >= 19 else stream.pts
        stream.begun, stream.broken = now, False
        stream.length = size - 3 - header
        stream.known = stream.length > 0 and not stream.wrong
        body = payload[9 + header :]
        stream.parts = [body]
        stream.left = (stream.length if stream.known else stream.limit) - len(body)

    def _go_on(self, stream: _PesStream, body: bytes, now: int) -> None:
        """A PES was given out before its end: this muxer stuffs inside of one, or its lengths are wrong."""
        self.counts.ended_wrongly += 1
        stream.trust, stream.wrong, stream.known = _NEVER, True, False
        stream.given = stream.broken = False
        stream.pts = stream.dts = None
        stream.begun = now
        stream.parts = [body]
        stream.left = stream.limit - len(body)

    def _other(self, header: int, packet: bytes, now: int) -> bool:
        """A packet of no wanted stream: tables, or nothing to us. True if the streams may have changed."""
        pid = header >> 8 & 0x1FFF
        if header & 0x800000:
            self.counts.transport_errors += 1
            return False
        at = 4
        if header & 0x20:
            at = 5 + packet[4]
        reader = self._sections.get(pid)
        if reader is None:
            self.counts.ignored += pid != _NULL_PID
            return False
        if not header & 0x10 or at >= PACKET:
            return False
        errors = reader.errors
        sections = reader.feed(packet[at:], bool(header & 0x400000))
        self.counts.section_errors += reader.errors - errors
        for section in sections:
            if not self._changes.take(now):
                reader.forget()
                break
            if pid == _PAT_PID:
                self._programmes(section)
            elif (found := parse_pmt(section)) is not None and self.programmes.get(found.programme) == pid:
                self._first_map_at = now if self._first_map_at is None else self._first_map_at
                self._candidates[found.programme] = _Candidate(found, any(map(self._has_video, found.streams)))
        if not sections and (self.programme is not None or not self._waited(now)):
            return False
        self._choose(now)
        return True

    def _programmes(self, section: bytes) -> None:
        programmes = parse_pat(section)
        if programmes is None:
            return
        self.programmes = dict(list(programmes.items())[:_MAX_PROGRAMMES])
        self._candidates = {number: found for number, found in self._candidates.items() if number in self.programmes}
        kept = self._sections
        self._sections = {pid: kept.get(pid) or SectionReader() for pid in (_PAT_PID, *self.programmes.values())}

    def _waited(self, now: int) -> bool:
        return self._first_map_at is not None and now - self._first_map_at > _PROGRAMME_WAIT_NS

    def _choose(self, now: int) -> None:
        """Stay with the programme if it is still there; else the first with video, or the first."""
        current = self.programme
        found = current
        if current is not None and current.programme in self.programmes:
            if current.programme in self._candidates:
                found = self._candidates[current.programme].programme
        else:
            candidates = [self._candidates[number] for number in self.programmes if number in self._candidates]
            complete = self._waited(now) or len(candidates) == len(self.programmes)
            first = candidates[0] if candidates and complete else None
            preferred = next((each for each in candidates if each.has_video), first)
            found = preferred.programme if preferred is not None else current
        if found is None or found == current:
            return
        if current is None or found.programme != current.programme:
            self._streams = {}
        self.programme = found
        kept = self._streams
        wanted = list(self._take(found))[:MAX_STREAMS]
        self._streams = {pid: kept.get(pid) or _PesStream(pid, limit) for pid, limit in wanted if pid not in self._sections}

    def _bound_open(self, came: int) -> None:
        """So many bytes have come."""
        self._unweighed += came
        if self._unweighed < _WEIGHED:
            return
        self._unweighed = 0
        held = [stream for stream in self._streams.values() if stream.parts]
        if sum(len(stream.parts) for stream in held) * PACKET <= MAX_OPEN_BYTES:
            return
        largest = max(held, key=lambda stream: len(stream.parts))
        self.counts.oversized += 1
        largest.close()


def _timestamp(data: bytes, at: int) -> int:
    """A 33-bit PTS or DTS with its marker bits (§2.4.3.7)."""
    return (data[at] >> 1 & 7) << 30 | data[at + 1] << 22 | (data[at + 2] >> 1) << 15 | data[at + 3] << 7 | data[at + 4] >> 1
