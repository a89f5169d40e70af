"""What viewers say is acted on within bounds, whatever they say; what we say to them is right."""

import random
from collections.abc import Callable

import pytest
from aiortc.rtp import (
    RtcpByePacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_remb_fci,
)

from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.webrtc.rtcp import RR, XR, parse
from protocols.webrtc.rtcp import transport_feedback as all_feedback
from protocols.webrtc.send.report import RtcpSession
from protocols.webrtc.send.sender import Sender
from tests.unit.protocols.webrtc.loopback import (
    FRAME,
    MS,
    SECOND,
    Peer,
    Programme,
    Timers,
    access_units,
    contiguous,
    packet,
    parameters,
    push,
    restored,
    sender_to,
    source_of,
    video,
    watch,
)

SSRC, RTX = 0xABCDEF01, 0x12345678


def nack(*sequences: int, ssrc: int = SSRC) -> bytes:
    return bytes(RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=ssrc, lost=list(sequences)))


def pli(ssrc: int = SSRC) -> bytes:
    return bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=ssrc))


def fir(number: int, ssrc: int = SSRC) -> bytes:
    return bytes(RtcpPsfbPacket(fmt=4, ssrc=1, media_ssrc=0, fci=ssrc.to_bytes(4, "big") + bytes((number, 0, 0, 0))))


def listening(peer: Peer, *senders: Sender, on_answer: Callable[[bytes], None] = lambda answer: None) -> RtcpSession:
    return RtcpSession(peer.way, senders, on_answer=on_answer)


def test_a_lost_packet_comes_again_as_rtx_with_a_fresh_send_time(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = watch(source, peer, 0)
    feedback = listening(peer, sender)
    Programme(source, timers).play(5)
    packets = peer.receive()
    lost = packets[20]
    at = 4 * FRAME + 25 * MS
    feedback.receive(nack(lost.sequence_number), at)
    (rtx,) = peer.receive()
    again = restored(rtx)
    assert (rtx.ssrc, rtx.payload_type) == (RTX, 97)
    assert (again.sequence_number, again.timestamp, again.marker) == (lost.sequence_number, lost.timestamp, lost.marker)
    assert again.payload == lost.payload
    assert rtx.extensions.mid == "0"
    assert rtx.extensions.abs_send_time == (at << 18) // SECOND
    newest = packets[-1].extensions.transport_sequence_number
    assert newest is not None
    assert rtx.extensions.transport_sequence_number == (newest + 1) & 0xFFFF
    assert (sender.stream.retransmitted, sender.stream.nacks) == (1, 1)


def test_without_rtx_the_very_same_packet_comes_again(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = watch(source, peer, 0, rtx_ssrc=None)
    feedback = listening(peer, sender)
    push(source, 3000, 0, key=True)
    sent = [data for data in iter(peer.datagram, None) if not 192 <= data[1] <= 223]
    sequences = [int.from_bytes(data[2:4], "big") for data in sent]
    feedback.receive(nack(*sequences), 50 * MS)
    assert list(iter(peer.datagram, None)) == sent  # to the bit: another packet under its number would reuse the nonce
    assert sender.stream.retransmitted == len(sent) == 4


def test_nacks_are_answered_across_the_wrap_of_the_sequence(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = sender_to(peer, parameters(), sequence=65_533)
    sender.attach(source, 0)
    feedback = listening(peer, sender)
    push(source, 7000, 0, key=True)
    packets = {each.sequence_number: each.payload for each in peer.receive()}
    assert list(packets) == [65_533, 65_534, 65_535, 0, 1, 2, 3]
    fci = (65_534).to_bytes(2, "big") + (0b1111).to_bytes(2, "big")  # and the four after it
    feedback.receive(bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=SSRC, fci=fci)).replace(b"\x81\xce", b"\x81\xcd", 1), MS)
    again = {each.sequence_number: each.payload for each in map(restored, peer.receive())}
    assert again == {number: packets[number] for number in (65_534, 65_535, 0, 1, 2)}


def test_packets_of_a_join_and_of_a_replay_are_repaired_too(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    programme = Programme(source, timers, group=90)
    programme.play(10)
    sender = watch(source, peer, timers.now)
    feedback = listening(peer, sender)
    timers.advance(timers.now + 200 * MS)
    feedback.receive(pli(), timers.now + SECOND)
    timers.advance(timers.now + SECOND + 200 * MS)
    packets = peer.receive()
    assert sender.replays == 2
    wanted = {packets[index].sequence_number: packets[index] for index in (0, 50, 150, 200)}
    feedback.receive(nack(*wanted), timers.now)
    again = {each.sequence_number: each for each in map(restored, peer.receive())}
    assert {number: (each.timestamp, each.payload) for number, each in again.items()} == {
        number: (each.timestamp, each.payload) for number, each in wanted.items()
    }


def test_a_packet_is_sent_again_once_in_half_a_round_trip(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = watch(source, peer, 0)
    feedback = listening(peer, sender)
    push(source, 3000, 0, key=True)
    number = peer.receive()[0].sequence_number
    for at in (1, 2, 3, 5):
        feedback.receive(nack(number), at * MS)
    assert len(peer.receive()) == 1
    feedback.receive(nack(number), 7 * MS)
    assert len(peer.receive()) == 1


def test_a_receiver_who_asks_for_the_round_trip_is_answered_at_once(peer: Peer, timers: Timers) -> None:
    answers: list[bytes] = []
    feedback = listening(peer, watch(video(timers), peer, 0), on_answer=answers.append)
    unknown = bytes((9, 0, 0, 1)) + bytes(4)
    reference = bytes((4, 0, 0, 2)) + (0x1122334455667788).to_bytes(8, "big")
    request = bytes((0x80, 207, 0, 6)) + (0xCAFE).to_bytes(4, "big") + unknown + reference
    feedback.receive(request, 5 * MS)
    (answer,) = answers
    report, extended = parse(answer)
    assert (report.type, extended.type) == (RR, XR)
    assert extended.body[4:8] == bytes((5, 0, 0, 3))  # RFC 3611 §4.5: DLRR with one sub-block
    assert [extended.word(at) for at in (8, 12, 16)] == [0xCAFE, 0x33445566, 0]
    feedback.receive(bytes((0x80, 207, 0, 3)) + (0xCAFE).to_bytes(4, "big") + unknown, 6 * MS)
    assert len(answers) == 1


def test_a_nack_storm_is_bounded_in_packets_and_bytes(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = watch(source, peer, 0)
    feedback = listening(peer, sender)
    Programme(source, timers, key_bytes=1_000_000, delta_bytes=20_000).play(30)
    packets = peer.receive()
    sent = sum(len(each.payload) for each in packets)
    newest = packets[-1].sequence_number
    storm = nack(*[(newest - back) & 0xFFFF for back in range(300, -1, -1)])
    for step in range(200):
        feedback.receive(storm, timers.now + step * MS)
    again = peer.receive()
    assert 0 < sum(len(each.payload) for each in again) <= sent // 4 + (128 << 10) + 1200
    assert sum(len(each.payload) for each in again) < 132 << 10  # nothing was sent meanwhile: only the burst
    before = sender.stream.nacks
    feedback.receive(bytes(RtcpRrPacket(ssrc=1)) + nack(*range(0, 65_536, 17)[:300]), timers.now + 10 * SECOND)
    assert sender.stream.nacks - before <= 256


def test_what_was_never_sent_or_is_too_old_is_not_answered(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = watch(source, peer, 0)
    feedback = listening(peer, sender)
    programme = Programme(source, timers)
    programme.play(2)
    old = peer.receive()
    programme.play(70)
    newest = peer.receive()[-1]
    feedback.receive(nack((newest.sequence_number + 1) & 0xFFFF), timers.now)
    feedback.receive(nack((newest.sequence_number + 30_000) & 0xFFFF), timers.now)
    feedback.receive(nack(*(each.sequence_number for each in old)), timers.now)
    assert peer.receive() == []
    assert sender.stream.retransmitted == 0
    assert sender.stream.sent[0][2] >= source.history.oldest - 16  # and nothing more is kept of it


def test_five_percent_loss_is_repaired_without_a_frozen_frame(peer: Peer, timers: Timers) -> None:
    """20 ms round trip: a viewer sees a gap 10 ms after the packet behind it left; its NACK takes 10 ms back. RTX is lost as often."""
    source = video(timers)
    sender = watch(source, peer, 0)
    feedback = listening(peer, sender)
    chance = random.Random(5)
    programme = Programme(source, timers)
    got: dict[int, RtpPacket] = {}
    first = expected = -1  # none yet
    completed = []

    def hear() -> None:
        nonlocal first, expected
        for each in peer.receive():
            if first < 0:
                first = expected = each.sequence_number
            if chance.random() < 0.05:
                continue
            each = restored(each) if each.ssrc == RTX else each
            position = first + ((each.sequence_number - first) & 0xFFFF)
            got[position] = each
            expected = max(expected, position + 1)

    for _ in range(300):
        programme.play(1)
        hear()
        for _ in range(4):
            at = timers.now + 20 * MS
            missing = [number & 0xFFFF for number in range(first, expected) if number not in got]
            if missing:
                feedback.receive(nack(*missing[-200:]), at)
                hear()
            timers.advance(at)
            programme.number = max(programme.number, -(-timers.now // FRAME))
        completed.append(all(number in got for number in range(first, expected)))
    assert sum(completed) >= 297  # the rest in the next round trip: never a freeze
    packets = [got[number] for number in sorted(got)]
    assert contiguous(packets)
    assert [unit for _, unit in access_units(packets)][:-1] == programme.units[: len(access_units(packets)) - 1]
    assert sender.stream.retransmitted > 100
    assert sender.stream.retransmitted < 0.08 * sender.stream.packets


def test_pli_and_fir_reach_the_source_and_a_repeated_fir_is_one(peer: Peer, timers: Timers) -> None:
    source = video(timers, on_keyframe_wanted=lambda: True)
    sender = watch(source, peer, 0)
    feedback = listening(peer, sender)
    feedback.receive(pli(), 0)
    feedback.receive(fir(1), MS)
    feedback.receive(fir(1), 2 * MS)
    feedback.receive(fir(2), 3 * MS)
    feedback.receive(pli(ssrc=99) + fir(1, ssrc=99), 4 * MS)
    assert sender.plis == 3
    assert feedback.ignored == 1


def test_receiver_reports_give_the_round_trip(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = watch(source, peer, 0)
    feedback = listening(peer, sender)
    push(source, 2000, 0, key=True, now=7 * SECOND)
    peer.receive()
    (report, _) = RtcpPacket.parse(peer.rtcp[0])
    assert isinstance(report, RtcpSrPacket)
    middle = (report.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
    block = RtcpReceiverInfo(SSRC, 64, -3, 9, 450, middle, 65536 // 2)
    stranger = RtcpReceiverInfo(RTX, 255, 9, 9, 9, 0, 0)
    feedback.receive(bytes(RtcpRrPacket(1, [block, stranger])), 7 * SECOND + 530 * MS)
    assert sender.round_trip_ns == 30 * MS
    forged = RtcpReceiverInfo(SSRC, 0, 0, 9, 0, middle + 1, 0)  # of a report that we never sent
    feedback.receive(bytes(RtcpRrPacket(1, [forged])), 9 * SECOND)
    assert sender.round_trip_ns == 30 * MS


def test_reports_are_due_each_second_from_the_first_packet_on(peer: Peer, timers: Timers) -> None:
    picture, sound = video(timers), source_of(Track(1, Codec.OPUS), timers)
    feedback = listening(peer, watch(picture, peer, 0), watch(sound, peer, 0, ssrc=7, mid="1"))
    assert feedback.due(SECOND) == []
    push(picture, 2000, 0, key=True)
    sound.push(packet(b"opus", 0, True), 100 * MS)
    assert feedback.due(SECOND - 1) == []
    (compound,) = feedback.due(SECOND + 200 * MS)
    report, description, other, _ = RtcpPacket.parse(compound)
    assert isinstance(report, RtcpSrPacket)
    assert isinstance(description, RtcpSdesPacket)
    assert isinstance(other, RtcpSrPacket)
    assert (report.ssrc, report.sender_info.packet_count, other.ssrc) == (SSRC, 3, 7)
    assert report.sender_info.octet_count == sum(len(each.payload) for each in peer.receive() if each.ssrc == SSRC)
    assert report.sender_info.ntp_timestamp == other.sender_info.ntp_timestamp
    assert feedback.due(SECOND + 200 * MS) == []
    assert feedback.due(2 * SECOND + 200 * MS - 1) == []
    assert len(feedback.due(2 * SECOND + 200 * MS)) == 1


def test_many_senders_reports_are_split_into_datagrams(peer: Peer, timers: Timers) -> None:
    sources = [source_of(Track(1, Codec.OPUS), timers) for _ in range(40)]
    feedback = listening(peer, *(watch(source, peer, 0, ssrc=number + 1) for number, source in enumerate(sources)))
    for source in sources:
        source.push(packet(b"opus", 0, True), 0)
    compounds = feedback.due(2 * SECOND)
    assert max(map(len, compounds)) <= 1200
    reports = [each for compound in compounds for each in RtcpPacket.parse(compound) if isinstance(each, RtcpSrPacket)]
    assert [each.ssrc for each in reports] == list(range(1, 41))


def test_remb_is_the_viewers_word_on_bitrate(peer: Peer) -> None:
    feedback = listening(peer)
    remb = RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=pack_remb_fci(2_500_000, [SSRC]))
    feedback.receive(bytes(remb), 0)
    assert feedback.estimated_bitrate is not None
    assert abs(feedback.estimated_bitrate - 2_500_000) < 50
    feedback.receive(bytes(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=b"AFB?" + bytes(8))), 0)
    assert abs(feedback.estimated_bitrate - 2_500_000) < 50


def transport_feedback(base: int, arrivals: list[int | None], reference: int = 0) -> bytes:
    """As Chrome writes it: one chunk of two-bit symbols per seven packets, deltas in units of 250 us since the one before."""
    chunks, deltas, last = b"", b"", 0
    symbols = [0 if each is None else 2 for each in arrivals]
    for begin in range(0, len(symbols), 7):
        chunk = 0b11 << 14
        for place, symbol in enumerate(symbols[begin : begin + 7]):
            chunk |= symbol << (12 - 2 * place)
        chunks += chunk.to_bytes(2, "big")
    for each in arrivals:
        if each is not None:
            deltas += (each - last).to_bytes(2, "big", signed=True)
            last = each
    body = base.to_bytes(2, "big") + len(arrivals).to_bytes(2, "big") + reference.to_bytes(3, "big") + b"\0" + chunks + deltas
    data = bytes(RtcpPsfbPacket(fmt=15, ssrc=1, media_ssrc=0, fci=body + bytes(-len(body) % 4)))
    return data.replace(b"\x8f\xce", b"\x8f\xcd", 1)


@pytest.mark.parametrize(("loss", "queueing", "low", "high"), [(0, 0.0, 0.95, 1.5), (5, 0.0, 0.5, 0.9), (0, 0.2, 0.5, 0.95)])
def test_transport_feedback_gives_an_estimate(
    peer: Peer, timers: Timers, loss: int, queueing: float, low: float, high: float
) -> None:
    source = video(timers)
    feedback = listening(peer, watch(source, peer, 0))
    programme = Programme(source, timers, key_bytes=13_000)
    sent_bits = 0
    for _ in range(60):
        programme.play(1)
        packets = peer.receive()
        sent_bits += sum(len(each.payload) + 56 for each in packets) * 8
        arrival = round(timers.now * (1 + queueing) / 250_000)
        arrivals: list[int | None] = [
            None if loss and index % loss == 0 else arrival % (256 * 100) for index in range(len(packets))
        ]
        first = packets[0].extensions.transport_sequence_number
        assert first is not None
        feedback.receive(transport_feedback(first, arrivals), timers.now)
    assert feedback.estimated_bitrate is not None
    assert low * sent_bits / 2 < feedback.estimated_bitrate < high * sent_bits / 2


def test_feedback_by_which_nothing_is_wrong_gives_an_estimate_and_the_first_that_shows_a_queue_is_read_to_the_last_packet(
    peer: Peer, timers: Timers
) -> None:
    source = video(timers)
    feedback = listening(peer, watch(source, peer, 0))
    programme = Programme(source, timers, key_bytes=13_000)
    following, rate = peer.transport_sequence, 20_000_000
    free_at = sent_bits = 0
    flying: list[tuple[int, int]] = []

    def live(frames: int) -> None:
        nonlocal following, free_at, sent_bits
        for _ in range(frames):
            programme.play(1)
            for each in peer.receive():
                bits = (len(each.payload) + 56) * 8
                free_at = max(free_at, timers.now) + bits * SECOND // rate
                flying.append((following, free_at))
                following, sent_bits = following + 1, sent_bits + bits
            timers.advance(timers.now + 30 * MS)
            if programme.number % 2 == 0 and (told := [each for each in flying if each[1] <= timers.now]):
                del flying[: len(told)]
                feedback.receive(all_feedback(1, 1, 0, told), timers.now)

    live(60)
    assert feedback.estimated_bitrate is not None
    assert 0.95 * sent_bits / 2 < feedback.estimated_bitrate < 1.5 * sent_bits / 2
    assert feedback.collapses == 0
    rate = 800_000
    live(6)
    assert feedback.collapses == 1
    assert feedback.estimated_bitrate < rate


def test_a_bye_is_nothing_unknown(peer: Peer) -> None:
    feedback = listening(peer)
    feedback.receive(bytes(RtcpByePacket([1])), 0)
    assert feedback.ignored == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        bytes.fromhex("40c90000"),  # version 1
        bytes.fromhex("80c90005 00000001"),  # longer than the datagram
        bytes.fromhex("a0c90001 000000ff"),  # padding longer than the packet
        bytes.fromhex("81c90001 00000001"),  # a report block that is not there
        bytes.fromhex("81cd0001 00000001"),  # feedback on nothing
        bytes.fromhex("8fcd0003 00000001 00000000 00010001"),  # transport feedback cut off
        bytes.fromhex("8fcd0005 00000001 00000000 0001000d 00000000 200d0000"),  # and without its deltas
    ],
)
def test_broken_rtcp_is_a_protocol_error(data: bytes, peer: Peer, timers: Timers) -> None:
    feedback = listening(peer, watch(video(timers), peer, 0))
    with pytest.raises(ProtocolError):
        feedback.receive(data, 0)


def test_random_rtcp_gives_nothing_but_protocol_errors(peer_of: Callable[..., Peer], timers: Timers) -> None:
    peer, source = peer_of(), video(timers)
    feedback = listening(peer, watch(source, peer, 0))
    Programme(source, timers).play(30)
    chance = random.Random(1)
    for _ in range(20_000):
        body = chance.randbytes(4 * chance.randrange(30))
        if len(body) >= 8 and chance.random() < 0.7:
            body = body[:4] + SSRC.to_bytes(4, "big") + body[8:]
        head = bytes((0x80 | chance.choice((0, 1, 4, 15, 31)), chance.randrange(200, 208))) + (len(body) // 4).to_bytes(
            2, "big"
        )
        try:
            feedback.receive(head + body, timers.now)
        except ProtocolError:
            continue
    timers.advance(timers.now + SECOND)  # what it caused is over
    unit = push(source, 2000, timers.now, key=True)
    assert [each for _, each in access_units([each for each in peer.receive() if each.ssrc == SSRC])][-1] == unit
