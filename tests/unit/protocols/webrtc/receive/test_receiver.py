"""One peer's packets to their streams, and our feedback to it, read with aiortc's classes where it has them."""

import random
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import pytest
from aiortc.rtp import RtcpPacket, RtcpPsfbPacket, RtcpRrPacket, RtcpRtpfbPacket, RtcpSdesPacket, unpack_remb_fci

from protocols.errors import ProtocolError
from protocols.media import Codec, Kind
from protocols.webrtc import rtcp
from protocols.webrtc.receive.jitter import NEVER, ReceivedFrame
from protocols.webrtc.receive.receiver import FEEDBACK_NS, REPORT_NS, RtpReceiver
from protocols.webrtc.receive.stream import KEYFRAME_NS, Stream
from protocols.webrtc.rtp import ReceiveFormat, ReceiveParameters
from tests.unit.protocols.webrtc.loopback import MS, SECOND

OURS = 0x0A0B0C0D
H264, RTX, OPUS = 108, 109, 111
MID, RID, REPAIRED_RID, TRANSPORT_CC = 4, 10, 11, 3
IDR, SLICE = b"\x65\x88\x80", b"\x41\x9a\x80"
FEEDBACK = frozenset({"nack", "nack pli", "ccm fir", "goog-remb", "transport-cc"})


def video(feedback: frozenset[str] = FEEDBACK, **changes: Any) -> ReceiveParameters:
    values: dict[str, Any] = {
        "kind": Kind.VIDEO,
        "mid": "1",
        "formats": {H264: ReceiveFormat(Codec.H264, 90_000, feedback)},
        "repair_formats": {RTX: H264},
        "layers": (),
        "sources": (),
        "repairs": {},
        "mid_extension": MID,
        "rid_extension": RID,
        "repaired_rid_extension": REPAIRED_RID,
        "transport_cc_extension": TRANSPORT_CC,
    }
    return ReceiveParameters(**(values | changes))


def audio(**changes: Any) -> ReceiveParameters:
    formats = {OPUS: ReceiveFormat(Codec.OPUS, 48_000, frozenset({"transport-cc"}))}
    return video(kind=Kind.AUDIO, mid="0", formats=formats, repair_formats={}, **changes)


def rtp(
    payload_type: int,
    sequence: int,
    timestamp: int,
    ssrc: int,
    payload: bytes,
    extensions: Mapping[int, bytes] = MappingProxyType({}),
    *,
    marker: bool = True,
    padding: int = 0,
) -> bytes:
    block = b"".join(bytes((each << 4 | len(value) - 1,)) + value for each, value in extensions.items())
    block += bytes(-len(block) % 4)
    first = 0x80 | (0x10 if extensions else 0) | (0x20 if padding else 0)
    head = bytes((first, payload_type | (0x80 if marker else 0))) + (sequence & 0xFFFF).to_bytes(2, "big")
    head += (timestamp & 0xFFFFFFFF).to_bytes(4, "big") + ssrc.to_bytes(4, "big")
    if extensions:
        head += b"\xbe\xde" + (len(block) // 4).to_bytes(2, "big") + block
    return head + payload + (bytes(padding - 1) + bytes((padding,)) if padding else b"")


class Peer:
    """A reception with a clock, and all that it gives."""

    def __init__(self, *lines: ReceiveParameters) -> None:
        self.frames: list[tuple[Stream, ReceivedFrame]] = []
        self.admission = RtpReceiver(
            lines or (video(), audio()), OURS, "us", lambda stream, frame: self.frames.append((stream, frame))
        )
        self.now = 1000 * SECOND

    def receive(self, *packets: bytes) -> None:
        for packet in packets:
            self.admission.receive_rtp(packet, self.now)

    def poll(self, after: int = 0) -> list[Any]:
        """What is sent, packet by packet, as aiortc reads it; what aiortc does not know stays bytes."""
        self.now += after
        sent: list[Any] = []
        if self.admission.due > self.now:
            return sent
        for compound in self.admission.poll(self.now):
            assert len(compound) <= 1300
            for packet in rtcp.parse(compound):
                if (packet.type, packet.count) == (rtcp.RTPFB, rtcp.TRANSPORT_CC):
                    sent.append(packet)
            sent += RtcpPacket.parse(compound)
        return sent

    def payloads(self, ssrc: int) -> list[bytes]:
        return [b"".join(frame.payloads) for stream, frame in self.frames if stream.ssrc == ssrc]


def of(kind: type, sent: list[Any]) -> list[Any]:
    return [packet for packet in sent if isinstance(packet, kind)]


# -- which stream --------------------------------------------------------------------------------------------------------------------


def test_streams_are_found_by_their_payload_type_where_only_one_line_has_it() -> None:
    peer = Peer()
    peer.receive(rtp(H264, 1, 0, 7, IDR), rtp(OPUS, 1, 0, 8, b"sound"))
    assert (peer.payloads(7), peer.payloads(8)) == ([IDR], [b"sound"])


def test_the_mid_decides_where_payload_types_do_not() -> None:
    peer = Peer(video(mid="a"), video(mid="b"))
    peer.receive(rtp(H264, 1, 0, 7, IDR, {MID: b"b"}), rtp(H264, 2, 3000, 7, SLICE), rtp(H264, 1, 0, 8, IDR, {MID: b"a"}))
    assert [(stream.parameters.mid, stream.ssrc) for stream, _ in peer.frames] == [("b", 7), ("b", 7), ("a", 8)]
    peer.receive(rtp(H264, 1, 0, 9, IDR))
    assert peer.admission.ignored == 1


def test_announced_ssrcs_decide_without_a_mid() -> None:
    peer = Peer(video(mid="a", sources=(7,)), video(mid="b", sources=(8,)))
    peer.receive(rtp(H264, 1, 0, 8, IDR))
    assert peer.frames[0][0].parameters.mid == "b"


def test_a_mid_that_does_not_fit_its_payload_type_is_ignored() -> None:
    peer = Peer()
    peer.receive(rtp(H264, 1, 0, 7, IDR, {MID: b"0"}), rtp(77, 1, 0, 9, IDR))
    assert (peer.frames, peer.admission.ignored) == ([], 2)


def test_layers_are_told_apart_by_their_rid() -> None:
    peer = Peer(video(layers=("h", "l")))
    for ssrc, rid in ((7, b"h"), (8, b"l")):
        peer.receive(rtp(H264, 1, 0, ssrc, IDR, {MID: b"1", RID: rid}), rtp(H264, 2, 3000, ssrc, SLICE))
    peer.receive(rtp(H264, 1, 0, 9, IDR, {MID: b"1", RID: b"x"}), rtp(H264, 1, 0, 10, IDR, {MID: b"1"}))
    assert [(stream.ssrc, stream.rid) for stream, _ in peer.frames] == [(7, "h"), (7, "h"), (8, "l"), (8, "l")]
    assert peer.admission.ignored == 2


def test_another_ssrc_takes_a_streams_place_only_when_that_is_silent() -> None:
    peer = Peer()
    peer.receive(rtp(H264, 1, 0, 7, IDR), rtp(H264, 1, 0, 8, IDR))
    assert list(peer.admission.streams) == [7]
    peer.now += SECOND
    peer.receive(rtp(H264, 9, 0, 8, IDR))
    assert list(peer.admission.streams) == [8]
    for ssrc in range(100, 1100):
        peer.now += SECOND
        peer.receive(rtp(H264, 1, 0, ssrc, IDR), rtp(RTX, 1, 0, 5000 + ssrc, b"\0\1" + IDR))
    assert len(peer.admission.streams) == 1
    assert len(peer.admission._repairs) == 1


@pytest.mark.parametrize(
    "packet",
    [
        b"\x40" + bytes(11),
        b"\x8f\x6c" + bytes(10),  # contributing sources that are not there
        b"\x90\x6c" + bytes(10),  # an extension that is not there
        b"\x90\x6c" + bytes(10) + b"\xbe\xde\x00\x09\x00",
        b"\xa0\x6c" + bytes(10) + b"\x00",
        b"\xa0\x6c" + bytes(10) + b"\x63",
    ],
)
def test_broken_headers_are_protocol_errors(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        Peer().receive(packet)


def test_random_packets_raise_nothing_else_and_stay_bounded() -> None:
    generator = random.Random(1)
    peer = Peer(video(layers=("h", "l")), audio())
    for _ in range(20_000):
        data = bytearray(generator.randbytes(generator.choice((12, 13, 20, 40, 200))))
        data[0] = 0x80 | generator.randrange(64)
        data[1] = generator.choice((H264, RTX, OPUS, H264 | 0x80, data[1]))
        peer.now += MS
        try:
            peer.receive(bytes(data))
        except ProtocolError:
            continue
        peer.poll()
    assert len(peer.admission.streams) <= 3


# -- repair --------------------------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_asked_for_once_the_batch_is_read() -> None:
    peer = Peer()
    peer.receive(rtp(H264, 1, 0, 7, IDR), rtp(H264, 3, 6000, 7, SLICE), rtp(H264, 2, 3000, 7, SLICE))
    assert not of(RtcpRtpfbPacket, peer.poll())
    peer.receive(rtp(H264, 5, 9000, 7, SLICE), rtp(H264, 30, 12000, 7, SLICE))
    assert peer.admission.due <= peer.now
    (nack,) = of(RtcpRtpfbPacket, peer.poll())
    assert (nack.ssrc, nack.media_ssrc, sorted(nack.lost)) == (OURS, 7, [4, *range(6, 30)])


def test_of_a_long_outage_everything_is_asked_for_in_packets_that_fit() -> None:
    peer = Peer()
    peer.receive(rtp(H264, 65_000, 0, 7, IDR), rtp(H264, 66_500, 3000, 7, SLICE))
    asked: list[int] = []
    for _ in range(10):
        asked += [sequence & 0xFFFF for nack in of(RtcpRtpfbPacket, peer.poll()) for sequence in nack.lost]
    assert asked == [sequence & 0xFFFF for sequence in range(65_001, 66_500)]


def test_rtx_repairs_by_announced_ssrc_by_rid_and_by_payload_type() -> None:
    for lines, extensions in (
        ((video(repairs={99: 7}),), {}),
        ((video(layers=("h", "l")),), {MID: b"1", REPAIRED_RID: b"h"}),
        ((video(),), {}),
    ):
        peer = Peer(*lines)
        rid = {MID: b"1", RID: b"h"} if lines[0].layers else {}
        peer.receive(rtp(H264, 1, 0, 7, IDR, rid), rtp(H264, 3, 6000, 7, SLICE))
        peer.receive(rtp(RTX, 500, 0, 99, b"", extensions, padding=200))
        peer.receive(rtp(RTX, 501, 3000, 99, b"\x00\x02" + SLICE, extensions))
        assert peer.payloads(7) == [IDR, SLICE, SLICE]
        assert all(frame.continuous for _, frame in peer.frames)


def test_repairs_do_not_hide_the_loss_that_is_reported() -> None:
    peer = Peer()
    for sequence in range(1, 101):
        if sequence % 10:
            peer.receive(rtp(H264, sequence, 3000 * sequence, 7, IDR))
        else:
            peer.receive(rtp(RTX, sequence, 3000 * sequence, 99, sequence.to_bytes(2, "big") + IDR))
    peer.now += REPORT_NS
    (report,) = of(RtcpRrPacket, peer.poll())
    (block,) = report.reports
    assert (block.ssrc, block.packets_lost, block.highest_sequence) == (7, 10, 100)
    assert block.fraction_lost == 256 // 10


# -- key frames ----------------------------------------------------------------------------------------------------------------------


def test_key_frames_are_asked_for_twice_a_second_then_more_rarely_until_one_comes() -> None:
    peer = Peer()
    peer.receive(rtp(H264, 1, 0, 7, IDR))
    peer.poll()
    stream = peer.admission.streams[7]
    asked = []
    for _ in range(600):
        peer.admission.want_keyframe(stream)
        asked += [peer.now for packet in of(RtcpPsfbPacket, peer.poll(10 * MS)) if packet.fmt == 1]
        if len(asked) == 3:
            assert not stream.answers
    gaps = [(later - earlier) // MS for earlier, later in pairwise(asked)]
    assert gaps == [500, 1000, 1500, 2000]
    stream.keyframe_came()
    assert stream.answers
    assert stream.keyframe_due == NEVER


def test_a_full_intra_request_where_a_picture_loss_was_not_agreed_on() -> None:
    peer = Peer(video(feedback=frozenset({"ccm fir"}), transport_cc_extension=0))
    peer.receive(rtp(H264, 1, 0, 7, IDR))
    peer.admission.want_keyframe(peer.admission.streams[7])
    (packet,) = [
        packet for compound in peer.admission.poll(peer.now) for packet in rtcp.parse(compound) if packet.type == rtcp.PSFB
    ]
    assert list(rtcp.full_intra_requests(packet)) == [(7, 1)]
    assert peer.admission.streams[7].keyframe_due == peer.now + KEYFRAME_NS


def test_who_cannot_be_asked_is_not() -> None:
    peer = Peer(video(feedback=frozenset({"nack"}), transport_cc_extension=0))
    peer.receive(rtp(H264, 1, 0, 7, IDR))
    peer.admission.want_keyframe(peer.admission.streams[7])
    assert not of(RtcpPsfbPacket, peer.poll())
    assert not peer.admission.streams[7].answers


# -- reports -------------------------------------------------------------------------------------------------------------------------


def test_reports_tell_loss_jitter_and_the_sender_reports_age() -> None:
    peer = Peer()
    for number in range(60):
        peer.receive(rtp(H264, number, 3000 * number, 7, IDR))
        peer.now += SECOND // 30 + (MS if number % 2 else -MS)
    peer.admission.receive_rtcp(rtcp.sender_report(7, 0x11112222_33334444, 180_000, 60, 1000), peer.now)
    report = of(RtcpRrPacket, peer.poll(250 * MS))[-1]
    (block,) = report.reports
    assert (report.ssrc, block.fraction_lost, block.lsr, block.dlsr) == (OURS, 0, 0x22223333, 65536 // 4)
    assert 60 < block.jitter < 100  # 1 ms of 90 kHz


def test_the_first_report_comes_at_once_and_then_every_second() -> None:
    peer = Peer()
    peer.receive(rtp(OPUS, 1, 0, 8, b"sound"))
    sent = peer.poll()
    assert len(of(RtcpRrPacket, sent)) == 1
    assert of(RtcpSdesPacket, sent)[0].chunks[0].items == [(1, b"us")]
    assert not of(RtcpRrPacket, peer.poll(REPORT_NS - 1))
    assert len(of(RtcpRrPacket, peer.poll(1))) == 1


def test_remb_goes_to_who_has_nothing_better_and_falls_with_loss() -> None:
    assert not of(RtcpPsfbPacket, _two_seconds(Peer()))
    plain = Peer(video(feedback=frozenset({"nack", "nack pli", "goog-remb"}), transport_cc_extension=0))
    rates = [unpack_remb_fci(packet.fci) for packet in of(RtcpPsfbPacket, _two_seconds(plain))]
    assert [ssrcs for _, ssrcs in rates] == [[7]] * len(rates)
    assert all(rate >= 19_000_000 for rate, _ in rates)
    lossy = Peer(video(feedback=frozenset({"goog-remb"}), transport_cc_extension=0))
    rates = [unpack_remb_fci(packet.fci) for packet in of(RtcpPsfbPacket, _two_seconds(lossy, lose=5))]
    assert rates[-1][0] < 1_000_000


def _two_seconds(peer: Peer, lose: int = 0) -> list[Any]:
    sent: list[Any] = []
    for number in range(210):
        if not lose or number % lose:
            peer.receive(rtp(H264, number, 900 * number, 7, IDR + bytes(1000)))
        sent += peer.poll(10 * MS)
    return sent


def transport_cc(sequence: int) -> dict[int, bytes]:
    return {2: b"abs", TRANSPORT_CC: (sequence & 0xFFFF).to_bytes(2, "big"), MID: b"1"}


def told_of(packet: rtcp.RtcpPacket) -> list[tuple[int, int | None]]:
    """(transport-wide sequence number, arrival in units of 250 us or None if lost) of all that one feedback speaks of."""
    feedback = rtcp.transport_feedback_of(packet)
    told = feedback.arrivals(0, feedback.count)
    return [(sequence & 0xFFFF, arrival) for sequence, arrival in enumerate(told, feedback.base)]


def test_arrivals_are_fed_back_every_50_ms_with_what_is_missing() -> None:
    peer = Peer()
    arrived: dict[int, int] = {}
    told: list[tuple[int, int | None]] = []
    generator = random.Random(3)
    for number in range(65_500, 66_000):
        if generator.random() > 0.1:
            peer.receive(rtp(H264, number, number, 7, IDR, transport_cc(number)))
            arrived[number & 0xFFFF] = peer.now
        for packet in peer.poll(generator.choice((100_000, MS, 9 * MS))):
            if isinstance(packet, rtcp.RtcpPacket):
                told += told_of(packet)
    received = {sequence: arrival for sequence, arrival in told if arrival is not None}
    assert set(received) >= set(list(arrived)[:-60])
    first = next(iter(received))
    for sequence, arrival in received.items():
        assert abs((arrival - received[first]) * 250_000 - (arrived[sequence] - arrived[first])) < 500_000
    missing = {sequence for sequence, arrival in told if arrival is None}
    assert missing
    assert not missing & set(arrived)


def test_feedback_waits_for_more_but_not_long() -> None:
    peer = Peer()
    peer.receive(rtp(H264, 1, 0, 7, IDR, transport_cc(1)))
    peer.poll()
    assert peer.admission.due == peer.now + FEEDBACK_NS
    for number in range(2, 500):
        peer.receive(rtp(H264, number, 0, 7, IDR, transport_cc(number)))
    assert peer.admission.due == peer.now
    assert sum(isinstance(packet, rtcp.RtcpPacket) for packet in peer.poll()) == 2


def test_a_wild_jump_of_the_transport_sequence_makes_small_feedback() -> None:
    peer = Peer()
    for number in (1, 2, 20_000, 20_001):
        peer.receive(rtp(H264, number, number, 7, IDR, transport_cc(number)))
    packets = [packet for packet in peer.poll(FEEDBACK_NS) if isinstance(packet, rtcp.RtcpPacket)]
    assert [len(told_of(packet)) for packet in packets] == [2, 2]
