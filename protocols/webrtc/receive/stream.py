"""One RTP stream that we receive (one SSRC): its packets in order, its clock, what we report of it, and when it is asked for a key frame.
Sans-IO.

What is kept true: key frames are asked for at most every `KEYFRAME_NS`, ever more rarely while none comes, and no longer once one came.
"""

from protocols.media import Kind
from protocols.webrtc import rtcp
from protocols.webrtc.receive.clock import StreamClock, WallClock
from protocols.webrtc.receive.depacketize import FORMATS
from protocols.webrtc.receive.jitter import NEVER, JitterBuffer, Packet, ReceivedFrame
from protocols.webrtc.rtcp import ReportBlock
from protocols.webrtc.rtp import ReceiveFormat, ReceiveParameters

KEYFRAME_NS = 500_000_000
_RAREST = 4  # times that: 2 s
_UNANSWERED = 3  # key frames asked for in vain, after which nobody should wait for one


class Stream:
    """Of one m-line, and of its layer `rid` (empty: no simulcast)."""

    def __init__(self, ssrc: int, parameters: ReceiveParameters, rid: str, payload_type: int, sequence: int, wall: WallClock):
        self.ssrc = ssrc
        self.parameters = parameters
        self.rid = rid
        self.payload_type = payload_type
        self.format: ReceiveFormat = parameters.formats[payload_type]
        self.clock = StreamClock(self.format.clock_rate, wall, leads=parameters.kind is Kind.AUDIO)
        coded = FORMATS[self.format.codec]
        feedback = self.format.feedback
        self.buffer = JitterBuffer(coded.begins, repairable="nack" in feedback, single=parameters.kind is Kind.AUDIO)
        self.last_arrival = 0
        self.noted = -1
        """The timestamp of the frame whose times were noted last, by who estimates the way."""
        self.packets = self.plis = 0
        self._base = sequence + 0x10000
        self._reported_packets = 0
        self._reported_expected = 0
        self._last_report = self._last_report_at = 0
        self._stamp = -1
        self._transit = 0
        self._jitter16 = 0  # in 1/16 of a tick
        self._by_pli, self._by_fir = "nack pli" in feedback, "ccm fir" in feedback
        self._wants = False
        self._asked = 0
        self._asked_at = -NEVER

    @property
    def jitter(self) -> int:
        """Interarrival jitter (RFC 3550 §6.4.1) in ticks of the RTP clock."""
        return self._jitter16 >> 4

    def push(self, sequence: int, packet: Packet) -> list[ReceivedFrame]:
        """The hot path: one packet, and the frames that it completes."""
        payload_type, timestamp, _, _, arrival = packet
        if payload_type != self.payload_type:
            self._change_format(payload_type)
        self.packets += 1
        self.last_arrival = arrival
        if timestamp != self._stamp:  # RFC 3550 §A.8; packets of one frame leave together and would only add their own spacing
            transit = arrival * self.format.clock_rate // 1_000_000_000 - timestamp
            moved = abs((transit - self._transit + 0x80000000 & 0xFFFFFFFF) - 0x80000000)
            if self._stamp >= 0:
                self._jitter16 += moved - (self._jitter16 + 8 >> 4)
            self._stamp, self._transit = timestamp, transit
        return self.buffer.push(sequence, packet)

    def repair(self, sequence: int, packet: Packet) -> list[ReceivedFrame]:
        """A packet that was sent again in a stream of its own (RFC 4588): what is reported stays what the path loses."""
        if packet[0] != self.payload_type:
            self._change_format(packet[0])
        return self.buffer.push(sequence, packet)

    def _change_format(self, payload_type: int) -> None:
        self.payload_type = payload_type
        self.format = self.parameters.formats[payload_type]
        self.buffer.begins = FORMATS[self.format.codec].begins

    # -- key frames ------------------------------------------------------------------------------------------------------------------

    @property
    def answers(self) -> bool:
        """Whether a key frame can be asked for, and one has come when it was."""
        return (self._by_pli or self._by_fir) and self._asked < _UNANSWERED

    def want_keyframe(self) -> None:
        self._wants = self._by_pli or self._by_fir

    def keyframe_came(self) -> None:
        self._wants = False
        self._asked = 0

    @property
    def keyframe_due(self) -> int:
        """When to ask (monotonic ns)."""
        if not self._wants:
            return NEVER
        return self._asked_at + KEYFRAME_NS * min(_RAREST, max(1, self._asked))

    def keyframe_request(self, ssrc: int, now: int) -> bytes:
        """The RTCP packet that asks, in the name of `ssrc`."""
        self._asked += 1
        self._asked_at = now
        self.plis += 1
        if self._by_pli:
            return rtcp.picture_loss(ssrc, self.ssrc)
        return rtcp.full_intra_request(ssrc, self.ssrc, self.plis)

    # -- reports ---------------------------------------------------------------------------------------------------------------------

    def sender_report(self, packet: rtcp.RtcpPacket, now: int) -> None:
        ntp, timestamp = rtcp.sender_clock(packet)
        self.clock.report(ntp, timestamp)
        self._last_report, self._last_report_at = ntp >> 16 & 0xFFFFFFFF, now

    def report_block(self, now: int) -> ReportBlock:
        """What came since the last one (RFC 3550 §A.3)."""
        highest = self.buffer.highest
        expected = max(0, highest - self._base + 1)
        period = expected - self._reported_expected
        missed = period - (self.packets - self._reported_packets)
        self._reported_expected, self._reported_packets = expected, self.packets
        delay = (now - self._last_report_at) * 65536 // 1_000_000_000 if self._last_report else 0
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=min(255, (missed << 8) // period) if missed > 0 and period > 0 else 0,
            packets_lost=max(-0x800000, min(0x7FFFFF, expected - self.packets)),
            highest_sequence=highest - 0x10000,
            jitter=self.jitter,
            last_report=self._last_report,
            delay=delay,
        )
