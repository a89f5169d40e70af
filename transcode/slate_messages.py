"""What the gateway and a worker say to each other when the pictures of a slate are made. Sans-IO; framed as all their messages
(`messages.py`)."""

import json
import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Track
from transcode.messages import MAX_BODY, WorkerMessage, pack, read_text, read_track, track_fields

RATE: Final = 5  # pictures a second
PICTURES: Final = 10  # from one key frame to the next, and of what stands still: they are shown over and over
MOST_PICTURES: Final = 50  # of a clip
MAX_TEXT: Final = 80  # characters
MAX_PICTURE_BYTES: Final = 4 << 20
MAX_CLIP_BYTES: Final = 7 << 20  # with what goes before it, it is one message
STILLS: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""How PNG (ISO/IEC 15948 §5.2) and JPEG (ISO/IEC 10918-1 §B.1.1.3) files begin."""
_LENGTH: Final = struct.Struct("<I")
_PICTURE: Final = struct.Struct("<I?")  # bytes, key frame


@dataclass(frozen=True, slots=True)
class SlatePicture:
    """What is to be seen: a key frame of `source` with the text in a strip below, a PNG, JPEG or MP4 file, or, with no `data`, a card with
    the title and the text."""

    title: str
    text: str
    data: bytes = b""
    source: Track | None = None


class Clip(NamedTuple):
    """Encoded pictures, `RATE` a second, each of `PICTURES` a key frame with its parameter sets: they may be shown over and over."""

    track: Track
    pictures: tuple[tuple[bool, bytes], ...]
    """Whether it is a key frame, and its access unit in house form."""

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(len(data) for _, data in self.pictures)


def is_clip(data: bytes) -> bool:
    """Whether a file is meant to be MP4 (ISO/IEC 14496-12 §4.3: it begins with the box of its type)."""
    return data[4:8] == b"ftyp"


def pack_slate(like: Track, shown: SlatePicture) -> bytes:
    """A SLATE message, for pictures of this codec, size, profile and level; empty if it is longer than a message may be."""
    described = {
        "like": track_fields(like),
        "source": None if shown.source is None else track_fields(shown.source),
        "title": shown.title[:MAX_TEXT],
        "text": shown.text[:MAX_TEXT],
    }
    head = json.dumps(described).encode()
    body = _LENGTH.pack(len(head)) + head + shown.data
    return pack(WorkerMessage.SLATE, 0, 0, body) if len(body) <= MAX_BODY else b""


def read_slate(body: memoryview) -> tuple[Track, SlatePicture]:
    at = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    described: dict[str, Any] = json.loads(bytes(body[_LENGTH.size : at]))
    like = read_track(memoryview(json.dumps(described["like"]).encode()))
    source = described["source"]
    known = None if source is None else read_track(memoryview(json.dumps(source).encode()))
    return like, SlatePicture(described["title"], described["text"], bytes(body[at:]), known)


def pack_clip(taken: int, track: Track, packets: list[EncodedPacket]) -> bytes:
    """A SLATED message. Raises `ProtocolError` where it would be longer than a message may be."""
    head = json.dumps(track_fields(track)).encode()
    parts = [_LENGTH.pack(len(head)), head]
    for packet in packets:
        parts += _PICTURE.pack(len(packet.data), packet.keyframe), packet.data
    if sum(map(len, parts)) > MAX_BODY:
        raise ProtocolError("its pictures have too many bytes in this size: choose one with less movement")
    return pack(WorkerMessage.SLATED, 0, taken, b"".join(parts))


def pack_no_clip(taken: int, why: str) -> bytes:
    """A SLATED message where nothing could be made."""
    return pack(WorkerMessage.SLATED, 0, taken, _LENGTH.pack(0) + why.encode(errors="replace"))


def read_clip(body: memoryview) -> Clip | str:
    """In words, why nothing could be made. Raises `ProtocolError`: it comes from a process that decodes what strangers send."""
    try:
        at = _LENGTH.size + _LENGTH.unpack_from(body)[0]
        if at == _LENGTH.size:
            return read_text(body[at:])
        track = read_track(body[_LENGTH.size : at])
        pictures: list[tuple[bool, bytes]] = []
        while at < len(body):
            size, keyframe = _PICTURE.unpack_from(body, at)
            at += _PICTURE.size
            pictures.append((keyframe, bytes(body[at : at + size])))
            at += size
    except struct.error as error:
        raise ProtocolError("a message of a slate that is too short") from error
    began = [keyframe for keyframe, _ in pictures[::PICTURES]]
    if at != len(body) or not 0 < len(pictures) <= MOST_PICTURES or not all(began) or not all(data for _, data in pictures):
        raise ProtocolError("a message of a slate without the pictures that it is to have")
    return Clip(track, tuple(pictures))
