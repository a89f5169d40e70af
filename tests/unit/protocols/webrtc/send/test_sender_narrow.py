"""A viewer whose way is too narrow is sent what it carries, no faster than it does, and nothing that stands before what can be decoded."""

from aiortc.rtp import RtpPacket

from protocols.webrtc.send.pacing import NARROW_DRAIN_NS, PACE_NS
from protocols.webrtc.send.repair import NARROW_BURST_NS
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import KEYFRAME_REQUEST_NS, Source
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
    packet,
    video,
    watch,
)

CARRIED = 400_000
SSRC = 0xABCDEF01


class Encoder:
    """What the owner of a source is asked for and told, in order."""

    def __init__(self, timers: Timers, *, obeys: bool = True) -> None:
        self.said: list[str | int] = []
        self.obeys = obeys
        self.source: Source = video(timers, on_keyframe_wanted=self._wanted, on_bitrate=self.said.append)

    def _wanted(self) -> bool:
        self.said.append("key frame")
        return self.obeys


def narrowed(encoder: Encoder, peer: Peer, timers: Timers) -> tuple[Sender, Programme, list[RtpPacket]]:
    """A viewer of ten frames, whose way carries no more than `CARRIED` from here on."""
    sender = watch(encoder.source, peer, 0)
    programme = Programme(encoder.source, timers, group=1000)
    programme.play(10)
    encoder.said.clear()
    before = peer.receive()
    sender.carried = CARRIED
    timers.advance(timers.now + KEYFRAME_REQUEST_NS)
    sender.cut(timers.now)
    return sender, programme, before


def push(source: Source, timers: Timers, size: int, *, keyframe: bool = False) -> bytes:
    unit = access_unit(keyframe, size)
    source.push(packet(unit, timers.now, keyframe), timers.now)
    return unit


def test_after_a_cut_nothing_is_sent_before_the_key_frame_and_the_encoder_is_told_at_once(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers)
    _, _, before = narrowed(encoder, peer, timers)
    bitrate, asked = encoder.said
    assert isinstance(bitrate, int)
    assert 0.9 * CARRIED < bitrate <= CARRIED
    assert asked == "key frame"
    for _ in range(5):
        timers.advance(timers.now + FRAME)
        push(encoder.source, timers, 9000)
    assert peer.receive() == []
    timers.advance(timers.now + FRAME)
    key = push(encoder.source, timers, 3000, keyframe=True)
    timers.advance(timers.now + FRAME)
    delta = push(encoder.source, timers, 1000)
    timers.advance(timers.now + NARROW_DRAIN_NS)
    after = peer.receive()
    assert [unit for _, unit in access_units(after)] == [key, delta]
    assert contiguous(before + after)


def test_what_was_sent_before_a_cut_is_not_sent_again(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers)
    sender, _, before = narrowed(encoder, peer, timers)
    sender.repair([each.sequence_number for each in before[-20:]], timers.now)
    assert peer.receive() == []
    push(encoder.source, timers, 3000, keyframe=True)
    (first, *_) = peer.receive()
    sender.repair([first.sequence_number], timers.now)
    assert len(peer.receive()) == 1


def test_a_cut_asks_again_where_the_key_frame_that_was_asked_for_came_before_it(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers)
    sender = watch(encoder.source, peer, 0)
    Programme(encoder.source, timers).play(10)
    timers.advance(timers.now + KEYFRAME_REQUEST_NS)
    sender.request_keyframe(timers.now)
    push(encoder.source, timers, 3000, keyframe=True)
    encoder.said.clear()
    sender.cut(timers.now + MS)
    assert "key frame" not in encoder.said  # one was asked for a moment ago
    for _ in range(30):
        timers.advance(timers.now + FRAME)
        push(encoder.source, timers, 1000)
    assert encoder.said.count("key frame") in (1, 2)


def test_where_no_key_frame_comes_for_the_asking_what_comes_is_sent(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers, obeys=False)
    narrowed(encoder, peer, timers)
    delta = push(encoder.source, timers, 1000)
    assert [unit for _, unit in access_units(peer.receive())] == [delta]


def test_a_key_frame_goes_no_faster_into_a_narrow_way_than_it_carries(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers)
    sender = watch(encoder.source, peer, 0)
    sender.carried = CARRIED
    key, begun = push(encoder.source, timers, 8000, keyframe=True), timers.now
    packets: list[RtpPacket] = []
    gone = 0
    while not timers.idle or not packets:
        new = peer.receive()
        packets += new
        gone += sum(len(each.payload) for each in new)
        assert gone * 8 <= (timers.now - begun) * CARRIED // SECOND + 5 * 1200 * 8
        timers.advance(timers.now + PACE_NS)
    packets += peer.receive()
    assert [unit for _, unit in access_units(packets)] == [key]
    assert 100 * MS < timers.now - begun <= 8000 * 8 * SECOND // CARRIED + 3 * PACE_NS


def test_what_comes_while_a_key_frame_is_on_its_way_hastens_nothing(peer: Peer, timers: Timers) -> None:
    """A queue that was full when the way narrowed has room for no more than has left it."""
    encoder = Encoder(timers)
    sender = watch(encoder.source, peer, 0)
    sender.carried = CARRIED
    begun, gone = timers.now, 0
    packets: list[RtpPacket] = []
    units: list[bytes] = []
    for number in range(30):
        keyframe = number == 0
        units.append(push(encoder.source, timers, 6000 if keyframe else 1500, keyframe=keyframe))
        until = timers.now + FRAME
        while timers.now < until:
            new = peer.receive()
            packets += new
            gone += sum(len(each.payload) for each in new)
            assert gone * 8 <= (timers.now - begun) * CARRIED // SECOND + 2 * 1200 * 8
            timers.advance(min(until, timers.now + PACE_NS))
    timers.advance(timers.now + NARROW_DRAIN_NS)
    assert [unit for _, unit in access_units(packets + peer.receive())] == units


def test_however_large_it_is_it_is_out_before_it_would_be_too_late(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers)
    sender = watch(encoder.source, peer, 0)
    sender.carried = CARRIED
    key = push(encoder.source, timers, 80_000, keyframe=True)
    units = [key]
    while timers.now < NARROW_DRAIN_NS:
        timers.advance(timers.now + FRAME)
        units.append(push(encoder.source, timers, 1500))
    timers.advance(timers.now + NARROW_DRAIN_NS)
    assert [unit for _, unit in access_units(peer.receive())] == units
    assert sender.dropped == 0


def test_repairs_take_a_quarter_of_what_a_narrow_way_carries(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers)
    sender = watch(encoder.source, peer, 0)
    programme = Programme(encoder.source, timers, group=1000)
    programme.play(30)
    sender.carried = CARRIED
    lost = [each.sequence_number for each in peer.receive()]
    begun, again = timers.now, 0
    for _ in range(60):  # as much more is sent than the way carries
        programme.play(1)
        lost = (lost + [each.sequence_number for each in peer.receive() if each.ssrc == SSRC])[-100:]
        sender.repair(lost, timers.now)
        again += sum(len(each.payload) for each in peer.receive() if each.ssrc != SSRC)
    carried = CARRIED // 8 * (timers.now - begun) // SECOND
    burst = CARRIED // 8 * NARROW_BURST_NS // SECOND
    assert carried // 8 < again < carried // 4 + burst + 1300


def test_a_group_that_a_narrow_way_does_not_carry_is_not_replayed(peer: Peer, timers: Timers) -> None:
    encoder = Encoder(timers, obeys=False)
    sender = watch(encoder.source, peer, 0)
    Programme(encoder.source, timers, group=1000).play(10)
    timers.advance(timers.now + FRAME)
    peer.receive()
    sender.carried = CARRIED
    sender.request_keyframe(timers.now)
    timers.advance(timers.now + SECOND)
    assert peer.receive() == []
    assert sender.replays == 0
    sender.carried = None
    sender.request_keyframe(timers.now)
    assert sender.replays == 1
