"""AV1's OBUs with their size field, as they lie in a temporal unit, and without it, as RTP carries them (AV1 specification §5.3; RTP
Payload Format for AV1 §4.4). Sans-IO.
"""

from collections.abc import Iterator

from protocols.errors import ProtocolError

SEQUENCE_HEADER = 1
_EXTENSION, _HAS_SIZE = 0x04, 0x02
_LONGEST_SHIFT = 21  # four bytes of LEB128, 256 MiB: more than any frame has


def kind(obu: bytes) -> int:
    """Its type (AV1 §6.2.2)."""
    return obu[0] >> 3 & 0x0F


def read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """(value, where it ends) (AV1 §4.10.5). Raises `ProtocolError` where it has no end."""
    value = shift = 0
    while position < len(data) and shift <= _LONGEST_SHIFT:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
    raise ProtocolError("AV1 length without an end")


def leb128(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def sized(obu: bytes) -> bytes:
    """With its size field. Raises `ProtocolError` for what is no OBU."""
    if not obu:
        raise ProtocolError("empty OBU")
    if obu[0] & _HAS_SIZE:
        return obu
    header = _header(obu)
    size = len(obu) - header
    if size < 0:
        raise ProtocolError("OBU shorter than its header")
    return bytes((obu[0] | _HAS_SIZE,)) + obu[1:header] + leb128(size) + obu[header:]


def unsized(temporal_unit: bytes) -> Iterator[bytes]:
    """The OBUs of a temporal unit, each without its size field. Raises `ProtocolError` for one that leads out of it."""
    position, end = 0, len(temporal_unit)
    while position < end:
        first = temporal_unit[position]
        header = position + _header(temporal_unit[position : position + 1])
        if header > end:
            raise ProtocolError("OBU shorter than its header")
        size, begin = read_leb128(temporal_unit, header) if first & _HAS_SIZE else (end - header, header)
        if begin + size > end:
            raise ProtocolError("OBU longer than its temporal unit")
        yield bytes((first & ~_HAS_SIZE,)) + temporal_unit[position + 1 : header] + temporal_unit[begin : begin + size]
        position = begin + size


def _header(obu: bytes) -> int:
    return 2 if obu[0] & _EXTENSION else 1
