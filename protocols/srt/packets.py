"""What the headers of transport stream packets say of one packet, and of several in a row (ISO/IEC 13818-1 §2.4.3.2). Sans-IO."""

from typing import Final

from protocols.srt.packet_sync import PACKET

RUN: Final = 256
"""Packets that are compared at once, at most."""
_COUNTERS: Final = bytes(0x10 | counter & 15 for counter in range(16 + RUN))  # the last byte of their headers


def alike(counter: int, data: bytes, begin: int, end: int) -> int:
    """How many of the packets from `begin` to `end` go on as the first of them: with its PID and flags, one counter after the other."""
    counters, pids = data[begin + 3 : end : PACKET], data[begin + 2 : end : PACKET]
    count = _common(counters, _COUNTERS[counter : counter + len(counters)])
    count = min(count, _common(pids, pids[:1] * len(pids)))
    stop = begin + count * PACKET
    flags = data[begin + 1 : stop : PACKET]
    return count if data[begin:stop:PACKET] == b"\x47" * count and flags == flags[:1] * count else 1


def _common(first: bytes, second: bytes) -> int:
    """With how many equal bytes they begin, which are of one size."""
    if first == second:
        return len(first)
    return len(first) - ((int.from_bytes(first) ^ int.from_bytes(second)).bit_length() + 7 >> 3)


def is_stuffed(packet: bytes) -> bool:
    """Whether the adaptation field (§2.4.3.4) of this packet holds stuffing."""
    size = packet[4]
    if size == 0:
        return True  # a length of 0 is how one single byte is stuffed
    if size > PACKET - 5:
        return False
    flags, used = packet[5], 1
    used += 6 * bool(flags & 0x10) + 6 * bool(flags & 0x08) + bool(flags & 0x04)
    for present in (flags & 0x02, flags & 0x01):  # private data, extension: each a length and that many bytes
        if present and used < size:
            used += 1 + packet[5 + used]
    return used < size
