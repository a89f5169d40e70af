"""One participant as HLS: which of a session's media go into it, as what, and what holds their playlists together.

Kept true:

* Video is taken as it came where players take it so (H.264 and HEVC, B-frames included), else as it comes out of the lane; smaller layers
  are variants. What neither gives (`transcoding.py`: VP8, VP9 and AV1 that pass, sound that is no AAC) is made by the worker.
* All playlists have the same target durations, decided by the source's first group of pictures, and the same discontinuities: another
  encoder, codec or size, or a jump in time.
* Media time goes on over everything that comes and goes, until the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from time import time_ns

from gateway.outputs.hls.archive import Archive
from gateway.outputs.hls.policy import HlsPolicy, HlsTotals
from gateway.outputs.hls.rendition import Rendition
from gateway.outputs.hls.signed_urls import PLAYLIST
from gateway.outputs.hls.transcoding import HlsTranscoding, Room, fits, forbidden, makes_h264, pictures
from gateway.sessions.seat import Seat
from gateway.sessions.track_pipeline import TrackPipeline
from protocols.bitstream.h26x import NalStream
from protocols.errors import ProtocolError
from protocols.hls.multivariant import multivariant
from protocols.hls.playlist import Report
from protocols.hls.segmenter import LONGEST_GOP, MS, SECOND, Timing
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.publisher import Publisher
from transcode.host.fragments import Done
from transcode.host.process import Worker

_START = 10 * SECOND  # media time of the first packet: nothing that is dated back falls below 0
_JUMP = 1500 * MS  # between two packets of one track
_WAIT_FOR_VIDEO = 3 * SECOND
_MOST_HELD = 16 << 20  # bytes while the first group of pictures is awaited
_MOST_RENDITIONS = 8
_ENOUGH_SEGMENTS = 3
_SHARE_OF_FRAMES = 0.9  # that are not longer than the frame for which parts are planned

_SOUND = "audio"
_PICTURE = "video"


@dataclass(slots=True)
class _Feed:
    """One track on its way into the rendition `name`. `track` is what it was when it was last looked at, as its owner gave it."""

    name: str
    track: Track
    described: Track  # with parameter sets
    rendition: Rendition | None = None


class HlsStream:
    """A tap of its session while there is one; `fragments` are made by the worker that `attach` was given."""

    def __init__(
        self,
        identity: str,
        session: Seat,
        policy: HlsPolicy,
        totals: HlsTotals,
        archive: Archive | None,
        on_segment: Callable[[], None],
    ) -> None:
        self.id = identity
        self.on_segment = on_segment
        self.cid = session.call_cid
        self.user_id = session.user_id
        self.protocol = session.protocol
        self.ended = False
        self.renditions: dict[str, Rendition] = {}
        self._policy = policy
        self._totals = totals
        self._archive = archive
        self._session: Seat | None = None
        self._worker: Worker | None = None
        self._hls_transcoding: HlsTranscoding | None = None
        self._feeds: dict[str, _Feed] = {}
        self._timing: Timing | None = None
        self._held: list[tuple[_Feed, EncodedPacket]] = []
        self._held_bytes = 0
        self._reconnects = 0
        self._interruptions = 0
        self._shift: int | None = None  # of media time; None: the next packet decides it
        self._end = _START - 40 * MS  # of what was pushed
        self._wall = 0  # wall clock of media time 0

    # Its session and worker

    def attach(self, session: Seat, worker: Worker, room: Room) -> None:
        """Media come from this session from here on; `room` is for what is made of them by the worker."""
        self._session, self._worker = session, worker
        self._reconnects = session.reconnects
        self._shift = None
        self._drop_feeds()
        self._hls_transcoding = HlsTranscoding(session, worker, room, self._policy.audio_bitrate, self._made)
        session.taps.append(self)

    def detach(self) -> None:
        """Its session has gone, or its worker: what comes next is another."""
        if self._session is not None and self in self._session.taps:
            self._session.taps.remove(self)
        self._interrupt()
        self._session = self._worker = self._hls_transcoding = None
        self._drop_feeds()

    def end(self) -> None:
        """No more comes, ever."""
        if not self.ended:
            self.ended = True
            for rendition in self.renditions.values():
                rendition.end()

    def _drop_feeds(self) -> None:
        self._feeds.clear()
        self._held.clear()
        self._held_bytes = 0

    # What renditions need of the worker

    def make(self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done) -> None:
        if self._worker is None:
            done(b"", b"")
        else:
            self._worker.fragments.make(track, packets, durations, index, done)

    def then(self, done: Callable[[], None]) -> None:
        if self._worker is None:
            done()
        else:
            self._worker.fragments.then(done)

    # What its session's lanes say

    def source(self, track_pipeline: TrackPipeline, packet: EncodedPacket) -> None:
        track, hls_transcoding = track_pipeline.track, self._hls_transcoding
        if hls_transcoding is None or forbidden(track_pipeline):
            return
        if track.kind is Kind.AUDIO:
            if fits(track):
                self._push(_SOUND, track, packet)
            else:
                hls_transcoding.sound(track, packet)
        elif fits(track):
            hls_transcoding.no_picture()
            name = _named(track.layer)
            self._push(name, track, packet)
            if (publisher := self._publisher_to_ask(name)) is not None:
                track_pipeline.request_keyframe_from(publisher)
        elif makes_h264(track_pipeline):
            hls_transcoding.no_picture()
        else:
            hls_transcoding.picture(track_pipeline, packet)

    def output(self, track_pipeline: TrackPipeline, packet: EncodedPacket) -> None:
        source, stage = track_pipeline.track, track_pipeline.stage
        if source.kind is not Kind.VIDEO or stage is None:
            return
        track = next((each for each in stage.tracks if each.layer == packet.layer), None)
        if track is None or track.codec is not Codec.H264:
            return
        top = track is stage.tracks[0]
        if not fits(source):
            if not makes_h264(track_pipeline):
                return
            layer = "" if top else packet.layer  # as what is made here has none
        elif track.codec is source.codec and track.height >= source.height:
            return  # the source itself is better
        else:
            layer = (source.layer if top else packet.layer) or track.codec.value
        name = _named(layer)
        self._push(name, track, packet)
        if (publisher := self._publisher_to_ask(name)) is not None:
            track_pipeline.request_keyframe(publisher, packet.layer)

    def _made(self, track: Track, packet: EncodedPacket) -> None:
        """AAC or H.264, by the worker."""
        name = _SOUND if track.kind is Kind.AUDIO else _PICTURE
        self._push(name, track, packet)
        if self._hls_transcoding is not None and name == _PICTURE and self._publisher_to_ask(name) is not None:
            self._hls_transcoding.request_keyframe()

    def _publisher_to_ask(self, name: str) -> Publisher | None:
        """For a key frame, where one is wanted and somebody is there to ask."""
        feed = self._feeds.get(name)
        return (
            self._session.publisher if self._session is not None and feed is not None and self._wants_keyframe(feed) else None
        )

    def _wants_keyframe(self, feed: _Feed) -> bool:
        if feed.rendition is not None:
            return feed.rendition.wants_keyframe
        first = next((packet for held, packet in self._held if held is feed), None)
        last = next((packet for held, packet in reversed(self._held) if held is feed), None)
        if first is None or last is None:
            return True  # nothing to begin with yet
        return last.dts - first.dts > self._policy.segment - 150 * MS

    # Into the renditions

    def _push(self, name: str, track: Track, packet: EncodedPacket) -> None:
        if self._session is None:
            return
        if self._session.reconnects != self._reconnects:
            self._reconnects = self._session.reconnects
            self._interrupt()
        feed = self._feed(name, track, packet)
        if feed is None:
            return
        if self._shift is None:
            self._shift = self._end + 40 * MS - packet.dts
            self._wall = time_ns() - (packet.dts + self._shift)
        packet = replace(packet, pts=packet.pts + self._shift, dts=packet.dts + self._shift)
        self._end = max(self._end, packet.dts)
        last = feed.rendition.last if feed.rendition is not None else None
        if last is not None and feed.rendition is not None and packet.dts - last.dts > _JUMP:
            if any(rendition.fresh for rendition in self.renditions.values()):
                feed.rendition.pause()  # one is under way already, and all must have as many
            else:
                self._interrupt()
        if self._timing is None:
            self._hold(feed, packet)
        else:
            self._rendition(feed, self._timing).push(packet)

    def _feed(self, name: str, track: Track, packet: EncodedPacket) -> _Feed | None:
        """The feed of this track, with what is true of it from this packet on; None before its first key frame."""
        feed = self._feeds.get(name)
        if feed is not None and feed.track is track and not (packet.keyframe and not track.extradata):
            return feed
        described = _described(track, packet)
        if feed is None:
            if described is None or len(self._feeds) >= _MOST_RENDITIONS:
                return None
            feed = self._feeds[name] = _Feed(name, track, described)
            return feed
        feed.track = track
        if described is not None and _differs(feed.described, described):
            feed.described = described
            if feed.rendition is not None:
                self._change(feed.rendition, described)
        return feed

    def _change(self, rendition: Rendition, track: Track) -> None:
        """A rendition is of another kind from here on: a discontinuity, unless it is at one."""
        if not rendition.fresh:
            self._interrupt()
        rendition.interrupt(track)

    def _interrupt(self) -> None:
        """A discontinuity, for all renditions alike."""
        self._interruptions += 1
        self._wall = time_ns() - self._end
        for rendition in self.renditions.values():
            rendition.interrupt(rendition.track)

    def _rendition(self, feed: _Feed, timing: Timing) -> Rendition:
        if feed.rendition is None:
            rendition = self.renditions.get(feed.name)
            if rendition is None:
                path = f"{self.cid.replace(':', '/')}/{self.id}/{feed.name}"
                rendition = self.renditions[feed.name] = Rendition(
                    feed.name,
                    path,
                    feed.described,
                    timing,
                    self._policy,
                    self._totals,
                    self,
                    self._archive,
                    self.protocol,
                    self._date,
                    self._interruptions,
                )
                rendition.reports = partial(self._reports, rendition)
            elif _differs(rendition.track, feed.described):
                self._change(rendition, feed.described)
            feed.rendition = rendition
        return feed.rendition

    def _date(self, time: int) -> int:
        return self._wall + time

    def _reports(self, asking: Rendition) -> list[Report]:
        others = (each.report for each in self.renditions.values() if each is not asking)
        return [report for report in others if report is not None]

    # The first group of pictures decides the target durations

    def _hold(self, feed: _Feed, packet: EncodedPacket) -> None:
        if feed.described.kind is Kind.VIDEO and not packet.keyframe and not any(held is feed for held, _ in self._held):
            return
        self._held.append((feed, packet))
        self._held_bytes += len(packet.data)
        self._timing = self._decided(packet)
        if self._timing is not None:
            held, self._held = self._held, []
            for each, waiting in held:
                self._rendition(each, self._timing).push(waiting)

    def _decided(self, packet: EncodedPacket) -> Timing | None:
        video = next((feed for feed, _ in self._held if feed.described.kind is Kind.VIDEO), None)
        waited = packet.dts - self._held[0][1].dts
        full = self._held_bytes > _MOST_HELD or waited > LONGEST_GOP
        if video is None:
            coming = self._session is not None and not all(
                forbidden(track_pipeline) for track_pipeline in pictures(self._session)
            )
            return Timing.of(self._policy.segment, 0, 22 * MS) if full or (waited > _WAIT_FOR_VIDEO and not coming) else None
        times = [held.dts for feed, held in self._held if feed is video]
        keys = [held.dts for feed, held in self._held if feed is video and held.keyframe]
        if len(keys) < 2 and not full:
            return None
        frames = sorted(later - earlier for earlier, later in pairwise(times)) or [33 * MS]
        gop = keys[1] - keys[0] if len(keys) > 1 else LONGEST_GOP
        return Timing.of(self._policy.segment, gop, frames[min(len(frames) - 1, int(len(frames) * _SHARE_OF_FRAMES))])

    # What is served

    @property
    def ready(self) -> bool:
        """There is something to play in every rendition, or in one for so long that the others are not worth waiting for."""
        all_of_it = bool(self.renditions) and all(rendition.ready for rendition in self.renditions.values())
        return all_of_it or any(len(rendition.playlist.segments) > _ENOUGH_SEGMENTS for rendition in self.renditions.values())

    def multivariant(self, prefix: str = "") -> str:
        """The playlist of playlists, whose addresses begin with `prefix`."""
        variants = {
            name: replace(each.variant, uri=f"{prefix}{name}/{PLAYLIST}")
            for name, each in self.renditions.items()
            if each.ready
        }
        sound = variants.pop(_SOUND, None)
        return multivariant(sorted(variants.values(), key=lambda each: -each.track.height), sound)


def _named(layer: str) -> str:
    return f"{_PICTURE}-{layer}" if layer else _PICTURE


def _described(track: Track, packet: EncodedPacket) -> Track | None:
    """With its parameter sets: what comes out of an encoder of ours has them in its key frames alone."""
    if track.extradata:
        return track
    if not packet.keyframe:
        return None
    stream = NalStream(track.codec, track.id)
    try:
        stream.annexb(packet.data)
    except ProtocolError:
        return None
    found = stream.track
    return None if found is None else replace(found, layer=track.layer, frame_rate=found.frame_rate or track.frame_rate)


def _differs(before: Track, after: Track) -> bool:
    """Whether a player must be told."""
    return (before.codec, before.extradata, before.width, before.height) != (
        after.codec,
        after.extradata,
        after.width,
        after.height,
    )
