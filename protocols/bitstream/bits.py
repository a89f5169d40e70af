"""Reading and writing bits, and the raw byte sequence payload inside a NAL unit.

Most significant bit first. Nothing is read past the end: a short or absurd input is a `ProtocolError`.
"""

import re

from protocols.errors import ProtocolError

_EMULATION = b"\x00\x00\x03"


def unescape(nal: bytes, limit: int) -> bytes:
    """At most `limit` bytes of a NAL unit, without the emulation prevention bytes (H.264 §7.4.1.1, HEVC §7.4.2)."""
    nal = nal[:limit]
    # A byte 3 after two zeros is always one of them, so a left-to-right replacement that does not overlap is exact.
    return nal.replace(_EMULATION, b"\x00\x00") if _EMULATION in nal else nal


def escape(payload: bytes) -> bytes:
    """With emulation prevention bytes."""
    return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)


class BitReader:
    """A cursor over `data` that counts in bits."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = 8 * len(data)
        self._at = 0

    def __len__(self) -> int:
        """Bits that are left."""
        return self._end - self._at

    @property
    def position(self) -> int:
        """Bits read so far."""
        return self._at

    @property
    def at_end(self) -> bool:
        """Whether nothing but rbsp_trailing_bits is left: a 1 and zeros to the end of the byte (H.264 §7.3.2.11, HEVC §7.3.2.11)."""
        left = self._end - self._at
        return 0 < left <= 8 and self._data[-1] & (1 << left) - 1 == 1 << left - 1

    def bits(self, count: int) -> int:
        """The next `count` bits as an unsigned number."""
        at = self._at
        end = at + count
        if end > self._end:
            raise ProtocolError(f"truncated: {count} bits wanted, {self._end - at} left")
        self._at = end
        last = (end + 7) >> 3
        return (int.from_bytes(self._data[at >> 3 : last]) >> (8 * last - end)) & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.bits(1) == 1

    def skip(self, count: int) -> None:
        if count > self._end - self._at:
            raise ProtocolError(f"truncated: {count} bits wanted, {self._end - self._at} left")
        self._at += count

    def ue(self, most: int = 0xFFFFFFFE) -> int:
        """An unsigned Exp-Golomb number (H.264 §9.1). Above `most` it is refused: it would be a loop count or a size."""
        begin, offset = self._at >> 3, self._at & 7
        piece = self._data[begin : begin + 9]  # 32 zeros, a 1 and 32 bits
        left = 8 * len(piece) - offset
        window = int.from_bytes(piece) & (1 << left) - 1 if left > 0 else 0
        zeros = left - window.bit_length()
        size = 2 * zeros + 1
        if zeros > 32 or size > left:  # no 1 bit within 32 zeros, or an end before it does
            raise ProtocolError("broken Exp-Golomb number")
        self._at += size
        value = (window >> left - size) - 1
        if value > most:
            raise ProtocolError(f"Exp-Golomb number {value} is above {most}")
        return value

    def se(self) -> int:
        """A signed Exp-Golomb number (H.264 §9.1.1)."""
        value = self.ue()
        return (value + 1) >> 1 if value & 1 else -(value >> 1)

    def uvlc(self) -> int:
        """A variable length code (AV1 §4.10.3): as Exp-Golomb, where 32 zeros stand for the largest number."""
        zeros = 0
        while not self.flag():
            zeros += 1
            if zeros == 32:
                return 0xFFFFFFFF
        return self.bits(zeros) + (1 << zeros) - 1


class BitWriter:
    """Bits being written."""

    __slots__ = ("_count", "_value")

    def __init__(self) -> None:
        self._value, self._count = 1, 0  # a 1 in front keeps leading zeros

    def __len__(self) -> int:
        return self._count

    def bits(self, value: int, count: int) -> None:
        self._value = self._value << count | value
        self._count += count

    def flags(self, *values: bool) -> None:
        for value in values:
            self.bits(value, 1)

    def ue(self, *values: int) -> None:
        for value in values:
            self.bits(value + 1, 2 * (value + 1).bit_length() - 1)

    def se(self, value: int) -> None:
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def aligned(self) -> bytes:
        """With zeros to a whole byte."""
        size = (self._count + 7) // 8
        return ((self._value << 8 * size - self._count) & (1 << 8 * size) - 1).to_bytes(size)
