"""What one viewer says of what it gets, and our reports to it: one RTCP session for all m-lines of a peer (RFC 3550 §6, RFC 4585). Sans-IO.

What is kept true: feedback on streams that are not ours, or of a kind that was not agreed on, is ignored; the work that one datagram causes
is bounded by its size, by the sender's limits on repair and replay, and by what was sent since the last feedback, whatever it says; it
causes one key frame of each stream and one answer at most.
"""

from collections.abc import Callable, Iterable, Sequence

from protocols.webrtc import rtcp
from protocols.webrtc.rtcp import ARRIVAL_NS, RtcpPacket
from protocols.webrtc.send.bandwidth import BandwidthEstimator, Calm, Heard
from protocols.webrtc.send.departures import Departure
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.way import ViewerWay

_DETAIL_NS = 500_000_000
_COMPOUND_LIMIT = 1200


class RtcpSession:
    """Of one peer. Feed it decrypted RTCP; send what `due` gives. `estimated_bitrate` is the viewer's word or our estimate, in bit/s."""

    def __init__(self, way: ViewerWay, senders: Iterable[Sender], *, on_answer: Callable[[bytes], None]) -> None:
        """`senders` are all that send on this `way`. `on_answer` takes what must be answered at once, to be encrypted and sent."""
        self.estimated_bitrate: int | None = None
        self.ignored = 0
        """RTCP packets for streams that are not ours or of kinds that we do not know."""
        self.collapses = 0
        """How often the way has narrowed to less than half at one blow."""
        self.judgements = 0
        """How often our estimate was made anew: at most twice a second."""
        self._senders = {sender.parameters.ssrc: sender for sender in senders}
        self._on_answer = on_answer
        self._fir_numbers: dict[int, int] = {}
        self._departures = way.departures
        self._counted = any(sender.parameters.transport_cc_extension for sender in self._senders.values())
        self._wanting: dict[Sender, None] = {}  # a key frame, by the datagram that is being read
        self._answered = False  # whether that datagram's question was
        self._bandwidth = BandwidthEstimator()
        self._bursts = way.bursts
        self._detail_due = 0  # when feedback is read to the last packet in any case

    # -- in --------------------------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: int) -> None:
        """Takes one decrypted compound packet. Raises `ProtocolError`; what stood before the broken part has been acted on."""
        self._answered = False
        try:
            for packet in rtcp.parse(data):
                self._take(packet, now)
        finally:
            for sender in self._wanting:
                sender.request_keyframe(now)
            self._wanting.clear()

    def _take(self, packet: RtcpPacket, now: int) -> None:
        match packet.type, packet.count:
            case ((rtcp.SR | rtcp.RR), _):
                self._reports(packet, now)
            case rtcp.RTPFB, rtcp.NACK:
                self._with_sender(packet, lambda sender: sender.repair(rtcp.nacked(packet), now))
            case rtcp.RTPFB, rtcp.TRANSPORT_CC:
                self._transport(packet, now)
            case rtcp.PSFB, rtcp.PLI:
                self._with_sender(packet, lambda sender: self._wanting.setdefault(sender))
            case rtcp.PSFB, rtcp.FIR:
                self._full_intra(packet)
            case rtcp.PSFB, rtcp.APPLICATION:
                self.estimated_bitrate = rtcp.remb(packet) or self.estimated_bitrate
            case rtcp.XR, _:
                self._answer_reference_time(packet)
            case ((rtcp.SDES | rtcp.BYE), _):  # it is DTLS that tells of the end
                pass
            case _:
                self.ignored += 1

    def _answer_reference_time(self, packet: RtcpPacket) -> None:
        """Answer a receiver's reference time. A browser that does not know the round trip takes it for 100 ms, and asks again so late
        that the picture stands still whenever a repair is lost too."""
        reference = None if self._answered else rtcp.reference_time(packet)
        if reference is not None and self._senders:
            self._answered = True
            ssrc = next(iter(self._senders))
            self._on_answer(rtcp.receiver_report(ssrc) + rtcp.reference_delay(ssrc, packet.ssrc, reference, 0))

    def _with_sender(self, packet: RtcpPacket, act: Callable[[Sender], None]) -> None:
        sender = self._senders.get(packet.media_ssrc)
        if sender is None:
            self.ignored += 1
        else:
            act(sender)

    def _reports(self, packet: RtcpPacket, now: int) -> None:
        for block in rtcp.report_blocks(packet):
            sender = self._senders.get(block.ssrc)
            if sender is not None:  # else of a repair stream: the original's report says what counts
                sender.reported(block, now)

    def _full_intra(self, packet: RtcpPacket) -> None:
        for ssrc, number in rtcp.full_intra_requests(packet):
            sender = self._senders.get(ssrc)
            # RFC 5104 §4.3.1.2: the same number is the same request, repeated until the key frame comes.
            if sender is not None and self._fir_numbers.get(ssrc) != number:
                self._fir_numbers[ssrc] = number
                self._wanting[sender] = None

    def _transport(self, packet: RtcpPacket, now: int) -> None:
        if not self._counted:
            self.ignored += 1
            return
        feedback = rtcp.transport_feedback_of(packet)
        departures = self._departures.take(feedback.base, feedback.count)
        if departures and not self._calm(feedback, departures, now):
            heard = _heard(feedback, departures)
            self.collapses += self._bandwidth.add(heard, now)
            self._bursts.add(heard, now)
        self.judgements = self._bandwidth.judgements
        self.estimated_bitrate = self._bandwidth.bits_per_second or self.estimated_bitrate

    def _calm(self, feedback: rtcp.TransportFeedback, departures: Sequence[Departure], now: int) -> bool:
        """Takes a feedback by which all has come, and not late, as a whole. Once in `_DETAIL_NS` none is, to see how far apart came what
        left together."""
        ends = feedback.ends
        (first, _, begun, _), (_, last, left, _) = departures[0], departures[-1]
        if ends is None or first or last < feedback.count or now >= self._detail_due:
            self._detail_due = now + _DETAIL_NS
            return False
        earliest, latest = ends[0] * ARRIVAL_NS, ends[1] * ARRIVAL_NS
        if not self._bandwidth.calm(begun, left, latest):
            return False
        packets = size = 0
        for begin, end, _, each in departures:
            packets += end - begin
            size += (end - begin) * each
        self._bandwidth.add_calm(Calm(left, latest, min(earliest - begun, latest - left), packets, size), now)
        return True

    # -- out -------------------------------------------------------------------------------------------------------------------------

    def due(self, now: int) -> list[bytes]:
        """Compound packets to encrypt and send: a sender report and the CNAME of each sender that sends, every second."""
        compounds: list[bytes] = []
        for sender in self._senders.values():
            if sender.report_due is None or sender.report_due > now:
                continue
            report = sender.report(now)
            if report is None:
                continue
            if compounds and len(compounds[-1]) + len(report) <= _COMPOUND_LIMIT:
                compounds[-1] += report
            else:
                compounds.append(report)
        return compounds


def _heard(feedback: rtcp.TransportFeedback, departures: Sequence[Departure]) -> list[Heard]:
    first = departures[0][0]
    told = feedback.arrivals(first, departures[-1][1])
    heard: list[Heard] = []
    for begin, end, sent, size in departures:
        arrivals = told[begin - first : end - first]
        came = [arrival for arrival in arrivals if arrival is not None]
        heard.append(Heard(sent, came, len(arrivals) - len(came), size))
    return heard
