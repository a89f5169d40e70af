"""What the gateway and a transcoding worker say to each other over their socket: framed messages. Sans-IO.

A message is a 12-byte header and a body of at most 8 MiB. Every message from the worker carries how many packets it has taken so far,
so that the gateway always knows how far behind it is. Bodies are packed or JSON, never pickled: a decoder that was taken over must
not be able to make the gateway run code.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple

from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Track
from transcode.adaptation import Effort
from transcode.ladder import NAMES
from transcode.plan import AudioTarget, VideoTarget

MAX_BODY = 8 << 20
MAX_TEXT = 300  # bytes
_HEADER = struct.Struct("<IBxHI")  # body length, kind, stream, packets taken (from the worker)
_PACKET = struct.Struct("<qqqqB")  # pts, dts, begun, arrival, flags
_SENT = struct.Struct("<q")  # ns on the machine's clock: before the data of a PACKET
_BITRATE = struct.Struct("<I")
_EFFORT = struct.Struct("<BBf")  # presets lower, layers shed, scale
_STATS = struct.Struct("<QQQQQ")
_USAGE = struct.Struct("<QQ")
_FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    "id": int,
    "codec": Codec,
    "extradata": bytes,
    "width": int,
    "height": int,
    "frame_rate": (int, float),
    "profile": str,
    "level": int,
    "bit_depth": int,
    "chroma": str,
    "interlaced": bool,
    "open_gop": bool,
    "reorder": (int, type(None)),
    "sample_rate": int,
    "channels": int,
    "bitrate": int,
    "layer": str,
}
_KEYFRAME_FLAG = 1
_SILENT_FLAG = 2
_LAYER_SHIFT = 2  # of the flags: to which of the tracks that come out an OUTPUT belongs
_START_ROOM = 256 << 10


class WorkerMessage(IntEnum):
    # to the worker
    OPEN = 1  # a stream: its track and target; again for the same stream: its source has changed
    CLOSE = 2  # give what is left of a stream, then CLOSED
    PACKET = 3
    KEYFRAME = 4
    BITRATE = 5
    EFFORT = 6  # how far below the plan to work
    TRIAL = 7  # of an encoder, by its name
    MUX = 8  # packets of one track, to be made a part of an HLS stream
    SLATE = 9  # a picture, to be encoded like a stream
    LOOK = 10  # a key frame and packets of sound, to be judged
    # from the worker
    OUTPUT = 16
    TRACKS = 17  # what comes out from here on, a track for each layer
    CLOSED = 18
    PROGRESS = 19  # a packet was taken and nothing came of it
    STATS = 20  # of one stream, before the USAGE that goes with it
    FAULT = 21  # why the worker ends, in words
    TRIED = 22  # why the encoder does not work here, nothing if it does
    NOTE = 23  # in words for the log
    FRAGMENT = 24  # what MUX has made
    LATE = 25  # as PROGRESS, and there is nothing of it since it had waited for too long
    USAGE = 26  # of the process
    SLATED = 27  # what SLATE has made
    LOOKED = 28  # what LOOK has found


class MessageFrame(NamedTuple):
    kind: int
    stream: int
    taken: int  # modulo 2**32
    body: memoryview  # valid until the next frame is asked for


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What a worker has done for one stream, in totals since it was opened there."""

    decoded: int = 0  # frames
    encoded: int = 0
    errors: int = 0  # packets that a decoder refused
    dropped: int = 0  # packets before a key frame, frames beyond the rate limit, out of order or too late
    busy_ns: int = 0  # CPU time of the thread that decodes and encodes

    def plus(self, other: "StreamReport") -> "StreamReport":
        return StreamReport(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


class Usage(NamedTuple):
    """What a worker's process has used since its start."""

    cpu_ns: int = 0
    peak_rss: int = 0  # bytes


class MessageReader:
    """The receiving end of one socket: `recv_into(inbox.room())`, then iterate `inbox.received(n)` to its end. Holds at most a message."""

    def __init__(self) -> None:
        self._buffer = bytearray(_START_ROOM)
        self._held = 0

    def room(self) -> memoryview:
        return memoryview(self._buffer)[self._held :]

    def received(self, count: int) -> Iterator[MessageFrame]:
        """The complete messages after `count` more bytes; raises `ProtocolError` for one that is too long."""
        end = self._held + count
        start = 0
        view = memoryview(self._buffer)
        need = _HEADER.size
        while end - start >= _HEADER.size:
            length, kind, stream, taken = _HEADER.unpack_from(view, start)
            if length > MAX_BODY:
                raise ProtocolError(f"a message of {length} bytes between gateway and worker")
            need = _HEADER.size + length
            if end - start < need:
                break
            yield MessageFrame(kind, stream, taken, view[start + _HEADER.size : start + need])
            start += need
            need = _HEADER.size
        self._held = end - start
        if need > len(
            self._buffer
        ):  # a new buffer, since views of the old may be held; it falls back when the large message is through
            self._move(view[start:end], need)
        elif len(self._buffer) > _START_ROOM and need <= _START_ROOM and self._held <= _START_ROOM // 2:
            self._move(view[start:end], _START_ROOM)
        elif start:
            self._buffer[: self._held] = bytes(view[start:end])  # by way of a copy: the two overlap

    def _move(self, rest: memoryview, size: int) -> None:
        self._buffer = bytearray(size)
        self._buffer[: len(rest)] = rest


def pack(kind: IntEnum, stream: int = 0, taken: int = 0, body: bytes = b"", more: int = 0) -> bytes:
    """A message; `more` bytes of its body follow it on the wire."""
    return _HEADER.pack(len(body) + more, kind, stream, taken & 0xFFFFFFFF) + body


def pack_packet(stream: int, packet: EncodedPacket, silent: bool = False, sent: int = 0) -> bytes:
    """The head of a PACKET message, `sent` at so many ns on the machine's clock: `packet.data` follows it on the wire, uncopied."""
    flags = (_KEYFRAME_FLAG if packet.keyframe else 0) | (_SILENT_FLAG if silent else 0)
    return _packet_head(WorkerMessage.PACKET, stream, 0, packet, flags, _SENT.pack(sent))


def pack_output(stream: int, taken: int, packet: EncodedPacket, tracks: Sequence[Track]) -> bytes:
    """The head of an OUTPUT message, of one of the layers that were told last as `tracks`; `packet.data` follows it on the wire."""
    index = 0 if len(tracks) == 1 else [track.layer for track in tracks].index(packet.layer)
    return _packet_head(
        WorkerMessage.OUTPUT, stream, taken, packet, (_KEYFRAME_FLAG if packet.keyframe else 0) | index << _LAYER_SHIFT
    )


def _packet_head(kind: WorkerMessage, stream: int, taken: int, packet: EncodedPacket, flags: int, more: bytes = b"") -> bytes:
    stamps = _PACKET.pack(packet.pts, packet.dts, packet.begun, packet.arrival, flags) + more
    return _HEADER.pack(len(stamps) + len(packet.data), kind, stream, taken & 0xFFFFFFFF) + stamps


def fits(packet: EncodedPacket) -> bool:
    return _PACKET.size + _SENT.size + len(packet.data) <= MAX_BODY


def read_packet(body: memoryview, track: int) -> tuple[EncodedPacket, bool, int]:
    """The packet; whether it is silent: decoded for what follows it, not shown; and when it was sent, ns on the machine's clock."""
    if len(body) < _PACKET.size + _SENT.size:
        raise ProtocolError("a packet message that is too short")
    pts, dts, begun, arrival, flags = _PACKET.unpack_from(body)
    data = bytes(body[_PACKET.size + _SENT.size :])
    packet = EncodedPacket(track, pts, dts, bool(flags & _KEYFRAME_FLAG), data, begun, arrival)
    return packet, bool(flags & _SILENT_FLAG), _SENT.unpack_from(body, _PACKET.size)[0]


def read_output(body: memoryview, tracks: Sequence[Track]) -> EncodedPacket:
    """The packet, of one of the layers that were told last as `tracks`."""
    if len(body) < _PACKET.size:
        raise ProtocolError("a packet message that is too short")
    pts, dts, begun, arrival, flags = _PACKET.unpack_from(body)
    index = flags >> _LAYER_SHIFT
    if index >= len(tracks):
        raise ProtocolError("a packet of a layer that there is not")
    track, data = tracks[index], bytes(body[_PACKET.size :])
    return EncodedPacket(track.id, pts, dts, bool(flags & _KEYFRAME_FLAG), data, begun, arrival, track.layer)


def pack_bitrate(stream: int, bits_per_second: int) -> bytes:
    return pack(WorkerMessage.BITRATE, stream, 0, _BITRATE.pack(max(0, min(bits_per_second, 0xFFFFFFFF))))


def read_bitrate(body: memoryview) -> int:
    return int(_BITRATE.unpack(body)[0])


def pack_effort(stream: int, effort: Effort) -> bytes:
    return pack(WorkerMessage.EFFORT, stream, 0, _EFFORT.pack(effort.lower, effort.shed, effort.scale))


def read_effort(body: memoryview) -> Effort:
    lower, shed, scale = _EFFORT.unpack(body)
    return Effort(lower=lower, shed=shed, scale=scale)


def read_text(body: memoryview) -> str:
    """Words for people, bounded and printable: they come from a process that decodes what strangers send."""
    text = bytes(body[:MAX_TEXT]).decode(errors="replace")
    return "".join(each if each.isprintable() else " " for each in text)


def pack_stats(stream: int, taken: int, report: StreamReport) -> bytes:
    return pack(WorkerMessage.STATS, stream, taken, _STATS.pack(*astuple(report)))


def read_stats(body: memoryview) -> StreamReport:
    if len(body) != _STATS.size:
        raise ProtocolError("a statistics message of the wrong size")
    return StreamReport(*_STATS.unpack(body))


def pack_usage(taken: int, usage: Usage) -> bytes:
    return pack(WorkerMessage.USAGE, 0, taken, _USAGE.pack(*usage))


def read_usage(body: memoryview) -> Usage:
    if len(body) != _USAGE.size:
        raise ProtocolError("a message of usage of the wrong size")
    return Usage(*_USAGE.unpack(body))


def pack_open(stream: int, track: Track, target: AudioTarget | VideoTarget, shown: int | None = None) -> bytes:
    opening = {"track": track_fields(track), "target": asdict(target), "shown": shown}
    return pack(WorkerMessage.OPEN, stream, 0, json.dumps(opening).encode())


def read_open(body: memoryview) -> tuple[Track, AudioTarget | VideoTarget, int | None]:
    opening = json.loads(bytes(body))
    track = _track(opening["track"])
    target = opening["target"]
    return (
        track,
        (VideoTarget(**target) if "width" in target else AudioTarget(target["bitrate"], Codec(target["codec"]))),
        opening["shown"],
    )


def pack_tracks(stream: int, taken: int, tracks: Sequence[Track]) -> bytes:
    return pack(WorkerMessage.TRACKS, stream, taken, json.dumps([track_fields(track) for track in tracks]).encode())


def read_tracks(body: memoryview) -> tuple[Track, ...]:
    """Tracks from a process that decodes what strangers send."""
    named = _json(body)
    if not isinstance(named, list) or len(named) > len(NAMES):
        raise ProtocolError("a message of tracks with too many or none")
    return tuple(_checked_track(each) for each in named)


def read_track(body: memoryview) -> Track:
    """A single track, from the same."""
    return _checked_track(_json(body))


def _json(body: memoryview) -> Any:
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("a message that is no JSON") from error


def _checked_track(named: Any) -> Track:
    try:
        track = _track(named)
    except (ValueError, TypeError, KeyError) as error:
        raise ProtocolError("a track that cannot be read") from error
    for field in fields(track):
        if not isinstance(getattr(track, field.name), _FIELD_TYPES[field.name]):
            raise ProtocolError(f"a track whose {field.name} is of the wrong type")
    if track.layer not in ("", *NAMES):
        raise ProtocolError("a track of a layer that there is not")
    return track


def track_fields(track: Track) -> dict[str, Any]:
    return asdict(track) | {"extradata": track.extradata.hex()}


def _track(named: dict[str, Any]) -> Track:
    return Track(**(named | {"codec": Codec(named["codec"]), "extradata": bytes.fromhex(named["extradata"])}))
