"""One rendition of a stream as HLS: its packets cut, muxed by the worker, kept, and named in a playlist that people wait for.

Kept true: what the playlist lists can be fetched, or is marked as a gap; what it no longer lists can be fetched for as long as RFC 8216bis
§6.2.2 asks; the memory that it takes is bounded, oldest first.
"""

import asyncio
import gzip
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Protocol

from gateway.outputs.hls.kept import KeptRendition
from gateway.outputs.hls.policy import HlsPolicy, HlsTotals
from protocols.bitstream.stills import StillPictures
from protocols.hls.multivariant import Variant
from protocols.hls.playlist import HlsPart, MediaPlaylist, PlaylistAnswer, Report, Segment
from protocols.hls.segmenter import Cut, Segmenter, Timing
from protocols.media import EncodedPacket, Kind, Track
from transcode.host.fragments import Done

if TYPE_CHECKING:
    from gateway.outputs.hls.archive import Archive

_IN_MEMORY = 4  # target durations, where there is an archive for the rest: live players are within three
_HEADROOM = 1.1  # the peak of what is to come is not known


class Owner(Protocol):
    """The stream: it has parts made, as `transcode.host.fragments.Fragments` does, and wants to hear of segments."""

    @property
    def on_segment(self) -> Callable[[], None]: ...

    def make(
        self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done
    ) -> None: ...

    def then(self, done: Callable[[], None]) -> None: ...

    def on_part(self, rendition: "Rendition", part: Cut) -> None:
        """One of a segment that goes on, or is followed by the next without a break."""


@dataclass(slots=True)
class _Run:
    """What belongs together from one discontinuity to the next."""

    number: int  # of its initialisation section
    track: Track
    told: bool  # its first segment says that it is a discontinuity
    begun: bool = False


@dataclass(slots=True)
class _Removed:
    segment: Segment
    until: int  # monotonic ns


@dataclass(slots=True)
class _Text:
    """A playlist as it is just now, and compressed once somebody asks for that."""

    plain: bytes
    packed: bytes = field(default=b"")

    def gzip(self) -> bytes:
        self.packed = self.packed or gzip.compress(self.plain, 5, mtime=0)
        return self.packed


class Rendition:
    """`name` is its folder; `path` its place in the archive."""

    def __init__(
        self,
        name: str,
        path: str,
        track: Track,
        timing: Timing,
        policy: HlsPolicy,
        totals: HlsTotals,
        owner: Owner,
        archive: "Archive | None",
        protocol: str,
        date: Callable[[int], int],
        discontinuities: int,
        left: KeptRendition | None = None,
    ) -> None:
        """`date` gives the wall clock (Unix ns) of a media time; `discontinuities` were before its first segment. `left`: it goes on
        from there, with a discontinuity."""
        self.name = name
        begins = KeptRendition(0, discontinuities, 0, 0) if left is None else left
        self.playlist = MediaPlaylist(timing, policy.window, begins.segment, begins.discontinuities)
        self.changed = asyncio.Event()
        """Set, and replaced by a new one, when the playlist changes."""
        self.reports: Callable[[], Sequence[Report]] = tuple
        self.last_change = monotonic_ns()
        self._path = path
        self._policy = policy
        self._totals = totals
        self._owner = owner
        self._date = date
        self._archive = archive
        self._protocol = protocol
        self._stills = StillPictures(track)
        self._segmenter = Segmenter(timing, video=track.kind is Kind.VIDEO, segment=policy.segment, stills=self._stills)
        self._run = _Run(begins.init, track, told=left is not None)
        self._inits: dict[int, bytes] = {}
        self._made = 0
        self._files: dict[str, bytes | memoryview] = {}
        self._held = 0  # bytes
        self._archived: set[int] = set()
        self._removed: deque[_Removed] = deque()
        self._texts: dict[bool, _Text] = {}
        self._left_off = False
        self._peak = self._mean = 0.0  # bit/s of segments
        if archive is not None and left is not None:
            for number in range(left.archived, left.segment):  # of before, which nobody lists any more
                archive.delete(f"{path}/{number}.m4s")

    @property
    def track(self) -> Track:
        return self._run.track

    @property
    def kept(self) -> KeptRendition:
        """From where another process goes on with it."""
        playlist = self.playlist
        listed = sum(segment.discontinuity for segment in playlist.segments)
        archived = min(self._archived, default=playlist.next_segment)
        return KeptRendition(playlist.next_segment, playlist.discontinuities + listed, self._run.number + 1, archived)

    @property
    def fresh(self) -> bool:
        """Nothing has come since the last discontinuity, or the start."""
        return not self._run.begun and self._segmenter.last is None

    @property
    def last(self) -> EncodedPacket | None:
        return self._segmenter.last

    @property
    def wants_keyframe(self) -> bool:
        return self._segmenter.wants_keyframe

    @property
    def variant(self) -> Variant:
        uri = f"{self.name}/index.m3u8"
        return Variant(uri, self.track, round(self._peak * _HEADROOM), round(self._mean))

    def push(self, packet: EncodedPacket) -> None:
        self.stand(packet.dts)
        self._go_on(self._segmenter.push(packet))

    def stand(self, until: int) -> None:
        """There is no picture before `until` (ns): the last one is shown until then, where it can be shown again."""
        self._go_on(self._segmenter.stand(until))

    def align(self, part: Cut) -> None:
        """This is the sound beside a picture, of which this is the newest part."""
        self._go_on(self._segmenter.align(part))

    def _go_on(self, cuts: Iterable[Cut]) -> None:
        for cut in cuts:
            self._order(cut)
            self._owner.on_part(self, cut)

    def interrupt(self, track: Track) -> None:
        """What comes next does not follow from what came before: another encoder, another picture. `track` is what it is then."""
        self.pause()
        if self._run.begun:
            self._run = _Run(self._run.number + 1, track, told=True)
        else:
            self._run = _Run(self._run.number, track, told=self._run.told)
        self._stills.begin(track)

    def pause(self) -> None:
        """Time is missing from here to the next packet: the segment ends with what there is of it."""
        for cut in self._segmenter.close():
            self._order(cut)

    def end(self) -> None:
        """No more comes: what is under way is made, then the playlist says that it is the end."""
        self.pause()
        self._owner.then(self._end)

    def leave_off(self) -> None:
        """Its playlist stays as it is from here on: another process goes on with it, from these numbers."""
        self._left_off = True

    def _end(self) -> None:
        self.playlist.end()
        self._announce()

    def _order(self, cut: Cut) -> None:
        self._made += 1
        run = self._run
        run.begun = True
        date = self._date(cut.packets[0].pts)
        track = replace(run.track, extradata=self._stills.parameter_sets)
        self._owner.make(track, cut.packets, cut.durations, self._made, partial(self._take, run, cut, date))

    def _take(self, run: _Run, cut: Cut, date: int, init: bytes, fragment: bytes) -> None:
        """A part has been made, or could not be."""
        if self._left_off:
            return
        if init and run.number not in self._inits:
            self._inits[run.number] = init
        discontinuity = cut.opens and run.told
        run.told = run.told and not cut.opens
        left_open = self.playlist.current if cut.opens else None
        parts = self._listed(cut, gap=not fragment)
        removed: list[Segment] = []
        for number, part in enumerate(parts):
            first, last = number == 0, number == len(parts) - 1
            removed += self.playlist.add(
                part,
                opens=cut.opens and first,
                closes=cut.closes and last,
                init=run.number,
                date=date,
                discontinuity=discontinuity,
            )
        segment = self.playlist.segments[-1]
        self._totals.parts += 1
        self._totals.gaps += not fragment
        self._totals.discontinuities += discontinuity
        if fragment:
            self._keep(segment.part_uri(len(segment.parts) - len(parts)), fragment)
        for done in (left_open, segment):
            if done is not None and done.complete:
                self._complete(done)
                self._owner.on_segment()
        self._forget(removed)
        if arrival := cut.packets[0].arrival:
            self._totals.latency[self._protocol].observe(monotonic_ns() - arrival)
        self._announce()

    def _listed(self, cut: Cut, *, gap: bool) -> list[HlsPart]:
        """A part is never listed as longer than the target: where frames are missing, the rest of the time is gaps (§4.4.4.9)."""
        target = self.playlist.timing.part
        parts, left = [HlsPart(min(cut.duration, target), cut.independent, gap)], cut.duration - target
        while left > 0:
            parts.append(HlsPart(min(left, target), independent=False, gap=True))
            left -= target
        return parts

    def _announce(self) -> None:
        self._texts.clear()
        self.last_change = monotonic_ns()
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    # What is kept

    def _keep(self, name: str, data: bytes | memoryview) -> None:
        self._held += len(data)
        self._files[name] = data

    def _drop(self, name: str) -> None:
        self._held -= len(self._files.pop(name, b""))

    def _complete(self, segment: Segment) -> None:
        """The segment as one file; its parts become views of it."""
        names = [segment.part_uri(number) for number in range(len(segment.parts))]
        whole = b"".join(self._files.get(name, b"") for name in names)
        view, start = memoryview(whole), 0
        for name in names:
            size = len(self._files.get(name, b""))
            if size:
                self._files[name] = view[start : start + size]
                start += size
        self._files[segment.uri] = whole  # counted by its parts
        self._totals.segments += 1
        rate = len(whole) * 8e9 / max(1, segment.duration)
        self._peak = max(self._peak, rate)
        self._mean += (rate - self._mean) / (8 if self._mean else 1)
        if self._archive is not None and not segment.gap:
            self._archive.put(
                f"{self._path}/{segment.uri}", whole, lambda kept: self._archived.add(segment.number) if kept else None
            )

    def _forget(self, removed: list[Segment]) -> None:
        now = monotonic_ns()
        for segment in removed:
            self._removed.append(_Removed(segment, now + self._policy.window + segment.duration))
        if self._archive is not None:
            self._leave_to_archive()
        while self._removed and self._removed[0].until < now:
            self._erase(self._removed.popleft().segment)
        while self._held > self._policy.memory and self._removed:
            self._erase(self._removed.popleft().segment)
        while self._held > self._policy.memory and (oldest := self.playlist.drop_oldest()) is not None:
            self._erase(oldest)

    def _leave_to_archive(self) -> None:
        """Memory holds what players are likely to ask for; older ones are in the archive, or lost."""
        distance = 0
        for segment in reversed(self.playlist.segments):
            if distance > _IN_MEMORY * self.playlist.timing.target and segment.uri in self._files:
                self._free(segment)
                segment.gap = segment.gap or segment.number not in self._archived
            distance += segment.duration

    def _free(self, segment: Segment) -> None:
        self._files.pop(segment.uri, None)
        for number in range(len(segment.parts)):
            self._drop(segment.part_uri(number))

    def _erase(self, segment: Segment) -> None:
        self._free(segment)
        if segment.number in self._archived:
            self._archived.discard(segment.number)
            assert self._archive is not None
            self._archive.delete(f"{self._path}/{segment.uri}")
        first = self.playlist.segments[0].init if self.playlist.segments else self._run.number
        needed = min([first, *(removed.segment.init for removed in self._removed)])
        for number in [number for number in self._inits if number < needed]:
            del self._inits[number]

    # What is fetched

    def text(self, *, skip: bool) -> _Text:
        """The playlist."""
        if skip not in self._texts:
            self._texts[skip] = _Text(self.playlist.text(self.reports(), skip=skip).encode())
        return self._texts[skip]

    async def reached(self, segment: int, part: int | None) -> bool:
        """Waits until the playlist has it; False at once where it is too far ahead. The caller bounds the time."""
        while True:
            match self.playlist.answer(segment, part):
                case PlaylistAnswer.READY:
                    return True
                case PlaylistAnswer.NEVER:
                    return False
                case PlaylistAnswer.WAIT:
                    await self.changed.wait()

    async def file(self, name: str) -> bytes | memoryview | None:
        """A part, a segment or an initialisation section; None: there is none. Waits for the part that is hinted at."""
        if name.startswith("init"):
            digits = name.removeprefix("init").removesuffix(".mp4")
            return self._inits.get(int(digits)) if digits.isdecimal() else None
        while (
            (found := self._files.get(name)) is None and not self.playlist.ended and name == _part_name(self.playlist.next_part)
        ):
            await self.changed.wait()
        if found is None and self._archive is not None and name.partition(".")[0].isdecimal():
            number = int(name.partition(".")[0])
            if number in self._archived and name == f"{number}.m4s":
                return await self._archive.get(f"{self._path}/{name}")
        return found

    @property
    def ready(self) -> bool:
        return self.playlist.playable

    @property
    def report(self) -> Report | None:
        if not self.playlist.segments:
            return None
        return Report(f"../{self.name}/index.m3u8", *self.playlist.last_part)

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self._held


def _part_name(part: tuple[int, int]) -> str:
    return f"{part[0]}.{part[1]}.m4s"
