"""What the gateway and a worker say to each other when media are looked at. Sans-IO; framed as all their messages (`messages.py`)."""

import json
import struct
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

from protocols.errors import ProtocolError
from protocols.media import Track
from transcode.messages import MAX_BODY, WorkerMessage, pack, read_track, track_fields

_LENGTH: Final = struct.Struct("<I")
_LOOK: Final = struct.Struct("<fff")
_UNKNOWN: Final = 1000.0  # of no figure


class LookedAt(NamedTuple):
    """A key frame of `picture` and packets of `sound`, each with its track, or None."""

    picture: Track | None
    keyframe: bytes
    sound: Track | None
    packets: tuple[bytes, ...]


class Look(NamedTuple):
    """What was seen and heard; None: nothing that could be judged."""

    dark: float | None = None
    """Part of the picture that is black, 0 to 1."""
    changed: float | None = None
    """Part of it that differs from the picture looked at before."""
    level_dbfs: float | None = None
    """Of the sound: its effective value, 0 for the loudest square wave."""


def pack_look(at: LookedAt) -> bytes:
    """A LOOK message; empty if it is longer than a message may be."""
    described = {
        "picture": None if at.picture is None else track_fields(at.picture),
        "sound": None if at.sound is None else track_fields(at.sound),
    }
    parts = [json.dumps(described).encode(), at.keyframe, *at.packets]
    body = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
    return pack(WorkerMessage.LOOK, 0, 0, body) if len(body) <= MAX_BODY else b""


def read_look(body: memoryview) -> LookedAt:
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        end = at + _LENGTH.size + _LENGTH.unpack_from(body, at)[0]
        parts.append(bytes(body[at + _LENGTH.size : end]))
        at = end
    described, keyframe, *packets = parts
    named: dict[str, Any] = json.loads(described)
    return LookedAt(_known(named["picture"]), keyframe, _known(named["sound"]), tuple(packets))


def _known(named: dict[str, Any] | None) -> Track | None:
    return None if named is None else read_track(memoryview(json.dumps(named).encode()))


def pack_looked(taken: int, look: Look) -> bytes:
    """A LOOKED message."""
    figures: Sequence[float] = [_UNKNOWN if each is None else each for each in look]
    return pack(WorkerMessage.LOOKED, 0, taken, _LOOK.pack(*figures))


def read_looked(body: memoryview) -> Look:
    """Raises `ProtocolError`: it comes from a process that decodes what strangers send."""
    if len(body) != _LOOK.size:
        raise ProtocolError("a message of a look of the wrong size")
    figures = _LOOK.unpack(body)
    if not all(map(isfinite, figures)):
        raise ProtocolError("a message of a look with what is no number")
    return Look(*(None if each == _UNKNOWN else each for each in figures))
