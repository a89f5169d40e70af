"""Frames of a publisher's RTP streams into the media that the session takes: access units in house form, tracks, and of a simulcast the
best layer that comes whole. Sans-IO.

What is kept true: video begins, and goes on after a loss, with a key frame, because viewers cannot see what is missing; the layer changes
only at a key frame; a line's packets rise in dts.
"""

import heapq
from collections.abc import Callable

from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.unit import AccessUnit
from protocols.bitstream.vpx import VpxStream
from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from protocols.webrtc import depacketize
from protocols.webrtc.jitter import Frame
from protocols.webrtc.rtp import ReceiveParameters
from protocols.webrtc.stream import Stream

_STALE_NS = 1_000_000_000  # a layer that gave no whole frame for this long is none
_STEP_NS = 1_000_000

# RFC 7845 §5.1: version, two channels (RFC 7587 §7: a decoder's output, mono or not), no pre-skip, 48 kHz, no gain, family 0
_OPUS_HEAD = b"OpusHead\x01\x02\x00\x00\x80\xbb\x00\x00\x00\x00\x00"

Item = TracksChanged | EncodedPacket


class _Opus:
    """The sound as it is."""

    def __init__(self, track_id: int) -> None:
        self.track: Track | None = Track(track_id, Codec.OPUS, _OPUS_HEAD, sample_rate=48_000, channels=2)

    def take(self, data: bytes) -> AccessUnit:
        return AccessUnit(data, True, False)


class _Layer:
    """One stream: its bitstream, and whether what comes can be decoded."""

    def __init__(self, stream: Stream, track_id: int) -> None:
        self.stream = stream
        self.waiting = stream.parameters.kind is Kind.VIDEO  # for a key frame
        self.last = 0  # arrival of the last frame that could be decoded
        self._track_id = track_id
        self._codec: Codec | None = None
        self._take: Callable[[bytes], AccessUnit]
        self._bitstream: NalStream | VpxStream | Av1Stream | _Opus

    @property
    def track(self) -> Track | None:
        return self._bitstream.track if self._codec is not None else None

    @property
    def area(self) -> int:
        track = self.track
        return track.width * track.height if track else 0

    def assemble(self, frame: Frame) -> AccessUnit:
        """Raises `ProtocolError` for what is broken."""
        codec = self.stream.parameters.formats[frame.payload_type].codec
        if codec is not self._codec:
            self._open(codec)
        depacketize.check(frame.payloads)
        return self._take(depacketize.FORMATS[codec].frame(frame.payloads))

    def _open(self, codec: Codec) -> None:
        match codec:
            case Codec.VP8 | Codec.VP9:
                vpx = self._bitstream = VpxStream(codec, self._track_id)
                self._take = vpx.frame
            case Codec.AV1:
                av1 = self._bitstream = Av1Stream(self._track_id)
                self._take = av1.temporal_unit
            case Codec.OPUS:
                opus = self._bitstream = _Opus(self._track_id)
                self._take = opus.take
            case _:
                nal = self._bitstream = NalStream(codec, self._track_id)
                self._take = nal.annexb
        self._codec = codec
        self.waiting = codec.kind is Kind.VIDEO


class _Line:
    """One m-line: its layers, and the one that is published."""

    def __init__(self, track_id: int) -> None:
        self.track_id = track_id
        self.layers: dict[str, _Layer] = {}
        self.current: _Layer | None = None
        self.track: Track | None = None
        self._last_dts: int | None = None
        self._reordering: list[int] = []

    def prefers(self, layer: _Layer, now: int) -> bool:
        """Whether `layer` is to be published in place of the present one."""
        current = self.current
        return current is None or layer.area > current.area or now - current.last > _STALE_NS

    def stamp(self, pts: int) -> tuple[int, int]:
        """(pts, dts). RTP tells when a frame is shown; with B-frames it is decoded when the smallest pts still to come is due."""
        reorder = (self.track.reorder or 0) if self.track else 0
        dts = pts
        if reorder:
            heapq.heappush(self._reordering, pts)
            missing = reorder + 1 - len(self._reordering)
            dts = self._reordering[0] - missing * _STEP_NS if missing > 0 else heapq.heappop(self._reordering)
        if self._last_dts is not None and dts <= self._last_dts:
            dts = self._last_dts + _STEP_NS
        self._last_dts = dts
        return max(pts, dts), dts


class Tracks:
    """Takes each frame; `emit` gets what the session is to see, `want_keyframe` the streams that need one."""

    def __init__(
        self,
        lines: tuple[ReceiveParameters, ...],
        emit: Callable[[Item], None],
        want_keyframe: Callable[[Stream], None],
    ) -> None:
        self.broken = self.undecodable = 0
        self._lines = {id(parameters): _Line(number) for number, parameters in enumerate(lines)}
        self._emit = emit
        self._want_keyframe = want_keyframe

    @property
    def video(self) -> Stream | None:
        """The stream whose pictures are published."""
        for line in self._lines.values():
            if line.current is not None and line.current.stream.parameters.kind is Kind.VIDEO:
                return line.current.stream
        return None

    def frame(self, stream: Stream, frame: Frame) -> None:
        line = self._lines[id(stream.parameters)]
        layer = line.layers.get(stream.rid)
        if layer is None or layer.stream is not stream:
            if layer is not None and line.current is layer:
                line.current = None
            layer = line.layers[stream.rid] = _Layer(stream, line.track_id)
        video = stream.parameters.kind is Kind.VIDEO
        layer.waiting = layer.waiting or (video and not frame.continuous)
        media = stream.clock.media(frame.timestamp, frame.arrival)
        try:
            unit = layer.assemble(frame)
        except ProtocolError:
            self.broken += 1
            self._lose(layer)
            return
        if not unit.data:
            return
        if video and not self._decodable(layer, unit):
            self.undecodable += 1
            return
        layer.last = frame.arrival
        if layer is not line.current and not self._switch(line, layer, unit, frame.arrival):
            return
        if layer.track is not line.track:
            self._change(line, layer)
        pts, dts = line.stamp(media)
        self._emit(EncodedPacket(line.track_id, pts, dts, unit.keyframe, unit.data, frame.begun, frame.arrival))

    def _decodable(self, layer: _Layer, unit: AccessUnit) -> bool:
        if unit.keyframe:
            layer.waiting = False
            layer.stream.keyframe_came()
        elif layer.waiting:
            self._want_keyframe(layer.stream)
        return not layer.waiting

    def _lose(self, layer: _Layer) -> None:
        if layer.stream.parameters.kind is Kind.VIDEO:
            layer.waiting = True
            self._want_keyframe(layer.stream)

    def _switch(self, line: _Line, layer: _Layer, unit: AccessUnit, now: int) -> bool:
        """Whether this frame is the first of another layer."""
        if not line.prefers(layer, now):
            return False
        if not unit.keyframe:
            self._want_keyframe(layer.stream)
            return False
        line.current = layer
        return True

    def _change(self, line: _Line, layer: _Layer) -> None:
        line.track = layer.track
        tracks = (each.track for each in self._lines.values())
        self._emit(TracksChanged(tuple(track for track in tracks if track is not None)))
