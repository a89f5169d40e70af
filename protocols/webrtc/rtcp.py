"""RTCP packets, read and written: reports (RFC 3550 §6.4), feedback (RFC 4585, RFC 5104), REMB and transport-wide feedback. Sans-IO.

What is kept true: reading raises nothing but `ProtocolError`, and its work is bounded by the datagram's size and the limits given here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from struct import Struct

from protocols.errors import ProtocolError

SR, RR, SDES, BYE, RTPFB, PSFB, XR = 200, 201, 202, 203, 205, 206, 207
NACK, TRANSPORT_CC = 1, 15  # formats of RTPFB
PLI, FIR, APPLICATION = 1, 4, 15  # formats of PSFB

_HEADER = Struct("!BBH")
_SSRC = Struct("!L")
_SENDER = Struct("!LQLLL")
_BLOCK = Struct("!LLLLLL")
_NACK = Struct("!HH")
_FEEDBACK = Struct("!LL")
_BLOCK_HEADER = Struct("!BBH")
_DELAY = Struct("!LLL")
_TRANSPORT = Struct("!LLHHL")
_CHUNK = Struct("!H")
_LARGE_DELTA = Struct("!h")
_SMALL, _LARGE = 1, 2  # symbols of transport-wide feedback; 0: not received; 3: reserved
_DELTA_SIZES = (0, 1, 2, 0)
_ONES = (0, 0b11_1111_1111_1111, 0b01_0101_0101_0101)  # 14 bits of symbols of the value 1, by their width
ARRIVAL_NS = 250_000  # draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1.5
_CNAME = 1
_REFERENCE_TIME, _REFERENCE_DELAY = 4, 5  # blocks of XR: RRTR and DLRR (RFC 3611 §4.4, §4.5)
_PACKETS_LIMIT = 64  # in one compound; browsers put in a handful
_NTP_EPOCH = 2_208_988_800  # RFC 868: seconds from 1900 to 1970
_TRANSPORT_LIMIT = 2048  # packets that one transport-wide feedback may speak of; Chrome's speak of some hundred


@dataclass(frozen=True, slots=True)
class RtcpPacket:
    """One packet of a compound. `count` is the five bits after the padding bit: a count, or the feedback's format."""

    type: int
    count: int
    body: bytes

    @property
    def ssrc(self) -> int:
        """Who sent it."""
        return self.word(0)

    @property
    def media_ssrc(self) -> int:
        """Which of our streams a feedback packet speaks of (RFC 4585 §6.1)."""
        return self.word(4)

    def word(self, offset: int) -> int:
        if len(self.body) < offset + 4:
            raise ProtocolError("RTCP packet too short")
        return int.from_bytes(self.body[offset : offset + 4], "big")


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """What a receiver says of one stream. `last_report` and `delay` (1/65536 s) are of the sender report that it got last."""

    ssrc: int
    fraction_lost: int  # of 256
    packets_lost: int
    highest_sequence: int
    jitter: int  # in units of the RTP clock
    last_report: int
    delay: int


def parse(data: bytes) -> list[RtcpPacket]:
    """The packets of a compound, reduced-size ones too (RFC 5506). Raises `ProtocolError`."""
    packets: list[RtcpPacket] = []
    position = 0
    while position < len(data):
        if len(packets) >= _PACKETS_LIMIT:
            raise ProtocolError("RTCP compound of too many packets")
        if len(data) - position < 4:
            raise ProtocolError("RTCP header cut off")
        first, kind, words = _HEADER.unpack_from(data, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            raise ProtocolError("RTCP packet of a wrong version or length")
        body = data[position + 4 : end]
        if first & 0x20:
            if not body or not 0 < body[-1] <= len(body):
                raise ProtocolError("RTCP padding longer than its packet")
            body = body[: -body[-1]]
        packets.append(RtcpPacket(kind, first & 0x1F, body))
        position = end
    return packets


def report_blocks(packet: RtcpPacket) -> Iterator[ReportBlock]:
    """Of a sender or receiver report."""
    begin = 24 if packet.type == SR else 4
    if len(packet.body) < begin + 24 * packet.count:
        raise ProtocolError("RTCP report shorter than its count says")
    for offset in range(begin, begin + 24 * packet.count, 24):
        ssrc, loss, highest, jitter, last_report, delay = _BLOCK.unpack_from(packet.body, offset)
        lost = loss & 0xFFFFFF
        yield ReportBlock(ssrc, loss >> 24, lost - (lost >> 23 << 24), highest, jitter, last_report, delay)


def nacked(packet: RtcpPacket) -> Iterator[int]:
    """The sequence numbers that a generic NACK asks for (RFC 4585 §6.2.1)."""
    fci = packet.body[8:]
    if len(fci) % 4:
        raise ProtocolError("NACK of a broken length")
    for first, following in _NACK.iter_unpack(fci):
        yield first
        for bit in range(16):
            if following >> bit & 1:
                yield first + bit + 1 & 0xFFFF


def full_intra_requests(packet: RtcpPacket) -> Iterator[tuple[int, int]]:
    """(SSRC asked for, the request's number: a repeated one is the same request) (RFC 5104 §4.3.1)."""
    for offset in range(8, len(packet.body) - 7, 8):
        yield packet.word(offset), packet.body[offset + 4]


def remb(packet: RtcpPacket) -> int | None:
    """Bits per second of a receiver-estimated maximum bitrate (draft-alvestrand-rmcat-remb §2.2); None for another application's."""
    body = packet.body
    if body[8:12] != b"REMB" or len(body) < 16:
        return None
    exponent, mantissa = body[13] >> 2, (body[13] & 3) << 16 | body[14] << 8 | body[15]
    return mantissa << exponent


@dataclass(slots=True)
class TransportFeedback:
    """Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): which of `count` packets, of the transport-wide
    sequence numbers from `base` (16 bits) on, have come, and when.

    A chunk of two bytes may speak of 8191 packets, so that nothing is laid out before `arrivals` is asked for a stretch.
    """

    base: int
    count: int
    _reference: int  # in units of 250 us
    _chunks: bytes
    _deltas: bytes

    @property
    def ends(self) -> tuple[int, int] | None:
        """When the first and the last packet came, as `arrivals` says, where that is quickly told: all have come, each within 64 ms of
        the one before. Else None."""
        if len(self._chunks) != 2 or self._chunks[0] >> 5 != _SMALL:
            return None
        return self._reference + self._deltas[0], self._reference + sum(self._deltas)

    def arrivals(self, begin: int, end: int) -> list[int | None]:
        """Of the packets from the `begin`-th to before the `end`-th: when each came, in units of `ARRIVAL_NS` from an instant that is the
        same for all of a peer's; None: not received. The work grows with the bytes of the feedback and with what is asked for."""
        told: list[int | None] = []
        end = min(end, self.count)
        deltas, arrival = self._deltas, self._reference
        at = position = 0
        for symbol, length in self._runs():
            if at >= end:
                break
            before, until = max(0, min(length, begin - at)), min(length, end - at)
            size = _DELTA_SIZES[symbol]
            if size:
                part = deltas[position : position + size * until]
                came = list(accumulate(part if symbol == _SMALL else chain(*_LARGE_DELTA.iter_unpack(part)), initial=arrival))
                arrival = came[-1]
                told += came[1 + before :]
                position += size * length
            else:
                told += [None] * (until - before)
            at += length
        return told

    def _runs(self) -> Iterator[tuple[int, int]]:
        """(symbol, packets) in their order."""
        for (chunk,) in _CHUNK.iter_unpack(self._chunks):
            if not chunk >> 15:  # §3.1.3: run length
                yield chunk >> 13 & 3, chunk & 0x1FFF
                continue
            width = 1 + (chunk >> 14 & 1)  # §3.1.4: bits of a symbol, of which the rest of the chunk is made
            left, symbols = 14, chunk & 0x3FFF
            while left:
                symbol = symbols >> left - width
                others = symbols ^ symbol * (_ONES[width] & (1 << left) - 1)
                after = -(-others.bit_length() // width) * width
                yield symbol, (left - after) // width
                left, symbols = after, symbols & (1 << after) - 1


def transport_feedback_of(packet: RtcpPacket) -> TransportFeedback:
    """Reads one, whole or not at all: raises `ProtocolError` for one that lacks a chunk or a delta, or has an empty run."""
    body = packet.body
    if len(body) < 16:
        raise ProtocolError("transport-wide feedback too short")
    base, count = _NACK.unpack_from(body, 8)
    if count > _TRANSPORT_LIMIT:
        raise ProtocolError("transport-wide feedback of too many packets")
    position, left, size = 16, count, 0  # of the deltas in bytes
    while left > 0:
        if len(body) < position + 2:
            raise ProtocolError("transport-wide feedback without its chunks")
        chunk = int.from_bytes(body[position : position + 2], "big")
        position += 2
        length, deltas = _spoken_of(chunk, left)
        left, size = left - length, size + deltas
    if len(body) < position + size:
        raise ProtocolError("transport-wide feedback without its deltas")
    reference = int.from_bytes(body[12:15], "big") * 256  # 64 ms in units of 250 us
    return TransportFeedback(base, count, reference, body[16:position], body[position : position + size])


def _spoken_of(chunk: int, left: int) -> tuple[int, int]:
    """(packets, bytes of their deltas) of a chunk where `left` packets are still to be spoken of. §3.1.5: a small delta takes one byte, a
    large one two."""
    if not chunk >> 15:  # run length
        length = min(chunk & 0x1FFF, left)
        if not length:
            raise ProtocolError("transport-wide feedback with an empty run")
        return length, length * _DELTA_SIZES[chunk >> 13 & 3]
    if chunk >> 14 & 1:  # symbols of two bits
        length = min(7, left)
        value = (chunk & 0x3FFF) >> 2 * (7 - length)
        low, high = value & 0x1555, value >> 1 & 0x1555
        return length, (low & ~high).bit_count() + 2 * (high & ~low).bit_count()
    length = min(14, left)
    return length, ((chunk & 0x3FFF) >> 14 - length).bit_count()


def reference_time(packet: RtcpPacket) -> int | None:
    """The middle 32 bits of the NTP time of an XR packet's receiver reference time block (RFC 3611 §4.4); None where it has none."""
    body, offset = packet.body, 4
    while offset + 4 <= len(body):
        kind, words = body[offset], int.from_bytes(body[offset + 2 : offset + 4], "big")
        if kind == _REFERENCE_TIME and words == 2:
            return packet.word(offset + 4) << 16 & 0xFFFF0000 | packet.word(offset + 8) >> 16
        offset += 4 + 4 * words
    return None


def reference_delay(ssrc: int, receiver: int, reference: int, delay: int) -> bytes:
    """XR with a DLRR block (RFC 3611 §4.5): `delay` ns have passed since `receiver`'s reference time came."""
    block = _BLOCK_HEADER.pack(_REFERENCE_DELAY, 0, 3) + _DELAY.pack(
        receiver, reference, (delay << 16) // 1_000_000_000 & 0xFFFFFFFF
    )
    return _packet(XR, 0, _SSRC.pack(ssrc) + block)


def ntp_time(wall: int) -> int:
    """64-bit NTP timestamp (RFC 3550 §4) of `wall`, ns since the Unix epoch."""
    seconds, rest = divmod(wall, 1_000_000_000)
    return (seconds + _NTP_EPOCH & 0xFFFFFFFF) << 32 | (rest << 32) // 1_000_000_000


def sender_report(ssrc: int, ntp: int, timestamp: int, packets: int, octets: int) -> bytes:
    """RFC 3550 §6.4.1, without report blocks: we receive nothing on these m-lines."""
    return _packet(SR, 0, _SENDER.pack(ssrc, ntp, timestamp & 0xFFFFFFFF, packets & 0xFFFFFFFF, octets & 0xFFFFFFFF))


def sender_clock(packet: RtcpPacket) -> tuple[int, int]:
    """(NTP time, RTP timestamp) of one instant, of a sender report. Raises `ProtocolError`."""
    if len(packet.body) < 24:
        raise ProtocolError("RTCP sender report too short")
    _, ntp, timestamp, _, _ = _SENDER.unpack_from(packet.body)
    return ntp, timestamp


def receiver_report(ssrc: int, blocks: Sequence[ReportBlock] = ()) -> bytes:
    """RFC 3550 §6.4.2, of the first 31 blocks; empty: what a compound packet begins with where there is nothing to report."""
    blocks = blocks[:31]
    body = b"".join(
        _BLOCK.pack(
            block.ssrc,
            block.fraction_lost << 24 | block.packets_lost & 0xFFFFFF,
            block.highest_sequence & 0xFFFFFFFF,
            block.jitter & 0xFFFFFFFF,
            block.last_report,
            block.delay & 0xFFFFFFFF,
        )
        for block in blocks
    )
    return _packet(RR, len(blocks), _SSRC.pack(ssrc) + body)


def negative_acknowledgement(ssrc: int, media_ssrc: int, sequences: Sequence[int]) -> bytes:
    """RFC 4585 §6.2.1: asks for packets again; `sequences` (16 bits) in ascending order, wrapping allowed."""
    items: list[list[int]] = []
    for sequence in sequences:
        behind = sequence - items[-1][0] & 0xFFFF if items else 0
        if 1 <= behind <= 16:
            items[-1][1] |= 1 << behind - 1
        else:
            items.append([sequence, 0])
    return _packet(RTPFB, NACK, _FEEDBACK.pack(ssrc, media_ssrc) + b"".join(_NACK.pack(*item) for item in items))


def picture_loss(ssrc: int, media_ssrc: int) -> bytes:
    """RFC 4585 §6.3.1: asks for a key frame."""
    return _packet(PSFB, PLI, _FEEDBACK.pack(ssrc, media_ssrc))


def full_intra_request(ssrc: int, media_ssrc: int, number: int) -> bytes:
    """RFC 5104 §4.3.1: asks for a key frame; `number` (8 bits) is another for each new request."""
    return _packet(PSFB, FIR, _FEEDBACK.pack(ssrc, 0) + _SSRC.pack(media_ssrc) + bytes((number & 0xFF, 0, 0, 0)))


def estimated_bitrate(ssrc: int, bits_per_second: int, media: Sequence[int]) -> bytes:
    """REMB for the streams `media` together (draft-alvestrand-rmcat-remb §2.2)."""
    exponent = max(0, bits_per_second.bit_length() - 18)
    head = len(media) << 24 | exponent << 18 | bits_per_second >> exponent
    return _packet(PSFB, APPLICATION, _FEEDBACK.pack(ssrc, 0) + b"REMB" + _SSRC.pack(head) + b"".join(map(_SSRC.pack, media)))


def transport_feedback(ssrc: int, media_ssrc: int, number: int, arrivals: Sequence[tuple[int, int]]) -> bytes:
    """Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1), the `number`-th.

    `arrivals` are (sequence number not wrapped, arrival in ns) in ascending order, spanning fewer than 2048 packets; what is not
    among them was not received.
    """
    reference = arrivals[0][1] // 64_000_000
    clock = reference * 256  # 64 ms in units of 250 us
    base, end = arrivals[0][0], arrivals[-1][0] + 1
    symbols = bytearray(end - base)
    deltas = bytearray()
    for sequence, arrival in arrivals:
        delta = arrival // 250_000 - clock
        if not -0x8000 <= delta <= 0x7FFF:  # 8 s: as good as lost
            continue
        clock += delta
        small = 0 <= delta <= 0xFF
        symbols[sequence - base] = _SMALL if small else _LARGE
        deltas += delta.to_bytes(1, "big") if small else delta.to_bytes(2, "big", signed=True)
    head = _TRANSPORT.pack(ssrc, media_ssrc, base & 0xFFFF, end - base, (reference & 0xFFFFFF) << 8 | number & 0xFF)
    body = head + _chunks(symbols) + deltas
    return _packet(RTPFB, TRANSPORT_CC, body + bytes(-len(body) % 4))


def _chunks(symbols: bytearray) -> bytes:
    """§3.1.3, §3.1.4: runs of one symbol where they are long, else seven symbols of two bits."""
    chunks = bytearray()
    position, end = 0, len(symbols)
    while position < end:
        symbol = symbols[position]
        run = 1
        while position + run < end and symbols[position + run] == symbol:
            run += 1
        if run >= 7 or position + run == end:
            chunks += (symbol << 13 | run).to_bytes(2, "big")
            position += run
            continue
        vector = 0b11
        for symbol in symbols[position : position + 7].ljust(7, b"\x00"):
            vector = vector << 2 | symbol
        chunks += vector.to_bytes(2, "big")
        position += 7
    return bytes(chunks)


def source_description(ssrc: int, cname: str) -> bytes:
    """RFC 3550 §6.5 with a CNAME of at most 255 bytes: what joins one participant's audio and video."""
    name = cname.encode()[:255]
    chunk = _SSRC.pack(ssrc) + bytes((_CNAME, len(name))) + name + b"\x00"
    return _packet(SDES, 1, chunk + bytes(-len(chunk) % 4))


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return _HEADER.pack(0x80 | count, kind, len(body) // 4) + body
