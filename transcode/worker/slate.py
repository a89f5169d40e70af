"""The pictures of a slate, drawn and encoded like the stream that they stand in for. Worker side: imports libav.

Keeps true: to a decoder slate and stream look like one encoder: the size, the profile and at most the level that it has decoded so far, a
key frame with its own parameter sets at the beginning.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import repeat

from av import FFmpegError, Packet, VideoFrame
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext

from protocols.bitstream.h26x import NalStream
from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Track
from transcode.adaptation import AS_PLANNED
from transcode.encoder_table import SOFTWARE, X264
from transcode.ladder import fit, start_bitrate
from transcode.slate_messages import MOST_PICTURES, PICTURES, RATE, STILLS, SlatePicture, is_clip
from transcode.worker.clip import clip_pictures
from transcode.worker.decoder import Stamp, VideoDecoder
from transcode.worker.encoders import NANOSECOND, open_video
from transcode.worker.layer import LayerEncoder
from transcode.worker.lettering import Canvas

_PNG, _JPEG = STILLS
_DARK = 40  # luma of a card
_STRIP = 12  # part of the height that the strip takes
_PROFILES = {"Baseline": "baseline", "Constrained Baseline": "baseline", "Main": "main"}
_STEP = 1_000_000_000 // RATE
_MOST_CLIP_BITRATE = 6 * 8 * (1 << 20) * RATE // MOST_PICTURES  # bit/s: a clip goes back in one message


def slate(like: Track, shown: SlatePicture) -> tuple[Track, list[EncodedPacket]]:
    """The pictures, as `Clip` has them, and what they are: `PICTURES` of what stands still. Raises `av.FFmpegError`, `ProtocolError` or
    `ValueError` where there is nothing to be seen of `shown`, or no encoder of this codec and size."""
    width, height = like.width // 2 * 2, like.height // 2 * 2
    bitrate = start_bitrate(like.width, like.height, 30.0)
    if shown.source is None and is_clip(shown.data):
        moving = (_shown(picture, Canvas(width, height)) for picture in clip_pictures(shown.data))
        return _encoded(moving, like, min(bitrate, _MOST_CLIP_BITRATE))
    canvas = Canvas(width, height)
    if shown.source is not None:
        canvas.paste(_fitted(_keyframe(shown.source.codec, shown.data), canvas))
        _strip(canvas, shown.text)
        return _encoded(repeat(canvas.frame(), PICTURES), like, bitrate)
    if shown.data:
        return _encoded(repeat(_shown(_picture(shown.data), canvas), PICTURES), like, bitrate)
    _card(canvas, shown)
    return _encoded(repeat(canvas.frame(), PICTURES), like, bitrate)


def _shown(picture: VideoFrame, canvas: Canvas) -> VideoFrame:
    canvas.paste(_fitted(picture, canvas))
    return canvas.frame()


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


def _encoded(pictures: Iterable[VideoFrame], like: Track, bitrate: int) -> tuple[Track, list[EncodedPacket]]:
    name = X264 if like.codec is Codec.H264 else SOFTWARE.get(like.codec, "")
    if not name:
        raise ProtocolError(f"no {like.codec.label} is made here")
    more = {}
    if like.codec is Codec.H264:
        more = {"profile": _PROFILES.get(like.profile, "high")} | ({"level": str(like.level)} if like.level else {})
    output = Track(like.id, like.codec, frame_rate=float(RATE), reorder=0, layer=like.layer)
    layer = LayerEncoder(output, partial(open_video, more=more))
    layer.bitrate = bitrate
    packets: list[EncodedPacket] = []
    count = 0
    for picture in pictures:
        picture.time_base, picture.pts = NANOSECOND, count * _STEP
        begins = count % PICTURES == 0
        layer.prepare(picture, float(RATE), AS_PLANNED, name, keyframe=begins)
        packets += layer.encode(picture, Stamp(0, 0, keyframe=begins), keyframe=begins)
        count += 1
    packets += layer.finish()
    if len(packets) != count or not all(packet.keyframe for packet in packets[::PICTURES]):
        raise FFmpegError(0, f"{len(packets)} of {count} pictures came out")
    return _described(layer.output, packets[0]), packets


def _described(output: Track, keyframe: EncodedPacket) -> Track:
    """With what its parameter sets say, which is less than the profile allows where the encoder makes no use of that."""
    if output.codec is not Codec.H264:
        return output
    stream = NalStream(Codec.H264, output.id)
    stream.annexb(keyframe.data)
    assert stream.track is not None
    return replace(stream.track, frame_rate=output.frame_rate, reorder=0, layer=output.layer)
