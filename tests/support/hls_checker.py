"""A checker of live playlists: each MUST of RFC 8216bis that can be seen from outside, on one playlist, from one to the next, and of the
media that they list.

It parses by itself and knows nothing of how the playlists are made. A violation is an `AssertionError` that cites the clause.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime

from tests.support.fmp4 import Fragment, clock, fragments

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')
_SINGLE = (
    "TARGETDURATION",
    "MEDIA-SEQUENCE",
    "DISCONTINUITY-SEQUENCE",
    "SERVER-CONTROL",
    "PART-INF",
    "VERSION",
    "ENDLIST",
    "SKIP",
)


def attributes(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in _ATTRIBUTE.findall(text)}


@dataclass
class Part:
    duration: float
    uri: str
    independent: bool
    gap: bool


@dataclass
class Segment:
    number: int
    discontinuity_number: int
    uri: str = ""  # empty: under way
    duration: float = 0.0
    init: str = ""
    date: str = ""
    discontinuity: bool = False
    gap: bool = False
    parts: list[Part] = field(default_factory=list)


@dataclass
class Playlist:
    """One playlist, checked by itself."""

    text: str
    tags: dict[str, str] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    skipped: int = 0
    hint: str = ""
    reports: list[dict[str, str]] = field(default_factory=list)

    @property
    def target(self) -> int:
        return int(self.tags["TARGETDURATION"])

    @property
    def part_target(self) -> float:
        return float(attributes(self.tags["PART-INF"])["PART-TARGET"])

    @property
    def first(self) -> int:
        return int(self.tags["MEDIA-SEQUENCE"])

    @property
    def ended(self) -> bool:
        return "ENDLIST" in self.tags

    @property
    def complete(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.uri]

    @property
    def last_part(self) -> tuple[int, int]:
        last = self.segments[-1]
        return last.number, len(last.parts) - 1


def parse(text: str) -> Playlist:
    playlist = Playlist(text)
    lines = text.split("\n")
    assert lines[0] == "#EXTM3U", "§4.4.1.1: the first line"
    assert text.endswith("\n"), "§4.1: every line ends"
    open_segment: Segment | None = None
    init, discontinuities, number = "", 0, 0

    def segment() -> Segment:
        nonlocal open_segment
        if open_segment is None:
            open_segment = Segment(number, discontinuities, init=init)
        return open_segment

    for line in lines[1:]:
        name, _, value = line.removeprefix("#EXT-X-").partition(":")
        if not line:
            continue
        if line.startswith("#EXTINF:"):
            segment().duration = float(line.removeprefix("#EXTINF:").rstrip(","))
        elif not line.startswith("#"):
            segment().uri = line
            playlist.segments.append(segment())
            open_segment, number = None, number + 1
        elif name == "MAP":
            init = attributes(value)["URI"]
            segment().init = init
        elif name == "DISCONTINUITY":
            assert open_segment is None or not open_segment.parts, "§4.4.4.3: before what it applies to"
            discontinuities += 1
            segment().discontinuity, segment().discontinuity_number = True, discontinuities
        elif name == "PROGRAM-DATE-TIME":
            segment().date = value
        elif name == "GAP":
            segment().gap = True
        elif name == "PART":
            named = attributes(value)
            segment().parts.append(Part(float(named["DURATION"]), named["URI"], "INDEPENDENT" in named, "GAP" in named))
        elif name == "PRELOAD-HINT":
            playlist.hint = attributes(value)["URI"]
        elif name == "RENDITION-REPORT":
            playlist.reports.append(attributes(value))
        elif name in _SINGLE:
            assert name not in playlist.tags, f"§4.4.3: {name} once"
            playlist.tags[name] = value
            if name == "MEDIA-SEQUENCE":
                number = int(value)
            elif name == "DISCONTINUITY-SEQUENCE":
                assert not playlist.segments, "§4.4.3.3: before the first segment"
                discontinuities = int(value)
            elif name == "SKIP":
                playlist.skipped = int(attributes(value)["SKIPPED-SEGMENTS"])
                number += playlist.skipped
        else:
            raise AssertionError(f"a tag that is not known: {line}")
    if open_segment is not None and open_segment.parts:
        playlist.segments.append(open_segment)
    _check(playlist)
    return playlist


def _check(playlist: Playlist) -> None:
    assert "TARGETDURATION" in playlist.tags, "§4.4.3.1: it is required"
    control = attributes(playlist.tags["SERVER-CONTROL"])
    target, part_target = playlist.target, playlist.part_target
    assert control["CAN-BLOCK-RELOAD"] == "YES"
    assert float(control["PART-HOLD-BACK"]) >= 3 * part_target - 1e-9, (
        "§4.4.3.8: at least twice the part target, and should be three times"
    )
    assert float(control["HOLD-BACK"]) >= 3 * target, "§4.4.3.8: at least three target durations"
    assert float(control["CAN-SKIP-UNTIL"]) >= 6 * target, "§4.4.3.8: at least six target durations"
    assert int(playlist.tags["VERSION"]) >= 9, "§8: EXT-X-SKIP takes 9"
    for segment in playlist.segments:
        assert segment.init or playlist.skipped, "§4.4.4.5: fMP4 needs its EXT-X-MAP"
        if segment.uri:
            assert int(segment.duration + 0.5) <= target, f"§4.4.3.1: {segment.duration} s is above the target"
        for part in segment.parts:
            assert part.duration <= part_target + 1e-9, f"§4.4.4.9: a part of {part.duration} s"
        for part in segment.parts[:-1]:
            assert part.duration >= 0.85 * part_target or part.gap, f"§4.4.3.7: a part of {part.duration} s before the last"
        if segment.uri and segment.parts:
            total = sum(part.duration for part in segment.parts)
            assert abs(total - segment.duration) < 0.001, "§4.4.4.9: the parts are the segment"
    for before, after in zip(playlist.segments, playlist.segments[1:], strict=False):
        assert before.uri, "only the last one is under way"
        assert before.init == after.init or after.discontinuity, "§6.2.1: another encoding is a discontinuity"
    if playlist.ended:
        assert not playlist.hint, "§4.4.5.3: nothing comes"
    else:
        assert playlist.hint


class Follower:
    """Sees one media playlist again and again."""

    def __init__(self) -> None:
        self.seen: dict[int, Segment] = {}
        self.last: Playlist | None = None
        self.discontinuities = 0
        self.goes_on_from = 0
        """The first number that the process has which serves it: all media of before are gone with another one."""

    def take(self, text: str) -> Playlist:
        playlist = parse(text)
        before = self.last
        if before is not None:
            assert playlist.target == before.target, "§4.4.3.1: the target duration does not change"
            assert playlist.part_target == before.part_target
            assert playlist.first >= before.first, "§6.2.2: the media sequence never goes back"
            assert int(playlist.tags["DISCONTINUITY-SEQUENCE"]) >= int(before.tags["DISCONTINUITY-SEQUENCE"]), "§6.2.2"
            assert not before.ended or playlist.text == before.text, "§6.2.1: nothing changes after the end"
            now = playlist.last_part if not playlist.ended else (playlist.last_part[0], before.last_part[1])
            assert now >= before.last_part, "§6.2.1: what was listed stays"
        for segment in playlist.segments:
            known = self.seen.get(segment.number)
            if known is not None:
                assert (known.date, known.discontinuity) == (segment.date, segment.discontinuity), "§6.2.1: it does not change"
                assert playlist.skipped or known.discontinuity_number == segment.discontinuity_number, "§6.2.2"
                assert not known.uri or (known.uri, known.duration) == (segment.uri, segment.duration), "§6.2.1"
                if segment.parts:
                    shared = min(len(known.parts), len(segment.parts))
                    assert known.parts[:shared] == segment.parts[:shared], "§6.2.1"
            else:
                self.discontinuities += segment.discontinuity
            if known is None or segment.parts or not known.parts:
                self.seen[segment.number] = segment
        if not playlist.ended and sum(s.duration for s in playlist.complete) < 3 * playlist.target and not playlist.skipped:
            assert playlist.first == self.goes_on_from, "§6.2.2: three target durations stay listed"
        self.last = playlist
        return playlist


@dataclass
class Media:
    """Sees the parts of one rendition with what is in them: they last as long as is listed, and one begins where the other ends."""

    starts: list[int] = field(default_factory=list)
    """Decode times of the parts in their order, in the track's own clock."""
    anchor: float | None = None
    """The wall clock (s) of media time 0 since the last discontinuity."""
    joins: int = 0
    """Parts that were compared with the one before them."""
    _before: tuple[int, int] = (-1, -1)  # number of its segment, and its own
    _end: int | None = None

    def take(self, segment: Segment, number: int, init: bytes, data: bytes, before: Segment | None) -> None:
        """The part `number` of `segment`, which follows `before` in the playlist."""
        (fragment,) = fragments(data)
        part, ticks = segment.parts[number], clock(init)
        lasts = (fragment.end - fragment.start) / ticks
        cut_short = (
            number + 1 < len(segment.parts) and segment.parts[number + 1].gap
        )  # the rest of its last frame is listed as gaps
        assert cut_short or abs(lasts - part.duration) < 1 / ticks + 1e-5, f"§4.4.4.9: {lasts} s of media in {part}"
        assert fragment.sync or not part.independent, "§4.4.4.9: INDEPENDENT begins with a key frame"
        if number == 0 and segment.discontinuity:
            self.anchor = self._end = None
        if self._end is not None and self._before == self._predecessor(segment, number, before):
            self.joins += 1
            assert fragment.start == self._end, f"§3: {segment.number}.{number} begins at {fragment.start}, not at {self._end}"
        if number == 0:
            self._check_date(segment, fragment, ticks)
        self._before, self._end = (segment.number, number), fragment.end
        self.starts.append(fragment.start)

    def _predecessor(self, segment: Segment, number: int, before: Segment | None) -> tuple[int, int]:
        if number:
            return segment.number, number - 1
        return (before.number, len(before.parts) - 1) if before is not None else (-1, -1)

    def _check_date(self, segment: Segment, fragment: Fragment, ticks: int) -> None:
        shown = (fragment.start + fragment.offsets[0]) / ticks
        anchor = datetime.fromisoformat(segment.date).timestamp() - shown
        assert self.anchor is None or abs(anchor - self.anchor) < 0.003, "§4.4.4.6: the date is that of the first sample"
        self.anchor = self.anchor or anchor
