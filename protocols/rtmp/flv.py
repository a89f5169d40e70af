"""The bodies of RTMP audio and video messages (FLV tags: Adobe FLV 10.1 §E.4; Enhanced RTMP v2). Sans-IO.

`split_video` and `split_audio` cut a body into `Part`s, in which the legacy form, FourCC codecs, time modifiers and multitrack have become
one thing: a track number, a codec, and a sequence header or coded frames. A codec that is not taken is named. What is not known here is
left out: new kinds of parts come with every version, and an encoder that sends one still streams.
"""

from collections.abc import Iterator
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from protocols.errors import ProtocolError
from protocols.media import Codec
from protocols.wire import Buffer, Reader

MAX_TRACKS = 16  # in one message
_MAX_MODIFIERS = 8

VIDEO_FOURCC = {
    b"avc1": Codec.H264,
    b"hvc1": Codec.HEVC,
    b"av01": Codec.AV1,
    b"vp08": Codec.VP8,
    b"vp09": Codec.VP9,
}
AUDIO_FOURCC = {
    b"mp4a": Codec.AAC,
    b"Opus": Codec.OPUS,
    b"fLaC": Codec.FLAC,
    b"ac-3": Codec.AC3,
    b"ec-3": Codec.EAC3,
    b".mp3": Codec.MP3,
}
_LEGACY_VIDEO = {7: Codec.H264, 12: Codec.HEVC}  # 12: what encoders of before Enhanced RTMP use for HEVC
_LEGACY_AAC = 10
LEGACY_FRAMES = {  # E.4.2.1: sound without packet types
    0: Codec.PCM,  # of the platform's byte order: all that are left are little-endian
    2: Codec.MP3,
    3: Codec.PCM,
    7: Codec.G711_ALAW,
    8: Codec.G711_ULAW,
    11: Codec.SPEEX,
    14: Codec.MP3,
}
_ENHANCED_AUDIO = 9
# What these are called, for people: those that are not taken
_VIDEO_NAMES = {
    1: "JPEG",
    2: "Sorenson H.263",
    3: "Screen Video",
    4: "VP6",
    5: "VP6 with alpha",
    6: "Screen Video 2",
    8: "H.263",
    9: "MPEG-4 part 2",
    13: "AV1 by a number of no standard",
}
_SOUND_NAMES = {1: "ADPCM", 4: "Nellymoser 16 kHz", 5: "Nellymoser 8 kHz", 6: "Nellymoser", 15: "device-specific sound"}
_FOURCC_NAMES = {b"vvc1": "VVC", b"vvi1": "VVC", b"mp4v": "MPEG-4 part 2", b"alac": "ALAC"}
_ENHANCED_VIDEO = 0x80
_COMMAND_FRAME = 5  # FrameType "video info/command": no picture

_WITH_COMPOSITION_TIME = (Codec.H264, Codec.HEVC)


class Content(Enum):
    CONFIGURATION = auto()
    FRAMES = auto()


_LEGACY_CONTENT = {0: Content.CONFIGURATION, 1: Content.FRAMES}  # by AVCPacketType and AACPacketType; 2: end of sequence


class TagPart(NamedTuple):
    """What one message says of one track. `composition` in ms (pts - dts), `offset` in ns to be added to the message's time.

    `codec` is None if it is one that is not taken, whose name for people is `name`; then the rest means nothing. `sound` are the bits of
    rate, size and channels of a legacy sound tag (E.4.2.1).
    """

    track: int
    codec: Codec | None
    content: Content
    data: Buffer
    composition: int = 0
    offset: int = 0
    name: str = ""
    sound: int = 0


class _Packet(IntEnum):
    """Packet types of Enhanced RTMP; 4 to 7 differ between audio and video."""

    SEQUENCE_START = 0
    CODED_FRAMES = 1
    SEQUENCE_END = 2
    CODED_FRAMES_X = 3
    AUDIO_MULTITRACK = 5
    VIDEO_MULTITRACK = 6
    MODIFIER = 7


class _Multitrack(IntEnum):
    ONE_TRACK = 0
    MANY_TRACKS = 1
    MANY_CODECS = 2


def split_video(body: Buffer) -> Iterator[TagPart]:
    """The parts of a video message that hold something for a decoder. Raises `ProtocolError`."""
    reader = Reader(body)
    first = reader.u8()
    if first & _ENHANCED_VIDEO:
        command = (first >> 4) & 7 == _COMMAND_FRAME
        yield from _split_enhanced(reader, first & 0x0F, _Packet.VIDEO_MULTITRACK, VIDEO_FOURCC, command)
        return
    if first >> 4 == _COMMAND_FRAME:
        return
    codec = _LEGACY_VIDEO.get(first & 0x0F)
    if codec is None:
        yield _unknown(0, _VIDEO_NAMES.get(first & 0x0F, f"video codec {first & 0x0F}"))
        return
    content = _LEGACY_CONTENT.get(reader.u8())
    composition = reader.i24()
    if content:
        yield TagPart(0, codec, content, _rest(body, reader), composition)


def split_audio(body: Buffer) -> Iterator[TagPart]:
    """The parts of an audio message that hold something for a decoder. Raises `ProtocolError`."""
    reader = Reader(body)
    first = reader.u8()
    sound_format = first >> 4
    if sound_format == _ENHANCED_AUDIO:
        yield from _split_enhanced(reader, first & 0x0F, _Packet.AUDIO_MULTITRACK, AUDIO_FOURCC, False)
    elif sound_format == _LEGACY_AAC:
        content = _LEGACY_CONTENT.get(reader.u8())
        if content:
            yield TagPart(0, Codec.AAC, content, _rest(body, reader))
    elif (codec := LEGACY_FRAMES.get(sound_format)) is not None:
        yield TagPart(0, codec, Content.FRAMES, _rest(body, reader), sound=first & 0x0F)
    else:
        yield _unknown(0, _SOUND_NAMES.get(sound_format, f"sound format {sound_format}"))


def _split_enhanced(
    reader: Reader, packet: int, multitrack: _Packet, codecs: dict[bytes, Codec], command: bool
) -> Iterator[TagPart]:
    offset = 0
    for _ in range(_MAX_MODIFIERS):
        if packet != _Packet.MODIFIER:
            break
        # ModEx: a length of 1 to 256, or 256 + a 16-bit number; the modifier; its type and the packet type that follows
        size = reader.u8() + 1
        if size == 256:
            size = reader.u16() + 1
        modifier = Reader(reader.take(size))
        following = reader.u8()
        if following >> 4 == 0:  # TimestampOffsetNano
            offset += modifier.u24()
        packet = following & 0x0F
    else:
        raise ProtocolError("too many modifiers in one media message")
    if command:
        return  # one byte of command follows, no picture
    if packet != multitrack:
        yield from _part(codecs, 0, packet, offset, reader.take(4), reader.rest())
        return
    layout = reader.u8()
    packet, kind = layout & 0x0F, layout >> 4
    if kind not in tuple(_Multitrack):
        return
    fourcc = reader.take(4) if kind != _Multitrack.MANY_CODECS else b""
    for _ in range(MAX_TRACKS):
        if kind == _Multitrack.MANY_CODECS:
            fourcc = reader.take(4)
        track = reader.u8()
        data = reader.rest() if kind == _Multitrack.ONE_TRACK else reader.take(reader.u24())
        yield from _part(codecs, track, packet, offset, fourcc, data)
        if not len(reader):
            return
    raise ProtocolError(f"more than {MAX_TRACKS} tracks in one media message")


def _part(codecs: dict[bytes, Codec], track: int, packet: int, offset: int, fourcc: bytes, data: bytes) -> Iterator[TagPart]:
    codec = codecs.get(fourcc)
    if codec is None:
        yield _unknown(track, _FOURCC_NAMES.get(fourcc) or _printable(fourcc))
    elif packet == _Packet.SEQUENCE_START:
        yield TagPart(track, codec, Content.CONFIGURATION, data)
    elif packet == _Packet.CODED_FRAMES and codec in _WITH_COMPOSITION_TIME:
        reader = Reader(data)
        composition = reader.i24()
        yield TagPart(track, codec, Content.FRAMES, _rest(data, reader), composition, offset)
    elif packet == _Packet.CODED_FRAMES or (packet == _Packet.CODED_FRAMES_X and codec in _WITH_COMPOSITION_TIME):
        yield TagPart(track, codec, Content.FRAMES, data, 0, offset)


def _unknown(track: int, name: str) -> TagPart:
    return TagPart(track, None, Content.FRAMES, b"", name=name)


def _printable(fourcc: bytes) -> str:
    text = fourcc.decode("ascii", "replace")
    return f"the codec {text!r}" if text.isascii() and text.isprintable() else f"the codec {fourcc.hex()}"


def _rest(body: Buffer, reader: Reader) -> memoryview:
    """What `reader` has not read of `body`, not copied: a video frame is copied once, by its bitstream parser."""
    return memoryview(body)[len(body) - len(reader) :]
