"""RTP payloads back into access units, one frame at a time: H.264 (RFC 6184), HEVC (RFC 7798), VP8 (RFC 7741), VP9 (RFC 9628), AV1
(RTP Payload Format for AV1, v1.0) and Opus (RFC 7587). Sans-IO.

A function takes the payloads of one whole frame in order and gives its data: H.264 and HEVC as Annex B, AV1 as OBUs, the others as they
are. What is kept true: an incomplete or broken frame is a `ProtocolError`, never half a frame; so is one of more units than an access unit
may have, before they are all taken apart.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from protocols.bitstream.obu import Obu, most_obus, read_leb128, split
from protocols.bitstream.unit import MAX_UNITS
from protocols.errors import ProtocolError
from protocols.media import Codec
from protocols.webrtc.receive.jitter import FRAME_PACKETS

_START = b"\x00\x00\x00\x01"
_STAP_A, _FU_A = 24, 28  # RFC 6184 §5.2; 25 to 27 and 29 are of the interleaved mode, which is not negotiated
_AP, _FU = 48, 49  # RFC 7798 §4.4; 50 (PACI) is never sent by those that we know
# The S bit of an FU header; the first bit of a slice header: first_mb_in_slice 0, first_slice_segment_in_pic_flag
_FIRST = 0x80
_SMALL_UNITS, _UNIT_BYTES = 32, 16  # of one aggregation packet: so many of any size, and one more for so many bytes of it


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """How one codec lies in RTP. `begins` says of a payload whether a frame can begin with it, which counts after a loss."""

    frame: Callable[[Sequence[bytes]], bytes]
    begins: Callable[[bytes], bool]


def h264_frame(payloads: Sequence[bytes]) -> bytes:
    """Single NAL units, STAP-As and FU-As: packetization-modes 0 and 1."""
    if unit := _one_fragmented(payloads):
        return unit
    parts: list[bytes] = []
    open_unit = False
    for payload in payloads:
        kind = payload[0] & 0x1F
        if kind == _FU_A:
            open_unit = _fragment(
                parts, payload, 2, open_unit, bytes((payload[0] & 0xE0 | payload[1] & 0x1F,)) if payload[1:] else b""
            )
            continue
        if open_unit:
            raise ProtocolError("H.264 fragments without an end")
        if kind == _STAP_A:
            _aggregate(parts, payload, 1)
        elif 0 < kind < _STAP_A:
            parts += (_START, payload)
        else:
            raise ProtocolError(f"H.264 payload of structure {kind}")
    if open_unit:
        raise ProtocolError("H.264 fragments without an end")
    return b"".join(parts)


def _one_fragmented(payloads: Sequence[bytes]) -> bytes:
    """One NAL unit in fragments, as nearly all large frames are, by whole lists and not fragment by fragment. Empty for anything else."""
    heads = [payload[:2] for payload in payloads]
    first = heads[0]
    if len(heads) < 2 or len(first) < 2 or first[0] & 0x1F != _FU_A or first[1] & 0xE0 != 0x80:
        return b""
    indicator, kind = first[0], first[1] & 0x1F
    if heads[-1] != bytes((indicator, 0x40 | kind)) or heads[1:-1] != [bytes((indicator, kind))] * (len(heads) - 2):
        return b""
    fragments = [payload[2:] for payload in payloads]
    return b"".join((_START, bytes((indicator & 0xE0 | kind,)), *fragments)) if all(fragments) else b""


def h264_kinds(payloads: Sequence[bytes]) -> set[int]:
    """The types of the NAL units (ITU-T H.264 Table 7-1) in a frame that `h264_frame` takes."""
    kinds: set[int] = set()
    for head in {payload[:2] for payload in payloads}:
        kind = head[0] & 0x1F
        if kind == _FU_A:
            kinds.add(head[1] & 0x1F)
        elif kind == _STAP_A:
            for payload in payloads:
                if payload[0] & 0x1F == _STAP_A:
                    kinds.update(_aggregated(payload))
        else:
            kinds.add(kind)
    return kinds


def _aggregated(payload: bytes) -> Iterator[int]:
    position = 1
    while position + 2 < len(payload):
        yield payload[position + 2] & 0x1F
        position += 2 + int.from_bytes(payload[position : position + 2], "big")


def hevc_frame(payloads: Sequence[bytes]) -> bytes:
    """Single NAL units, APs and FUs, without decoding order numbers (sprop-max-don-diff is 0 in WebRTC)."""
    parts: list[bytes] = []
    open_unit = False
    for payload in payloads:
        kind = payload[0] >> 1 & 0x3F
        if kind == _FU:
            header = bytes((payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1])) if payload[2:] else b""
            open_unit = _fragment(parts, payload, 3, open_unit, header)
            continue
        if open_unit:
            raise ProtocolError("HEVC fragments without an end")
        if kind == _AP:
            _aggregate(parts, payload, 2)
        elif kind < _AP and len(payload) > 2:
            parts += (_START, payload)
        else:
            raise ProtocolError(f"HEVC payload of structure {kind}")
    if open_unit:
        raise ProtocolError("HEVC fragments without an end")
    return b"".join(parts)


def vp8_frame(payloads: Sequence[bytes]) -> bytes:
    if not _vp8_begins(payloads[0]):
        raise ProtocolError("VP8 frame without its beginning")
    return b"".join([payload[_vp8_descriptor(payload) :] for payload in payloads])


def vp9_frame(payloads: Sequence[bytes]) -> bytes:
    """All spatial layers of one picture, as a superframe without its index where there are several."""
    if not _vp9_begins(payloads[0]) or not payloads[-1][0] & 0x04:
        raise ProtocolError("VP9 frame without its beginning or end")
    return b"".join([payload[_vp9_descriptor(payload) :] for payload in payloads])


def av1_frame(payloads: Sequence[bytes]) -> bytes:
    """One temporal unit. OBU elements (§4.3) may go on in the next packet: Z says so of the first, Y of the last."""
    obus: list[Obu] = []
    rest: list[bytes] = []
    most = most_obus(sum(map(len, payloads)))
    for payload in payloads:
        header = payload[0]
        if (header & 0x80 != 0) != bool(rest):
            raise ProtocolError("AV1 fragment without what it continues")
        elements = _av1_elements(payload, header >> 4 & 3)
        last = len(elements) - 1
        for index, element in enumerate(elements):
            rest.append(element)
            if index < last or not header & 0x40:
                whole, rest = b"".join(rest), []
                if not whole:
                    raise ProtocolError("empty OBU")
                obus += split(whole)
                if len(obus) > most:
                    raise ProtocolError("too many OBUs in one frame")
    if rest:
        raise ProtocolError("AV1 fragment without its end")
    return b"".join([obu.sized for obu in obus])


def opus_frame(payloads: Sequence[bytes]) -> bytes:
    if len(payloads) != 1:
        raise ProtocolError("Opus packet in pieces")
    return payloads[0]


def check(payloads: Sequence[bytes]) -> None:
    """What every frame must keep to: a number of packets, and none of them empty."""
    if not 0 < len(payloads) <= FRAME_PACKETS or not all(payloads):
        raise ProtocolError(f"frame of {len(payloads)} packets")


# -- NAL units -----------------------------------------------------------------------------------------------------------------------


def _fragment(parts: list[bytes], payload: bytes, size: int, open_unit: bool, header: bytes) -> bool:
    """Takes one fragment whose headers are `size` bytes; `header` is that of the NAL unit. True while the unit goes on."""
    if len(payload) <= size:
        raise ProtocolError("fragment without data")
    flags = payload[size - 1]
    begins = flags & 0x80 != 0
    if begins == open_unit:
        raise ProtocolError("fragment without a beginning or an end")
    if begins:
        parts += (_START, header)
    parts.append(payload[size:])
    return not flags & 0x40


def _aggregate(parts: list[bytes], payload: bytes, header: int) -> None:
    position, end = header, len(payload)
    # Two parts are one unit.
    most = min(2 * MAX_UNITS, len(parts) + 2 * (_SMALL_UNITS + end // _UNIT_BYTES))
    while position < end:
        unit = position + 2
        position = unit + int.from_bytes(payload[position:unit], "big")
        if position > end or position == unit:
            raise ProtocolError("aggregation packet with a broken length")
        parts += (_START, payload[unit:position])
        if len(parts) > most:
            raise ProtocolError("too many NAL units in a frame or packet")


def _h264_begins(payload: bytes) -> bool:
    kind = payload[0] & 0x1F
    if kind == _STAP_A:
        return len(payload) > 4 and _h264_first(payload[3] & 0x1F, payload[4])
    if kind == _FU_A:
        return len(payload) > 2 and payload[1] & 0x80 != 0 and _h264_first(payload[1] & 0x1F, payload[2])
    return len(payload) > 1 and _h264_first(kind, payload[1])


def _h264_first(kind: int, byte: int) -> bool:
    """ITU-T H.264 §7.4.1.2.3: SEI, parameter sets and delimiters stand before the first slice."""
    return 6 <= kind <= 9 or (kind in (1, 5) and byte & _FIRST != 0)


def _hevc_begins(payload: bytes) -> bool:
    kind = payload[0] >> 1 & 0x3F
    if kind == _AP:
        return len(payload) > 6 and _hevc_first(payload[4] >> 1 & 0x3F, payload[6])
    if kind == _FU:
        return len(payload) > 3 and payload[2] & 0x80 != 0 and _hevc_first(payload[2] & 0x3F, payload[3])
    return len(payload) > 2 and _hevc_first(kind, payload[2])


def _hevc_first(kind: int, byte: int) -> bool:
    return 32 <= kind <= 35 or kind == 39 or (kind < 32 and byte & _FIRST != 0)


# -- VP8 and VP9 ---------------------------------------------------------------------------------------------------------------------


def _vp8_descriptor(payload: bytes) -> int:
    """Its size (RFC 7741 §4.2); at least one byte of data follows it."""
    size = 1
    if payload[0] & 0x80:
        extension = payload[1] if len(payload) > 1 else 0
        size = 2
        if extension & 0x80:  # I: a picture id of 7 or 15 bits
            size += 2 if payload[2:3] >= b"\x80" else 1
        size += (extension >> 6 & 1) + (extension & 0x30 != 0)  # L; T or K
    if size >= len(payload):
        raise ProtocolError("VP8 descriptor without data")
    return size


def _vp8_begins(payload: bytes) -> bool:
    return payload[0] & 0x17 == 0x10  # S, and partition 0


def _vp9_descriptor(payload: bytes) -> int:
    """Its size (RFC 9628 §4.2); at least one byte of data follows it."""
    flags, size, end = payload[0], 1, len(payload)
    flexible = flags & 0x10 != 0
    if flags & 0x80:  # I
        size += 2 if payload[size : size + 1] >= b"\x80" else 1
    if flags & 0x20:  # L: layer indices, and TL0PICIDX where not flexible
        size += 1 if flexible else 2
    if flexible and flags & 0x40:  # P: up to three references
        for _ in range(3):
            more = size < end and payload[size] & 1
            size += 1
            if not more:
                break
    if flags & 0x02 and size < end:  # V: the scalability structure
        size = _vp9_structure(payload, size)
    if size >= end:
        raise ProtocolError("VP9 descriptor without data")
    return size


def _vp9_structure(payload: bytes, position: int) -> int:
    structure = payload[position]
    position += 1
    if structure & 0x10:  # Y: width and height of each spatial layer
        position += 4 * ((structure >> 5) + 1)
    if structure & 0x08 and position < len(payload):  # G: the pictures of a group
        pictures = payload[position]
        position += 1
        for _ in range(pictures):
            if position >= len(payload):
                break
            position += 1 + (payload[position] >> 2 & 3)
    return position


def _vp9_begins(payload: bytes) -> bool:
    if not payload[0] & 0x08:  # B
        return False
    if not payload[0] & 0x20:
        return True
    at = 1 if not payload[0] & 0x80 else 3 if payload[1:2] >= b"\x80" else 2
    return len(payload) > at and payload[at] >> 1 & 7 == 0  # the lowest spatial layer


# -- AV1 -----------------------------------------------------------------------------------------------------------------------------


def _av1_elements(payload: bytes, count: int) -> list[bytes]:
    """§4.4: with W > 0 there are that many and the last has no length; else each has one."""
    elements: list[bytes] = []
    position, end = 1, len(payload)
    most = most_obus(end)
    while position < end:
        if count and len(elements) == count - 1:
            elements.append(payload[position:])
            position = end
            break
        length, position = read_leb128(payload, position)
        if position + length > end:
            raise ProtocolError("AV1 element with a broken length")
        if len(elements) == most:
            raise ProtocolError("too many OBUs in one packet")
        elements.append(payload[position : position + length])
        position += length
    if not elements or (count and len(elements) != count):
        raise ProtocolError("AV1 payload without its elements")
    return elements


def _av1_begins(payload: bytes) -> bool:
    return not payload[0] & 0x80


def _always(payload: bytes) -> bool:
    return True


FORMATS: Mapping[Codec, PayloadFormat] = {
    Codec.H264: PayloadFormat(h264_frame, _h264_begins),
    Codec.HEVC: PayloadFormat(hevc_frame, _hevc_begins),
    Codec.VP8: PayloadFormat(vp8_frame, _vp8_begins),
    Codec.VP9: PayloadFormat(vp9_frame, _vp9_begins),
    Codec.AV1: PayloadFormat(av1_frame, _av1_begins),
    Codec.OPUS: PayloadFormat(opus_frame, _always),
}
