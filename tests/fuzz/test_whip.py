"""What an authenticated publisher may send, mutated: offers, RTP and RTCP give media, nothing, or `ProtocolError`, within bounds."""

import random
from itertools import islice

from protocols.bitstream.unit import MAX_BYTES
from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Kind
from protocols.webrtc import rtcp
from protocols.webrtc.receive.receiver import RtpReceiver
from protocols.webrtc.receive.stream import Stream
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.send.packetize import packetize_h264
from protocols.whip.tracks import Item, Tracks
from tests.fuzz.cost import Receive, check, orders, rounds
from tests.fuzz.subjects import forgiving
from tests.fuzz.test_webrtc import OFFERS, TRANSPORT, inputs, survives
from tests.unit.protocols.bitstream.samples import access_units
from tests.unit.protocols.webrtc.loopback import MS, SECOND
from tests.unit.protocols.webrtc.receive.test_receiver import H264, MID, OPUS, RID, RTX, audio, rtp, transport_cc, video

LINES = (video(layers=("h", "l")), audio())


class Publisher:
    """A reception and its tracks, with the time going on."""

    def __init__(self, step: int = 2 * MS, poll: int = 0) -> None:
        """`step`: ns from one packet to the next; what is due is looked for each `poll` ns at the most."""
        self._step = step
        self._poll = poll
        self._polled = 0
        self.items: list[Item] = []
        self.tracks = Tracks(LINES, self.items.append, self._want)
        self.admission = RtpReceiver(LINES, 1, "us", self.tracks.frame)
        self.now = SECOND

    def _want(self, stream: Stream) -> None:
        self.admission.want_keyframe(stream)

    def receive(self, data: bytes) -> None:
        self.now += self._step
        self.items.clear()
        try:
            if len(data) >= 12:  # what libsrtp lets through
                (self.admission.receive_rtcp if 192 <= data[1] <= 223 else self.admission.receive_rtp)(data, self.now)
        finally:
            if max(self.admission.due, self._polled + self._poll) <= self.now:
                self._polled = self.now
                for compound in self.admission.poll(self.now):
                    rtcp.parse(compound)
                    assert len(compound) <= 1352
        for item in self.items:
            if isinstance(item, EncodedPacket):
                assert item.dts <= item.pts
                assert 0 < len(item.data) <= 2 * MAX_BYTES
        assert len(self.admission.streams) <= 3


def packets() -> list[bytes]:
    """An undisturbed stream of every kind of packet."""
    made = []
    number = 0
    for frame, unit in enumerate([*access_units("h264_baseline.h264")] * 3):
        for payload in packetize_h264(unit, 100):
            number += 1
            made.append(rtp(H264, number, 3000 * frame, 7, payload, transport_cc(number) | {RID: b"h"}))
        made.append(rtp(H264, frame, 3000 * frame, 8, b"\x65\x88\x84", {MID: b"1", RID: b"l"}))
        made.append(
            rtp(RTX, frame, 3000 * frame, 9, (number - 3 & 0xFFFF).to_bytes(2, "big") + b"\x41\x9a", {MID: b"1", 11: b"h"})
        )
        made.append(rtp(OPUS, frame, 960 * frame, 10, b"\xfcsound", {MID: b"0"}))
        made.append(rtcp.sender_report(7, frame << 32, 3000 * frame, number, 1000) + rtcp.source_description(7, "them"))
    return made


def test_rtp_and_rtcp(seconds: float, seed: int) -> None:
    publisher = Publisher()
    survives(packets(), publisher.receive, seconds, seed, at_least=2000)


def test_numbers_in_any_order(seconds: float, seed: int) -> None:
    """What a sequence number and a timestamp may do from one packet to the next, in orders that no path makes."""
    steps = [
        (1, 0),
        (1, 3000),
        (2, 3000),
        (2000, 3000),
        (2047, 0),
        (2048, 3000),
        (-1, 0),
        (-2000, -3000),
        (30_000, 1 << 31),
        (0, 0),
    ]
    payloads = (b"\x41\x9a", b"\x41\x1a", b"\x7c\x81\x9a", b"\x7c\x41\x9a", b"")
    for number in rounds(seconds):
        chance = random.Random(f"{seed} {number}")
        sequence = stamp = 0
        datagrams = []
        for step, stamps in islice(orders(chance, chance.sample(steps, k=chance.randint(1, 4))), 1500):
            sequence, stamp = sequence + step & 0xFFFF, stamp + stamps & 0xFFFFFFFF
            extensions = transport_cc(sequence) if chance.random() < 0.5 else {}
            data = rtp(
                H264,
                sequence,
                stamp,
                7 + (chance.random() < 0.01),
                chance.choice(payloads),
                extensions | {MID: b"1", RID: b"h"},
            )
            datagrams.append(data)

        def subject() -> Receive:
            return forgiving(Publisher(step=MS // 20, poll=MS).receive)

        check(subject, datagrams, f"--fuzz-seed {seed}, input {number}", memory=number % 8 == 0)


def test_streams_with_any_packets_lost_doubled_and_moved() -> None:
    for seed in range(20):
        source = random.Random(seed)
        publisher = Publisher()
        made = packets() * 3
        for index in range(len(made)):
            other = min(len(made) - 1, index + source.randrange(40))
            made[index], made[other] = made[other], made[index]
            for _ in range(source.choice((0, 1, 1, 1, 2))):
                publisher.receive(made[index])


def test_payloads_that_are_well_formed_outside(seconds: float, seed: int) -> None:
    """In order and complete, so that the mutants reach the depacketizers and bitstreams."""
    publisher = Publisher()
    corpus = [
        b"".join([len(payload).to_bytes(2, "big") + payload for payload in packetize_h264(unit, 200)])
        for unit in access_units("h264_baseline.h264")
    ]
    for sequence, data in enumerate(inputs(corpus, seconds, seed)):
        payload = data[:1200]
        publisher.receive(rtp(H264, sequence & 0xFFFF, 3000 * sequence, 7, payload[2:], {MID: b"1", RID: b"h"}))
    assert publisher.admission.streams[7].packets > 1000


def read_offer(data: bytes) -> None:
    offer = sdp.parse_offer(data)
    accepted = answer.receiving(offer)
    text = answer.render(offer, accepted, TRANSPORT)
    assert all(line[1:2] == "=" and line.isprintable() for line in text.removesuffix("\r\n").split("\r\n"))
    received = [each.receive for each in accepted if each and each.receive]
    assert len(received) == len({each.kind for each in received}) <= len(Kind)
    RtpReceiver(received, 1, "us", lambda stream, frame: None)


def test_offers_of_publishers(seconds: float, seed: int) -> None:
    survives(OFFERS, read_offer, seconds, seed, at_least=200)


def test_the_corpus_is_right() -> None:
    publisher = Publisher()
    for packet in packets():
        publisher.receive(packet)
    try:
        publisher.receive(b"\x00" * 12)
    except ProtocolError:
        return
    raise AssertionError("a packet of version 0 was taken")
