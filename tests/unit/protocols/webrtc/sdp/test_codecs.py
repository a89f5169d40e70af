"""A viewer's picture changes its codec, or its layer in any codec: numbers and times go on, and each packet has its codec's type."""

import itertools
import random

import pytest
from aiortc.rtp import RtcpRtpfbPacket, RtpPacket

from protocols.media import Codec, Track
from protocols.webrtc.receive.depacketize import FORMATS
from protocols.webrtc.send.report import RtcpSession
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source
from tests.unit.protocols.webrtc.loopback import (
    FRAME,
    MS,
    Peer,
    Timers,
    access_unit,
    contiguous,
    growing,
    packet,
    source_of,
    watch,
)

SSRC, RTX = 0xABCDEF01, 0x12345678
TYPES = {Codec.H264: 96, Codec.VP8: 98, Codec.VP9: 100, Codec.AV1: 102}


def unit(codec: Codec, keyframe: bool, size: int) -> bytes:
    """What its first bytes say is a frame of the codec, and of that kind."""
    if codec is Codec.H264:
        return access_unit(keyframe, size)
    data = random.randbytes(size)
    match codec, keyframe:
        case Codec.AV1, True:
            return b"\x0a\x03abc" + b"\x32" + bytes((size & 0x7F | 0x80, size >> 7)) + data
        case Codec.AV1, False:
            return b"\x32" + bytes((size & 0x7F | 0x80, size >> 7)) + data
        case Codec.VP9, _:
            return (b"\x82" if keyframe else b"\x86") + data
        case _:
            return (b"\x10" if keyframe else b"\x11") + data


def coded(codec: Codec, timers: Timers, layer: str = "") -> Source:
    return source_of(Track(1, codec, layer=layer), timers)


def play(source: Source, timers: Timers, first: int, frames: int, group: int = 30) -> list[bytes]:
    units = []
    for number in range(first, first + frames):
        timers.advance(number * FRAME)
        keyframe = number % group == 0
        units.append(unit(source.track.codec, keyframe, 3000))
        source.push(packet(units[-1], number * FRAME, keyframe), number * FRAME)
    return units


def received(packets: list[RtpPacket], codec: Codec) -> list[bytes]:
    """The frames that came in this codec, as its depacketizer gives them (H.264 in its own form)."""
    whole = FORMATS[codec].frame
    mine = [each for each in packets if each.payload_type == TYPES[codec]]
    return [whole([each.payload for each in frame]) for _, frame in itertools.groupby(mine, key=lambda each: each.timestamp)]


def nack(*sequences: int) -> bytes:
    return bytes(RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=SSRC, lost=list(sequences)))


@pytest.mark.parametrize("codec", TYPES)
def test_a_source_comes_under_its_codecs_payload_type(codec: Codec, peer: Peer, timers: Timers) -> None:
    source = coded(codec, timers)
    watch(source, peer, 0)
    units = play(source, timers, 0, 5)
    packets = peer.receive()
    assert received(packets, codec) == units
    assert {(each.payload_type, each.ssrc) for each in packets} == {(TYPES[codec], SSRC)}
    assert contiguous(packets)
    assert sum(each.marker for each in packets) == len(units)


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(TYPES, 2)))
def test_another_codec_goes_on_with_numbers_and_times(before: Codec, after: Codec, peer: Peer, timers: Timers) -> None:
    first, second = coded(before, timers), coded(after, timers)
    sender = watch(first, peer, 0)
    units = play(first, timers, 0, 10)
    sender.attach(second, timers.now)
    later = play(second, timers, 10, 10, group=5)
    packets = peer.receive()
    assert received(packets, before) == units
    assert received(packets, after) == later
    assert contiguous(packets)
    assert growing(packets)
    assert {each.ssrc for each in packets} == {SSRC}


def changed(
    peer: Peer, timers: Timers, before: Codec, after: Codec
) -> tuple[Sender, RtcpSession, list[RtpPacket], list[RtpPacket]]:
    first, second = coded(before, timers), coded(after, timers)
    sender = watch(first, peer, 0)
    feedback = RtcpSession(peer.way, [sender], on_answer=lambda answer: None)
    play(first, timers, 0, 3)
    old = peer.receive()
    sender.attach(second, timers.now)
    play(second, timers, 3, 3, group=3)
    return sender, feedback, old, peer.receive()


def test_what_was_lost_of_the_codec_before_is_not_sent_again_and_what_came_since_is(peer: Peer, timers: Timers) -> None:
    sender, feedback, old, new = changed(peer, timers, Codec.H264, Codec.VP8)
    feedback.receive(nack(*(each.sequence_number for each in old)), timers.now + 20 * MS)
    assert peer.receive() == []
    feedback.receive(nack(new[0].sequence_number), timers.now + 40 * MS)
    (again,) = peer.receive()
    assert (again.ssrc, again.payload_type) == (RTX, 99)
    assert again.payload == new[0].sequence_number.to_bytes(2, "big") + new[0].payload
    assert sender.stream.retransmitted == 1


def test_a_codec_without_rtx_beside_one_with_it_repairs_by_the_same_packet(peer: Peer, timers: Timers) -> None:
    sender, feedback, _, new = changed(peer, timers, Codec.VP8, Codec.AV1)
    feedback.receive(nack(new[1].sequence_number), timers.now + 40 * MS)
    assert sender.stream.retransmitted == 1
    again = peer.datagram()
    assert again is not None
    # Its header is in clear.
    assert (again[1] & 0x7F, int.from_bytes(again[2:4], "big")) == (TYPES[Codec.AV1], new[1].sequence_number)
    assert int.from_bytes(again[8:12], "big") == SSRC


@pytest.mark.parametrize("codec", [Codec.VP8, Codec.VP9, Codec.AV1])
def test_layers_are_changed_at_key_frames_in_every_codec(codec: Codec, peer: Peer, timers: Timers) -> None:
    large, small = coded(codec, timers, "h"), coded(codec, timers, "l")
    sender = watch(large, peer, 0)
    units = play(large, timers, 0, 5)
    play(small, timers, 0, 5)
    sender.turn(small, timers.now)
    for number in range(5, 15):
        more = play(large, timers, number, 1, group=10)
        if number <= 10:
            units += more
        more = play(small, timers, number, 1, group=10)
        if number >= 10:
            units += more
    packets = peer.receive()
    assert received(packets, codec) == units
    assert contiguous(packets)
    assert growing(packets)
    assert sender.turns == 1
