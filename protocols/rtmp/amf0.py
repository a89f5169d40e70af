"""AMF0, the values in RTMP commands and metadata (Action Message Format 0, Adobe 2007). Sans-IO.

Decoding is bounded in depth and in the number of values, takes every marker that encoders send, and reads text that is not UTF-8 with
replacement characters: a peer's odd metadata is no reason to end its stream. Undefined, unsupported and references are None.
"""

from collections.abc import Callable
from struct import pack
from typing import TypeAlias

from protocols.errors import ProtocolError
from protocols.wire import Buffer, Reader

Value: TypeAlias = "bool | float | str | list[Value] | dict[str, Value] | None"

MAX_DEPTH = 16
MAX_VALUES = 2000

_BYTES_PER_STEP = 4
_OBJECT_END = 0x09
_AVMPLUS = 0x11


def decode(data: Buffer) -> list[Value]:
    """All values of a message body in order. What follows an AMF3 switch is left out. Raises `ProtocolError`."""
    decoder = _Decoder(data)
    values: list[Value] = []
    while decoder.more():
        values.append(decoder.value(0))
    return values


def steps(data: Buffer) -> int:
    """What `decode` may cost, as so many chunk headers: a value takes a byte at least."""
    return min(len(data), 2 * MAX_VALUES) // _BYTES_PER_STEP


class _Decoder:
    """One pass over one message body."""

    __slots__ = ("_reader", "_values")

    def __init__(self, data: Buffer) -> None:
        self._reader = Reader(data)
        self._values = 0

    def more(self) -> bool:
        return len(self._reader) > 0

    def value(self, depth: int) -> Value:
        return self._marked(self._reader.u8(), depth)

    def _marked(self, marker: int, depth: int) -> Value:
        self._values += 1
        if self._values > MAX_VALUES:
            raise ProtocolError(f"AMF0: more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise ProtocolError(f"AMF0: nested deeper than {MAX_DEPTH}")
        read = _READERS.get(marker)
        if read is None:
            raise ProtocolError(f"AMF0: unknown marker {marker:#04x}")
        return read(self, depth)

    def number(self, depth: int) -> Value:
        return self._reader.double()

    def boolean(self, depth: int) -> Value:
        return self._reader.u8() != 0

    def string(self, depth: int) -> Value:
        return self._text(self._reader.u16())

    def long_string(self, depth: int) -> Value:
        return self._text(self._reader.u32())

    def object(self, depth: int) -> Value:
        return self._members(depth)

    def typed_object(self, depth: int) -> Value:
        self._text(self._reader.u16())
        return self._members(depth)

    def ecma_array(self, depth: int) -> Value:
        self._reader.skip(4)  # AMF0 §2.10: a hint only, and often wrong
        return self._members(depth)

    def strict_array(self, depth: int) -> Value:
        count = self._reader.u32()
        if count > MAX_VALUES:
            raise ProtocolError(f"AMF0: an array of {count} values")
        return [self.value(depth + 1) for _ in range(count)]

    def date(self, depth: int) -> Value:
        milliseconds = self._reader.double()
        self._reader.skip(2)  # AMF0 §2.13: the time zone is reserved
        return milliseconds

    def nothing(self, depth: int) -> Value:
        return None

    def reference(self, depth: int) -> Value:
        self._reader.skip(2)
        return None

    def amf3(self, depth: int) -> Value:
        self._reader.rest()
        return None

    def _members(self, depth: int) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while self.more():  # an array that ends with its message instead of the end marker is taken as it is
            name = self._text(self._reader.u16())
            marker = self._reader.u8()
            if marker == _OBJECT_END and not name:
                break
            members[name] = self._marked(marker, depth + 1)
        return members

    def _text(self, length: int) -> str:
        return self._reader.take(length).decode("utf-8", "replace")


_READERS: dict[int, Callable[[_Decoder, int], Value]] = {
    0x00: _Decoder.number,
    0x01: _Decoder.boolean,
    0x02: _Decoder.string,
    0x03: _Decoder.object,
    0x05: _Decoder.nothing,  # null
    0x06: _Decoder.nothing,  # undefined
    0x07: _Decoder.reference,
    0x08: _Decoder.ecma_array,
    0x0A: _Decoder.strict_array,
    0x0B: _Decoder.date,
    0x0C: _Decoder.long_string,
    0x0D: _Decoder.nothing,  # unsupported
    0x0F: _Decoder.long_string,  # XML document
    0x10: _Decoder.typed_object,
    _AVMPLUS: _Decoder.amf3,
}


def encode(*values: Value) -> bytes:
    """The values one after the other: numbers as doubles, dicts as objects, lists as strict arrays."""
    return b"".join(_encode(value) for value in values)


def _encode(value: Value) -> bytes:
    match value:
        case None:
            return b"\x05"
        case bool():
            return pack(">BB", 0x01, value)
        case float() | int():
            return pack(">Bd", 0x00, value)
        case str():
            text = value.encode()
            return pack(">BH", 0x02, len(text)) + text if len(text) <= 0xFFFF else pack(">BI", 0x0C, len(text)) + text
        case list():
            return pack(">BI", 0x0A, len(value)) + encode(*value)
        case dict():
            members = b"".join(_name(name) + _encode(member) for name, member in value.items())
            return b"\x03" + members + b"\x00\x00" + bytes([_OBJECT_END])


def _name(name: str) -> bytes:
    text = name.encode()
    return pack(">H", len(text)) + text
