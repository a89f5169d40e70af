"""One track's packets cut into parts and segments (RFC 8216bis §3, §4.4.4.9). Sans-IO.

Kept true:

* Each packet goes into exactly one part, in order, with the duration that its successor's time gives it; the parts of a segment follow
  each other without a gap or an overlap.
* A video segment begins at a key frame, at the first one after two thirds of the target; where none comes within what the playlist
  has promised (`Timing.limit`) the segment ends all the same, since a target duration may never be exceeded (§4.4.3.1).
* A part is not longer than the part target, and at least 85 % of it unless it is its segment's last (§4.4.3.7). Where no picture comes for
  longer, one with which the last stays begins the next part (`stand`); where there can be none, the part is longer, and who lists it lists
  what is beyond the target as gaps.
* Beside a picture a part or segment of the sound ends where one of the picture does, with the nearest frame (`align`). The sound waits for
  that, but not for long.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from protocols.bitstream.stills import Stills
from protocols.media import EncodedPacket

SECOND = 1_000_000_000
MS = 1_000_000
PART = 333 * MS  # of media in a part, or a little more: what a whole number of frames needs
LONGEST_GOP = 10 * SECOND  # a segment is cut without a key frame beyond
_LEAST = 0.85
MAX_PART_BYTES = 4 << 20
_LONGEST_PART = SECOND
_ROUNDING = 499 * MS  # §4.4.3.1: a segment's duration is rounded to the nearest second before it is compared with the target
_SLACK = 300 * MS  # key frames of one encoder are not all at the same distance
_USUAL_FRAME = 33 * MS
_MOST_SLOWER = 4  # times the usual frame: what is longer is a hole, and no frame takes as long
_LONGEST_SOUND = 128 * MS  # a frame of AAC at 8 kHz
_MOST_ENDS = 8
_AHEAD = 500 * MS  # of the picture: what of the sound waits to be cut


@dataclass(frozen=True, slots=True)
class Timing:
    """What all playlists of a stream promise, for as long as it runs; in ns."""

    target: int  # EXT-X-TARGETDURATION: whole seconds
    part: int  # PART-TARGET

    @property
    def limit(self) -> int:
        """Of one segment."""
        return self.target + _ROUNDING

    @classmethod
    def of(cls, segment: int, gop: int, frame: int, sound: int = 0) -> "Timing":
        """For segments of at least about `segment`, a group of pictures of `gop` (0: unknown, or no video) and frames of `frame` ns, beside
        frames of sound of `sound` ns (0: none), of which a whole number makes a part as well."""
        gop = min(gop, LONGEST_GOP)
        groups = max(1, ceil((segment * 2 // 3) / gop)) if gop else 0
        longest = max(segment if not gop else 0, groups * gop, SECOND)
        frame = min(max(frame, MS), _LONGEST_PART)
        part = ceil(PART / frame - 0.05) * frame
        sound = min(sound, _LONGEST_SOUND)
        if sound:
            part = ceil(part / sound) * sound
        return cls(ceil((longest - _SLACK) / SECOND) * SECOND, min(ceil(part / MS) * MS, _LONGEST_PART + sound))


@dataclass(frozen=True, slots=True)
class Cut:
    """The packets of one part. Times in ns on the stream's own clock; `durations` belongs to `packets`."""

    packets: tuple[EncodedPacket, ...]
    durations: tuple[int, ...]
    opens: bool  # begins a segment
    closes: bool  # ends it
    independent: bool  # begins with a key frame

    @property
    def start(self) -> int:
        return self.packets[0].dts

    @property
    def duration(self) -> int:
        return sum(self.durations)


class Segmenter:
    """The state of one rendition. `push` gives the parts that a packet completes."""

    def __init__(self, timing: Timing, *, video: bool, segment: int, stills: Stills) -> None:
        """`segment` is the least distance in ns at which segments are wanted; sound ends its segments anywhere. `stills` gives what is
        shown while no picture comes, and is told of each."""
        self.skipped = 0
        """Packets before a key frame, or whose time goes back."""
        self._timing = timing
        self._video = video
        self._stills = stills
        self._least = segment * 2 // 3
        self._longest = timing.limit if video else timing.target  # of a segment
        self._ahead = MS  # beyond a part: what may wait to be cut
        self._packets: list[EncodedPacket] = []  # of the part that is under way; the last one's duration is not known yet
        self._size = 0
        self._segment_start = 0
        self._keyed = True  # the segment began with a key frame; else the next one ends it
        self._opens = False
        self._frame = _USUAL_FRAME if video else 0
        self._standing = False  # with the last packet the picture before it stays, or it came too late for its time
        # Of parts of the picture, where the sound has not come to: when, and whether a segment ends there as well
        self._ends: deque[tuple[int, bool]] = deque(maxlen=_MOST_ENDS)

    @property
    def last(self) -> EncodedPacket | None:
        """The packet that came last, since the start or the last `close`."""
        return self._packets[-1] if self._packets else None

    @property
    def wants_keyframe(self) -> bool:
        """The segment is as long as it should be: a source that makes key frames on demand should make one."""
        last = self.last
        return (
            self._video
            and last is not None
            and last.dts + 3 * self._frame - self._segment_start >= self._timing.target - _SLACK // 2
        )

    def push(self, packet: EncodedPacket) -> Iterator[Cut]:
        last = self.last
        if last is None:
            if self._video and not packet.keyframe:
                self.skipped += 1
                return
            self._begin(packet)
            self._stills.note(packet.data, packet.pts)
            return
        late = packet.dts <= last.dts
        if late and not self._standing:
            self.skipped += 1
            return
        if late:  # its time was given to the picture before it; later ones may refer to it
            at = last.dts + MS
            packet = packet._replace(pts=max(packet.pts, at), dts=at)
        elif not self._standing:  # what comes after a pause says nothing of the next
            frame = max(MS, packet.dts - last.dts)
            self._frame += (min(frame, _MOST_SLOWER * self._frame) - self._frame) // 4 if self._frame else frame
        self._standing = late
        yield from self._add(packet)
        self._stills.note(packet.data, packet.pts)

    def stand(self, until: int) -> Iterator[Cut]:
        """Nothing came before `until` (ns): the last picture stays until then, by one that begins each part."""
        while self._packets and (begins := self._packets[0].dts + self._timing.part) < until and (still := self._still()).data:
            if self._packets[-1].dts < begins:
                yield from self._add(still)
                self._standing = True
            yield from self._cut_before(begins, closes=False)

    def align(self, part: Cut) -> Iterator[Cut]:
        """This is the sound beside a picture, of which this part has ended: so does one of the sound."""
        self._longest, self._ahead = self._timing.limit, _AHEAD
        self._ends.append((part.start + part.duration, part.closes))
        yield from self._align()

    def _add(self, packet: EncodedPacket) -> Iterator[Cut]:
        last = self._packets[-1]
        if packet.dts - self._segment_start > self._timing.limit and last.dts > self._segment_start:
            yield from self._cut_before(last.dts, closes=True)  # it turns out to be long, and is too much for the segment
            self._begin(last)
        self._packets.append(packet)
        self._size += len(packet.data)
        yield from self._align()
        length = packet.dts - self._packets[0].dts
        if self._ends_segment(packet):
            yield from self._cut_before(packet.dts, closes=True)
        elif length + self._frame > self._timing.part + self._ahead or self._size > MAX_PART_BYTES:
            yield from self._cut_before(packet.dts, closes=False)

    def _align(self) -> Iterator[Cut]:
        while self._ends and self._packets:
            end, closes = self._ends[0]
            earliest, start = end - self._frame // 2, self._packets[0].dts
            if not closes and earliest > start:  # so that what was cut elsewhere comes to it by and by
                earliest = max(earliest, start + ceil(_LEAST * self._timing.part))
            nearest = next((packet.dts for packet in self._packets if packet.dts >= earliest), None)
            if nearest is None:
                return
            self._ends.popleft()
            yield from self._cut_before(nearest, closes=closes)

    def _cut_before(self, end: int, *, closes: bool) -> Iterator[Cut]:
        """Parts of what is before the packet of this time: full ones, and the rest where it is not too short for one."""
        yield from self._full_parts(end)
        length = end - self._packets[0].dts
        if length > 0 and (closes or self._is_whole(length)):
            yield self._take(sum(packet.dts < end for packet in self._packets), closes=closes)

    def _full_parts(self, end: int) -> Iterator[Cut]:
        """Of what is before `end`, until the rest fits into one: even ones, where those are not too short."""
        part = self._timing.part
        while (length := end - (start := self._packets[0].dts)) > part:
            even = length // ceil(length / part)
            most = min(part, even + self._frame // 2) if even - self._frame >= _LEAST * part else part
            count = sum(packet.dts - start <= most for packet in self._packets) - 1
            if self._packets[count].dts - start < _LEAST * part:
                count += 1  # with a frame that turned out to be long
            if count >= len(self._packets) or self._packets[count].dts >= end:
                return
            yield self._take(count, closes=False)

    def _take(self, count: int, *, closes: bool) -> Cut:
        cut, rest = self._cut(self._packets[count].dts, self._packets[:count], closes=closes), self._packets[count:]
        if closes:
            self._begin(rest[0])
        self._packets, self._size = rest, sum(len(packet.data) for packet in rest)
        return cut

    def _still(self) -> EncodedPacket:
        """What begins the next part where no picture does; without data where there can be none."""
        track, at = self._packets[0].track, self._packets[0].dts + self._timing.part
        pts = at + MS // 2  # that of no picture, where times are in ms
        return EncodedPacket(track, pts, at, keyframe=False, data=self._stills.repeat(pts), begun=0, arrival=0)

    def close(self) -> Iterator[Cut]:
        """The end, or a discontinuity: what is left ends its segment. The next packet begins anew, video with a key frame."""
        last = self.last
        if last is None:
            return
        end = last.dts + (self._frame or 20 * MS)
        yield from self._full_parts(end)
        yield self._cut(end, self._packets, closes=True)
        self._packets, self._size = [], 0
        self._standing = False
        self._ends.clear()

    def _begin(self, packet: EncodedPacket) -> None:
        self._packets, self._size = [packet], len(packet.data)
        self._segment_start = packet.dts
        self._keyed = packet.keyframe
        self._opens = True

    def _is_whole(self, length: int) -> bool:
        """Whether it makes a part. A picture's that is too short waits for one with which the last stays, where there can be one."""
        if length >= _LEAST * self._timing.part or self._size > MAX_PART_BYTES:
            return True
        return self._video and length + self._frame > self._timing.part + MS and not self._still().data

    def _ends_segment(self, packet: EncodedPacket) -> bool:
        elapsed = packet.dts - self._segment_start
        if elapsed + self._frame > self._longest:
            return True
        return self._video and packet.keyframe and (elapsed >= self._least or not self._keyed)

    def _cut(self, end: int, packets: list[EncodedPacket], *, closes: bool) -> Cut:
        ends = [packet.dts for packet in packets[1:]] + [end]
        durations = tuple(until - packet.dts for packet, until in zip(packets, ends, strict=True))
        opens, self._opens = self._opens, False
        return Cut(tuple(packets), durations, opens, closes, packets[0].keyframe)
