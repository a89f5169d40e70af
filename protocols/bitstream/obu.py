"""AV1's OBUs (AV1 specification §5.3): with their size field, as they lie in a temporal unit, and without it, as RTP carries them (RTP
Payload Format for AV1 §4.4). Sans-IO.
"""

from typing import NamedTuple

from protocols.bitstream.unit import MAX_UNITS
from protocols.errors import ProtocolError

SEQUENCE_HEADER = 1  # §6.2.2, as the other types of `Obu.kind`
_FORBIDDEN, _EXTENSION, _HAS_SIZE = 0x80, 0x04, 0x02
_LEB128_BYTES = 8  # §4.10.5
_LARGEST = 0xFFFFFFFF
_SMALL = 32  # OBUs: delimiter, sequence header, metadata and frame headers of all layers
_TILE_BYTES = 32


class Obu(NamedTuple):
    header: bytes  # one byte or two; its flag for the size field is not set
    payload: bytes

    @property
    def kind(self) -> int:
        return self.header[0] >> 3 & 0x0F

    @property
    def unsized(self) -> bytes:
        return self.header + self.payload

    @property
    def sized(self) -> bytes:
        return bytes((self.header[0] | _HAS_SIZE,)) + self.header[1:] + leb128(len(self.payload)) + self.payload


def split(data: bytes) -> list[Obu]:
    """Those that follow one another in `data`; the last may lack its size field (§5.3.1). Raises `ProtocolError` for what is broken."""
    obus: list[Obu] = []
    at, end = 0, len(data)
    most = most_obus(end)
    while at < end:
        first = data[at]
        begin = at + (2 if first & _EXTENSION else 1)
        if first & _FORBIDDEN or begin > end:
            raise ProtocolError("broken OBU header")
        header = bytes((first & ~_HAS_SIZE,)) + data[at + 1 : begin]
        if not first & _HAS_SIZE:
            size = end - begin
        elif begin < end and (size := data[begin]) < 0x80:
            begin += 1
        else:
            size, begin = read_leb128(data, begin)
        at = begin + size
        if at > end:
            raise ProtocolError("size of an OBU leads out of the temporal unit")
        obus.append(Obu(header, data[begin:at]))
        if len(obus) > most:
            raise ProtocolError("too many OBUs in one temporal unit")
    return obus


def most_obus(size: int) -> int:
    """How many a temporal unit of so many bytes may have: the small ones in it, a tile group for each tile, and no dust."""
    return min(MAX_UNITS, _SMALL + size // _TILE_BYTES)


def read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """(value, index behind it) (§4.10.5). Raises `ProtocolError` where it does not end, or is above 32 bits."""
    value = 0
    for index, byte in enumerate(data[at : at + _LEB128_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            if value > _LARGEST:
                break
            return value, at + index + 1
    raise ProtocolError("leb128 number without an end or above 32 bits")


def leb128(value: int) -> bytes:
    """§4.10.5, in the fewest bytes."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
