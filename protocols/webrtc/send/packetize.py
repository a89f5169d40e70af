"""Access units into RTP payloads, once per source whatever the number of viewers. Sans-IO.

What is kept true: what is too large for one packet becomes fragments of one fixed size (the last may be shorter), so that a frame
leaves in runs that the kernel can cut with `UDP_SEGMENT`; nothing is longer than the limit. VP8, VP9 and AV1 go without picture ids,
layers and dependency descriptors: receivers then order frames by sequence number, which no change of source or codec can disturb.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from protocols.bitstream.obu import SEQUENCE_HEADER, leb128, split
from protocols.errors import ProtocolError
from protocols.media import Codec

PAYLOAD_LIMIT = 1180
"""Bytes: with header, extensions, SRTP tag, RTX and IPv6 + UDP headers it stays under 1280, the IPv6 minimum MTU (RFC 8200 §5)."""

RUN_LIMIT = 16
"""Packets in one run: one `sendmsg`, and one slice of the pacing. Far below the kernel's 64 segments and 64 KiB."""

_STAP_A = 24
_FU_A = 28
_START = b"\x00\x00\x01"
_LENGTH = 2
# ITU-T H.264 Table 7-1: an access unit delimiter and filler data tell a decoder nothing that RTP does not. 0 and 24-31 are RTP's own
# numbers (RFC 6184 §5.2): sent as they are, they would be read as another packet structure.
UNSENT = frozenset({0, 9, 12, *range(24, 32)})
_VP8_BEGINS = 0x10  # RFC 7741 §4.2: S, and partition 0: the frame is one partition to RTP
_VP9_INTER, _VP9_BEGINS, _VP9_ENDS = 0x40, 0x08, 0x04  # RFC 9628 §4.2: P, B and E
_AV1_CONTINUES, _AV1_GOES_ON, _AV1_NEW_SEQUENCE = 0x80, 0x40, 0x08  # AV1 RTP §4.4: Z, Y and N
_AV1_UNSENT = frozenset({2, 8, 15})  # §5: temporal delimiters and tile lists; padding
_AV1_ELEMENTS = 3  # what W can count: the last of them needs no length


def packetize_h264(access_unit: bytes, limit: int = PAYLOAD_LIMIT) -> list[bytes]:
    """Payloads of one access unit (Annex B, 3- or 4-byte start codes), packetization-mode 1 (RFC 6184 §5.4), each <= `limit` bytes.

    Neighbouring small NAL units share a STAP-A (§5.7.1), large ones become FU-As (§5.8). Empty for data without a NAL unit.
    """
    payloads: list[bytes] = []
    small: list[bytes] = []
    room = limit - 1
    for unit in _nal_units(access_unit):
        size = len(unit)
        if small and (size > limit or size + _LENGTH > room):
            payloads.append(_aggregate(small))
            small, room = [], limit - 1
        if size > limit:
            _fragment(unit, limit, payloads)
        else:
            small.append(unit)
            room -= size + _LENGTH
    if small:
        payloads.append(_aggregate(small))
    return payloads


def packetize_opus(frame: bytes, limit: int = PAYLOAD_LIMIT) -> list[bytes]:
    """RFC 7587 §4.2: one packet is one payload. Empty where it is longer than `limit` (no encoder of a live stream makes that)."""
    return [frame] if 0 < len(frame) <= limit else []


def packetize_vp8(frame: bytes, limit: int = PAYLOAD_LIMIT) -> list[bytes]:
    """RFC 7741 §4.2 with a descriptor of one byte. Empty for no data."""
    return _sliced(frame, limit, begins=_VP8_BEGINS)


def packetize_vp9(frame: bytes, limit: int = PAYLOAD_LIMIT) -> list[bytes]:
    """RFC 9628 §4.2, not flexible, with a descriptor of one byte; a frame is that of one picture. Empty for no data."""
    # VP9 §6.2, profiles 0 to 2: show_existing_frame and frame_type are 0 in a key frame.
    inter = frame and frame[0] & 0x0C
    return _sliced(frame, limit, always=_VP9_INTER if inter else 0, begins=_VP9_BEGINS, ends=_VP9_ENDS)


def packetize_av1(temporal_unit: bytes, limit: int = PAYLOAD_LIMIT) -> list[bytes]:
    """AV1 RTP §4.4: OBUs without their size fields, as many in a packet as fit. Empty for what is not made of OBUs.

    Where a packet ends an OBU goes on, if more of the frame follows: libwebrtc takes a packet that continues none for the beginning of a
    frame where no dependency descriptor tells it otherwise.
    """
    try:
        sent = [obu for obu in split(temporal_unit) if obu.kind not in _AV1_UNSENT]
    except ProtocolError:
        return []
    payloads: list[bytes] = []
    elements: list[bytes] = []  # of the packet that is being filled
    # A sequence header stands before each key frame, which begins a coded video sequence, and nowhere else (AV1 §7.5).
    flags = _AV1_NEW_SEQUENCE if sent and sent[0].kind == SEQUENCE_HEADER else 0
    room = limit - 1
    for number, obu in enumerate(sent, 1):
        at, more, each = 0, number < len(sent), obu.unsized
        while at < len(each):
            room -= _av1_length(elements[-1]) if elements else 0  # the one before is no longer the last
            element = each[at : at + room]
            full = room - len(element) <= _av1_length(element) or len(elements) + 1 == _AV1_ELEMENTS
            if full and more and 1 < len(element) == len(each) - at:
                element = element[:-1]
            at += len(element)
            room -= len(element)
            elements.append(element)
            goes_on = at < len(each)
            if goes_on or full or not more:
                payloads.append(_av1_payload(flags | _AV1_GOES_ON if goes_on else flags, elements))
                elements, room, flags = [], limit - 1, _AV1_CONTINUES if goes_on else 0
    return payloads


PACKETIZERS: Mapping[Codec, Callable[[bytes, int], list[bytes]]] = {
    Codec.H264: packetize_h264,
    Codec.VP8: packetize_vp8,
    Codec.VP9: packetize_vp9,
    Codec.AV1: packetize_av1,
    Codec.OPUS: packetize_opus,
}


def runs(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cuts a frame into runs for `UDP_SEGMENT`: all of one size but the last, which may be shorter; at most `RUN_LIMIT` in each."""
    begin = 0
    for index in range(1, len(payloads)):
        previous, size = len(payloads[index - 1]), len(payloads[index])
        if index - begin == RUN_LIMIT or size > previous or previous < len(payloads[begin]):
            yield payloads[begin:index]
            begin = index
    if payloads:
        yield payloads[begin:]


def _nal_units(access_unit: bytes) -> Iterator[bytes]:
    begin = access_unit.find(_START) + 3
    if begin < 3:
        return
    while True:
        end = access_unit.find(_START, begin)
        # Annex B.1: zeros before a start code belong to the byte stream; a NAL unit never ends in one (H.264 §7.4.1).
        unit = (access_unit[begin:] if end < 0 else access_unit[begin:end]).rstrip(b"\x00")
        if unit and unit[0] & 0x1F not in UNSENT:
            yield unit
        if end < 0:
            return
        begin = end + 3


def _aggregate(units: list[bytes]) -> bytes:
    if len(units) == 1:
        return units[0]
    # §5.7: F is the OR of all F bits, NRI the maximum of all.
    header = _STAP_A | max(unit[0] & 0x60 for unit in units) | max(unit[0] & 0x80 for unit in units)
    return bytes((header,)) + b"".join(len(unit).to_bytes(_LENGTH, "big") + unit for unit in units)


def _fragment(unit: bytes, limit: int, payloads: list[bytes]) -> None:
    indicator, kind = unit[0] & 0xE0 | _FU_A, unit[0] & 0x1F
    step, size = limit - 2, len(unit)
    payloads.append(bytes((indicator, 0x80 | kind)) + unit[1 : 1 + step])
    middle = bytes((indicator, kind))
    last = 1 + step * ((size - 2) // step)  # where the last fragment begins
    payloads += [middle + unit[begin : begin + step] for begin in range(1 + step, last, step)]
    payloads.append(bytes((indicator, 0x40 | kind)) + unit[last:])


def _sliced(frame: bytes, limit: int, *, begins: int, ends: int = 0, always: int = 0) -> list[bytes]:
    """Slices of one size, each after one byte of flags."""
    step = limit - 1
    slices = [frame[at : at + step] for at in range(0, len(frame), step)]
    flags = [always] * len(slices)
    if flags:
        flags[0] |= begins
        flags[-1] |= ends
    return [bytes((each,)) + data for each, data in zip(flags, slices, strict=True)]


def _av1_length(element: bytes) -> int:
    """Bytes of its length field."""
    return len(leb128(len(element)))


def _av1_payload(flags: int, elements: Sequence[bytes]) -> bytes:
    before = [leb128(len(each)) + each for each in elements[:-1]]
    return b"".join((bytes((flags | len(elements) << 4,)), *before, elements[-1]))
