"""One participant as HLS: the tracks that it is given, cut into renditions, and what holds their playlists together.

Kept true:

* All playlists have the same target durations, decided by the source's first group of pictures, and the same discontinuities: another
  encoder, codec or size, or a jump in time. A picture that lasts while sound goes on is none.
* Media time goes on over everything that comes and goes, until the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from time import time_ns
from typing import TYPE_CHECKING

from gateway.outputs.hls.kept import KeptStream
from gateway.outputs.hls.policy import HlsPolicy, HlsTotals
from gateway.outputs.hls.rendition import Rendition
from gateway.outputs.hls.signed_urls import PLAYLIST
from gateway.outputs.hls.track_facts import described_by, differs
from gateway.sessions.output import Feedback, Muxer, SeatView, Streamed
from protocols.hls.multivariant import multivariant
from protocols.hls.playlist import Report
from protocols.hls.segmenter import LONGEST_GOP, MS, SECOND, Cut, Timing
from protocols.media import EncodedPacket, Kind, Track
from transcode.host.fragments import Done
from transcode.ladder import NAMES

if TYPE_CHECKING:
    from gateway.outputs.hls.archive import Archive

_START = 10 * SECOND  # media time of the first packet: nothing that is dated back falls below 0
_JUMP = 1500 * MS  # between two packets of one track
_LATE = 500 * MS  # a picture later than this after the sound of its time does not count as late, but as none
_LATER = 150 * MS  # than usual
_WAIT_FOR_VIDEO = 3 * SECOND
_MOST_HELD = 16 << 20  # bytes while the first group of pictures is awaited
_MOST_HELD_PACKETS = 4096
_MOST_RENDITIONS = 8
_ENOUGH_SEGMENTS = 3
_SHARE_OF_FRAMES = 0.9  # that are not longer than the frame for which parts are planned

_SOUND = "audio"
_PICTURE = "video"


class Feed:
    """One track on its way into the rendition `name`; a `Sink`."""

    def __init__(self, stream: "HlsStream", name: str, track: Track, feedback: Feedback) -> None:
        self.name = name
        self.track = track
        self.described: Track | None = None
        """The track with its parameter sets; None before they have come."""
        self.fresh = True
        """The track has facts that were not looked at yet."""
        self.rendition: Rendition | None = None
        self.late = _LATE
        """By how much it usually comes after the sound of its time, ns."""
        self.feedback = feedback
        self._stream = stream

    def push(self, packet: EncodedPacket) -> None:
        self._stream.push(self, packet)

    def update(self, track: Track) -> None:
        self.fresh = self.fresh or track != self.track
        self.track = track

    def close(self) -> None:
        self._stream.remove(self)


class HlsStream:
    """Has the seats of one user one after the other; a `Rendition`'s `Owner`."""

    def __init__(
        self,
        identity: str,
        seat: Streamed,
        policy: HlsPolicy,
        totals: HlsTotals,
        archive: "Archive | None",
        on_segment: Callable[[], None],
        left: KeptStream | None = None,
    ) -> None:
        """`on_segment` is told when one begins or is complete; `left`: it goes on from there."""
        self.id = identity
        self.on_segment = on_segment
        self.cid = seat.call_cid
        self.user_id = seat.user_id
        self.protocol = seat.protocol
        self.ended = False
        self.renditions: dict[str, Rendition] = {}
        self._policy = policy
        self._totals = totals
        self._archive = archive
        self._seat: SeatView | None = None
        self._muxer: Muxer | None = None  # of the newest seat, also when it has gone: what it has in hand is still good
        self._feeds: dict[str, Feed] = {}
        self.left = dict(left.renditions) if left is not None else {}
        self._timing = left.timing if left is not None else None
        self._held: list[tuple[Feed, Track, EncodedPacket]] = []
        self._held_bytes = 0
        self._reconnects = 0
        self._interruptions = left.interruptions if left is not None else 0
        self._shift: int | None = None  # of media time; None: the next packet decides it
        self._end = left.end if left is not None else _START - 40 * MS  # of what was pushed
        self._heard = 0  # media time of the newest sound
        self._wall = 0  # wall clock of media time 0

    # What comes

    def attach(self, seat: SeatView) -> None:
        """Media come from this seat from here on."""
        self._seat = seat
        self._muxer = seat.muxer
        self._reconnects = seat.reconnects
        self._shift = None

    def detach(self) -> None:
        """The seat has gone: what comes next is another."""
        self._interrupt()
        self._seat = None
        self._feeds.clear()
        self._drop_held(lambda feed: True)

    def leave_off(self) -> None:
        """Another process goes on with it."""
        for rendition in self.renditions.values():
            rendition.leave_off()
        self.detach()

    def publish(self, track: Track, feedback: Feedback) -> Feed:
        """A track begins. What comes later under the same name takes its place."""
        name = self._name(track)
        feed = Feed(self, name, track, feedback)
        if name in self._feeds or len(self._feeds) < _MOST_RENDITIONS:
            self._feeds[name] = feed
        return feed

    def remove(self, feed: Feed) -> None:
        if self._feeds.get(feed.name) is feed:
            del self._feeds[feed.name]
        self._drop_held(lambda held: held is feed)

    def end(self) -> None:
        """No more comes, ever."""
        if not self.ended:
            self.ended = True
            for rendition in self.renditions.values():
                rendition.end()

    # What renditions need of a worker

    def make(self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done) -> None:
        assert self._muxer is not None
        self._muxer.make(track, packets, durations, index, partial(self._made, done))

    def _made(self, done: Done, init: bytes, fragment: bytes) -> None:
        begun = self._begun
        done(init, fragment)
        if self._begun != begun:  # and its number is kept before the next part is there
            self.on_segment()

    @property
    def _begun(self) -> int:
        return sum(rendition.playlist.next_segment for rendition in self.renditions.values())

    def then(self, done: Callable[[], None]) -> None:
        assert self._muxer is not None
        self._muxer.then(done)

    def on_part(self, rendition: Rendition, part: Cut) -> None:
        sound = self.renditions.get(_SOUND)
        if rendition.name == _PICTURE and sound is not None:
            sound.align(part)

    def _name(self, track: Track) -> str:
        """The picture has no layer's name in its own where it is the largest; so it keeps it when others make it."""
        if track.kind is Kind.AUDIO:
            return _SOUND
        largest = track.layer in ("", NAMES[0])
        there = self._feeds.get(_PICTURE)
        if largest and (there is None or there.track.layer != "" or track.layer == ""):
            return _PICTURE
        return f"{_PICTURE}-{track.codec.value if largest else track.layer}"

    def _drop_held(self, of: Callable[[Feed], bool]) -> None:
        self._held = [held for held in self._held if not of(held[0])]
        self._held_bytes = sum(len(packet.data) for _, _, packet in self._held)

    # Into the renditions

    def push(self, feed: Feed, packet: EncodedPacket) -> None:
        if self._seat is None or self._feeds.get(feed.name) is not feed:
            return
        if self._seat.reconnects != self._reconnects:
            self._reconnects = self._seat.reconnects
            self._interrupt()
        described = self._describe(feed, packet)
        if described is None:
            return
        if self._shift is None:
            self._shift = self._end + 40 * MS - packet.dts
            self._wall = time_ns() - (packet.dts + self._shift)
        packet = packet._replace(pts=packet.pts + self._shift, dts=packet.dts + self._shift)
        self._end = max(self._end, packet.dts)
        if self._timing is None:
            self._hold(feed, described, packet)
        else:
            self._give(feed, described, packet, self._timing)
        if feed.track.kind is Kind.AUDIO:
            self._heard = packet.dts
            for other in self._feeds.values():
                if other.rendition is not None:
                    other.rendition.stand(packet.dts - min(other.late + _LATER, _LATE))
        else:
            feed.late = max(self._heard - packet.dts, feed.late - feed.late // 16)
        if feed.track.kind is Kind.VIDEO and self._wants_keyframe(feed):
            feed.feedback.keyframe()

    def _jumps(self, rendition: Rendition, time: int) -> bool:
        """Whether time is missing before `time`. A picture that alone has paused lasts until then: sound has not, or there is none."""
        if rendition.last is None:  # nothing of it says so, but no picture lasts for ever
            return any(other.last is not None and time - other.last.dts > LONGEST_GOP for other in self.renditions.values())
        if time - rendition.last.dts <= _JUMP:
            return False
        sounds = [each.last for each in self.renditions.values() if each.track.kind is Kind.AUDIO]
        if time - rendition.last.dts <= LONGEST_GOP and all(last is not None and time - last.dts <= _JUMP for last in sounds):
            rendition.stand(time)
            return time - rendition.last.dts > rendition.playlist.timing.limit
        return True

    def _describe(self, feed: Feed, packet: EncodedPacket) -> Track | None:
        """What is true of the track from this packet on; None before it is known, at its first key frame."""
        if feed.described is None or feed.fresh or (packet.keyframe and not feed.track.extradata):
            described = described_by(feed.track, packet)
            if described is not None:
                feed.fresh, feed.described = False, described
        return feed.described

    def _wants_keyframe(self, feed: Feed) -> bool:
        if feed.rendition is not None:
            return feed.rendition.wants_keyframe
        times = [packet.dts for held, _, packet in self._held if held is feed]
        return not times or times[-1] - times[0] > self._policy.segment - 150 * MS

    def _change(self, rendition: Rendition, track: Track) -> None:
        """A rendition is of another kind from here on: a discontinuity, unless it is at one."""
        if not rendition.fresh:
            self._interrupt()
        rendition.interrupt(track)

    def _interrupt(self) -> None:
        """A discontinuity, for all renditions alike."""
        self._interruptions += 1
        for rendition in self.renditions.values():
            rendition.interrupt(rendition.track)
        self._wall = time_ns() - self._end  # of what comes after it: what was under way has the date that it had

    def _give(self, feed: Feed, described: Track, packet: EncodedPacket, timing: Timing) -> None:
        """To its rendition, with a discontinuity before it where it is of another kind, or time is missing."""
        rendition = self._rendition(feed, described, timing)
        if differs(rendition.track, described):
            self._change(rendition, described)
        elif self._jumps(rendition, packet.dts):
            if any(name in self._feeds and other.fresh for name, other in self.renditions.items()):
                for other in self.renditions.values():
                    other.pause()  # a discontinuity is under way already, and all must have as many
            else:
                self._interrupt()
        rendition.push(packet)

    def _rendition(self, feed: Feed, described: Track, timing: Timing) -> Rendition:
        if feed.rendition is None:
            rendition = self.renditions.get(feed.name)
            if rendition is None:
                path = f"{self.cid.replace(':', '/')}/{self.id}/{feed.name}"
                rendition = self.renditions[feed.name] = Rendition(
                    feed.name,
                    path,
                    described,
                    timing,
                    self._policy,
                    self._totals,
                    self,
                    self._archive,
                    self.protocol,
                    self._date,
                    self._interruptions,
                    self.left.get(feed.name),
                )
                rendition.reports = partial(self._reports, rendition)
            feed.rendition = rendition
        return feed.rendition

    def _date(self, time: int) -> int:
        return self._wall + time

    def _reports(self, asking: Rendition) -> list[Report]:
        others = (each.report for each in self.renditions.values() if each is not asking)
        return [report for report in others if report is not None]

    # The first group of pictures decides the target durations

    def _hold(self, feed: Feed, described: Track, packet: EncodedPacket) -> None:
        if feed.track.kind is Kind.VIDEO and not packet.keyframe and not any(held is feed for held, _, _ in self._held):
            return
        self._held.append((feed, described, packet))
        self._held_bytes += len(packet.data)
        self._timing = self._decided(packet)
        if self._timing is not None:
            held, self._held = self._held, []
            for each, track, waiting in held:
                self._give(each, track, waiting, self._timing)

    def _decided(self, packet: EncodedPacket) -> Timing | None:
        video = next((feed for feed, _, _ in self._held if feed.track.kind is Kind.VIDEO), None)
        waited = packet.dts - self._held[0][2].dts
        full = self._held_bytes > _MOST_HELD or len(self._held) > _MOST_HELD_PACKETS or waited > LONGEST_GOP
        if video is None:
            coming = any(feed.track.kind is Kind.VIDEO for feed in self._feeds.values())
            return Timing.of(self._policy.segment, 0, 22 * MS) if full or (waited > _WAIT_FOR_VIDEO and not coming) else None
        times = [held.dts for feed, _, held in self._held if feed is video]
        keys = [held.dts for feed, _, held in self._held if feed is video and held.keyframe]
        if len(keys) < 2 and not full:
            return None
        frames = sorted(later - earlier for earlier, later in pairwise(times)) or [33 * MS]
        sounds = [held.dts for feed, _, held in self._held if feed.track.kind is Kind.AUDIO]
        gop = keys[1] - keys[0] if len(keys) > 1 else LONGEST_GOP
        sound = (sounds[-1] - sounds[0]) // (len(sounds) - 1) if len(sounds) > 1 else 0
        return Timing.of(self._policy.segment, gop, frames[min(len(frames) - 1, int(len(frames) * _SHARE_OF_FRAMES))], sound)

    # What is served

    @property
    def ready(self) -> bool:
        """There is something to play in every rendition, or in one for so long that the others are not worth waiting for."""
        all_of_it = bool(self.renditions) and all(rendition.ready for rendition in self.renditions.values())
        return all_of_it or any(len(rendition.playlist.segments) > _ENOUGH_SEGMENTS for rendition in self.renditions.values())

    def awaits(self, name: str) -> bool:
        """It goes on from another process, and there is nothing of this rendition yet, of which players may know."""
        there = self.renditions.get(name)
        return name in self.left and not self.ended and (there is None or not there.playlist.segments)

    def farewell(self, name: str) -> str | None:
        """The playlist of a rendition that was awaited to the end of the stream; None: there is no such one."""
        left = self.left.get(name)
        return None if left is None or self._timing is None or not self.ended else left.farewell(self._timing)

    @property
    def kept(self) -> KeptStream | None:
        """From where another process goes on; None: there is nothing yet."""
        if self._timing is None or self.ended:
            return None
        renditions = self.left | {name: each.kept for name, each in self.renditions.items()}
        return KeptStream(self.id, self._timing, self._end, self._interruptions, renditions)

    def multivariant(self, prefix: str = "") -> str:
        """The playlist of playlists, whose addresses begin with `prefix`."""
        variants = {
            name: replace(each.variant, uri=f"{prefix}{name}/{PLAYLIST}")
            for name, each in self.renditions.items()
            if each.ready
        }
        sound = variants.pop(_SOUND, None)
        return multivariant(sorted(variants.values(), key=lambda each: -each.track.height), sound)
