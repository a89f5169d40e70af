"""Reading numbers off the wire: a cursor over bytes that never runs past their end.

Every parser of a binary format reads through it, so that a short input is always a `ProtocolError`, never an `IndexError` or a slice
that is silently too short. Numbers are big-endian.
"""

from struct import Struct
from typing import TypeAlias

from protocols.errors import ProtocolError

Buffer: TypeAlias = bytes | bytearray | memoryview

_U16 = Struct(">H").unpack_from
_U32 = Struct(">I").unpack_from
_DOUBLE = Struct(">d").unpack_from


class Reader:
    """A cursor over `data`. Each method moves it by what was read; a read past the end raises `ProtocolError` and moves nothing."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._end = len(data)
        self._at = 0

    def __len__(self) -> int:
        """Bytes that are left."""
        return self._end - self._at

    def _advance(self, count: int) -> int:
        at = self._at
        if not 0 <= count <= self._end - at:
            raise ProtocolError(f"truncated: {count} bytes wanted, {self._end - at} left")
        self._at = at + count
        return at

    def u8(self) -> int:
        return self._data[self._advance(1)]

    def u16(self) -> int:
        value: int = _U16(self._data, self._advance(2))[0]
        return value

    def u24(self) -> int:
        at = self._advance(3)
        return int.from_bytes(self._data[at : at + 3])

    def i24(self) -> int:
        """A signed number, e.g. the FLV composition time (Adobe FLV 10.1 §E.4.3.1)."""
        value = self.u24()
        return value - 0x1000000 if value & 0x800000 else value

    def u32(self) -> int:
        value: int = _U32(self._data, self._advance(4))[0]
        return value

    def double(self) -> float:
        """An IEEE 754 binary64, e.g. an AMF0 number."""
        value: float = _DOUBLE(self._data, self._advance(8))[0]
        return value

    def take(self, count: int) -> bytes:
        """The next `count` bytes, copied out of the buffer."""
        at = self._advance(count)
        return bytes(self._data[at : at + count])

    def skip(self, count: int) -> None:
        self._advance(count)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self._end - self._at)
