"""Behind the handshake: peers that have completed ICE and DTLS over real sockets, and then send what they should not, in any order.

What is kept true whatever comes: nothing is raised; no operation takes long, or holds more than it brought; a witness on the same port, who
does nothing wrong, is heard to the end.
"""

import asyncio
import gc
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random

import pytest

from protocols.media import Codec, Track
from protocols.webrtc.sdp import answer
from protocols.webrtc.send.source import call_at_on
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.ice import Credentials
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.viewer import Viewer
from tests.fuzz.test_whip import packets as publishers_packets
from tests.unit.protocols.webrtc import hostile
from tests.unit.protocols.webrtc.clients import CONTROLLING, USE_CANDIDATE, BarePeer, within
from tests.unit.protocols.webrtc.loopback import packet, source_of
from tests.unit.protocols.whip.publishers import published

LONGEST_S = 0.02  # CPU of one operation, at best: what is dear is so each time
TIMES = 5
CONSENT_S = 2.0
HELD_PER_BYTE = 4
STATE_BYTES = 12 << 20  # of one peer, whatever it sends: a frame that is not whole, packets out of order, what can be repaired
WATCHING_NS, PUBLISHING_NS = 100_000_000, 5_000_000  # from operation to operation, so that no budget keeps the fuzzer out

ATTRIBUTES: Sequence[tuple[int, bytes]] = (
    CONTROLLING,
    USE_CANDIDATE,
    (stun.Attribute.ICE_CONTROLLED, bytes(8)),
    (stun.Attribute.PRIORITY, bytes(4)),
    (0xC057, bytes(4)),
    (0x7FFE, b"xyz"),
)
VIEWER = """m=video 9 UDP/TLS/RTP/SAVPF 96 97
a=mid:0
a=recvonly
a=rtcp-mux
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
a=rtcp-fb:96 transport-cc
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96"""
PUBLISHER = """m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=sendonly
a=rtcp-mux
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=rtpmap:111 opus/48000/2
m=video 9 UDP/TLS/RTP/SAVPF 108 109
a=mid:1
a=sendonly
a=rtcp-mux
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=rtpmap:108 H264/90000
a=fmtp:108 packetization-mode=1
a=rtcp-fb:108 nack
a=rtcp-fb:108 nack pli
a=rtcp-fb:108 transport-cc
a=rtpmap:109 rtx/90000
a=fmtp:109 apt=108
a=rid:h send
a=rid:l send
a=simulcast:send h;l"""


class ConnectedPeer(BarePeer):
    """Gives its datagrams to the port itself, at a time that the test makes."""

    media = VIEWER

    def deliver(self, mux: UdpMux, datagram: bytes, now: int) -> None:
        assert mux._shared is not None
        mux._receive(mux._shared, datagram, [], self.address, now)


class PublishingPeer(ConnectedPeer):
    media = PUBLISHER


Operation = Callable[[], bytes]
"""Does one thing to the port; gives the bytes that it was asked with."""


class Hostile:
    """One connected peer and what it may do, drawn by lot. `reached` counts what of it got to the depth that is meant."""

    def __init__(
        self,
        mux: UdpMux,
        bare: ConnectedPeer,
        chance: Random,
        corpus: Callable[[], Sequence[bytes]],
        reached: Callable[[], int],
        step: int,
    ) -> None:
        self.reached, self.step = reached, step
        self.mux, self.bare, self.chance = mux, bare, chance
        self.now = time.monotonic_ns()
        self.restarts = 0
        self._corpus = corpus
        self._operations: list[Operation] = [self.media] * 12 + [
            self.check,
            self.dtls,
            self.answer,
            self.junk,
            self.repeat,
            self.restart,
        ]
        self._last = b""

    def operation(self) -> bytes:
        self.now = max(self.now + self.step, time.monotonic_ns())
        return self.chance.choice(self._operations)()

    def _deliver(self, datagram: bytes) -> bytes:
        self.bare.deliver(self.mux, datagram, self.now)
        return datagram

    def media(self) -> bytes:
        """RTP or RTCP under the right keys, mutated, and counts of it."""
        plain = self._mutated(self.chance.choice(self._corpus()))
        plain = plain[:1300].ljust(12, b"\x01")
        plain = bytes((0x80 | plain[0] & 0x3F,)) + plain[1:]
        control = 192 <= plain[1] <= 223
        try:
            self._last = self.bare.outbound.protect_rtcp(plain) if control else self.bare.outbound.protect(plain)
        except Exception:  # libsrtp's own sender would not say it
            return b""
        return self._deliver(self._last)

    def repeat(self) -> bytes:
        return self._deliver(self._last or b"\x80" * 20)

    def check(self) -> bytes:
        """An authentic check, with attributes of any kind."""
        attributes = self.chance.sample(ATTRIBUTES, self.chance.randrange(len(ATTRIBUTES)))
        return self._deliver(self.bare.request(*attributes))

    def answer(self) -> bytes:
        """Of a check that was never made."""
        return self._deliver(stun.success(self.chance.randbytes(12), "127.0.0.1", 9, self.bare.password.encode()))

    def dtls(self) -> bytes:
        """Records of any type and epoch; a goodbye would have to be signed."""
        body = self.chance.randbytes(self.chance.randrange(200))
        kind, epoch, number = self.chance.randrange(20, 27), self.chance.randrange(3), self.chance.getrandbits(16)
        head = struct.pack("!BHHHLH", kind, 0xFEFD, epoch, 0, number, len(body))
        return self._deliver((head + body)[: self.chance.randrange(13, 230)])

    def junk(self) -> bytes:
        return self._deliver(self.chance.randbytes(self.chance.randrange(1, 1500)))

    def renew(self) -> None:
        self._deliver(self.bare.request(CONTROLLING, USE_CANDIDATE))

    def restart(self) -> bytes:
        """ICE begins anew, as by PATCH, and the peer goes on with the new credentials or does not."""
        if self.restarts < 20:
            self.restarts += 1
            self.bare.peer.restart(Credentials(self.bare.ufrag, self.bare.password))
        return b"x" * 200

    def _mutated(self, data: bytes) -> bytes:
        out = bytearray(data)
        for _ in range(self.chance.choice((0, 0, 1, 1, 4, 16))):
            at = self.chance.randrange(len(out) + 1)
            match self.chance.randrange(5):
                case 0 if at < len(out):
                    out[at] ^= 1 << self.chance.randrange(8)
                case 1:
                    out[at : at + 2] = self.chance.choice((b"\0\0", b"\xff\xff", b"\x7f\xff", b"\x80\0"))
                case 2:
                    out[at:at] = out[at : at + 4 * self.chance.randrange(20)] * self.chance.choice((1, 8, 64))
                case 3:
                    del out[at : at + 4 * self.chance.randrange(8)]
                case _:
                    out[at:at] = self.chance.randbytes(4 * self.chance.randrange(4))
        return bytes(out[:1300])


@asynccontextmanager
async def watching(mux: UdpMux, chance: Random) -> AsyncIterator[Hostile]:
    """A viewer of a picture of which something is always new."""
    source = source_of(Track(1, Codec.H264), call_at_on(asyncio.get_running_loop()), lambda now: (now, now))
    with ConnectedPeer(mux, standing=Standing.ANONYMOUS) as bare:
        await bare.connect()
        viewer = Viewer(bare.peer, answer.sending(bare.offer(), "cname"))
        viewer.senders[0].attach(source, time.monotonic_ns())
        ssrc = viewer.senders[0].parameters.ssrc

        def corpus() -> Sequence[bytes]:
            now = time.monotonic_ns()
            source.push(packet(b"\0\0\0\1\x65\x88" + b"\x9a" * chance.randrange(600), now, True), now)
            return list(hostile.rtcp(ssrc, viewer.way.departures.next - chance.randrange(600) & 0xFFFF).values())

        sender = viewer.senders[0]
        yield Hostile(
            mux, bare, chance, corpus, lambda: min(sender.plis, sender.stream.nacks, viewer.estimated_bitrate or 0), WATCHING_NS
        )
        viewer.senders[0].detach()


@asynccontextmanager
async def publishing(mux: UdpMux, chance: Random) -> AsyncIterator[Hostile]:
    """A publisher whose media somebody takes."""
    with PublishingPeer(mux, standing=Standing.PUBLISHER) as bare:
        publisher = await published(mux, bare)

        async def take() -> None:
            async for _ in publisher:
                pass

        taking = asyncio.create_task(take())
        made = publishers_packets()
        at = 0

        def corpus() -> Sequence[bytes]:
            nonlocal at
            at += 1
            rounds, index = divmod(at, len(made))
            return [_later(each, rounds * len(made)) for each in made[index : index + 3]]

        yield Hostile(
            mux, bare, chance, corpus, lambda: publisher.stats.packets_received - publisher.admission.ignored, PUBLISHING_NS
        )
        await publisher.aclose()
        taking.cancel()
        await asyncio.wait({taking})


Connect = Callable[[UdpMux, Random], AbstractAsyncContextManager[Hostile]]


def _later(data: bytes, packets: int) -> bytes:
    """The same in a later round: SRTP takes no packet twice."""
    if 192 <= data[1] <= 223:
        return data
    sequence, timestamp = struct.unpack_from("!HL", data, 2)
    return data[:2] + struct.pack("!HL", sequence + packets & 0xFFFF, timestamp + 3000 * packets & 0xFFFFFFFF) + data[8:]


async def heard(bare: BarePeer) -> bool:
    """Whether what the witness sends still comes out decrypted."""
    came = asyncio.Event()
    bare.peer.on_rtcp = lambda data, now: came.set()
    bare.send(bare.outbound.protect_rtcp(hostile.rtcp(1, 0)["receiver reports of nothing"]))
    await within(came.wait())
    return True


def drawn(peer: Hostile, chance: Random, lot: str) -> tuple[float, bytes]:
    """CPU in seconds of what is drawn by this lot, and what the port was asked with: each time on what is new by then."""
    chance.seed(lot)
    gc.disable()  # its pauses are nobody's
    begun = time.thread_time()
    asked = peer.operation()
    took = time.thread_time() - begun
    gc.enable()
    return took, asked


@pytest.mark.parametrize("kind", [watching, publishing])
async def test_what_connected_peers_send(kind: Connect, seconds: float, seed: int) -> None:
    chance = Random(seed)
    operations = heard_of = 0
    async with UdpMux("127.0.0.1") as mux, kind(mux, chance) as peer:
        with BarePeer(mux) as witness:
            await witness.connect()
            until, renew = time.monotonic() + seconds, 0.0
            noise = 0
            while time.monotonic() < until and not peer.bare.peer.closed.is_set():
                operations += 1
                took, asked = drawn(peer, chance, f"{seed} {operations}")
                if took > LONGEST_S:
                    noise += 1
                    again = min(drawn(peer, chance, f"{seed} {operations}")[0] for _ in range(TIMES))
                    assert again <= LONGEST_S, f"{min(took, again):.3f} s for {asked.hex()}"
                if operations % 50 == 0:
                    await asyncio.sleep(0)
                    heard_of = peer.bare.peer.received
                if time.monotonic() > renew:  # consent (RFC 7675)
                    renew = time.monotonic() + CONSENT_S
                    await witness.check(USE_CANDIDATE)
                    peer.renew()
            assert noise <= 1 + operations // 10_000, "something is dear every now and then"
            assert await heard(witness)
            assert not peer.bare.peer.closed.is_set(), peer.bare.peer.why
            assert mux.stats.over_budget == 0
    assert operations > 200 * seconds
    assert heard_of > operations // 4
    assert peer.reached() >= 10


@pytest.mark.parametrize("kind", [watching, publishing])
async def test_what_connected_peers_leave_behind(kind: Connect, seed: int) -> None:
    """Held by byte that was sent, beside what a peer may hold whatever it sends."""
    chance = Random(seed)
    async with UdpMux("127.0.0.1") as mux, kind(mux, chance) as peer:
        size = 0
        gc.collect()
        tracemalloc.start()
        try:
            number = 0
            async with asyncio.timeout(60):
                while number < 600 or peer.reached() < 10:  # a slow machine ignores more of them
                    size += len(peer.operation())
                    number += 1
                    if number % 50 == 0:
                        await asyncio.sleep(0)
            gc.collect()
            held, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    print(f"{held} held, {most} at the most, {size} sent")
    assert most <= STATE_BYTES + HELD_PER_BYTE * size
