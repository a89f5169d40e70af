"""What one viewer says of what it gets, and our reports to it: one RTCP session for all m-lines of a peer (RFC 3550 §6, RFC 4585). Sans-IO.

What is kept true: feedback on streams that are not ours is ignored; the work that one datagram causes is bounded by the sender's
limits on repair and replay, whatever it says.
"""

from collections.abc import Callable, Iterable

from protocols.webrtc import rtcp
from protocols.webrtc.rtcp import RtcpPacket
from protocols.webrtc.rtp import OVERHEAD
from protocols.webrtc.send.bandwidth import BandwidthEstimator
from protocols.webrtc.send.sender import Sender

_TICK_NS = 250_000  # transport-wide feedback tells arrivals in 250 us
_COMPOUND_LIMIT = 1200
_UNANSWERED = 1 << 15  # half of the sequence space: what is further back is not told apart from what is to come


class RtcpSession:
    """Of one peer. Feed it decrypted RTCP; send what `due` gives. `estimated_bitrate` is the viewer's word or our estimate, in bit/s."""

    def __init__(self, senders: Iterable[Sender], *, on_answer: Callable[[bytes], None]) -> None:
        """`on_answer` takes what must be answered at once, to be encrypted and sent."""
        self.estimated_bitrate: int | None = None
        self.ignored = 0
        """RTCP packets for streams that are not ours or of kinds that we do not know."""
        self.collapses = 0
        """How often the way has narrowed to less than half at one blow."""
        self._senders = {sender.parameters.ssrc: sender for sender in senders}
        self._on_answer = on_answer
        self._fir_numbers: dict[int, int] = {}
        self._bandwidth = BandwidthEstimator()

    # -- in --------------------------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: int) -> None:
        """Takes one decrypted compound packet. Raises `ProtocolError`; what stood before the broken part has been acted on."""
        for packet in rtcp.parse(data):
            self._take(packet, now)

    def _take(self, packet: RtcpPacket, now: int) -> None:
        match packet.type, packet.count:
            case ((rtcp.SR | rtcp.RR), _):
                self._reports(packet, now)
            case rtcp.RTPFB, rtcp.NACK:
                self._with_sender(packet, lambda sender: sender.repair(rtcp.nacked(packet), now))
            case rtcp.RTPFB, rtcp.TRANSPORT_CC:
                self._transport(packet, now)
            case rtcp.PSFB, rtcp.PLI:
                self._with_sender(packet, lambda sender: sender.request_keyframe(now))
            case rtcp.PSFB, rtcp.FIR:
                self._full_intra(packet, now)
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
        reference = rtcp.reference_time(packet)
        if reference is not None and self._senders:
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

    def _full_intra(self, packet: RtcpPacket, now: int) -> None:
        for ssrc, number in rtcp.full_intra_requests(packet):
            sender = self._senders.get(ssrc)
            # RFC 5104 §4.3.1.2: the same number is the same request, repeated until the key frame comes.
            if sender is not None and self._fir_numbers.get(ssrc) != number:
                self._fir_numbers[ssrc] = number
                sender.request_keyframe(now)

    def _transport(self, packet: RtcpPacket, now: int) -> None:
        arrivals = rtcp.transport_arrivals(packet)
        if not arrivals:
            return
        departures = self._departures(arrivals[0][0], len(arrivals))
        self.collapses += self._bandwidth.add(
            [
                (departure[0], None if arrival is None else arrival * _TICK_NS, departure[1])
                for (_, arrival), departure in zip(arrivals, departures, strict=True)
                if departure is not None
            ],
            now,
        )
        self.estimated_bitrate = self._bandwidth.bits_per_second or self.estimated_bitrate

    def _departures(self, first: int, count: int) -> list[tuple[int, int] | None]:
        """(when it left, bytes) of each packet of the stretch that begins with `first`; None for repairs and what is forgotten.

        Browsers speak of every packet ten times a second: the work is done by runs.
        """
        departures: list[tuple[int, int] | None] = [None] * count
        for sender in self._senders.values():
            if not sender.parameters.transport_cc_extension:
                continue
            for _, packets, _, _, begin, at, size in reversed(sender.stream.sent):
                ahead = begin - first & 0xFFFF
                if ahead >= _UNANSWERED:  # it begins before the stretch
                    ahead -= 1 << 16
                    if ahead + packets <= 0:
                        break
                low, high = max(0, ahead), min(count, ahead + packets)
                if low < high:
                    departures[low:high] = [(at, size // packets + OVERHEAD)] * (high - low)
        return departures

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
