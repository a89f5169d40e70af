"""MPEG transport stream to tracks and encoded packets (ISO/IEC 13818-1). Sans-IO: bytes in any split, time as an argument.

Kept true here:
* Track ids are PIDs. Tracks are announced once all streams of the programme have shown their parameters, or after a second with those that
  have; what came before the announcement follows it. A change of the programme or of a track's facts is announced where it happens.
* Times are ns on the source's clock, unwrapped from 33 bits (it wraps each 26.5 hours) by one reference for all tracks.
* A lost packet costs the unit that it was part of, which is counted and not given out; nothing broken ends the stream but bytes that are no
  transport stream, or one in which there is nothing to take. What is left out of it is told.
* Work is bounded by bytes, and by frames in time: beyond those that a right stream can have they are not looked at.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from protocols.errors import ProtocolError
from protocols.left_out import LeftOutParts
from protocols.media import EncodedPacket, Kind, LeftOut, Track, TracksChanged
from protocols.rate_limit import TokenBucket
from protocols.srt.elementary import Elementary, describe, elementary, is_video, not_taken
from protocols.srt.pes import MAX_AUDIO_PES, MAX_STREAMS, MAX_VIDEO_PES, Pes, PesReader
from protocols.srt.psi import ElementaryInfo, ProgrammeMap
from protocols.srt.sound import SECOND, Unit

FIRST_MEDIA_NS: Final = 10 * SECOND
_ANNOUNCE_NS: Final = SECOND
_SILENT_NS: Final = SECOND // 4  # after which a picture is not waited with for the next
_MAX_HELD_BYTES: Final = 8 << 20
_MAX_HELD: Final = 4096
_FRAMES_PER_SECOND: Final = 4000  # of all tracks; sixteen of sound with Opus in its shortest packets but one have 3,200
_FRAMES_AT_ONCE: Final = 2000  # what comes when a path of 8 s opens again
_WRAP: Final = 1 << 33

Item = TracksChanged | EncodedPacket | LeftOut


@dataclass(slots=True)
class UnitCounts:
    """Totals since the start, beside the packet layer's."""

    units: int = 0
    broken: int = 0  # lost packets, not readable or too many; not given out


class _Progress(NamedTuple):
    """How far a stream has come, since when (ns), and whether what it held has been given out."""

    of: tuple[int, int]
    since: int
    settled: bool = False


class TsDemuxer:
    """One source's transport stream: its first programme with video, or else its first."""

    def __init__(self) -> None:
        self.counts = UnitCounts()
        self._reader = PesReader(self._take, is_video)
        self.packets = self._reader.counts
        self._left_out = LeftOutParts()
        self._streams: dict[int, Elementary] = {}
        self._frames = TokenBucket(_FRAMES_PER_SECOND, _FRAMES_AT_ONCE)
        self._too_many = False  # frames, for now
        self._lines: frozenset[ElementaryInfo] = frozenset()  # of the programme map that `_streams` was made from
        self._told: dict[int, Track] = {}
        self._held: deque[EncodedPacket] | None = deque()  # None: announced
        self._held_bytes = 0
        self._hold_from: int | None = None
        self._changed = False
        self._reference: int | None = None  # unwrapped ticks of the last time seen
        self._started: int | None = None
        self._progress: dict[int, _Progress] = {}
        self._look_at = 0  # for what has not come on (ns)
        self._given = False

    def feed(self, data: bytes, now: int) -> list[Item]:
        """Bytes that arrived at `now` (monotonic ns); gives tracks and packets in order. Raises `ProtocolError` as `check` does."""
        out: list[Item] = []
        for pes in self._reader.feed(data, now):
            stream = self._streams.get(pes.pid)
            if stream is not None:
                self._split(stream, pes, now, out)
        if now >= self._look_at:
            self._look_at = now + _SILENT_NS // 4
            out.extend(self.settle(now))
        if self._held is not None or self._changed:
            self._announce(now, out)
        if self._left_out.pending:
            out.extend(self._left_out.take())
        self.check(now)
        return out

    def settle(self, now: int, silence: int = _SILENT_NS) -> list[Item]:
        """What is held until the next shows its end, of streams of which nothing has come for so long (ns)."""
        out: list[Item] = []
        for pid, stream in self._streams.items():
            progress, before = self._reader.progress(pid), self._progress.get(pid)
            if before is None or before.of != progress:
                before = self._progress[pid] = _Progress(progress, now)
            if before.settled or now - before.since < silence:
                continue
            self._progress[pid] = _Progress(progress, now, settled=True)
            for pes in self._reader.settle(pid):
                self._split(stream, pes, now, out)
            for unit in stream.settle():
                self._give(pid, before.since, unit, stream, now, out)
        return out

    def check(self, now: int) -> None:
        """Raises `ProtocolError`, with advice, if nothing to take has come within 10 s."""
        if self._started is None:
            self._started = now
        if not self._given and now - self._started > FIRST_MEDIA_NS:
            raise ProtocolError(f"no media within {FIRST_MEDIA_NS // SECOND} s: {self._why_nothing()}")

    def _take(self, programme: ProgrammeMap) -> list[tuple[int, int]]:
        """A new programme map: which PIDs to read, and up to how many bytes of PES."""
        streams: dict[int, Elementary] = {}
        for info in programme.streams:
            if (media := not_taken(info)) is not None:
                self._left_out.codec(*media)
            if len(streams) == MAX_STREAMS:
                break
            unchanged = info in self._lines and info.pid in self._streams
            stream = self._streams[info.pid] if unchanged else elementary(info)
            if stream is not None:
                streams[info.pid] = stream
        self._streams, self._lines = streams, frozenset(programme.streams)
        self._progress = {pid: each for pid, each in self._progress.items() if pid in streams}
        self._changed = True
        return [(pid, MAX_VIDEO_PES if stream.kind is Kind.VIDEO else MAX_AUDIO_PES) for pid, stream in streams.items()]

    def _split(self, stream: Elementary, pes: Pes, now: int, out: list[Item]) -> None:
        if self._too_many and self._frames.wait_s(now):
            self.counts.broken += 1
            stream.reset()
            return
        dts = self._unwrap(pes.dts)
        pts = None if pes.pts is None or dts is None else _ns(_near(pes.pts, dts))
        before, broken = stream.frames, stream.broken
        try:
            units = stream.lost(pes.data) if pes.broken else stream.split(pes.data, pts, None if dts is None else _ns(dts))
        except ProtocolError as error:
            self.counts.broken += 1
            self._left_out.broken(stream.kind, str(error))
            stream.reset()
            return
        finally:
            self.counts.broken += pes.broken + stream.broken - broken
            self._too_many = not self._frames.spend(stream.frames - before, now)
        for unit in units:
            self._give(pes.pid, pes.begun, unit, stream, now, out)

    def _give(self, pid: int, begun: int, unit: Unit, stream: Elementary, now: int, out: list[Item]) -> None:
        self.counts.units += 1
        packet = EncodedPacket(pid, unit.pts, unit.dts, unit.keyframe, unit.data, begun, now)
        if self._held is not None:
            self._hold_from = now if self._hold_from is None else self._hold_from
            self._held.append(packet)
            self._held_bytes += len(unit.data)
            return
        track = stream.track
        if track is not None and self._told.get(pid) is not track:
            self._tell(out)
        out.append(packet)

    def _announce(self, now: int, out: list[Item]) -> None:
        """Announce, and let go what is held, when all is known or has been waited for."""
        if self._changed:
            self._changed = False
            if self._held is None:
                self._tell(out)
        if self._held is None or self._hold_from is None:
            return
        waited = now - self._hold_from >= _ANNOUNCE_NS or self._held_bytes > _MAX_HELD_BYTES or len(self._held) > _MAX_HELD
        if waited or all(stream.track is not None for stream in self._streams.values()):
            held, self._held = self._held, None
            self._tell(out)
            out.extend(packet for packet in held if packet.track in self._told)
            self._given = True

    def _tell(self, out: list[Item]) -> None:
        self._told = {pid: stream.track for pid, stream in self._streams.items() if stream.track is not None}
        kinds: set[Kind] = set()
        for pid, track in self._told.items():
            if track.kind in kinds:
                self._left_out.track(track.kind, pid)
            kinds.add(track.kind)
        out.append(TracksChanged(tuple(self._told.values())))

    def _unwrap(self, ticks: int | None) -> int | None:
        if ticks is not None:
            self._reference = ticks = ticks if self._reference is None else _near(ticks, self._reference)
        return ticks

    def _why_nothing(self) -> str:
        reader = self._reader
        if not reader.counts.packets:
            return "nothing arrived; send MPEG-TS (ffmpeg: -f mpegts)"
        if not reader.programmes:
            return "no programme table (PAT) in the transport stream"
        if reader.programme is None:
            numbers = ", ".join(map(str, reader.programmes))
            return f"no programme map (PMT) for programme {numbers}"
        if not self._streams:
            kinds = ", ".join(describe(info) for info in reader.programme.streams) or "nothing"
            return f"the programme holds {kinds}; H.264, HEVC, AAC, Opus, MPEG audio and AC-3 are taken"
        if reader.counts.scrambled:
            return "the transport stream is scrambled; use SRT's own encryption instead"
        return "no key frame with parameter sets; send SPS and PPS with each key frame (x264: repeat-headers=1) every 2 s"


def _near(ticks: int, reference: int) -> int:
    """The value of a 33-bit counter that is nearest to `reference`."""
    return reference + (ticks - reference + _WRAP // 2) % _WRAP - _WRAP // 2


def _ns(ticks: int) -> int:
    return ticks * 100_000 // 9
