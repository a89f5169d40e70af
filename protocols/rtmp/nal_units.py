"""The NAL units of a video message, as encoders really frame them: by lengths (ISO/IEC 14496-15 §5.3.2), or by start codes, which no
standard allows here. Sans-IO.

What cannot be read costs itself: an empty unit, bytes behind the last one. `cut` says where a picture may be damaged.
"""

from typing import NamedTuple

from protocols.bitstream.nal import SLICES, START, Syntax, split_annexb, split_length_prefixed
from protocols.bitstream.unit import MAX_UNITS
from protocols.errors import ProtocolError
from protocols.wire import Buffer

_SHORT_START = START[1:]
_MAX_EMPTY = 64


class NalUnits(NamedTuple):
    """`flaw`: what of the message could not be read, in words, empty for nothing. `cut`: a part of a picture may be missing."""

    units: list[bytes]
    flaw: str = ""
    cut: bool = False


def begins_with_start_code(data: Buffer) -> bool:
    """Whether it looks like a byte stream (H.264 Annex B). Lengths may look so, too: of a unit of 1 byte, or of 256 to 511."""
    return bytes(data[:4]).startswith((START, _SHORT_START))


def by_length(data: Buffer, size: int, syntax: Syntax) -> NalUnits:
    """Each unit with its length before it, in `size` bytes."""
    try:
        return NalUnits(split_length_prefixed(data, size))
    except ProtocolError:
        return _what_is_whole(bytes(data), size, syntax)


def by_start_code(data: Buffer) -> NalUnits:
    """Each unit behind a start code."""
    whole = bytes(data)
    try:
        return NalUnits(split_annexb(whole))
    except ProtocolError:
        before, *pieces = whole.split(_SHORT_START, MAX_UNITS + 1)
    units = [unit for piece in pieces if (unit := piece.rstrip(b"\x00"))]
    if len(units) > MAX_UNITS:
        return NalUnits([], "too many NAL units", cut=True)
    if before.strip(b"\x00"):
        return NalUnits(units, "bytes before the first NAL unit", cut=True)
    return NalUnits(units, "an empty NAL unit")


def _what_is_whole(data: bytes, size: int, syntax: Syntax) -> NalUnits:
    units: list[bytes] = []
    flaw, cut, empty = "", False, 0
    at, end = 0, len(data)
    while at < end:
        start = at + size
        if start > end:
            flaw, cut = "bytes behind the last NAL unit", cut or data[at:].strip(b"\x00") != b""
            break
        at = start + int.from_bytes(data[at:start])
        unit = data[start:at]
        if at > end:
            flaw, cut = "a NAL unit that is cut off", cut or _may_be_picture(unit, units, syntax)
            break
        if not unit:
            flaw, empty = "an empty NAL unit", empty + 1
            if empty > _MAX_EMPTY:  # the rest is filled with zeros, or with anything
                cut = cut or data[at:].strip(b"\x00") != b""
                break
        elif _SHORT_START in unit:
            inner = by_start_code(START + unit)
            units += inner.units
            flaw, cut = inner.flaw or flaw, cut or inner.cut
        else:
            units.append(unit)
        if len(units) > MAX_UNITS:
            return NalUnits([], "too many NAL units", cut=True)
    return NalUnits(units, flaw, cut)


def _may_be_picture(unit: bytes, before: list[bytes], syntax: Syntax) -> bool:
    """Of what is there of a unit that is cut off: what it belongs to may be a slice, or slices that its length swallows."""
    pictured = any(syntax.roles[each[0]] in SLICES for each in before)
    return not pictured or not unit or syntax.roles[unit[0] & 0x7F] in SLICES
