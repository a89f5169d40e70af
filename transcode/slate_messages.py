"""What the gateway and a worker say to each other when the pictures of a slate are made. Sans-IO; framed as all their messages
(`messages.py`)."""

import json
import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Track
from transcode.messages import MAX_BODY, WorkerMessage, pack, read_track, track_fields

RATE: Final = 5  # pictures a second
PICTURES: Final = 10  # of one clip, which is then shown again: a key frame every two seconds
MAX_TEXT: Final = 80  # characters
_LENGTH: Final = struct.Struct("<I")
_PICTURE: Final = struct.Struct("<I?")  # bytes, key frame


@dataclass(frozen=True, slots=True)
class SlatePicture:
    """What is to be seen: a key frame of `source` with the text in a strip below, the picture of a PNG or JPEG file, or, with no `data`, a
    card with the title and the text."""

    title: str
    text: str
    data: bytes = b""
    source: Track | None = None


class Clip(NamedTuple):
    """Encoded pictures, `RATE` a second, the first one a key frame with its parameter sets: they may be shown over and over."""

    track: Track
    pictures: tuple[tuple[bool, bytes], ...]
    """Whether it is a key frame, and its access unit in house form."""


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


def pack_clip(taken: int, track: Track | None, packets: list[EncodedPacket]) -> bytes:
    """A SLATED message; without a track where nothing could be made."""
    head = b"" if track is None else json.dumps(track_fields(track)).encode()
    parts = [_LENGTH.pack(len(head)), head]
    for packet in packets:
        parts += _PICTURE.pack(len(packet.data), packet.keyframe), packet.data
    return pack(WorkerMessage.SLATED, 0, taken, b"".join(parts))


def read_clip(body: memoryview) -> Clip | None:
    """None: nothing could be made. Raises `ProtocolError`: it comes from a process that decodes what strangers send."""
    try:
        at = _LENGTH.size + _LENGTH.unpack_from(body)[0]
        if at == _LENGTH.size:
            return None
        track = read_track(body[_LENGTH.size : at])
        pictures: list[tuple[bool, bytes]] = []
        while at < len(body):
            size, keyframe = _PICTURE.unpack_from(body, at)
            at += _PICTURE.size
            pictures.append((keyframe, bytes(body[at : at + size])))
            at += size
    except struct.error as error:
        raise ProtocolError("a message of a slate that is too short") from error
    if at != len(body) or not 0 < len(pictures) <= PICTURES or not pictures[0][0] or not all(data for _, data in pictures):
        raise ProtocolError("a message of a slate without the pictures that it is to have")
    return Clip(track, tuple(pictures))
