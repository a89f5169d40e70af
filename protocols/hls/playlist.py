"""A live media playlist that grows by parts (RFC 8216bis §4.4, §6.2): what it lists, what it forgets, and its text. Sans-IO.

Kept true, for as long as the stream runs (§6.2.1, §6.2.2):

* Media sequence and discontinuity sequence numbers never go back; what is listed is only added to at the end and removed from the start.
* Target duration and part target never change. At least three target durations stay listed.
* After `end` nothing is added, and the playlist says so (EXT-X-ENDLIST).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from math import ceil

from protocols.hls.segmenter import SECOND, Timing

VERSION = 9  # §8: EXT-X-SKIP
_PARTS_FOR = 3  # target durations from the end for which parts stay listed (§6.2.2)
_SKIP_AFTER = 6  # target durations (§4.4.3.8: at least six)
_HOLD_BACK = 3  # targets (§4.4.3.8: at least three of segments, should be three of parts)


class PlaylistAnswer(Enum):
    """What becomes of a request for a playlist that has something."""

    READY = auto()
    WAIT = auto()
    NEVER = auto()  # too far ahead: a client that is wrong (§6.2.5.2)


@dataclass(frozen=True, slots=True)
class HlsPart:
    """`duration` in ns. `gap`: it could not be made, there is nothing behind its address."""

    duration: int
    independent: bool
    gap: bool = False


@dataclass(slots=True)
class Segment:
    """`date` is the wall clock of its first picture, Unix ns; `init` numbers the initialisation section that it needs."""

    number: int
    init: int
    date: int
    discontinuity: bool
    parts: list[HlsPart] = field(default_factory=list)
    complete: bool = False
    gap: bool = False

    @property
    def duration(self) -> int:
        return sum(part.duration for part in self.parts)

    @property
    def uri(self) -> str:
        return f"{self.number}.m4s"

    def part_uri(self, part: int) -> str:
        return f"{self.number}.{part}.m4s"


@dataclass(frozen=True, slots=True)
class Report:
    """Where another rendition of the same stream is (§4.4.5.4)."""

    uri: str
    segment: int
    part: int


class MediaPlaylist:
    """One rendition's. `window` is how much of it is listed, ns. `first` is the number of its first segment, before which there were so
    many `discontinuities`: of one that goes on where another has ended with its process."""

    def __init__(self, timing: Timing, window: int, first: int = 0, discontinuities: int = 0) -> None:
        self.timing = timing
        self.segments: list[Segment] = []
        self.ended = False
        self.discontinuities = discontinuities
        """Of segments that are not listed any more."""
        self._window = max(window, _HOLD_BACK * timing.target)
        self._next = first

    def add(self, part: HlsPart, *, opens: bool, closes: bool, init: int, date: int, discontinuity: bool) -> list[Segment]:
        """One more part, in a segment that it may begin and end. Gives the segments that are no longer listed."""
        segment = self.current
        if segment is None or opens:
            if segment is not None:
                segment.complete = True
            segment = Segment(self._next, init, date, discontinuity)
            self.segments.append(segment)
            self._next += 1
        segment.gap = segment.gap or (part.gap and not segment.parts)  # without its first part nothing of it can be decoded
        segment.parts.append(part)
        segment.complete = closes
        return self._trim()

    def end(self) -> None:
        if self.segments:
            self.segments[-1].complete = True
        self.ended = True

    def drop_oldest(self) -> Segment | None:
        """Forget the oldest segment before its time, where more than three target durations are left."""
        left = sum(segment.duration for segment in self.segments[1:] if segment.complete)
        return self._remove() if left >= _HOLD_BACK * self.timing.target else None

    @property
    def current(self) -> Segment | None:
        """The segment that is not complete."""
        last = self.segments[-1] if self.segments else None
        return None if last is None or last.complete else last

    @property
    def playable(self) -> bool:
        """Something is listed that a player can begin with."""
        return any(segment.complete and not segment.gap for segment in self.segments)

    @property
    def next_segment(self) -> int:
        """The number of the next one that begins."""
        return self._next

    @property
    def next_part(self) -> tuple[int, int]:
        """Segment and part number of what comes next, unless the segment under way ends without it."""
        current = self.current
        return (self._next, 0) if current is None else (current.number, len(current.parts))

    @property
    def last_part(self) -> tuple[int, int]:
        last = self.segments[-1]
        return last.number, len(last.parts) - 1

    def answer(self, segment: int, part: int | None) -> PlaylistAnswer:
        """Whether a request with `_HLS_msn` and `_HLS_part` can be answered (§6.2.5.2)."""
        if self.ended:
            return PlaylistAnswer.READY
        number, parts = self.next_part
        ahead = ceil(3 * SECOND / self.timing.part) if self.timing.part < SECOND else 3  # §6.2.5.2: the Advance Part Limit
        if segment > self._next + 1 or (segment == number and part is not None and part > parts + ahead):
            return PlaylistAnswer.NEVER
        if segment < number:
            known = self.segments[-1] if self.segments and self.segments[-1].number == segment else None
            # a part beyond the last one of its segment is the first one of the next
            beyond = part is not None and known is not None and known.complete and part >= len(known.parts)
            return PlaylistAnswer.WAIT if beyond else PlaylistAnswer.READY
        return PlaylistAnswer.READY if segment == number and part is not None and part < parts else PlaylistAnswer.WAIT

    def text(self, reports: Sequence[Report] = (), *, skip: bool = False) -> str:
        """The playlist; `skip`: as a delta update, where enough can be skipped (§6.2.5.1)."""
        target = self.timing.target
        skipped = self._skippable() if skip else 0
        lines = [
            "#EXTM3U",
            f"#EXT-X-VERSION:{VERSION}",
            f"#EXT-X-TARGETDURATION:{target // SECOND}",
            f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={_seconds(_SKIP_AFTER * target)},"
            f"HOLD-BACK={_seconds(_HOLD_BACK * target)},PART-HOLD-BACK={_seconds(_HOLD_BACK * self.timing.part)}",
            f"#EXT-X-PART-INF:PART-TARGET={_seconds(self.timing.part)}",
            f"#EXT-X-MEDIA-SEQUENCE:{self.segments[0].number if self.segments else self._next}",
            f"#EXT-X-DISCONTINUITY-SEQUENCE:{self.discontinuities}",
        ]
        if skipped:
            lines.append(f"#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")
        with_parts = self._first_with_parts()
        init: int | None = None
        for index, segment in enumerate(self.segments):
            if index >= skipped:
                lines += _segment_lines(segment, init, with_parts=index >= with_parts)
                init = segment.init
        if self.ended:
            return "\n".join([*lines, "#EXT-X-ENDLIST", ""])
        number, part = self.next_part
        lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{number}.{part}.m4s"')
        lines += [f'#EXT-X-RENDITION-REPORT:URI="{r.uri}",LAST-MSN={r.segment},LAST-PART={r.part}' for r in reports]
        return "\n".join([*lines, ""])

    def _skippable(self) -> int:
        """How many segments are further from the end than the skip boundary."""
        distance, boundary = 0, _SKIP_AFTER * self.timing.target
        for index in range(len(self.segments) - 1, -1, -1):
            distance += self.segments[index].duration
            if distance > boundary:
                return index
        return 0

    def _first_with_parts(self) -> int:
        distance = 0
        for index in range(len(self.segments) - 1, -1, -1):
            if distance > _PARTS_FOR * self.timing.target or self.ended:
                return index + 1
            distance += self.segments[index].duration
        return 0

    def _trim(self) -> list[Segment]:
        """§6.2.2: what is removed leaves at least the window, which is at least three target durations."""
        gone: list[Segment] = []
        while sum(segment.duration for segment in self.segments[1:] if segment.complete) >= self._window:
            gone.append(self._remove())
        return gone

    def _remove(self) -> Segment:
        segment = self.segments.pop(0)
        self.discontinuities += segment.discontinuity
        return segment


def _segment_lines(segment: Segment, init: int | None, *, with_parts: bool) -> list[str]:
    date = datetime.fromtimestamp(segment.date / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    lines = ["#EXT-X-DISCONTINUITY"] if segment.discontinuity else []
    if segment.init != init:
        lines.append(f'#EXT-X-MAP:URI="init{segment.init}.mp4"')
    lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{date}")
    if segment.gap:
        lines.append("#EXT-X-GAP")
    if with_parts:
        lines += [_part_line(segment, number) for number in range(len(segment.parts))]
    if segment.complete:
        lines += [f"#EXTINF:{_seconds(segment.duration)},", segment.uri]
    return lines


def _part_line(segment: Segment, number: int) -> str:
    part = segment.parts[number]
    flags = ",INDEPENDENT=YES" if part.independent else ""
    flags += ",GAP=YES" if part.gap or segment.gap else ""
    return f'#EXT-X-PART:DURATION={_seconds(part.duration)},URI="{segment.part_uri(number)}"{flags}'


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.5f}"
