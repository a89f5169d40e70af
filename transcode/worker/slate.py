"""The pictures of a slate, drawn and encoded like the stream that they stand in for. Worker side: imports libav.

Keeps true: to a decoder slate and stream look like one encoder: the size, the profile and at most the level that it has decoded so far, a
key frame with its own parameter sets at the beginning.
"""

from dataclasses import replace
from functools import partial

from av import FFmpegError, Packet, VideoFrame
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext

from protocols.bitstream.h26x import NalStream
from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Track
from transcode.adaptation import AS_PLANNED
from transcode.encoder_table import SOFTWARE, X264
from transcode.ladder import fit, start_bitrate
from transcode.slate_messages import PICTURES, RATE, SlatePicture
from transcode.worker.decoder import Stamp, VideoDecoder
from transcode.worker.encoders import NANOSECOND, open_video
from transcode.worker.layer import LayerEncoder
from transcode.worker.lettering import Canvas

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_DARK = 40  # luma of a card
_STRIP = 12  # part of the height that the strip takes
_PROFILES = {"Baseline": "baseline", "Constrained Baseline": "baseline", "Main": "main"}
_STEP = 1_000_000_000 // RATE


def slate(like: Track, shown: SlatePicture) -> tuple[Track, list[EncodedPacket]]:
    """`PICTURES` of them, as `Clip` has them, and what they are. Raises `av.FFmpegError` or `ProtocolError` where there is nothing to be
    seen of `shown`, or no encoder of this codec and size."""
    canvas = Canvas(like.width // 2 * 2, like.height // 2 * 2)
    if shown.source is not None:
        canvas.paste(_fitted(_keyframe(shown.source.codec, shown.data), canvas))
        _strip(canvas, shown.text)
    elif shown.data:
        canvas.paste(_fitted(_picture(shown.data), canvas))
    else:
        _card(canvas, shown)
    return _encoded(canvas.frame(), like)


def _strip(canvas: Canvas, text: str) -> None:
    high = max(16, canvas.height // _STRIP // 2 * 2)
    canvas.fill(canvas.height - high, canvas.height, _DARK)
    canvas.write(text, canvas.height - high // 2, high // 2)


def _card(canvas: Canvas, shown: SlatePicture) -> None:
    canvas.fill(0, canvas.height, _DARK)
    canvas.write(shown.title, canvas.height * 2 // 5, canvas.height // 8)
    canvas.write(shown.text, canvas.height * 3 // 5, canvas.height // 14)


def _keyframe(codec: Codec, data: bytes) -> VideoFrame:
    decoder = VideoDecoder(codec)
    packet = EncodedPacket(0, 0, 0, keyframe=True, data=data, begun=0, arrival=0)
    return _first([*decoder.take(packet), *decoder.drain()])


def _picture(data: bytes) -> VideoFrame:
    name = "png" if data.startswith(_PNG) else "mjpeg" if data.startswith(_JPEG) else ""
    if not name:
        raise ProtocolError("a picture that is neither PNG nor JPEG")
    decoder = CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    return _first([*decoder.decode(_whole(data)), *decoder.decode(None)])


def _whole(data: bytes) -> "Packet":  # type: ignore[type-arg]
    packet = Packet(len(data))
    packet.update(data)
    return packet


def _first(frames: list[VideoFrame]) -> VideoFrame:
    if not frames:
        raise ProtocolError("nothing can be seen of it")
    return frames[0]


def _fitted(picture: VideoFrame, canvas: Canvas) -> VideoFrame:
    """Whole, as large as there is room, of its own shape."""
    scale = min(canvas.width / picture.width, canvas.height / picture.height)
    width, height = fit(round(picture.width * scale), round(picture.height * scale), canvas.width, canvas.height)
    return picture.reformat(width=width, height=height, format="yuv420p", threads=1)


def _encoded(picture: VideoFrame, like: Track) -> tuple[Track, list[EncodedPacket]]:
    name = X264 if like.codec is Codec.H264 else SOFTWARE.get(like.codec, "")
    if not name:
        raise ProtocolError(f"no {like.codec.label} is made here")
    more = {}
    if like.codec is Codec.H264:
        more = {"profile": _PROFILES.get(like.profile, "high")} | ({"level": str(like.level)} if like.level else {})
    output = Track(like.id, like.codec, frame_rate=float(RATE), reorder=0, layer=like.layer)
    layer = LayerEncoder(output, partial(open_video, more=more))
    layer.bitrate = start_bitrate(like.width, like.height, 30.0)
    packets: list[EncodedPacket] = []
    picture.time_base = NANOSECOND
    for number in range(PICTURES):
        picture.pts = number * _STEP
        layer.prepare(picture, float(RATE), AS_PLANNED, name, keyframe=number == 0)
        packets += layer.encode(picture, Stamp(0, 0, keyframe=number == 0), keyframe=number == 0)
    packets += layer.finish()
    if len(packets) != PICTURES or not packets[0].keyframe:
        raise FFmpegError(0, f"{len(packets)} of {PICTURES} pictures came out")
    return _described(layer.output, packets[0]), packets


def _described(output: Track, keyframe: EncodedPacket) -> Track:
    """With what its parameter sets say, which is less than the profile allows where the encoder makes no use of that."""
    if output.codec is not Codec.H264:
        return output
    stream = NalStream(Codec.H264, output.id)
    stream.annexb(keyframe.data)
    assert stream.track is not None
    return replace(stream.track, frame_rate=output.frame_rate, reorder=0, layer=output.layer)
