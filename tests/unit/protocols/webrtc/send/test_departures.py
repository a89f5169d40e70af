"""Transport-wide feedback is compared with what was sent, and each packet once."""

import random
from collections.abc import Callable

from protocols.media import Codec, Track
from protocols.webrtc.send.departures import Departure, Departures
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source
from tests.unit.protocols.webrtc.loopback import FRAME, Peer, Programme, Timers, packet, push, source_of, video, watch


def sending(peer: Peer, timers: Timers, frames: int) -> tuple[Source, Sender, Departures]:
    source = video(timers)
    sender = watch(source, peer, 0)
    Programme(source, timers, key_bytes=13_000).play(frames)
    return source, sender, peer.way.departures


def packets(given: list[Departure]) -> list[int]:
    """Which of those that a feedback speaks of."""
    return [packet for begin, end, _, _ in given for packet in range(begin, end)]


def test_each_packet_is_given_once_and_with_when_it_left(peer: Peer, timers: Timers) -> None:
    _, _, departures = sending(peer, timers, 10)
    first = peer.receive()[0].extensions.transport_sequence_number
    assert first is not None
    given = departures.take(first, 50)
    assert packets(given) == list(range(50))
    times = [at for _, _, at, _ in given]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (0, 4 * FRAME)
    assert packets(departures.take(first + 30 & 0xFFFF, 40)) == list(range(20, 40))
    assert departures.take(first, 70) == []


def test_what_was_not_sent_is_not_given(peer: Peer, timers: Timers) -> None:
    _, _, departures = sending(peer, timers, 10)
    following = peer.transport_sequence
    assert departures.take(following, 2048) == []
    assert departures.take(following + 5 & 0xFFFF, 2048) == []
    assert packets(departures.take(following - 3 & 0xFFFF, 2048)) == [0, 1, 2]


def test_repairs_are_left_out_and_shift_nothing(peer: Peer, timers: Timers) -> None:
    source, sender, departures = sending(peer, timers, 3)
    before = peer.transport_sequence
    sender.repair([peer.receive()[5].sequence_number], timers.now)
    push(source, 2000, timers.now, key=False)
    assert packets(departures.take(before - 2 & 0xFFFF, 5)) == [0, 1, 3, 4]
    assert departures.take(before - 5 & 0xFFFF, 5) == []  # all before it had their turn


def test_the_last_packets_of_a_source_that_has_ended_are_found(peer: Peer, timers: Timers) -> None:
    _, sender, departures = sending(peer, timers, 3)
    sender.detach()
    assert packets(departures.take(peer.transport_sequence - 5 & 0xFFFF, 5)) == [0, 1, 2, 3, 4]


def test_lines_share_the_count_and_packets_of_all_are_found(peer: Peer, timers: Timers) -> None:
    picture, sound = video(timers), source_of(Track(1, Codec.OPUS), timers)
    watch(picture, peer, 0)
    watch(sound, peer, 0, ssrc=7, mid="1")
    departures = peer.way.departures
    programme = Programme(picture, timers, key_bytes=13_000)
    base = peer.transport_sequence
    chance = random.Random(1)
    for frame in range(400):
        programme.play(1)
        sound.push(packet(b"opus", frame * FRAME, True), timers.now)
        if chance.random() < 0.3:
            count = peer.transport_sequence - base & 0xFFFF
            given = departures.take(base, count)
            assert packets(given) == list(range(count))
            assert len({size for _, _, _, size in given}) >= 2
            base = peer.transport_sequence


def test_nothing_is_kept_of_what_no_feedback_speaks_of(peer: Peer, timers: Timers) -> None:
    source, _, departures = sending(peer, timers, 1)
    programme = Programme(source, timers, key_bytes=13_000)
    for _ in range(20):
        programme.play(60)
        departures.take(peer.transport_sequence - 1 & 0xFFFF, 1)
        assert len(departures.runs) == 0


def test_where_no_feedback_comes_little_is_kept(peer: Peer, timers: Timers) -> None:
    source, _, departures = sending(peer, timers, 1)
    Programme(source, timers, key_bytes=3000, delta_bytes=1000).play(3000)
    peer.receive()
    assert len(departures.runs) < 2000
    assert packets(departures.take(peer.transport_sequence - 40 & 0xFFFF, 40)) == list(range(40))


def test_without_the_extension_there_is_nothing_to_compare(peer_of: Callable[..., Peer], timers: Timers) -> None:
    source, peer = video(timers), peer_of()
    watch(source, peer, 0, transport_cc_extension=0)
    Programme(source, timers).play(2)
    assert peer.receive()
    assert peer.way.departures.take(peer.transport_sequence - 10 & 0xFFFF, 2048) == []
