"""Any video to H.264 without reordering, on the source's timeline. Worker side: imports libav.

Keeps true: every picture of the source leaves once, in presentation order, with its own time (a varying frame rate stays varying), up to
the limits of size and rate; what need not be converted is not. Decoders have one thread and never the types AUTO or FRAME: closing those
hangs PyAV 18.1 for good.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from av import FFmpegError, Packet, VideoFrame
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

from protocols.media import Codec, EncodedPacket, Track
from transcode.economy import effort
from transcode.encoders import KEYFRAME_SECONDS, NANOSECOND, UNKNOWN_FRAME_RATE, open_h264
from transcode.h264 import ENCODERS, X264
from transcode.picture import FrameRate, Picture
from transcode.plan import VideoTarget, start_bitrate

_SECOND = 1_000_000_000
_DECODERS = {
    Codec.H264: ("h264", {}),
    Codec.HEVC: ("hevc", {}),
    Codec.AV1: ("libdav1d", {"max_frame_delay": "1"}),  # by name: libav's own `av1` only drives hardware
    Codec.VP8: ("vp8", {}),
    Codec.VP9: ("vp9", {}),
}
_START_CODE = b"\0\0\0\1"
_PARAMETER_SETS = {  # shift of the unit type in its first byte, its mask, the types (H.264 table 7-1, H.265 table 7-1)
    Codec.H264: (0, (0x1F, 7, 8)),
    Codec.HEVC: (1, (0x3F, 32, 33, 34)),
}
_MAX_PIXELS = 8192 * 4352
_ERRORS_TO_RESYNC = 8  # refused packets in a row after which only a key frame helps
_MAX_STAMPS = 128  # packets in the decoder at most: H.264 and HEVC hold 16, frames lost in it leave theirs behind
_BACKWARD_JUMP = _SECOND  # pictures late by less are out of order, by more are of a source that started its clock anew
_LEAST_BITRATE = 50_000
_CUT = 0.8  # a bitrate that falls below this part of the present one is set at once, at the cost of a key frame


class VideoTranscoder:
    """One video track: `take` a source packet, get the H.264 packets that come of it."""

    def __init__(
        self,
        track: Track,
        target: VideoTarget,
        shown: int | None = None,
        *,
        note: Callable[[str], None] = lambda text: None,
        open_encoder: Callable[[VideoFrame, float, int, str, str], VideoCodecContext] = open_h264,
    ) -> None:
        """Pictures up to the pts `shown` (ns) have been shown in another way: they are only references for what follows. `note` is told
        what the operator should know."""
        self._note = note
        self._open_h264 = open_encoder
        self._encoder_name = target.encoder
        self._target = target
        self._shown = shown
        self._bitrate = target.bitrate
        self._told = False  # the bitrate, by the call
        self._level = 0  # steps below the plan
        self._opened_level = 0  # of the open encoder
        self._frame_bits = 0.0  # what the open encoder spends on a picture
        self._last_keyframe = 0
        self._rate = FrameRate(min(target.frame_rate or UNKNOWN_FRAME_RATE, target.max_frame_rate))
        self.output = Track(
            track.id, Codec.H264, width=target.width, height=target.height, frame_rate=target.frame_rate, reorder=0
        )
        self.decoded = self.encoded = self.errors = self.dropped = 0
        self._track = track
        self._decoder: VideoCodecContext | None = None
        self._encoder: VideoCodecContext | None = None
        self._picture = Picture(track.interlaced, target, pix_fmt=ENCODERS[target.encoder].pix_fmt)
        self._stamps: dict[int, tuple[int, int]] = {}  # pts -> begun, arrival of the packet
        self._parameter_sets = b""  # of the source's last key frame
        self._errors_in_row = 0
        self._needs_keyframe = True  # of the source
        self._keyframe_wanted = False  # of our encoder
        self._last_pts: int | None = None
        self._due = 0  # the next picture within the rate limit

    def reopen(self, track: Track) -> None:
        """The source has changed. Its parameter sets come in band, so the decoder follows by itself, from the next key frame on."""
        self._track = track
        self._picture = Picture(track.interlaced, self._target, self._level, ENCODERS[self._encoder_name].pix_fmt)

    def request_keyframe(self) -> None:
        self._keyframe_wanted = True

    def set_bitrate(self, bits_per_second: int) -> None:
        self._told = True
        self._bitrate = max(_LEAST_BITRATE, min(bits_per_second, self._target.max_bitrate))

    def set_economy(self, level: int) -> None:
        """Work `level` steps below the plan: a step down at once, a step up of the preset alone with the next key frame."""
        self._level = self._picture.level = level

    def take(self, packet: EncodedPacket, silent: bool = False) -> Iterator[EncodedPacket]:
        """Decode one source packet. `silent`: its pictures are only references for what follows, nothing comes out."""
        if self._needs_keyframe and not packet.keyframe:
            self.dropped += 1
            return
        self._stamps[packet.pts] = (packet.begun, packet.arrival)
        if len(self._stamps) > _MAX_STAMPS:
            del self._stamps[next(iter(self._stamps))]
        held = self._follow_parameter_sets(packet) if packet.keyframe else []
        for frame in [*held, *self._decode(packet)]:
            if not silent:
                yield from self._show(frame)

    def finish(self) -> Iterator[EncodedPacket]:
        """The end: the pictures that the decoder and the deinterlacer still hold."""
        if self._decoder is not None and not self._needs_keyframe:
            for frame in self._drain(self._decoder):
                yield from self._show(frame)
            for picture in self._picture.flush():
                yield from self._encode(picture)
        if self._encoder is not None:  # x264 holds nothing back; one in hardware may
            yield from self._coded(self._encode_with(self._encoder, None) or [])

    def _decode(self, packet: EncodedPacket) -> list[VideoFrame]:
        coded = Packet(len(packet.data))  # libav's own padded memory: a zero-copy packet has no padding to read beyond
        coded.update(packet.data)
        coded.pts = packet.pts
        coded.dts = packet.dts
        try:
            if self._decoder is None:
                self._decoder = _open_decoder(self._track.codec)
            frames = [frame for frame in self._decoder.decode(coded) if isinstance(frame, VideoFrame)]
        except FFmpegError:
            self.errors += 1
            self._errors_in_row += 1
            if self._errors_in_row >= _ERRORS_TO_RESYNC:
                self._resync()
            return []
        self._errors_in_row = 0
        self._needs_keyframe = False
        self.decoded += len(frames)
        return frames

    def _follow_parameter_sets(self, packet: EncodedPacket) -> list[VideoFrame]:
        """The pictures still held at a key frame with other parameter sets, for which a new decoder starts: libav would drop them."""
        sets = parameter_sets(packet.data, self._track.codec)
        changed = self._decoder is not None and sets != self._parameter_sets
        self._parameter_sets = sets
        if not changed or self._decoder is None:
            return []
        decoder, self._decoder = self._decoder, None
        return self._drain(decoder)

    def _drain(self, decoder: VideoCodecContext) -> list[VideoFrame]:
        try:
            return [frame for frame in decoder.decode(None) if isinstance(frame, VideoFrame)]
        except FFmpegError:
            self.errors += 1
            return []

    def _resync(self) -> None:
        self._needs_keyframe = True
        self._errors_in_row = 0
        self._decoder = None  # a new one: what state the refused packets left is not worth knowing
        self._stamps.clear()

    def _show(self, frame: VideoFrame) -> Iterator[EncodedPacket]:
        """Put one decoded picture out, if it is in order and within the rate limit."""
        pts = frame.pts
        if pts is not None and self._shown is not None and pts <= self._shown:
            return
        last = self._last_pts
        if pts is None or (last is not None and last - _BACKWARD_JUMP < pts <= last):
            self.dropped += 1  # a decoder that has not learned the reordering yet
            return
        if last is None or pts <= last:
            self._due = pts
        self._last_pts = pts
        if not self._within_rate(pts):
            self.dropped += 1
            return
        self._rate.measure(pts)
        frame.time_base = NANOSECOND
        for picture in self._picture.convert(frame):
            yield from self._encode(picture)

    def _within_rate(self, pts: int) -> bool:
        interval = round(_SECOND / self._target.max_frame_rate)
        if pts < self._due - interval // 4:  # a quarter: rounded times wander
            return False
        self._due = max(self._due + interval, pts + interval // 2)
        return True

    def _encode(self, picture: VideoFrame) -> Iterator[EncodedPacket]:
        pts = picture.pts
        assert pts is not None
        encoder = self._encoder
        if encoder is None or (encoder.width, encoder.height) != (picture.width, picture.height) or self._outdated(pts):
            encoder = self._encoder = self._open_encoder(picture)
        if encoder is not None:
            # always set: a decoded frame brings its own type, which x264 would obey
            picture.pict_type = PictureType.I if self._keyframe_wanted else PictureType.NONE
            coded = self._encode_with(encoder, picture)
            if coded is not None:
                self._keyframe_wanted = False
                yield from self._coded(coded)
                return
        for again in self._picture.convert(picture):  # the encoder in hardware has failed: x264 takes it from here
            yield from self._encode(again)

    def _encode_with(self, encoder: VideoCodecContext, picture: VideoFrame | None) -> "list[Packet[VideoStream]] | None":
        """What comes out; None where an encoder in hardware fails, instead of which x264 goes on. One of x264 ends the worker."""
        try:
            return encoder.encode(picture)
        except FFmpegError as error:
            self._fall_back(error)
            return None

    def _fall_back(self, error: FFmpegError) -> None:
        if self._encoder_name == X264:
            raise error
        self._note(f"{ENCODERS[self._encoder_name].label} has failed ({error.strerror}): x264 encodes from here on")
        self._encoder_name = X264
        self._encoder = None
        self._picture.pix_fmt = ENCODERS[X264].pix_fmt

    def _coded(self, coded: "list[Packet[VideoStream]]") -> Iterator[EncodedPacket]:
        for packet in coded:
            pts = packet.pts
            assert pts is not None
            data = bytes(packet)
            if packet.is_keyframe:
                self._last_keyframe = pts
                if not self.output.extradata:
                    self.output = _with_parameter_sets(self.output, data)
            begun, arrival = self._stamp(pts)
            self.encoded += 1
            yield EncodedPacket(self.output.id, pts, pts, packet.is_keyframe, data, begun, arrival)

    def _stamp(self, pts: int) -> tuple[int, int]:
        """The arrival of the packet that a picture came from; of the oldest known where its time was changed on the way."""
        stamp = self._stamps.pop(pts, None)
        return stamp or next(iter(self._stamps.values()), (0, 0))

    def _open_encoder(self, picture: VideoFrame) -> VideoCodecContext | None:
        """An encoder for pictures like this one; None where one in hardware cannot be had."""
        width, height = picture.width, picture.height
        if not self._told and (width, height) != (self._target.width, self._target.height):  # another size than was planned for
            self._bitrate = min(start_bitrate(width, height, self._rate.measured), self._target.max_bitrate)
        preset = effort(self._level, width, height).preset
        try:
            encoder = self._open_h264(picture, self._rate.measured, self._bitrate, preset, self._encoder_name)
        except FFmpegError as error:
            self._fall_back(error)
            return None
        self._opened_level = self._level
        self._frame_bits = self._bitrate / self._rate.measured
        self.output = replace(self.output, width=width, height=height, extradata=b"", profile="Constrained Baseline")
        return encoder

    def _outdated(self, pts: int) -> bool:
        """Whether to open the encoder anew for another preset, bitrate or frame rate (x264 without look-ahead counts frames, not seconds).

        PyAV cannot move the rate control's buffer of an open encoder, and without that x264 follows a new bitrate only after many seconds.
        A new encoder starts with a key frame, so all but a deep cut and a cheaper preset wait for one that is due anyway.
        """
        change = self._bitrate / self._rate.measured / self._frame_bits
        if change < _CUT or self._level > self._opened_level:
            return True
        due = self._keyframe_wanted or pts - self._last_keyframe >= KEYFRAME_SECONDS * _SECOND * 0.9
        return due and (abs(change - 1) > 0.05 or self._level != self._opened_level)


def parameter_sets(data: bytes, codec: Codec) -> bytes:
    """The parameter sets in an access unit (Annex B), as Annex B; nothing for codecs that have none."""
    if codec not in _PARAMETER_SETS:
        return b""
    shift, types = _PARAMETER_SETS[codec]
    units = data.replace(_START_CODE, _START_CODE[1:]).split(_START_CODE[1:])
    return b"".join(_START_CODE + unit for unit in units if unit and unit[0] >> shift & types[0] in types[1:])


def _with_parameter_sets(track: Track, keyframe: bytes) -> Track:
    sets = parameter_sets(keyframe, Codec.H264)
    # H.264 §7.3.2.1.1: level_idc is the third byte after the SPS's header
    return replace(track, extradata=sets, level=sets[7] if len(sets) > 7 else 0)


def _open_decoder(codec: Codec) -> VideoCodecContext:
    name, options = _DECODERS[codec]
    decoder = CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoder.options = {**options, "max_pixels": str(_MAX_PIXELS)}
    decoder.open()
    return decoder
