"""What the gateway and a worker say to each other when parts are muxed. Sans-IO; framed as all their messages (`messages.py`)."""

import json
import struct
from collections.abc import Sequence

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Track
from transcode.messages import MAX_BODY, WorkerMessage, pack, read_track, track_fields

_HEAD = struct.Struct("<III")  # bytes of the track, number of the fragment, packets
_PACKET = struct.Struct("<qqQI?")  # pts, dts, duration, bytes, key frame
_INIT = struct.Struct("<I")


def pack_mux(track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], number: int) -> bytes:
    """A MUX message; empty if it is longer than a message may be."""
    described = json.dumps(track_fields(track)).encode()
    parts = [_HEAD.pack(len(described), number, len(packets)), described]
    for packet, duration in zip(packets, durations, strict=True):
        parts.append(_PACKET.pack(packet.pts, packet.dts, duration, len(packet.data), packet.keyframe))
        parts.append(packet.data)
    body = b"".join(parts)
    return pack(WorkerMessage.MUX, 0, 0, body) if len(body) <= MAX_BODY else b""


def read_mux(body: memoryview) -> tuple[Track, list[EncodedPacket], list[int], int]:
    size, number, count = _HEAD.unpack_from(body)
    at = _HEAD.size + size
    track = read_track(body[_HEAD.size : at])
    packets, durations = [], []
    for _ in range(count):
        pts, dts, duration, length, keyframe = _PACKET.unpack_from(body, at)
        at += _PACKET.size
        packets.append(EncodedPacket(track.id, pts, dts, keyframe, bytes(body[at : at + length]), 0, 0))
        durations.append(duration)
        at += length
    return track, packets, durations, number


def pack_fragment(taken: int, init: bytes, fragment: bytes) -> bytes:
    """A FRAGMENT message; with nothing in it where none could be made."""
    return pack(WorkerMessage.FRAGMENT, 0, taken, _INIT.pack(len(init)) + init + fragment)


def read_fragment(body: memoryview) -> tuple[bytes, bytes]:
    """The initialisation section and the fragment; raises `ProtocolError`."""
    if len(body) < _INIT.size:
        raise ProtocolError("a fragment message that is too short")
    end = _INIT.size + _INIT.unpack_from(body)[0]
    return bytes(body[_INIT.size : end]), bytes(body[end:])
