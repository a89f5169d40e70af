"""Any video to H.264 without reordering, on the source's timeline. Worker side: imports libav.

Keeps true: every picture of the source leaves once, in presentation order, with its own time (a varying frame rate stays varying), up to
the limits of size and rate; what need not be converted is not. Decoders have one thread and never the types AUTO or FRAME: closing those
hangs PyAV 18.1 for good.
"""

from collections.abc import Iterator
from dataclasses import replace

from av import FFmpegError, Packet, VideoFrame
from av.codec import CodecContext
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from protocols.media import Codec, EncodedPacket, Track
from transcode.economy import effort
from transcode.encoders import KEYFRAME_SECONDS, NANOSECOND, UNKNOWN_FRAME_RATE, open_h264
from transcode.plan import VideoTarget, fit, start_bitrate

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
_RATE_WINDOW = 2 * _SECOND  # the real frame rate is measured over this


class VideoTranscoder:
    """One video track: `take` a source packet, get the H.264 packets that come of it."""

    def __init__(self, track: Track, target: VideoTarget, shown: int | None = None) -> None:
        """Pictures up to the pts `shown` (ns) have been shown in another way: they are only references for what follows."""
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
        self._picture = Picture(track.interlaced, target)
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
        self._picture = Picture(track.interlaced, self._target, self._level)

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
        encoder = self._encoder
        pts = picture.pts
        assert pts is not None
        if encoder is None or (encoder.width, encoder.height) != (picture.width, picture.height) or self._outdated(pts):
            encoder = self._encoder = self._open_encoder(picture)
        # always set: a decoded frame brings its own type, which x264 would obey
        picture.pict_type = PictureType.I if self._keyframe_wanted else PictureType.NONE
        self._keyframe_wanted = False
        for coded in encoder.encode(picture):
            data = bytes(coded)
            keyframe = coded.is_keyframe
            if keyframe:
                self._last_keyframe = pts
                if not self.output.extradata:
                    self.output = _with_parameter_sets(self.output, data)
            begun, arrival = self._stamp(pts)
            self.encoded += 1
            yield EncodedPacket(self.output.id, pts, pts, keyframe, data, begun, arrival)

    def _stamp(self, pts: int) -> tuple[int, int]:
        """The arrival of the packet that a picture came from; of the oldest known where its time was changed on the way."""
        stamp = self._stamps.pop(pts, None)
        return stamp or next(iter(self._stamps.values()), (0, 0))

    def _open_encoder(self, picture: VideoFrame) -> VideoCodecContext:
        width, height = picture.width, picture.height
        if not self._told and (width, height) != (self._target.width, self._target.height):  # another size than was planned for
            self._bitrate = min(start_bitrate(width, height, self._rate.measured), self._target.max_bitrate)
        encoder = open_h264(picture, self._rate.measured, self._bitrate, effort(self._level, width, height).preset)
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


class FrameRate:
    """The frame rate: the announced one until the pictures show another."""

    def __init__(self, nominal: float) -> None:
        self.measured = nominal
        self._since: int | None = None
        self._count = 0

    def measure(self, pts: int) -> None:
        """Count a picture. `measured` stays while the rate wanders by less than a tenth."""
        if self._since is None or not 0 <= pts - self._since <= 2 * _RATE_WINDOW:  # the first, or across a gap or jump
            self._since, self._count = pts, 0
            return
        self._count += 1
        elapsed = pts - self._since
        if elapsed < _RATE_WINDOW:
            return
        rate = self._count * _SECOND / elapsed
        self._since, self._count = pts, 0
        if abs(rate - self.measured) > 0.1 * self.measured:
            self.measured = max(1.0, rate)


class Picture:
    """Makes pictures fit the encoder: 8-bit 4:2:0, progressive, within the size limits."""

    def __init__(self, interlaced: bool, target: VideoTarget, level: int = 0) -> None:
        """`level`: how many steps below the plan, of which the last make the picture smaller."""
        self.level = level
        self._interlaced = interlaced
        self._limits = (target.max_width, target.max_height)
        self._form: tuple[int, int, str, int, int, bool, int] | None = None
        self._graph: Graph | None = None

    def convert(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """The same picture, or what the filters give for it: one, or none yet."""
        # a flag on one picture is enough: from then on all go through the deinterlacer, which leaves progressive ones alone
        self._interlaced = self._interlaced or frame.interlaced_frame
        form = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, self._interlaced, self.level)
        if form != self._form:
            yield from self.flush()
            self._form = form
            self._graph = self._build(frame)
        if self._graph is None:
            yield frame
            return
        self._graph.push(frame)
        yield from self._pull(self._graph)

    def flush(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull(self._graph)
        self._graph = self._form = None

    def _build(self, frame: VideoFrame) -> Graph | None:
        width, height = fit(frame.width, frame.height, *self._limits)
        scale = effort(self.level, width, height).scale
        if scale < 1:
            width, height = fit(width, height, round(width * scale), round(height * scale))
        if (width, height, "yuv420p", False) == (frame.width, frame.height, frame.format.name, self._interlaced):
            return None
        graph = Graph()
        graph.threads = 1
        source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={NANOSECOND}"
        chain = [graph.add("buffer", f"{source}:colorspace={frame.colorspace}:range={frame.color_range}")]
        if self._interlaced:
            chain.append(graph.add("bwdif", "mode=send_frame:deint=interlaced"))
        flags = "area" if width * 2 <= frame.width else "bicubic"
        chain.append(graph.add("scale", f"w={width}:h={height}:flags={flags}:out_range=tv"))
        chain.append(graph.add("format", "pix_fmts=yuv420p"))
        chain.append(graph.add("buffersink"))
        graph.link_nodes(*chain).configure()
        return graph

    @staticmethod
    def _pull(graph: Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                picture = graph.vpull()
            except (BlockingIOError, EOFError):  # AVERROR(EAGAIN): the filter holds the picture until the next
                return
            base = picture.time_base
            if picture.pts is not None and base is not None and base != NANOSECOND:  # bwdif halves the time base
                picture.pts = round(picture.pts * base / NANOSECOND)
                picture.time_base = NANOSECOND
            yield picture


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
