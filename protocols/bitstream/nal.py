"""NAL units (ITU-T H.264 §7.3.1, H.265 §7.3.1): how they are framed, and what the gateway must know of each codec's."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from protocols.bitstream.unit import MAX_UNITS
from protocols.errors import ProtocolError
from protocols.media import Track
from protocols.wire import Buffer

START = b"\x00\x00\x00\x01"
_SHORT_START = b"\x00\x00\x01"

SPS_BYTES = 4096  # as much of a parameter set as is read for its facts: the longest legal ones have scaling lists of about 1 kB

MAX_SEI_MESSAGES = 32  # of one SEI that are looked at


class NalRole(Enum):
    """What becomes of a NAL unit in the gateway."""

    PICTURE = auto()  # a slice
    KEY = auto()  # a slice of a picture at which decoding can start
    PARAMETER_SET = auto()
    SEI = auto()
    OTHER = auto()  # passed on
    DROPPED = auto()  # delimiters and filler: they cost bits and upset some decoders
    BROKEN = auto()  # forbidden_zero_bit is set


SLICES: Final = (NalRole.PICTURE, NalRole.KEY)
"""Roles of what a picture is made of. A tuple: it is looked at for each NAL unit, and members of an `Enum` are slow to hash."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """One codec's NAL units. Functions take a whole NAL unit and raise `ProtocolError`."""

    roles: tuple[NalRole, ...]  # by the first byte of the NAL unit
    header_bytes: int
    first_slice_byte: int  # the byte of a slice whose top bit says that it is the first of its picture
    opening: frozenset[int]  # first bytes of the NAL units that begin the next access unit where they stand behind a slice
    set_key: Callable[[bytes], tuple[int, int]]  # of a parameter set: (its place among VPS, SPS, PPS; its id)
    sps_rank: int  # the place of the SPS; its PPS is the next
    slice_pps: Callable[[bytes], int]  # the PPS id that a slice of a key frame names
    pps_sps: Callable[[bytes], int]  # the SPS id that a PPS names
    is_whole: Callable[
        [bytes], bool
    ]  # of a parameter set or SEI without zeros behind: it can be read, and ends where its last field does
    describe: Callable[[bytes, int, bytes], Track]  # (SPS, track id, extradata) -> the facts
    recovers: Callable[[bytes], bool]  # of an SEI: decoding can start at a picture that is no IDR


def first_bytes(shift: int, mask: int, types: Iterable[int]) -> frozenset[int]:
    """Those of NAL units whose nal_unit_type, `byte >> shift & mask`, is one of these."""
    wanted = frozenset(types)
    return frozenset(byte for byte in range(256) if byte >> shift & mask in wanted)


def roles_by_first_byte(shift: int, mask: int, roles: dict[int, NalRole]) -> tuple[NalRole, ...]:
    """The table for `Syntax.roles`: nal_unit_type is `byte >> shift & mask`; types not named are `OTHER`."""
    return tuple(NalRole.BROKEN if byte & 0x80 else roles.get(byte >> shift & mask, NalRole.OTHER) for byte in range(256))


def sei_ends(payload: bytes) -> bool:
    """Whether the messages of an SEI (H.264 §7.3.2.3.1, H.265 §7.3.5) fill it up to its trailing bits. `payload`: without its header and
    emulation prevention."""
    at, end = 0, len(payload)
    for _ in range(MAX_SEI_MESSAGES):
        size = 0
        for size_follows in (False, True):  # payload type, then size: 255 means that more follows
            while at < end and payload[at] == 0xFF:
                at += 1
                size += 255 * size_follows
            if at >= end:
                return False
            size += payload[at] * size_follows
            at += 1
        at += size
        if payload[at:] == b"\x80":
            return True
    return False


def split_annexb(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream (H.264 Annex B), after 3- and 4-byte start codes alike.

    Raises:
        ProtocolError: no start code, bytes before the first, an empty NAL unit, or too many.
    """
    at = data.find(_SHORT_START)
    if at < 0 or data[:at].strip(b"\x00"):
        raise ProtocolError("access unit does not begin with a start code")
    units: list[bytes] = []
    while at >= 0:
        start = at + 3
        at = data.find(_SHORT_START, start)
        unit = data[start:at] if at >= 0 else data[start:]
        if unit.endswith(b"\x00"):  # trailing_zero_8bits, or the first byte of the next start code: no NAL unit ends in zero
            unit = unit.rstrip(b"\x00")
        if not unit:
            raise ProtocolError("empty NAL unit")
        units.append(unit)
        if len(units) > MAX_UNITS:
            raise ProtocolError("too many NAL units in one access unit")
    return units


def split_length_prefixed(data: Buffer, size: int) -> list[bytes]:
    """The NAL units of an access unit in which each has its length in `size` bytes before it (ISO/IEC 14496-15 §5.3.2).

    Raises:
        ProtocolError: an empty NAL unit, one that ends outside, or too many.
    """
    units: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        start = at + size
        at = start + int.from_bytes(data[at:start])
        if at > end or at == start:
            raise ProtocolError("length of a NAL unit is zero or leads out of the access unit")
        unit = bytes(data[start:at])
        # A start code inside would become a NAL unit that nobody looked at, once this is a byte stream: look at it.
        if _SHORT_START in unit:
            units += split_annexb(START + unit)
        else:
            units.append(unit)
        if len(units) > MAX_UNITS:
            raise ProtocolError("too many NAL units in one access unit")
    return units
