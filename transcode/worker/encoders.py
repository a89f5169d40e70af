"""The encoders of a call: H.264 (x264 or hardware), VP8 or AV1 for video, libopus for audio, set for live. Worker side: imports libav.

Keeps true: one picture in is one packet out at once (no look-ahead, no B-frames), every key frame of H.264 is an IDR with its parameter
sets before it, and no encoder but SVT-AV1 has threads of its own.
"""

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from av import FFmpegError, VideoFrame
from av.audio.codeccontext import AudioCodecContext
from av.codec import Codec, CodecContext
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

from transcode.encoder_table import ENCODERS, X264

NOTHING_MORE: Final[Mapping[str, str]] = MappingProxyType({})
OPUS_RATE = 48_000
OPUS_FRAME = 960  # 20 ms
AAC_FRAME = 1024
NANOSECOND = Fraction(1, 1_000_000_000)
UNKNOWN_FRAME_RATE = 30.0
KEYFRAME_SECONDS = 4  # at most; more often only costs bits: they come on request, and a viewer joins by the key-frame cache
_VBV_SECONDS = 0.6  # a key frame may take this much of the bitrate: more delays it on a narrow link, less blurs it
# The first may take this much: the encoder before has spent what the narrow link had, and what left last still stands in its queue
_FIRST_SECONDS = 0.2


def open_video(
    like: VideoFrame, frame_rate: float, bitrate: int, preset: str, name: str = X264, *, more: Mapping[str, str] = NOTHING_MORE
) -> VideoCodecContext:
    """An encoder of 8-bit 4:2:0 pictures of the size, format and colours of `like`, with times in ns. `preset` is one of `EFFORTS`.

    H.264 is constrained baseline, since that is what 42e01f promises in the SDP (RFC 6184 §8.1) and every hardware decoder takes; and it is
    the cheapest: no CABAC and no 8x8 transforms. Raises `av.FFmpegError` for a size that the encoder does not take, and where there is no
    such hardware. `more` are options in the place of ours.
    """
    chosen = ENCODERS[name]
    encoder = CodecContext.create(name, "w")
    assert isinstance(encoder, VideoCodecContext)
    frame_rate = frame_rate or UNKNOWN_FRAME_RATE
    encoder.width = like.width
    encoder.height = like.height
    encoder.colorspace = like.colorspace  # told in the stream, or a browser guesses by the size
    encoder.color_range = like.color_range
    encoder.color_primaries = like.color_primaries
    encoder.color_trc = like.color_trc
    encoder.pix_fmt = chosen.pix_fmt
    encoder.time_base = NANOSECOND
    encoder.framerate = Fraction(frame_rate).limit_denominator(1001)
    encoder.bit_rate = bitrate
    encoder.gop_size = round(frame_rate * 2 * KEYFRAME_SECONDS)  # never reached: key frames are asked for
    encoder.max_b_frames = 0
    encoder.thread_count = 1
    encoder.options = {
        **chosen.options,
        **chosen.efforts.get(preset, {}),
        "maxrate": str(bitrate),
        "bufsize": str(round(bitrate * _VBV_SECONDS)),
        "rc_init_occupancy": str(round(bitrate * _FIRST_SECONDS)),
        **more,
    }
    encoder.open()
    return encoder


def built_in() -> list[str]:
    """The video encoders of our table that libav was built with, whether they work here or not."""
    return [name for name in ENCODERS if _is_built_in(name)]


def _is_built_in(name: str) -> bool:
    try:
        return bool(Codec(name, "w").name)
    except UnknownCodecError:
        return False


def try_encoder(name: str) -> str:
    """Encode two real pictures; why that does not work, empty if it does."""
    picture = VideoFrame(1280, 720, ENCODERS[name].pix_fmt)
    for plane in picture.planes:
        plane.update(bytes(plane.buffer_size))
    try:
        encoder = open_video(picture, UNKNOWN_FRAME_RATE, 2_000_000, "ultrafast", name)
        made = 0
        for number in range(2):
            picture.pts, picture.time_base = number * 33_000_000, NANOSECOND
            made += len(encoder.encode(picture))
        made += len(encoder.encode(None))
    except (FFmpegError, ValueError) as error:  # ValueError: PyAV was built without it
        return str(error) or type(error).__name__
    return "" if made == 2 else f"{made} of 2 pictures came out"


def open_opus(bitrate: int, complexity: int | None = None) -> AudioCodecContext:
    """An encoder of 20 ms of packed 16-bit stereo at 48 kHz; `complexity` is libopus's, 0 to 10, by default as the bitrate needs it.

    `lowdelay` looks 2.5 ms ahead where `audio` does 6.5, and at 128 kbit/s both use CELT.
    """
    encoder = CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate = OPUS_RATE
    encoder.layout = "stereo"
    encoder.format = "s16"
    encoder.bit_rate = bitrate
    encoder.thread_count = 1
    encoder.options = {
        "application": "lowdelay",
        "frame_duration": "20",
        "compression_level": str(_opus_complexity(bitrate) if complexity is None else complexity),
        "vbr": "constrained",
        "dtx": "0",
    }
    encoder.open()
    return encoder


def _opus_complexity(bitrate: int) -> int:
    """The least without a loss that is heard, by `tests.bench.opus`.

    At 128 kbit/s what 1 does to strings, a voice and applause is within 0.4 dB of what 10 does, of what may be heard, and to chimes within
    2 dB and 4 dB under what they mask, for 45 % of the encoder's CPU (5 takes 57 %); 0 is 4 to 9 dB worse for voice and applause. At
    64 kbit/s chimes lose 5 to 7 dB with less than 5, and are heard to.
    """
    return 1 if bitrate >= 128_000 else 5


def open_aac(bitrate: int) -> AudioCodecContext:
    """An encoder of AAC-LC, planar float stereo at 48 kHz, with the AudioSpecificConfig apart."""
    encoder = CodecContext.create("aac", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate = OPUS_RATE
    encoder.layout = "stereo"
    encoder.format = "fltp"
    encoder.bit_rate = bitrate
    encoder.thread_count = 1
    encoder.flags |= Flags.global_header.value
    encoder.options = {"aac_coder": "fast"}
    encoder.open()
    return encoder
