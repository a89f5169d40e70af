"""Access units into RTP payloads, once per source whatever the number of viewers. Sans-IO.

What is kept true: a NAL unit too large for one packet becomes fragments of one fixed size (the last may be shorter), so that a frame
leaves in runs that the kernel can cut with `UDP_SEGMENT`; nothing is longer than the limit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

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


PACKETIZERS: Mapping[Codec, Callable[[bytes, int], list[bytes]]] = {
    Codec.H264: packetize_h264,
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
