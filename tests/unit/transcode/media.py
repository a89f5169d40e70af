"""Real media for the tests, in the house format, made by libav's encoders; and what is heard and seen in the results."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.video.frame import PictureType

from protocols.media import Codec, EncodedPacket, Track

MS = 1_000_000
SECOND = 1_000_000_000
NANOSECOND = Fraction(1, SECOND)

ENCODERS = {
    Codec.AAC: ("aac", "fltp"),
    Codec.MP3: ("libmp3lame", "fltp"),
    Codec.MP2: ("mp2", "s16"),
    Codec.AC3: ("ac3", "fltp"),
    Codec.EAC3: ("eac3", "fltp"),
    Codec.FLAC: ("flac", "s16"),
    Codec.OPUS: ("libopus", "s16"),
    Codec.G711_ALAW: ("pcm_alaw", "s16"),
    Codec.G711_ULAW: ("pcm_mulaw", "s16"),
    Codec.PCM: ("pcm_s16le", "s16"),
    Codec.H264: ("libx264", "yuv420p"),
    Codec.HEVC: ("libx265", "yuv420p"),
    Codec.AV1: ("libsvtav1", "yuv420p"),
    Codec.VP9: ("libvpx-vp9", "yuv420p"),
    Codec.VP8: ("libvpx", "yuv420p"),
}
FAST = {
    Codec.H264: {"preset": "ultrafast", "bf": "0", "aud": "0"},
    Codec.HEVC: {"preset": "ultrafast", "x265-params": "log-level=none:repeat-headers=1:keyint=30"},
    Codec.AV1: {"preset": "12", "svtav1-params": "lookahead=0"},
    Codec.VP9: {"deadline": "realtime", "cpu-used": "8"},
    Codec.VP8: {"deadline": "realtime", "cpu-used": "8"},
}


def tone(
    codec: Codec = Codec.AAC,
    rate: int = 48_000,
    layout: str = "stereo",
    seconds: float = 3.0,
    start: int = 0,
    silent_until: float = 0.0,
    rounded: bool = True,
) -> tuple[Track, list[EncodedPacket]]:
    """A 1 kHz tone from `silent_until` s on; times in whole ms as RTMP has them if `rounded`, from `start` ns on."""
    turns = np.arange(round(seconds * rate)) / rate * 1000
    voice = np.where(turns >= silent_until * 1000, 0.5 * np.sin(2 * np.pi * turns), 0).astype(np.float32)
    samples = np.tile(voice, (av.AudioLayout(layout).nb_channels, 1))
    return coded_sound(codec, rate, layout, samples, start=start, rounded=rounded)


def coded_sound(
    codec: Codec, rate: int, layout: str, samples: np.ndarray, *, start: int = 0, rounded: bool = True
) -> tuple[Track, list[EncodedPacket]]:
    """`samples` (channels × samples, float32) as `tone` gives its own."""
    name, form = ENCODERS[codec]
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format, encoder.thread_count = rate, layout, form, 1
    encoder.bit_rate = 96_000 * max(2, encoder.layout.nb_channels)
    encoder.time_base = Fraction(1, rate)
    if codec in (Codec.AAC, Codec.FLAC, Codec.OPUS):
        encoder.flags |= 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER
    channels = encoder.layout.nb_channels
    packets = []
    for frame in [*_sounds(samples, rate, layout), None]:
        for coded in encoder.encode(frame):
            assert coded.pts is not None
            pts = start + coded.pts * SECOND // rate
            if rounded:
                pts = pts // MS * MS
            packets.append(EncodedPacket(2, pts, pts, True, bytes(coded), pts + 1, pts + 2))
    depth = 16 if codec is Codec.PCM else 8
    track = Track(2, codec, extradata=encoder.extradata or b"", sample_rate=rate, channels=channels, bit_depth=depth)
    return track, packets


def pictures(
    codec: Codec = Codec.H264,
    size: tuple[int, int] = (320, 180),
    rate: int = 30,
    seconds: float = 2.0,
    pix_fmt: str = "",
    options: dict[str, str] | None = None,
    start: int = 0,
    noise: int = 0,
    gop: int = 30,
    interlaced: bool = False,
) -> tuple[Track, list[EncodedPacket]]:
    """A moving test picture. Times as decoded: `dts` in steps of a frame, `pts` in presentation order."""
    name, form = ENCODERS[codec]
    form = pix_fmt or form
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = *size, form
    encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, 90_000), Fraction(rate), 1
    encoder.gop_size, encoder.bit_rate = gop, 1_000_000
    if interlaced:
        encoder.flags |= 1 << 29 | 1 << 18  # AV_CODEC_FLAG_INTERLACED_ME, INTERLACED_DCT
    encoder.options = FAST[codec] | (options or {})
    graph = Graph()
    nodes = [graph.add("testsrc2", f"s={size[0]}x{size[1]}:r={rate}:d={seconds}")]
    if noise:
        nodes.append(graph.add("noise", f"alls={noise}:allf=t"))
    if interlaced:
        nodes.append(graph.add("setfield", "tff"))
    nodes += [graph.add("format", f"pix_fmts={form}"), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    coded = []
    for number, frame in enumerate([*_pull(graph), None]):
        if frame is not None:
            frame.pts, frame.time_base = number * 90_000 // rate, Fraction(1, 90_000)
            frame.pict_type = PictureType.NONE  # the source says I
        coded += encoder.encode(frame)
    packets = []
    for packet in coded:
        assert packet.pts is not None
        assert packet.dts is not None
        pts, dts = (start + time * SECOND // 90_000 for time in (packet.pts, packet.dts))
        packets.append(EncodedPacket(1, pts, dts, packet.is_keyframe, bytes(packet), pts + 1, pts + 2))
    return Track(1, codec, width=size[0], height=size[1], frame_rate=rate, interlaced=interlaced), packets


def shifted(packets: Sequence[EncodedPacket], by: int) -> list[EncodedPacket]:
    return [packet._replace(pts=packet.pts + by, dts=packet.dts + by) for packet in packets]


def hear(packets: Sequence[EncodedPacket]) -> np.ndarray:
    """The mean of both channels of Opus packets, as a receiver plays them one after the other; 48 kHz, -1 to 1."""
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.thread_count = 48_000, "stereo", 1
    parts = []
    for packet in packets:
        for frame in decoder.decode(av.Packet(packet.data)):
            samples = frame.to_ndarray().reshape(-1, 2).astype(np.float64)
            parts.append(samples.mean(axis=1) / (32768 if frame.format.name == "s16" else 1))
    return np.concatenate(parts)


def pitch(samples: np.ndarray) -> float:
    """The loudest frequency, Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * 48_000 / len(samples))


def onset(samples: np.ndarray, start: int) -> float:
    """When the sound begins, ms on the timeline on which the first sample is at `start` ns."""
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    return start / MS + float(loud[0]) / 48


def see(packets: Sequence[EncodedPacket], codec: Codec = Codec.H264) -> list[av.VideoFrame]:
    """The pictures of packets, by a decoder that was told nothing beforehand."""
    decoder = av.CodecContext.create("libdav1d" if codec is Codec.AV1 else codec.value, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    frames: list[av.VideoFrame] = []
    for packet in packets:
        coded = av.Packet(len(packet.data))
        coded.update(packet.data)
        coded.pts, coded.dts = packet.pts, packet.dts
        frames += decoder.decode(coded)
    return frames + decoder.decode(None)


def grey(frame: av.VideoFrame) -> np.ndarray:
    return frame.to_ndarray(format="gray").astype(np.float64)


def _sounds(samples: np.ndarray, rate: int, layout: str) -> Iterator[av.AudioFrame]:
    for at in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + 1024].T).reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        yield frame


def _pull(graph: Graph) -> list[av.VideoFrame]:
    frames: list[av.VideoFrame] = []
    while True:
        try:
            frame = graph.pull()
        except (BlockingIOError, EOFError):
            return frames
        assert isinstance(frame, av.VideoFrame)
        frames.append(frame)
