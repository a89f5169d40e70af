"""What viewers get: every frame, at once and in order, whatever joins, leaves, fails or changes."""

import asyncio
import errno
import itertools
import time
from collections.abc import Callable

import pytest
from pylibsrtp import Policy

from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.send.history import SLICE
from protocols.webrtc.send.pacing import JOIN_DRAIN_NS, PACE_NS, UNPACED
from protocols.webrtc.send.sender import HOLD_NS, Sender
from protocols.webrtc.send.source import call_at_on
from tests.unit.protocols.webrtc.loopback import (
    FRAME,
    MS,
    SECOND,
    Peer,
    Programme,
    Timers,
    access_unit,
    access_units,
    contiguous,
    growing,
    packet,
    parameters,
    push,
    sender_to,
    source_of,
    video,
    watch,
)


@pytest.mark.parametrize(
    "profile",
    [Policy.SRTP_PROFILE_AEAD_AES_256_GCM, Policy.SRTP_PROFILE_AEAD_AES_128_GCM, Policy.SRTP_PROFILE_AES128_CM_SHA1_80],
)
def test_every_access_unit_arrives_whole_under_every_profile(
    peer_of: Callable[..., Peer], timers: Timers, profile: int
) -> None:
    peer, source = peer_of(profile), video(timers)
    sender = watch(source, peer, 0)
    programme = Programme(source, timers)
    programme.play(40)
    packets = peer.receive()
    assert [unit for _, unit in access_units(packets)] == programme.units
    assert contiguous(packets)
    assert sender.stream.packets == len(packets) == peer.egress.sent - 1  # and one sender report
    assert sender.frames == 40
    assert sender.stream.payload_bytes == sum(len(each.payload) for each in packets)


def test_headers_say_what_was_negotiated(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    sender = sender_to(peer, parameters(mid="video0"), sequence=65_530, timestamp=0xFFFFFFFF)
    sender.attach(source, 0)
    at = 3 * SECOND + 500 * MS
    push(source, 3000, 0, key=True, now=at)
    packets = peer.receive()
    assert [each.sequence_number for each in packets] == [65_530, 65_531, 65_532, 65_533]
    assert {each.timestamp for each in packets} == {0xFFFFFFFF}
    assert {(each.ssrc, each.payload_type) for each in packets} == {(0xABCDEF01, 96)}
    assert [each.marker for each in packets] == [0, 0, 0, 1]
    assert {each.extensions.mid for each in packets} == {"video0"}
    assert {each.extensions.abs_send_time for each in packets} == {int(3.5 * (1 << 18))}
    assert [each.extensions.transport_sequence_number for each in packets] == [65_530, 65_531, 65_532, 65_533]
    push(source, 3000, FRAME, key=False, now=at)
    packets = peer.receive()
    assert [each.sequence_number for each in packets] == [65_534, 65_535, 0]
    assert [each.extensions.transport_sequence_number for each in packets] == [65_534, 65_535, 0]
    assert {each.timestamp for each in packets} == {2998}


def test_extensions_that_were_not_negotiated_are_not_sent(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    watch(source, peer, 0, mid_extension=0, abs_send_time_extension=0, transport_cc_extension=0)
    unit = access_unit(True, 3000)
    source.push(packet(unit, 0, True), 0)
    packets = peer.receive()
    assert [each for _, each in access_units(packets)] == [unit]
    assert all(
        (each.extensions.mid, each.extensions.abs_send_time, each.extensions.transport_sequence_number) == (None, None, None)
        for each in packets
    )
    assert peer.transport_sequence == 65_530


def test_audio_and_video_of_a_peer_share_the_transport_sequence(peer: Peer, timers: Timers) -> None:
    picture, sound = video(timers), source_of(Track(1, Codec.OPUS), timers)
    watch(picture, peer, 0)
    watch(sound, peer, 0, ssrc=7, mid="1")
    for number in range(3):
        at = number * 20 * MS
        push(picture, 2500, at, key=number == 0)
        sound.push(packet(b"opus" * 40, at, True), at)
    packets = peer.receive()
    counted = [each.extensions.transport_sequence_number for each in packets]
    assert counted == [(65_530 + n) & 0xFFFF for n in range(len(packets))]
    audio = [each for each in packets if each.ssrc == 7]
    assert [each.payload for each in audio] == [b"opus" * 40] * 3
    assert (audio[1].timestamp - audio[0].timestamp) & 0xFFFFFFFF == 960
    assert [each.marker for each in audio] == [0, 0, 0]


def test_joining_in_mid_group_gives_the_key_frame_without_waiting(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    programme = Programme(source, timers, group=120, key_bytes=15_000)
    programme.play(90)
    watch(source, peer, timers.now + 5 * MS)
    assert next(unit for _, unit in access_units(peer.receive())) == programme.units[0]


def test_a_join_is_contiguous_compressed_and_complete(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    programme = Programme(source, timers, group=120)
    programme.play(90)
    now = timers.now + 5 * MS
    sender = watch(source, peer, now)
    joined = timers.now
    programme.play(30)  # while the burst is still paced, and after
    packets = peer.receive()
    units = access_units(packets)
    assert [unit for _, unit in units] == programme.units
    assert contiguous(packets)
    assert growing(packets)
    stamps = [stamp for stamp, _ in units]
    steps = [(b - a) & 0xFFFFFFFF for a, b in itertools.pairwise(stamps)]
    assert set(steps[:89]) == {90}  # 1 ms apart
    assert set(steps[90:]) == {3000}  # as they came
    assert 0 < steps[89] <= 3000
    assert sender.dropped == 0
    assert timers.idle
    assert joined <= now


def test_a_burst_is_paced_and_drains_within_its_time(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    Programme(source, timers, group=200).play(100)
    begun = timers.now
    watch(source, peer, begun)
    counts = [len(peer.receive())]
    while not timers.idle:
        timers.advance(timers.now + PACE_NS)
        counts.append(len(peer.receive()))
    assert sum(counts) == source.history.next
    assert max(counts) <= 32
    assert timers.now - begun <= JOIN_DRAIN_NS + PACE_NS


def test_a_large_key_frame_leaves_in_slices_and_what_follows_waits_behind(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    watch(source, peer, 0)
    big, small = access_unit(True, 150_000), access_unit(False, 2000)
    source.push(packet(big, 0, True), 0)
    first = peer.receive()
    assert len(first) < 2 * SLICE < UNPACED
    source.push(packet(small, FRAME, False), 1 * MS)
    assert peer.receive() == []
    timers.advance(40 * MS)
    packets = first + peer.receive()
    assert [unit for _, unit in access_units(packets)] == [big, small]
    assert contiguous(packets)


def test_a_burst_held_too_long_is_dropped_to_the_next_key_frame_and_counted(peer: Peer, timers: Timers) -> None:
    asked: list[int] = []

    def keyframe_wanted() -> bool:
        asked.append(1)
        return True

    source = video(timers, on_keyframe_wanted=keyframe_wanted)
    sender = watch(source, peer, 0)
    asked.clear()
    push(source, 150_000, 0, key=True, now=SECOND)
    begun = peer.receive()
    source.run(SECOND + HOLD_NS + 1)  # the loop was stuck
    push(source, 2000, FRAME, key=False, now=SECOND + HOLD_NS + 2)
    assert peer.receive() == []
    assert sender.dropped == source.history.next - len(begun), "what waited, and what is of no use without it"
    assert asked == [1]
    unit = access_unit(True, 2000)
    source.push(packet(unit, 2 * FRAME, True), SECOND + HOLD_NS + 3)
    packets = peer.receive()
    assert [each for _, each in access_units(packets)] == [unit]
    assert contiguous(begun + packets)


def test_without_a_cached_group_a_viewer_waits_for_a_key_frame_and_asks_for_it(peer: Peer, timers: Timers) -> None:
    asked: list[int] = []

    def keyframe_wanted() -> bool:
        asked.append(1)
        return True

    source = video(timers, on_keyframe_wanted=keyframe_wanted)
    push(source, 2000, 0, key=False)
    sender = watch(source, peer, 0)
    push(source, 2000, FRAME, key=False)
    assert peer.receive() == []
    assert asked == [1]
    assert sender.dropped == 2, "packets of the second picture: the first was before the viewer came"
    unit = access_unit(True, 2000)
    source.push(packet(unit, 2 * FRAME, True), 2 * FRAME)
    assert [each for _, each in access_units(peer.receive())] == [unit]


def test_a_group_too_long_to_keep_is_not_joined(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    programme = Programme(source, timers, group=1000, key_bytes=2000, delta_bytes=500)
    programme.play(320)  # over 10 s
    watch(source, peer, timers.now)
    programme.play(5)
    assert peer.receive() == []


def test_audio_joins_with_the_next_frame(peer: Peer, timers: Timers) -> None:
    source = source_of(Track(1, Codec.OPUS), timers)
    source.push(packet(b"old", 0, True), 0)
    watch(source, peer, 0)
    source.push(packet(b"new", 20 * MS, True), 20 * MS)
    assert [each.payload for each in peer.receive()] == [b"new"]


def test_a_viewer_without_a_transport_yet_joins_when_it_has_one(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    programme = Programme(source, timers, key_bytes=4000, delta_bytes=2000)
    outbound, peer.outbound = peer.outbound, None
    sender = watch(source, peer, 0)
    programme.play(3)
    assert peer.receive() == []
    peer.outbound = outbound
    sender.start(timers.now)
    timers.advance(timers.now + 20 * MS)
    assert [unit for _, unit in access_units(peer.receive())] == programme.units
    programme.play(1)
    assert [unit for _, unit in access_units(peer.receive())] == programme.units[3:]


def test_a_viewer_whose_address_was_lost_joins_again_by_itself(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    programme = Programme(source, timers, key_bytes=4000, delta_bytes=2000)
    sender = watch(source, peer, 0)
    programme.play(2)
    before = peer.receive()
    address, peer.address = peer.address, None
    programme.play(2)
    peer.address = address
    programme.play(1)
    timers.advance(timers.now + 20 * MS)
    after = peer.receive()
    assert [unit for _, unit in access_units(after)] == programme.units
    assert contiguous(before + after)
    assert growing(before + after)
    assert sender.dropped == 2  # of the first frame that found no address; the second was not tried


def test_changing_the_source_continues_numbers_and_timestamps(peer: Peer, timers: Timers) -> None:
    first = video(timers)
    programme = Programme(first, timers)
    sender = sender_to(peer, parameters(), sequence=65_000)
    sender.attach(first, 0)
    programme.play(60)
    before = peer.receive()
    second = source_of(Track(1, Codec.H264), timers, lambda now: (now, now - 5 * SECOND))  # its media time is another
    at = timers.now + 40 * MS
    sender.attach(second, at)
    unit = access_unit(True, 2000)
    second.push(packet(unit, at - 5 * SECOND, True), at)
    programme.play(5)  # the old source no longer reaches the viewer
    after = peer.receive()
    assert [each for _, each in access_units(after)] == [unit]
    assert contiguous(before + after)
    assert any(each.sequence_number < 100 for each in before)  # it wrapped on the way
    assert (after[0].timestamp - before[-1].timestamp) & 0xFFFFFFFF == 3600
    assert first.receivers == ()
    assert len(peer.rtcp) == 2  # each source's first packet follows a report of its clock


def test_a_replay_after_pli_is_decodable_newer_than_all_before_and_older_than_the_next_frame(
    peer: Peer, timers: Timers
) -> None:
    source = video(timers)
    programme = Programme(source, timers, group=150)
    sender = watch(source, peer, 0)
    programme.play(100)
    before = peer.receive()
    sender.request_keyframe(timers.now + MS)
    programme.play(20)
    after = peer.receive()
    assert contiguous(before + after)
    assert growing(before + after)
    units = access_units(after)
    assert [unit for _, unit in units] == programme.units
    stamps = [stamp for stamp, _ in units]
    assert len(set(stamps) | {before[-1].timestamp}) == 121
    # Live frames keep their own time: the replay fits in the gap before them.
    assert [(stamp - before[-1].timestamp) & 0xFFFFFFFF for stamp in stamps[100:]] == [3000 * n for n in range(1, 21)]
    assert sender.plis == 1
    assert sender.replays == 1


def test_plis_are_answered_by_the_source_where_it_can_else_by_replays_ever_rarer_until_a_key_frame(
    peer: Peer, timers: Timers
) -> None:
    answers: list[bool] = []
    able = False

    def wanted() -> bool:
        answers.append(able)
        return able

    source = video(timers, on_keyframe_wanted=wanted)
    sender = watch(source, peer, 0)
    answers.clear()
    programme = Programme(source, timers, group=1000, key_bytes=2000, delta_bytes=500)
    programme.play(30)

    def replays_in_four_seconds() -> int:
        before = sender.replays
        for _ in range(400):
            timers.advance(timers.now + 10 * MS)
            sender.request_keyframe(timers.now)
        return sender.replays - before

    assert replays_in_four_seconds() == 3  # at 0, 1 and 3 s
    assert sender.plis == 400
    assert len(answers) <= 9
    assert replays_in_four_seconds() == 1  # at 7 s
    unit = access_unit(True, 2000)
    source.push(packet(unit, 30 * FRAME, True), timers.now)
    assert replays_in_four_seconds() == 3
    replays, able = sender.replays, True
    timers.advance(timers.now + SECOND)
    sender.request_keyframe(timers.now)
    assert answers[-1] is True
    assert sender.replays == replays


def test_a_pli_is_answered_by_a_replay_once_the_owner_knows_that_no_key_frame_comes(peer: Peer, timers: Timers) -> None:
    source = video(timers, on_keyframe_wanted=lambda: None)
    sender = watch(source, peer, 0)
    Programme(source, timers, group=1000, key_bytes=2000, delta_bytes=500).play(30)
    for comes, replays in ((True, 0), (False, 1)):
        timers.advance(timers.now + SECOND)
        sender.request_keyframe(timers.now)
        assert sender.replays == 0, "nothing of the past, while a new one may come"
        source.answered(comes, timers.now)
        assert sender.replays == replays
    source.answered(False, timers.now + SECOND)
    assert sender.replays == 1, "who has not asked is sent nothing again"


def test_a_dead_viewer_among_many_disturbs_none(peer_of: Callable[..., Peer], timers: Timers) -> None:
    source = video(timers)
    peers = [peer_of() for _ in range(7)]
    senders = [watch(source, each, 0) for each in peers]
    peers[1].address = ("127.0.0.1", 0)  # the kernel refuses it
    peers[2].address = None
    peers[3].outbound = None
    peers[4].socket.close()  # nobody listens
    programme = Programme(source, timers)
    programme.play(35)
    for healthy in (0, 5, 6):
        packets = peers[healthy].receive()
        assert [unit for _, unit in access_units(packets)] == programme.units
        assert contiguous(packets)
        assert senders[healthy].dropped == 0
    assert senders[1].dropped > 0
    assert senders[1].stream.packets == 0
    assert peers[0].egress.errors > 0
    assert peers[0].egress.segmentation  # one viewer's bad address does not end it for all


def test_a_viewer_may_leave_while_a_frame_goes_out(peer_of: Callable[..., Peer], timers: Timers) -> None:
    peers = [peer_of() for _ in range(3)]
    senders: list[Sender] = []

    def leave(_: EncodedPacket, __: int, ___: int) -> None:
        senders[1].detach()

    source = video(timers, on_sent=leave)
    senders += [watch(source, each, 0) for each in peers]
    unit = access_unit(True, 2000)
    source.push(packet(unit, 0, True), 0)
    assert [len(access_units(each.receive())) for each in peers] == [1, 0, 1]


def test_on_sent_is_called_once_a_frame_with_the_first_viewer(peer_of: Callable[..., Peer], timers: Timers) -> None:
    calls: list[tuple[int, int, int]] = []
    ticking = itertools.count()
    source = video(
        timers,
        on_sent=lambda frame, packetized, sent: calls.append((frame.pts, packetized, sent)),
        monotonic=lambda: next(ticking),
    )
    push(source, 2000, 0, key=True)  # nobody watches
    assert calls == []
    for each in (peer_of(), peer_of()):
        watch(source, each, 0)
    push(source, 100_000, FRAME, key=True)  # paced
    assert calls == [(0, 0, 1)]  # the join
    timers.advance(2 * FRAME)
    push(source, 2000, 2 * FRAME, key=False)
    assert [pts for pts, _, _ in calls] == [0, FRAME, 2 * FRAME]
    assert all(sent > packetized for _, packetized, sent in calls)


def test_sender_reports_put_audio_and_video_on_one_time_line(peer: Peer, timers: Timers) -> None:
    from aiortc.rtp import RtcpPacket, RtcpSdesPacket, RtcpSrPacket

    picture, sound = video(timers), source_of(Track(1, Codec.OPUS), timers)
    senders = [watch(picture, peer, 0), watch(sound, peer, 0, ssrc=7, mid="1")]
    at = 10 * SECOND
    # Video was delayed on its way to us, and leaves after the audio of its time: reports must not show that.
    sound.push(packet(b"opus", at, True), at)
    push(picture, 2000, at, key=True, now=at + 300 * MS)
    packets = {each.ssrc: each for each in peer.receive()}
    compounds = [RtcpPacket.parse(each) for each in peer.rtcp]
    shown = {}
    for report, description in compounds:
        assert isinstance(report, RtcpSrPacket)
        assert isinstance(description, RtcpSdesPacket)
        assert description.chunks[0].items == [(1, b"host")]
        rate = 48_000 if report.ssrc == 7 else 90_000
        behind = (report.sender_info.rtp_timestamp - packets[report.ssrc].timestamp) & 0xFFFFFFFF
        behind -= behind >> 31 << 32
        shown[report.ssrc] = report.sender_info.ntp_timestamp / (1 << 32) - behind / rate
    assert abs(shown[7] - shown[0xABCDEF01]) < 0.0001
    assert abs(shown[7] - (2_208_988_800 + 1010)) < 0.0001
    assert [sender.report_due for sender in senders] == [at + 300 * MS + SECOND, at + SECOND]


def test_data_without_a_payload_is_counted_and_not_sent(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    watch(source, peer, 0)
    source.push(packet(b"no start code", 0, True), 0)
    assert source.unsendable == 1
    assert peer.receive() == []
    assert source.kind is Kind.VIDEO


async def test_bursts_are_paced_by_the_event_loop(peer: Peer) -> None:
    sent = asyncio.Event()
    source = source_of(
        Track(1, Codec.H264),
        call_at_on(asyncio.get_running_loop()),
        on_sent=lambda *_: sent.set(),
        monotonic=time.monotonic_ns,
    )
    watch(source, peer, time.monotonic_ns())
    unit = access_unit(True, 120_000)
    source.push(packet(unit, 0, True), time.monotonic_ns())
    async with asyncio.timeout(5):
        await sent.wait()
    assert [each for _, each in access_units(peer.receive())] == [unit]
    assert source.next_due is None


def test_errno_is_what_the_dead_viewer_test_relies_on() -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(OSError) as caught:  # noqa: PT011
        sock.sendto(b"x", ("127.0.0.1", 0))
    assert caught.value.errno == errno.EINVAL
