"""One source's video packets to pictures, whatever the packets are. Worker side: imports libav.

Keeps true: pictures leave in the decoder's order with the time of their packet; what cannot be decoded costs what depends on it, no more.
Decoders have one thread and never the types AUTO or FRAME: closing those hangs PyAV 18.1 for good.
"""

from typing import Any, NamedTuple

from av import FFmpegError, Packet, VideoFrame
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext

from protocols.bitstream.h264_order import H264PictureOrder
from protocols.media import Codec, EncodedPacket
from transcode.worker.presentation import Presentation

_DECODERS = {
    Codec.H264: ("h264", {}),
    Codec.HEVC: ("hevc", {}),
    Codec.AV1: ("libdav1d", {"max_frame_delay": "1"}),  # by name: libav's own `av1` only drives hardware
    Codec.VP8: ("vp8", {}),
    Codec.VP9: ("vp9", {}),
}
_START_CODE = b"\0\0\0\1"
# H.264 §7.3.2.5: libav's decoder gives one of the pictures that it holds for each, and is not changed by it.
_END_OF_SEQUENCE = b"\0\0\1\x0a"
_PARAMETER_SETS = {  # shift of the unit type in its first byte, its mask, the types (H.264 table 7-1, H.265 table 7-1)
    Codec.H264: (0, (0x1F, 7, 8)),
    Codec.HEVC: (1, (0x3F, 32, 33, 34)),
}
_MAX_PIXELS = 8192 * 4352
_ERRORS_TO_RESYNC = 8  # refused packets in a row after which only a key frame helps
_MAX_STAMPS = 128  # packets in the decoder at most: H.264 and HEVC hold 16, frames lost in it leave theirs behind


class Stamp(NamedTuple):
    """What a picture has of the packet that it came in."""

    begun: int
    arrival: int
    keyframe: bool


class VideoDecoder:
    """`take` a packet, get the pictures that are due."""

    def __init__(self, codec: Codec) -> None:
        self.decoded = self.errors = self.dropped = 0
        self._codec = codec
        self._decoder: VideoCodecContext | None = None
        self._stamps: dict[int, Stamp] = {}  # by pts
        self._parameter_sets = b""  # of the source's last key frame
        self._errors_in_row = 0
        self._needs_keyframe = True
        self._order = H264PictureOrder()
        self._presentation = Presentation()

    def take(self, packet: EncodedPacket) -> list[VideoFrame]:
        if self._needs_keyframe and not packet.keyframe:
            self.dropped += 1
            return []
        self._stamps[packet.pts] = Stamp(packet.begun, packet.arrival, packet.keyframe)
        if len(self._stamps) > _MAX_STAMPS:
            del self._stamps[next(iter(self._stamps))]
        held = self._follow_parameter_sets(packet) if packet.keyframe else []
        return [*held, *self._decode(packet)]

    def drain(self) -> list[VideoFrame]:
        """The end: the pictures that are still held."""
        decoder, self._decoder = self._decoder, None
        if decoder is None or self._needs_keyframe:
            return []
        try:
            return [frame for frame in decoder.decode(None) if isinstance(frame, VideoFrame)]
        except FFmpegError:
            self.errors += 1
            return []

    def restart(self) -> None:
        """Forget everything: the next key frame is the beginning."""
        self._needs_keyframe = True
        self._errors_in_row = 0
        self._decoder = None
        self._stamps.clear()
        self._presentation = Presentation()

    def stamp(self, pts: int) -> Stamp:
        """What is known of the packet of this picture; of the oldest one where the picture's time was changed on the way."""
        return self._stamps.pop(pts, None) or next(iter(self._stamps.values()), Stamp(0, 0, False))

    def _decode(self, packet: EncodedPacket) -> list[VideoFrame]:
        place = self._order.place(packet.data) if self._order.known else None
        frames: list[VideoFrame] = []
        try:
            if self._decoder is None:
                self._decoder = _open(self._codec, self._order.known)
            if place is not None and place.idr:
                frames += self._empty()
            frames += _frames(self._decoder, _coded(packet.data, packet.pts, packet.dts))
            if place is not None:
                self._presentation.decoded(packet.pts, packet.dts, place)
                frames += self._due(frames)
            self._errors_in_row = 0
            self._needs_keyframe = False
        except FFmpegError:
            self.errors += 1
            self._errors_in_row += 1
            if self._errors_in_row >= _ERRORS_TO_RESYNC:
                self.restart()  # with a new decoder: what state the refused packets left is not worth knowing
        self.decoded += len(frames)
        return frames

    def _empty(self) -> list[VideoFrame]:
        """The pictures that are still held at an IDR picture. With them the decoder forgets up to where it has itself put pictures out: it
        knows nothing of those that it was asked for, and would take the first of the new count for late."""
        assert self._decoder is not None
        frames = _frames(self._decoder, None)
        self._decoder.flush_buffers()
        return frames

    def _due(self, frames: list[VideoFrame]) -> list[VideoFrame]:
        """The pictures that need not wait in the decoder, after it has given these by itself."""
        assert self._decoder is not None
        due: list[VideoFrame] = []
        for frame in frames:
            self._presentation.shown(frame.pts or 0)
        while self._presentation.due:
            asked = _frames(self._decoder, _coded(_END_OF_SEQUENCE))
            if not asked:
                break  # it shows none of those
            for frame in asked:
                self._presentation.shown(frame.pts or 0)
            due += asked
        return due

    def _follow_parameter_sets(self, packet: EncodedPacket) -> list[VideoFrame]:
        """The pictures still held at a key frame with other parameter sets, for which a new decoder starts: libav would drop them."""
        sets = parameter_sets(packet.data, self._codec)
        changed = self._decoder is not None and sets != self._parameter_sets
        if sets != self._parameter_sets and self._codec is Codec.H264:
            self._order.follow(sets)
            self._presentation = Presentation()
        self._parameter_sets = sets
        return self.drain() if changed else []


def parameter_sets(data: bytes, codec: Codec) -> bytes:
    """The parameter sets in an access unit (Annex B), as Annex B; nothing for codecs that have none."""
    if codec not in _PARAMETER_SETS:
        return b""
    shift, types = _PARAMETER_SETS[codec]
    units = data.replace(_START_CODE, _START_CODE[1:]).split(_START_CODE[1:])
    return b"".join(_START_CODE + unit for unit in units if unit and unit[0] >> shift & types[0] in types[1:])


def _open(codec: Codec, ordered: bool) -> VideoCodecContext:
    name, options = _DECODERS[codec]
    decoder = CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoder.options = {**options, "max_pixels": str(_MAX_PIXELS)}
    if ordered:
        # Where a stream does not say how many may have to wait: as many as its level allows, not as few as were seen to.
        decoder.options["strict"] = "strict"
    decoder.open()
    return decoder


def _coded(data: bytes, pts: int | None = None, dts: int | None = None) -> "Packet[Any]":
    coded: Packet[Any] = Packet(len(data))  # libav's own padded memory: a zero-copy packet has no padding to read beyond
    coded.update(data)
    coded.pts = pts
    coded.dts = dts
    return coded


def _frames(decoder: VideoCodecContext, coded: "Packet[Any] | None") -> list[VideoFrame]:
    return [frame for frame in decoder.decode(coded) if isinstance(frame, VideoFrame)]
