"""All RTP and RTCP of one publishing peer: packets to their streams, frames out, and our feedback back (RFC 3550, RFC 4585, RFC 4588,
RFC 8843 §9.2). Sans-IO.

What is kept true: the number of streams is that of the answer's m-lines and layers, whatever SSRCs come; a stream that is replaced was
silent; feedback is sent when `due` says so and never more often than its kind allows.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from struct import Struct

from protocols.errors import ProtocolError
from protocols.webrtc import rtcp
from protocols.webrtc.receive.clock import WallClock
from protocols.webrtc.receive.estimate import BitrateEstimate
from protocols.webrtc.receive.jitter import NEVER, Packet, ReceivedFrame
from protocols.webrtc.receive.stream import Stream
from protocols.webrtc.rtp import ReceiveParameters

REPORT_NS = 1_000_000_000
FEEDBACK_NS = 50_000_000
"""Transport-wide feedback: as often as senders use it (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3)."""
ROUND_TRIP_NS = 100_000_000
"""Until one was measured."""

_SILENT_NS = 500_000_000
_MAX_ARRIVALS = 400  # in one feedback packet; one more is sent at once
_MAX_SPAN = 1024
_MAX_NACKED = 200
_COMPOUND_LIMIT = 1200

_fixed = Struct("!BBHLL").unpack_from
_ONE_BYTE, _TWO_BYTE = 0xBEDE, 0x1000  # RFC 8285 §4.2, §4.3


class RtpReceiver:
    """Feed it decrypted packets; `on_frame` gets each frame; when `due` has come, send what `poll` gives.

    `round_trip` (ns) may be set by who knows it.
    """

    def __init__(
        self, lines: Iterable[ReceiveParameters], ssrc: int, cname: str, on_frame: Callable[[Stream, ReceivedFrame], None]
    ) -> None:
        """`ssrc` and `cname` are ours, in RTCP."""
        self.due = NEVER
        self.streams: dict[int, Stream] = {}
        self.ignored = self.nacks = 0
        self.round_trip = 0
        self._lines = tuple(lines)
        self._ssrc = ssrc
        self._description = rtcp.source_description(ssrc, cname)
        self._on_frame = on_frame
        self._wall = WallClock()
        self._repairs: dict[int, Stream] = {}
        self._former: Counter[str] = Counter()
        self._payload_types = {pt for line in self._lines for pt in (*line.formats, *line.repair_formats)}
        self._by_mid = {line.mid.encode(): line for line in self._lines if line.mid}
        self._transport_cc = next((line.transport_cc_extension for line in self._lines if line.transport_cc_extension), 0)
        feedback = {each for line in self._lines for format in line.formats.values() for each in format.feedback}
        self._estimate = BitrateEstimate() if "goog-remb" in feedback and not self._transport_cc else None
        self._arrivals: dict[int, int] = {}
        self._transport_sequence = 0
        self._feedback_due = self._report_due = self._bitrate_due = NEVER
        self._feedback_number = 0

    # -- in --------------------------------------------------------------------------------------------------------------------------

    def receive_rtp(self, data: bytes, now: int) -> None:
        """One packet, of at least 12 bytes. Raises `ProtocolError`."""
        first, second, sequence, timestamp, ssrc = _fixed(data)
        if first >> 6 != 2:
            raise ProtocolError("RTP packet of a wrong version")
        payload_type = second & 0x7F
        position, end = 12 + 4 * (first & 0x0F), len(data)
        extensions = 0
        if first & 0x10:
            extensions = position
            position += 4 + 4 * int.from_bytes(data[position + 2 : position + 4], "big")
        if first & 0x20:
            padding = data[-1]
            end -= padding or NEVER
        if position > end:
            raise ProtocolError("RTP header or padding longer than its packet")
        if extensions and self._transport_cc:
            self._note_arrival(data, extensions, position, now)
        stream = self.streams.get(ssrc)
        packet = (payload_type, timestamp, second > 0x7F, data[position:end], now)
        if stream is not None and payload_type == stream.payload_type:  # nearly always
            frames = stream.push(sequence, packet)
        else:
            stream = self._stream(ssrc, payload_type, sequence, data, extensions, position, now)
            if stream is None:
                self.ignored += 1
                return
            frames = _take_other(stream, sequence, packet)
        estimate = self._estimate
        if estimate is not None:
            estimate.bytes += len(data)
            if timestamp != stream.noted and ssrc == stream.ssrc:
                stream.noted = timestamp
                if self._note_times(estimate, stream, timestamp, data, extensions, position, now):
                    self._bitrate_due = self.due = now
        for frame in frames:
            self._on_frame(stream, frame)
        if stream.buffer.news and now < self.due:
            self.due = min(self.due, max(now, stream.buffer.due(self.round_trip or ROUND_TRIP_NS)))

    def receive_rtcp(self, data: bytes, now: int) -> None:
        """One compound packet. Raises `ProtocolError`."""
        for packet in rtcp.parse(data):
            if packet.type == rtcp.SR and (stream := self.streams.get(packet.ssrc)) is not None:
                stream.sender_report(packet, now)

    def want_keyframe(self, stream: Stream) -> None:
        stream.want_keyframe()
        self.due = min(self.due, stream.keyframe_due)

    def _note_arrival(self, data: bytes, extensions: int, end: int, now: int) -> None:
        at = _element(data, extensions, end, self._transport_cc)
        if not at or at + 2 > end:
            return
        last = self._transport_sequence
        wrapped = data[at] << 8 | data[at + 1]
        sequence = last + ((wrapped - last + 0x8000 & 0xFFFF) - 0x8000)
        self._transport_sequence = max(last, sequence)
        self._arrivals[sequence] = now
        if self._feedback_due == NEVER or len(self._arrivals) >= _MAX_ARRIVALS:
            self._feedback_due = now + FEEDBACK_NS if len(self._arrivals) < _MAX_ARRIVALS else now
            self.due = min(self.due, self._feedback_due)

    def _note_times(
        self, estimate: BitrateEstimate, stream: Stream, timestamp: int, data: bytes, extensions: int, end: int, now: int
    ) -> bool:
        """When the first packet of a frame left and came. Whether the figure has fallen, to be told at once."""
        identifier = stream.parameters.abs_send_time_extension
        at = _element(data, extensions, end, identifier) if extensions and identifier else 0
        if at and at + 3 <= end:
            return estimate.note_send_time(int.from_bytes(data[at : at + 3], "big"), now)
        return estimate.note_timestamp(stream.ssrc, stream.format.clock_rate, timestamp, now)

    def totals(self) -> dict[str, int]:
        """`lost`, `late` and `repaired` packets, `oversized` frames, and `plis`, of all streams that are or were."""
        totals = Counter(self._former)
        for stream in self.streams.values():
            totals.update(_counts(stream))
        return totals

    # -- which stream ----------------------------------------------------------------------------------------------------------------

    def _stream(
        self, ssrc: int, payload_type: int, sequence: int, data: bytes, extensions: int, end: int, now: int
    ) -> Stream | None:
        """The stream of a packet that is the first of its SSRC, or of repair, or of another format than the last."""
        known = self.streams.get(ssrc) or self._repairs.get(ssrc)
        if known is None:
            return self._admit(ssrc, payload_type, sequence, data, extensions, end, now)
        agreed = known.parameters.formats if known.ssrc == ssrc else known.parameters.repair_formats
        return known if payload_type in agreed else None

    def _admit(
        self, ssrc: int, payload_type: int, sequence: int, data: bytes, extensions: int, end: int, now: int
    ) -> Stream | None:
        line = self._line(ssrc, payload_type, data, extensions, end)
        if line is None:
            return None
        if payload_type in line.repair_formats:
            rid = _text(data, extensions, end, line.repaired_rid_extension)
            stream = self._repaired(line, ssrc, rid)
            if stream is not None:
                for known in [each for each, repaired in self._repairs.items() if repaired is stream]:
                    del self._repairs[known]
                self._repairs[ssrc] = stream
            return stream
        rid = _text(data, extensions, end, line.rid_extension) if line.layers else ""
        if line.layers and rid not in line.layers:
            return None
        former = next((each for each in self.streams.values() if each.parameters is line and each.rid == rid), None)
        if former is not None:
            if now - former.last_arrival < _SILENT_NS:
                return None
            self._forget(former)
        stream = self.streams[ssrc] = Stream(ssrc, line, rid, payload_type, sequence, self._wall)
        if self._report_due == NEVER:
            self._report_due = now  # the first report says at once which SSRCs have come: senders then leave out mid and rid
            self.due = min(self.due, now)
        return stream

    def _line(self, ssrc: int, payload_type: int, data: bytes, extensions: int, end: int) -> ReceiveParameters | None:
        if payload_type not in self._payload_types:
            return None
        fitting = [line for line in self._lines if payload_type in line.formats or payload_type in line.repair_formats]
        for identifier in {line.mid_extension for line in fitting if line.mid_extension}:
            named = self._by_mid.get(_text(data, extensions, end, identifier).encode())
            if named is not None:
                return named if named in fitting else None
        announced = [line for line in fitting if ssrc in line.sources or ssrc in line.repairs]
        return announced[0] if announced else fitting[0] if len(fitting) == 1 else None

    def _repaired(self, line: ReceiveParameters, ssrc: int, rid: str) -> Stream | None:
        streams = [stream for stream in self.streams.values() if stream.parameters is line]
        if rid:
            return next((stream for stream in streams if stream.rid == rid), None)
        if ssrc in line.repairs:
            return self.streams.get(line.repairs[ssrc])
        return streams[0] if len(streams) == 1 and not line.layers else None

    def _forget(self, stream: Stream) -> None:
        self._former.update(_counts(stream))
        del self.streams[stream.ssrc]
        if self._estimate is not None:
            self._estimate.forget(stream.ssrc)
        for known in [each for each, repaired in self._repairs.items() if repaired is stream]:
            del self._repairs[known]

    # -- out -------------------------------------------------------------------------------------------------------------------------

    def poll(self, now: int) -> list[bytes]:
        """Frames that were waited for in vain go out by `on_frame`; gives the compound RTCP packets to send now."""
        packets: list[bytes] = []
        trip = self.round_trip or ROUND_TRIP_NS
        for stream in tuple(self.streams.values()):
            if stream.buffer.gaps:
                for frame in stream.buffer.poll(now, trip):
                    self._on_frame(stream, frame)
                wanted = list(islice(stream.buffer.wanted(now, trip), _MAX_NACKED))
                if wanted:
                    self.nacks += len(wanted)
                    packets.append(rtcp.negative_acknowledgement(self._ssrc, stream.ssrc, wanted))
            if stream.keyframe_due <= now:
                packets.append(stream.keyframe_request(self._ssrc, now))
        if self._feedback_due <= now:
            packets += self._transport_feedback()
        compounds = [self._report(now)] if self._report_due <= now else []
        if self._estimate is not None and self._bitrate_due <= now:
            packets.append(self._tell_bitrate(self._estimate))
        if packets and not compounds:
            compounds = [b""]
        for packet in packets:
            # RFC 5506: feedback need not have a report before it; rtcp-rsize is in our answer.
            if compounds[-1] and len(compounds[-1]) + len(packet) > _COMPOUND_LIMIT:
                compounds.append(b"")
            compounds[-1] += packet
        self._schedule(now, trip)
        return compounds

    def _schedule(self, now: int, trip: int) -> None:
        due = min(self._feedback_due, self._report_due, self._bitrate_due)
        for stream in self.streams.values():
            due = min(due, stream.keyframe_due, max(now, stream.buffer.due(trip)))
        self.due = due

    def _report(self, now: int) -> bytes:
        self._report_due = now + REPORT_NS
        blocks = [stream.report_block(now) for stream in self.streams.values()]
        report = rtcp.receiver_report(self._ssrc, blocks) + self._description
        if self._estimate is not None and blocks:
            worst = max(block.fraction_lost for block in blocks)
            self._estimate.judge(worst, now)
            report += self._tell_bitrate(self._estimate)
        return report

    def _tell_bitrate(self, estimate: BitrateEstimate) -> bytes:
        self._bitrate_due = NEVER
        return rtcp.estimated_bitrate(self._ssrc, estimate.bits_per_second, list(self.streams))

    def _transport_feedback(self) -> list[bytes]:
        arrivals, self._arrivals = sorted(self._arrivals.items()), {}
        self._feedback_due = NEVER
        media = next(iter(self.streams), 0)
        packets: list[bytes] = []
        begin = 0
        for index in range(1, len(arrivals) + 1):
            if index == len(arrivals) or index - begin >= _MAX_ARRIVALS or arrivals[index][0] - arrivals[begin][0] >= _MAX_SPAN:
                packets.append(rtcp.transport_feedback(self._ssrc, media, self._feedback_number, arrivals[begin:index]))
                self._feedback_number += 1
                begin = index
        return packets


def _counts(stream: Stream) -> dict[str, int]:
    buffer = stream.buffer
    return {
        "lost": buffer.lost,
        "late": buffer.late,
        "repaired": buffer.repaired,
        "oversized": buffer.oversized,
        "plis": stream.plis,
    }


def _take_other(stream: Stream, sequence: int, packet: Packet) -> list[ReceivedFrame]:
    """A packet of repair, or of another format."""
    payload_type, timestamp, marker, payload, now = packet
    original = stream.parameters.repair_formats.get(payload_type)
    if original is None:
        return stream.push(sequence, packet)
    if len(payload) < 3:  # padding alone, for probing the path
        return []
    # RFC 4588 §4: the original's sequence number goes before its payload.
    return stream.repair(int.from_bytes(payload[:2], "big"), (original, timestamp, marker, payload[2:], now))


def _element(data: bytes, block: int, end: int, identifier: int) -> int:
    """Where the value of a header extension begins (RFC 8285 §4); 0 if it is not there."""
    profile = data[block] << 8 | data[block + 1]
    position = block + 4
    if profile == _ONE_BYTE:
        while position < end:
            byte = data[position]
            if byte >> 4 == identifier:
                return position + 1
            position += 2 + (byte & 0x0F) if byte else 1
    elif profile & 0xFFF0 == _TWO_BYTE:
        while position + 1 < end:
            if data[position] == identifier:
                return position + 2
            position += 2 + data[position + 1] if data[position] else 1
    return 0


def _text(data: bytes, block: int, end: int, identifier: int) -> str:
    """An extension's value as text; empty if it is not there."""
    if not block or not identifier:
        return ""
    at = _element(data, block, end, identifier)
    if not at:
        return ""
    length = data[at - 1] if data[block] != 0xBE else (data[at - 1] & 0x0F) + 1
    return data[at : min(at + length, end)].decode("ascii", "replace").rstrip("\x00")
