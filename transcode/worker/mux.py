"""Encoded packets to fragmented MP4 (ISO/IEC 14496-12 §8.8; CMAF, ISO/IEC 23000-19). Worker side: imports libav.

Keeps true: every call stands for itself. It gives the initialisation section that belongs to the track and one fragment, a `moof` with its
`mdat`, whose times are the packets' own; so a worker that starts anew goes on where the old one ended.
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
from av import Packet
from av.audio.codeccontext import AudioCodecContext
from av.container import OutputContainer
from av.stream import Stream
from av.subtitles import stream as _subtitles  # noqa: F401 PyAV looks for it in each stream, and nothing is loaded in the sandbox
from av.video.codeccontext import VideoCodecContext

from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Kind, Track

VIDEO_CLOCK = 90_000
_ENCODERS = {Codec.H264: "libx264", Codec.HEVC: "libx265", Codec.AAC: "aac"}  # never opened: they name the codec
_OPTIONS = {
    # frag_discont: the fragment's decode time is its first packet's, not 0; without negative offsets it is that of the decoding order
    "movflags": "+empty_moov+default_base_moof+frag_custom+frag_discont+skip_trailer",
    "use_editlist": "0",
    "avoid_negative_ts": "disabled",
}


class _Sink(io.RawIOBase):
    """What libav writes, in one piece; it cannot seek, as no live output can."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def fragment(track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], number: int) -> tuple[bytes, bytes]:
    """The initialisation section and the fragment of these packets, which have `durations` in ns; `number` counts fragments from 1.

    Raises `av.FFmpegError` for what cannot be muxed, `ProtocolError` for a codec that has no place here.
    """
    if track.codec not in _ENCODERS:
        raise ProtocolError(f"{track.codec.value} does not go into HLS")
    sink = _Sink()
    with av.open(sink, "w", format="mp4", options=_OPTIONS | {"fragment_index": str(number)}) as container:
        assert isinstance(container, OutputContainer)
        stream = _stream(container, track)
        for packet, duration in zip(packets, durations, strict=True):
            container.mux_one(_packet(stream, packet, duration, track.kind))
    return _split(bytes(sink.data))


def _stream(container: OutputContainer, track: Track) -> Stream:
    """A stream that copies: made after a template, so that libav opens no encoder for it."""
    clock = VIDEO_CLOCK if track.kind is Kind.VIDEO else track.sample_rate
    with av.open(io.BytesIO(), "w", format="mp4") as scratch:
        template = scratch.add_stream(_ENCODERS[track.codec], rate=30 if track.kind is Kind.VIDEO else track.sample_rate)
        stream = container.add_stream_from_template(template, opaque=True)
    context = stream.codec_context
    if isinstance(context, VideoCodecContext):
        context.width, context.height = track.width, track.height
    else:
        assert isinstance(context, AudioCodecContext)
        context.sample_rate = track.sample_rate
        context.layout = "mono" if track.channels == 1 else "stereo" if track.channels == 2 else "5.1"
    context.extradata = track.extradata
    if track.codec is Codec.HEVC:
        context.codec_tag = "hvc1"  # parameter sets in the sample description, as Apple's players want them
    stream.time_base = Fraction(1, clock)
    return stream


def _packet(stream: Stream, packet: EncodedPacket, duration: int, kind: Kind) -> "Packet[Stream]":
    coded = Packet(len(packet.data))
    coded.update(packet.data)
    clock = stream.time_base
    assert clock is not None
    # Each time is rounded by itself, and a duration is from one to the next: no error adds up.
    coded.dts = _ticks(packet.dts, clock)
    coded.pts = coded.dts + max(0, _ticks(packet.pts - packet.dts, clock))
    coded.duration = _ticks(packet.dts + duration, clock) - coded.dts
    coded.time_base = clock
    coded.is_keyframe = packet.keyframe or kind is Kind.AUDIO
    coded.stream = stream
    return coded


def _ticks(ns: int, clock: Fraction) -> int:
    return (ns * clock.denominator + 500_000_000) // 1_000_000_000


def _split(data: bytes) -> tuple[bytes, bytes]:
    """What libav wrote into `ftyp` and `moov`, and the rest."""
    start = 0
    while start + 8 <= len(data):
        if data[start + 4 : start + 8] == b"moof":
            return data[:start], data[start:]
        start += max(8, int.from_bytes(data[start : start + 4], "big"))
    raise ProtocolError("libav wrote no fragment")
