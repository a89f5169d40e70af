"""RTMP messages other than media: control messages and commands, read and made (RTMP 1.0 §5.4, §7). Sans-IO."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from protocols.errors import ProtocolError
from protocols.media import Kind
from protocols.rtmp import amf0
from protocols.rtmp.amf0 import Value
from protocols.rtmp.chunk import ChunkWriter
from protocols.wire import Buffer, Reader


class MessageType(IntEnum):
    SET_CHUNK_SIZE = 1
    ABORT = 2
    ACKNOWLEDGEMENT = 3
    USER_CONTROL = 4
    WINDOW_ACKNOWLEDGEMENT_SIZE = 5
    SET_PEER_BANDWIDTH = 6
    AUDIO = 8
    VIDEO = 9
    DATA_AMF3 = 15
    COMMAND_AMF3 = 17
    DATA_AMF0 = 18
    COMMAND_AMF0 = 20
    AGGREGATE = 22


class UserControl(IntEnum):
    STREAM_BEGIN = 0
    PING_REQUEST = 6
    PING_RESPONSE = 7


MEDIA: dict[int, Kind] = {MessageType.VIDEO: Kind.VIDEO, MessageType.AUDIO: Kind.AUDIO, MessageType.AGGREGATE: Kind.VIDEO}
"""What may be lost with a message of this type."""
COURTESY = frozenset({MessageType.DATA_AMF0, MessageType.DATA_AMF3})
"""A stream without them is as good: those that are too long are passed over."""

_CONTROL_CHUNK_STREAM = 2  # RTMP 1.0 §5.4: control goes on chunk stream 2, message stream 0
_COMMAND_CHUNK_STREAM = 3
_STATUS_CHUNK_STREAM = 5
_MAX_AGGREGATED = 256
_MAX_TEXT = 80
_DYNAMIC = 2  # limit type of Set Peer Bandwidth (§5.4.5)


@dataclass(frozen=True, slots=True)
class Command:
    """A command: what is missing of it is empty, as clients leave arguments out."""

    name: str
    transaction: float
    arguments: tuple[Value, ...]  # the first is the command object

    def text(self, index: int) -> str:
        """The argument if it is there and text, else empty."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, str) else ""

    def members(self) -> dict[str, Value]:
        """The command object if there is one, else empty."""
        value = self.arguments[0] if self.arguments else None
        return value if isinstance(value, dict) else {}


def read_command(payload: Buffer) -> Command:
    """Raises `ProtocolError` if the body is not AMF0 or has no name."""
    values = amf0.decode(payload)
    if not values or not isinstance(values[0], str):
        raise ProtocolError("a command without a name")
    transaction = values[1] if len(values) > 1 else None
    return Command(values[0], transaction if isinstance(transaction, float) else 0.0, tuple(values[2:]))


def text_of(facts: dict[str, Value], name: str) -> str:
    """A member if it is there and text, else empty."""
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def printable(text: str) -> str:
    """What of the peer's words may stand in a log."""
    return "".join(character for character in text[:_MAX_TEXT] if character.isprintable())


def read_metadata(payload: Buffer) -> dict[str, Value] | None:
    """The members of onMetaData; None if it is other data. Raises `ProtocolError` if the body is not AMF0."""
    values = amf0.decode(payload)
    if values and values[0] == "@setDataFrame":  # nginx sends onMetaData without it
        del values[0]
    if len(values) < 2 or values[0] != "onMetaData" or not isinstance(values[1], dict):
        return None
    return values[1]


def split_aggregate(payload: Buffer) -> Iterator[tuple[int, int, bytes]]:
    """The FLV tags of an aggregate message (RTMP 1.0 §7.1.6): type, ms after the first one, body. Raises `ProtocolError`."""
    reader = Reader(payload)
    first: int | None = None
    for _ in range(_MAX_AGGREGATED):
        if not len(reader):
            return
        type_, size = reader.u8(), reader.u24()
        time = reader.u24() | reader.u8() << 24
        reader.skip(3)  # stream id
        body = reader.take(size)
        reader.skip(4)  # back pointer
        first = time if first is None else first
        yield type_, time - first, body
    raise ProtocolError(f"more than {_MAX_AGGREGATED} tags in one aggregate message")


def amf3_body(payload: Buffer) -> Buffer:
    """The AMF0 part of an AMF3 command or data message: what follows its first byte (RTMP 1.0 §7.1.1)."""
    return memoryview(payload)[1:]


def control_value(payload: Buffer) -> int:
    """The 32-bit number that is the body of a control message. Raises `ProtocolError`."""
    return Reader(payload).u32()


class MessageWriter:
    """Our own messages, chunked and joined in order; `take` gives the bytes to send."""

    def __init__(self) -> None:
        self._chunks = ChunkWriter()
        self._pending: list[bytes] = []

    def take(self) -> bytes:
        data = b"".join(self._pending)
        self._pending.clear()
        return data

    def raw(self, data: bytes) -> None:
        self._pending.append(data)

    def chunk_size(self, size: int) -> None:
        self._control(MessageType.SET_CHUNK_SIZE, size.to_bytes(4, "big"))
        self._chunks.chunk_size = size

    def acknowledgement(self, received: int) -> None:
        self._control(MessageType.ACKNOWLEDGEMENT, (received & 0xFFFFFFFF).to_bytes(4, "big"))

    def window(self, size: int) -> None:
        self._control(MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE, size.to_bytes(4, "big"))

    def peer_bandwidth(self, size: int) -> None:
        self._control(MessageType.SET_PEER_BANDWIDTH, size.to_bytes(4, "big") + bytes([_DYNAMIC]))

    def user_control(self, event: UserControl, value: bytes) -> None:
        self._control(MessageType.USER_CONTROL, event.to_bytes(2, "big") + value)

    def command(self, *values: Value) -> None:
        """A command of the connection itself."""
        self._pending.append(
            self._chunks.write(MessageType.COMMAND_AMF0, amf0.encode(*values), chunk_stream=_COMMAND_CHUNK_STREAM)
        )

    def status(self, stream_id: int, level: str, code: str, description: str) -> None:
        """`onStatus` of a stream (§7.2.2): the words that encoders show to their user."""
        body = amf0.encode("onStatus", 0, None, {"level": level, "code": code, "description": description})
        self._pending.append(
            self._chunks.write(MessageType.COMMAND_AMF0, body, chunk_stream=_STATUS_CHUNK_STREAM, stream_id=stream_id)
        )

    def _control(self, type_: MessageType, body: bytes) -> None:
        self._pending.append(self._chunks.write(type_, body, chunk_stream=_CONTROL_CHUNK_STREAM))
