"""What a peer makes the gateway do is bounded by what it was sent and by its budget, and who else is there does not notice.

Bounds are CPU of this process, and generous: each is several times what is right here, and a fraction of what was before.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.webrtc.sdp import answer
from protocols.webrtc.send.report import RtcpSession
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source, call_at_on
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.viewer import Viewer
from tests.unit.protocols.webrtc import hostile
from tests.unit.protocols.webrtc.clients import CONTROLLING, SOUND, USE_CANDIDATE, BarePeer, within
from tests.unit.protocols.webrtc.loopback import (
    MS,
    SECOND,
    Peer,
    Programme,
    Timers,
    packet,
    source_of,
    video,
    watch,
)

MEDIA = 0xABCDEF01
DATAGRAMS = 50
WORST_S = 0.002
"""CPU of one datagram of a viewer. It was 0.07 s."""


def cpu(call: Iterator[None]) -> float:
    begun = time.process_time()
    for _ in call:
        pass
    return time.process_time() - begun


def watching(peer: Peer, timers: Timers) -> tuple[Sender, RtcpSession]:
    """A viewer of two seconds of a programme of 4 Mbit/s, of which it has said nothing yet."""
    source = video(timers)
    sender = watch(source, peer, 0)
    session = RtcpSession(peer.way, [sender], on_answer=lambda answer: None)
    Programme(source, timers).play(60)
    peer.receive()
    return sender, session


@pytest.mark.parametrize("name", hostile.rtcp(MEDIA, 0))
def test_no_datagram_of_a_viewer_takes_long(name: str, peer: Peer, timers: Timers) -> None:
    _, session = watching(peer, timers)
    data = hostile.rtcp(MEDIA, peer.transport_sequence - 500 & 0xFFFF)[name]
    assert len(data) <= 1400

    def read() -> Iterator[None]:
        for number in range(DATAGRAMS):
            try:
                session.receive(data, timers.now + number * 10 * MS)
            except ProtocolError:
                assert name in ("a packet cut off", "ever more packets of nothing")
            yield

    took = cpu(read())
    print(f"{name}: {took / DATAGRAMS * 1e6:.0f} us for each datagram")
    assert took < DATAGRAMS * WORST_S


def test_feedback_is_counted_once_whatever_it_claims(peer: Peer, timers: Timers) -> None:
    sender, session = watching(peer, timers)
    data = hostile.rtcp(MEDIA, peer.transport_sequence - 600 & 0xFFFF)["feedback on 2048 packets in 24 bytes each"]
    for _ in range(100):
        session.receive(data, timers.now)
    window = session._bandwidth._window
    assert window is not None
    assert window.packets == 600 < sender.stream.packets


def test_feedback_that_was_not_agreed_on_is_ignored(peer: Peer, timers: Timers) -> None:
    source = video(timers)
    session = RtcpSession(peer.way, [watch(source, peer, 0, transport_cc_extension=0)], on_answer=lambda answer: None)
    Programme(source, timers).play(30)
    session.receive(hostile.transport_feedback(0, 100, (100).to_bytes(2, "big")), SECOND)
    assert (session.ignored, session.estimated_bitrate) == (1, None)


def test_one_datagram_is_one_wish_for_a_key_frame_and_one_question(peer: Peer, timers: Timers) -> None:
    answers: list[bytes] = []
    source = video(timers, on_keyframe_wanted=lambda: True)
    sender = watch(source, peer, 0)
    session = RtcpSession(peer.way, [sender], on_answer=answers.append)
    source.push(packet(b"\0\0\0\1\x65" + b"\x88" * 1000, 0, True), 0)
    datagrams = hostile.rtcp(MEDIA, 0)
    asked = sender.plis
    session.receive(datagrams["PLIs"], SECOND)
    session.receive(datagrams["FIRs"], 2 * SECOND)
    assert sender.plis - asked == 2
    session.receive(datagrams["reference times"], 3 * SECOND)
    session.receive(datagrams["reference times behind blocks"], 4 * SECOND)
    assert len(answers) == 2


# -- on the wire ---------------------------------------------------------------------------------------------------------------------


class WatchingPeer(BarePeer):
    """A viewer of sound, with transport-wide feedback."""

    media = SOUND + f"a=extmap:3 {answer.TRANSPORT_CC}\na=rtcp-fb:111 transport-cc\n"

    def watch(self, source: Source) -> Viewer:
        viewer = Viewer(self.peer, answer.sending(self.offer(), "cname"))
        viewer.senders[0].attach(source, time.monotonic_ns())
        return viewer

    def got(self) -> int:
        """Datagrams of media that have come."""
        count = 0
        while True:
            try:
                data = self.socket.recv(2048)
            except BlockingIOError:
                return count
            count += data[0] > 127 and not 192 <= data[1] <= 223


@asynccontextmanager
async def playing(source: Source) -> AsyncIterator[None]:
    """Sound, fifty packets a second."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in range(1 << 20):
            await asyncio.sleep(max(0, begun + number * 0.02 - loop.time()))
            now = time.monotonic_ns()
            source.push(packet(b"opus" * 30, now, True), now)

    task = asyncio.create_task(play())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize(
    "name", ["feedback on 2048 packets in 24 bytes each", "feedback of small deltas", "packets of nothing"]
)
async def test_a_viewer_that_floods_feedback_costs_the_others_nothing(name: str) -> None:
    """A hundred datagrams a second stopped all media; here come ten times as many."""
    source = source_of(Track(1, Codec.OPUS), call_at_on(asyncio.get_running_loop()), lambda now: (now, now))
    async with UdpMux("127.0.0.1") as mux:
        with WatchingPeer(mux, standing=Standing.ANONYMOUS) as victim, WatchingPeer(mux, standing=Standing.ANONYMOUS) as thief:
            await victim.connect()
            await thief.connect()
            viewers = [victim.watch(source), thief.watch(source)]
            async with playing(source):
                for _ in range(15):
                    await victim.receive()
                    await thief.receive()
                base = viewers[1].way.departures.next & 0xFFFF
                datagram = hostile.rtcp(viewers[1].senders[0].parameters.ssrc, base)[name]
                victim.got()
                used = time.process_time()
                for _ in range(100):  # 2 s of sound
                    for _ in range(20):
                        thief.send(thief.outbound.protect_rtcp(datagram))
                    await victim.receive()
                used = time.process_time() - used
                print(f"{name}: 2000 for {used:.2f} s of CPU")
                assert used < 1  # the attacker's own share in it
            for viewer in viewers:
                viewer.senders[0].detach()


async def test_who_sends_too_much_is_not_heard_for_a_while_and_keeps_its_media() -> None:
    source = source_of(Track(1, Codec.OPUS), call_at_on(asyncio.get_running_loop()), lambda now: (now, now))
    async with UdpMux("127.0.0.1") as mux:
        with WatchingPeer(mux, standing=Standing.ANONYMOUS) as thief:
            await thief.connect()
            thief.watch(source)
            heard = 0

            def slow(data: bytes, now: int) -> None:
                nonlocal heard
                heard += 1
                end = time.monotonic_ns() + 2 * MS
                while time.monotonic_ns() < end:
                    pass

            thief.peer.on_rtcp = slow
            report = hostile.rtcp(1, 0)["receiver reports"]
            for _ in range(200):
                thief.send(thief.outbound.protect_rtcp(report))
            await within(until(lambda: mux.stats.received > 200))
            assert heard + mux.stats.over_budget == 200
            assert 0 < heard <= 60  # 100 ms at once, and a fiftieth of the time since
            assert not thief.peer.closed.is_set()
            assert thief.peer.address == thief.address


async def until(done: Callable[[], bool]) -> None:
    """Turn the loop until it is so; every turn reads the sockets."""
    turn = asyncio.Event()
    while not done():
        asyncio.get_running_loop().call_soon(turn.set)
        await turn.wait()
        turn.clear()


@pytest.mark.parametrize("kind", ["checks", "records"])
async def test_a_flood_of_checks_or_records_is_cut_off_and_others_connect(kind: str) -> None:
    async with UdpMux("127.0.0.1") as mux:
        with WatchingPeer(mux, standing=Standing.ANONYMOUS) as thief, BarePeer(mux) as other:
            await thief.connect()
            record = b"\x17\xfe\xfd" + bytes(8) + (40).to_bytes(2, "big") + bytes(40)
            begun = time.monotonic()
            connecting = asyncio.create_task(other.connect())
            sent = 0
            while not mux.stats.over_budget and mux.stats.dropped < 1000 and sent < 40_000:
                for _ in range(50):
                    thief.send(record if kind == "records" else thief.request(CONTROLLING))
                sent += 50
                await asyncio.sleep(0)
            await within(connecting)
            assert time.monotonic() - begun < 5
            assert mux.stats.over_budget or mux.stats.dropped  # before they cost more, or because few of them may wait


async def test_what_came_on_the_heels_of_the_handshake_is_not_charged_for_its_wait() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux, setup="passive", standing=Standing.ANONYMOUS) as bare:
            heard: list[bytes] = []
            bare.peer.on_rtcp = lambda data, now: heard.append(data)
            await bare.check(USE_CANDIDATE)
            pump = asyncio.create_task(bare._pump())
            fingerprint = bare.peer.transport.fingerprint.split()
            outbound, _ = await within(bare.dtls.handshake([(fingerprint[0], fingerprint[1])]))
            assert not bare.peer.connected.is_set()
            report = hostile.rtcp(1, 0)["receiver reports of nothing"]
            for _ in range(128):
                bare.peer.media(outbound.protect_rtcp(report), time.monotonic_ns() - SECOND)
            await within(until(lambda: len(heard) == 128))
            for _ in range(20):
                bare.send(outbound.protect_rtcp(report))
            await within(until(lambda: len(heard) == 148))
            pump.cancel()
            await asyncio.wait({pump})
            assert mux.stats.over_budget == 0
