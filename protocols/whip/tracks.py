"""Frames of a publisher's RTP streams into the media that the session takes: access units as `protocols.media` has them, and tracks, one
for each layer of a simulcast. Sans-IO.

What is kept true: a track begins, and goes on after a loss, with a key frame, because viewers cannot see what is missing; a layer that
gives nothing while the others of its line do is no track until its next key frame; a track's packets rise in dts.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace

from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.unit import AccessUnit
from protocols.bitstream.vpx import VpxStream
from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from protocols.webrtc.receive import depacketize
from protocols.webrtc.receive.jitter import ReceivedFrame
from protocols.webrtc.receive.stream import Stream
from protocols.webrtc.rtp import ReceiveParameters
from protocols.whip.passing import PassingH264

_STALE_NS = 1_000_000_000  # a layer that gave no whole frame for this long is none,
_STALE_FRAMES = 10  # if the others of its line gave so many: a screen on which nothing moves has few frames in any layer
_LEFT_NS = 4_000_000_000  # and is none for this long at least: each change costs all its viewers a key frame
_MOST_LAYERS = 16  # of a line, for the numbering; the answer agrees on fewer
_STEP_NS = 1_000_000

# RFC 7845 §5.1: version, two channels (RFC 7587 §7: a decoder's output, mono or not), no pre-skip, 48 kHz, no gain, family 0
_OPUS_HEAD = b"OpusHead\x01\x02\x00\x00\x80\xbb\x00\x00\x00\x00\x00"

Item = TracksChanged | EncodedPacket


class _Opus:
    """The sound as it is."""

    def __init__(self, track_id: int) -> None:
        self.track: Track | None = Track(track_id, Codec.OPUS, _OPUS_HEAD, sample_rate=48_000, channels=2)

    def frame(self, data: bytes) -> AccessUnit:
        return AccessUnit(data, True, False)


class _Layer:
    """One stream: its bitstream, its times, and whether what comes can be decoded."""

    def __init__(self, stream: Stream, track_id: int) -> None:
        self.stream = stream
        self.track_id = track_id
        self.waiting = stream.parameters.kind is Kind.VIDEO  # for a key frame
        self.last = 0  # arrival of the last frame that could be decoded
        self.back = 0  # when it may be a track again, after it was left
        self.missed = 0  # frames of the line's other layers since then
        self.shown: Track | None = None  # as it was told last; None: it is no track now
        self._facts: Track | None = None
        self._last_dts: int | None = None
        self._reordering: list[int] = []
        self._codec: Codec | None = None
        self._take: Callable[[Sequence[bytes]], tuple[AccessUnit, tuple[bytes, ...]]]
        self._bitstream: PassingH264 | NalStream | VpxStream | Av1Stream | _Opus

    def describe(self) -> bool:
        """Whether the track is another from here on, or is one again."""
        facts = self._bitstream.track
        if facts is None or (facts is self._facts and self.shown is not None):
            return False
        self._facts, self.shown = facts, replace(facts, layer=self.stream.rid)
        return True

    def stale(self, now: int) -> bool:
        return now - self.last > _STALE_NS and self.missed > _STALE_FRAMES

    def assemble(self, frame: ReceivedFrame) -> tuple[AccessUnit, tuple[bytes, ...]]:
        """The frame, and its payloads where they may be sent as they are. Raises `ProtocolError` for what is broken."""
        codec = self.stream.parameters.formats[frame.payload_type].codec
        if codec is not self._codec:
            self._open(codec)
        depacketize.check(frame.payloads)
        return self._take(frame.payloads)

    def _open(self, codec: Codec) -> None:
        self._codec = codec
        self.waiting = codec.kind is Kind.VIDEO
        if codec is Codec.H264:
            passing = self._bitstream = PassingH264(self.track_id)
            self._take = passing.take
        else:
            whole, unit = depacketize.FORMATS[codec].frame, self._units(codec)
            self._take = lambda payloads: (unit(whole(payloads)), ())

    def _units(self, codec: Codec) -> Callable[[bytes], AccessUnit]:
        match codec:
            case Codec.VP8 | Codec.VP9:
                vpx = self._bitstream = VpxStream(codec, self.track_id)
                return vpx.frame
            case Codec.AV1:
                av1 = self._bitstream = Av1Stream(self.track_id)
                return av1.temporal_unit
            case Codec.OPUS:
                opus = self._bitstream = _Opus(self.track_id)
                return opus.frame
            case _:
                nal = self._bitstream = NalStream(codec, self.track_id)
                return nal.annexb

    def stamp(self, pts: int) -> tuple[int, int]:
        """(pts, dts). RTP tells when a frame is shown; with B-frames it is decoded when the smallest pts still to come is due."""
        reorder = (self.shown.reorder or 0) if self.shown else 0
        dts = pts
        if reorder:
            heapq.heappush(self._reordering, pts)
            missing = reorder + 1 - len(self._reordering)
            dts = self._reordering[0] - missing * _STEP_NS if missing > 0 else heapq.heappop(self._reordering)
        if self._last_dts is not None and dts <= self._last_dts:
            dts = self._last_dts + _STEP_NS
        self._last_dts = dts
        return max(pts, dts), dts


class _Line:
    """One m-line and its layers, by rid."""

    def __init__(self, number: int) -> None:
        self.layers: dict[str, _Layer] = {}
        self._first_id = number * _MOST_LAYERS

    def layer(self, stream: Stream) -> _Layer:
        layer = self.layers.get(stream.rid)
        if layer is None or layer.stream is not stream:
            track_id = layer.track_id if layer is not None else self._first_id + len(self.layers)
            layer = self.layers[stream.rid] = _Layer(stream, track_id)
        return layer

    @property
    def tracks(self) -> list[Track]:
        """The layers that there are now, the largest first."""
        tracks = [layer.shown for layer in self.layers.values() if layer.shown is not None]
        return sorted(tracks, key=lambda track: -track.width * track.height)


class Tracks:
    """Takes each frame; `on_item` gets what the session is to see, `on_keyframe_wanted` the streams that need one."""

    def __init__(
        self,
        lines: tuple[ReceiveParameters, ...],
        on_item: Callable[[Item], None],
        on_keyframe_wanted: Callable[[Stream], None],
    ) -> None:
        self.broken = self.undecodable = 0
        self._lines = {id(parameters): _Line(number) for number, parameters in enumerate(lines)}
        self._on_item = on_item
        self._on_keyframe_wanted = on_keyframe_wanted

    @property
    def streams(self) -> dict[str, Stream]:
        """The streams whose pictures are published, by layer."""
        layers = [layer for line in self._lines.values() for layer in line.layers.values() if layer.shown is not None]
        return {layer.stream.rid: layer.stream for layer in reversed(layers) if layer.stream.parameters.kind is Kind.VIDEO}

    def frame(self, stream: Stream, frame: ReceivedFrame) -> None:
        line = self._lines[id(stream.parameters)]
        layer = line.layer(stream)
        video = stream.parameters.kind is Kind.VIDEO
        if frame.arrival < layer.back:
            return
        layer.waiting = layer.waiting or (video and not frame.continuous)
        media = stream.clock.media(frame.timestamp, frame.arrival)
        try:
            unit, payloads = layer.assemble(frame)
        except ProtocolError:
            self.broken += 1
            self._lose(layer)
            return
        if not unit.data:
            return
        if video and not self._decodable(layer, unit):
            self.undecodable += 1
            return
        layer.last, layer.missed = frame.arrival, 0
        if len(line.layers) > 1:
            self._leave_stale(line, layer, frame.arrival)
        if layer.describe():
            self._tell()
        pts, dts = layer.stamp(media)
        self._on_item(
            EncodedPacket(layer.track_id, pts, dts, unit.keyframe, unit.data, frame.begun, frame.arrival, stream.rid, payloads)
        )

    def _decodable(self, layer: _Layer, unit: AccessUnit) -> bool:
        if unit.keyframe:
            layer.waiting = False
            layer.stream.keyframe_came()
        elif layer.waiting:
            self._on_keyframe_wanted(layer.stream)
        return not layer.waiting

    def _lose(self, layer: _Layer) -> None:
        if layer.stream.parameters.kind is Kind.VIDEO:
            layer.waiting = True
            self._on_keyframe_wanted(layer.stream)

    def _leave_stale(self, line: _Line, present: _Layer, now: int) -> None:
        """`present` has given a frame: a layer that gives none any more is left."""
        for layer in line.layers.values():
            layer.missed += layer is not present
            if layer.shown is not None and layer.stale(now):
                layer.shown, layer.waiting, layer.back = None, True, now + _LEFT_NS
                self._tell()

    def _tell(self) -> None:
        self._on_item(TracksChanged(tuple(track for line in self._lines.values() for track in line.tracks)))
