"""CPU per RTP packet of our fan-out, of the least that it can cost (`floor`), and of aiortc's own sender, in one run:
`python -m tests.bench.fanout [viewers ...]`.

Real loopback sockets, SRTP with AEAD_AES_256_GCM (what aiortc peers agree on), a programme like 1080p30 at 4 Mbit/s (a 100 KB key frame
each second, 13 KB others) and 50 Opus packets a second. Viewers' sockets are bound and not read: the kernel still carries each packet to
them. aiortc's viewers are real connected `RTCPeerConnection` pairs, whose receiving ends stop reading before the clock starts. CPU is
user + system time of this process; each figure is the least of the rounds.
"""

import asyncio
import contextlib
import gc
import os
import random
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError
from pylibsrtp import Policy, Session

from protocols.bitstream.obu import SEQUENCE_HEADER, Obu
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.native import runs as native
from protocols.webrtc.rtp import SendFormat, SendParameters
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source
from protocols.webrtc.send.way import ViewerWay
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.srtp import OutboundSrtp
from tests.bench.floor import Kept, NoFloor, cpu, floor

SECONDS = 2  # of programme, sent as fast as it goes
ROUNDS = 3
KEY_BYTES, DELTA_BYTES, OPUS_BYTES = 100_000, 13_000, 250
SECOND = 1_000_000_000
AIORTC_VIEWERS = (1, 25)


@dataclass
class Viewer:
    """What `Sender` asks of its transport."""

    socket: socket.socket
    address: tuple[Any, ...] | None
    outbound: OutboundSrtp | None
    egress: Egress


def nal_unit(kind: int, size: int) -> bytes:
    return b"\0\0\0\1" + bytes((0x60 | kind,)) + random.randbytes(size).replace(b"\0", b"\1")


def picture(codec: Codec, keyframe: bool, size: int) -> bytes:
    """With as much of the codec in it as the packetizer looks at."""
    match codec:
        case Codec.H264:
            return nal_unit(7, 20) + nal_unit(8, 5) + nal_unit(5, size) if keyframe else nal_unit(1, size)
        case Codec.AV1:
            header = Obu(bytes((SEQUENCE_HEADER << 3,)), random.randbytes(12)).sized if keyframe else b""
            return header + Obu(b"\x30", random.randbytes(size)).sized
        case _:
            return (b"\x82" if keyframe else b"\x87") + random.randbytes(size)


def programme(
    codec: Codec = Codec.H264, key_bytes: int = KEY_BYTES, delta_bytes: int = DELTA_BYTES
) -> list[tuple[Kind, EncodedPacket]]:
    """In the order of time."""
    items = []
    for number in range(30 * SECONDS):
        keyframe, at = number % 30 == 0, number * SECOND // 30
        data = picture(codec, keyframe, key_bytes if keyframe else delta_bytes)
        items.append((Kind.VIDEO, EncodedPacket(0, at, at, keyframe, data, at, at)))
    for number in range(50 * SECONDS):
        at = number * SECOND // 50
        items.append((Kind.AUDIO, EncodedPacket(1, at, at, True, random.randbytes(OPUS_BYTES), at, at)))
    return sorted(items, key=lambda item: item[1].pts)


def ours(
    viewers: int, segmentation: bool = True, codec: Codec = Codec.H264, module: ModuleType | None = None
) -> tuple[float, int]:
    """(CPU us per packet, packets); `module`: the native part."""
    timers: list[Any] = []
    sources = {
        Kind.VIDEO: _source(Track(1, codec), timers),
        Kind.AUDIO: _source(Track(2, Codec.OPUS), timers),
    }
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        out.bind(("127.0.0.1", 0))
        out.setblocking(False)
        egress = Egress(out, module)
        egress.segmentation &= segmentation
        senders = [sender for _ in range(viewers) for sender in attach(viewer(stack, egress), sources)]
        items = programme(codec)
        gc.collect()
        begun = cpu()
        push(items, sources, timers)
        spent = cpu() - begun
        packets = sum(sender.stream.packets for sender in senders)
        assert packets == sum(source.history.next for source in sources.values()) * viewers, "packets were dropped"
    return spent * 1e6 / packets, packets


def push(items: Iterable[tuple[Kind, EncodedPacket]], sources: Mapping[Kind, Source], timers: list[Any]) -> None:
    for kind, packet in items:
        sources[kind].push(packet, packet.pts)
        now = packet.pts
        while timers:
            now += 2_000_000
            timers.pop()(now)


def least(viewers: int, items: Sequence[tuple[Kind, EncodedPacket]]) -> float:
    """CPU seconds of the floor for a second of such a programme. Raises `NoFloor`."""
    timers: list[Any] = []
    sources = {Kind.VIDEO: _source(Track(1, Codec.H264), timers), Kind.AUDIO: _source(Track(2, Codec.OPUS), timers)}
    with contextlib.ExitStack() as stack:
        egress = Egress(stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        egress.runs = kept = Kept()
        for _ in attach(viewer(stack, egress), sources):
            pass
        push(items, sources, timers)
    return floor(kept.runs, [outbound() for _ in range(viewers)]) / SECONDS


def _source(track: Track, timers: list[Any]) -> Source:
    return Source(
        track,
        lambda now: (now, now),
        lambda when, run: timers.append(run),
        on_keyframe_wanted=lambda: False,
        on_bitrate=lambda bits_per_second: None,
        on_sent=lambda *_: None,
    )


def viewer(stack: contextlib.ExitStack, egress: Egress) -> Viewer:
    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.bind(("127.0.0.1", 0))
    return Viewer(sock, sock.getsockname(), outbound(), egress)


def outbound() -> OutboundSrtp:
    policy = Policy(os.urandom(44), Policy.SSRC_ANY_OUTBOUND, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM)
    policy.allow_repeat_tx, policy.window_size = True, 1024
    return OutboundSrtp(Session(policy))


def attach(transport: Viewer, sources: dict[Kind, Source], now: int = 0) -> Iterable[Sender]:
    way = ViewerWay(transport)
    for kind, source in sources.items():
        parameters = SendParameters(
            kind,
            mid="0" if kind is Kind.VIDEO else "1",
            formats={source.track.codec: SendFormat(96 if kind is Kind.VIDEO else 111)},
            ssrc=random.getrandbits(32),
            cname="bench",
            mid_extension=4,
            abs_send_time_extension=2,
            transport_cc_extension=3,
        )
        sender = Sender(way, parameters, on_turn=lambda: None)
        sender.attach(source, now)
        yield sender


class EncodedTrack(MediaStreamTrack):
    """Gives encoded packets to `RTCRtpSender` as fast as it takes them, from when `go` is set; counts down to `done`."""

    def __init__(self, kind: Kind, items: "list[av.Packet[Any]]", go: asyncio.Event, done: asyncio.Semaphore) -> None:
        self.kind = kind.value
        super().__init__()
        self._items = items
        self._go = go
        self._done = done
        self._next = 0

    async def recv(self) -> "av.Packet[Any]":
        await self._go.wait()
        if self._next == len(self._items):
            self._done.release()
            self._next += 1
        if self._next > len(self._items):
            await asyncio.get_running_loop().create_future()
            raise MediaStreamError
        self._next += 1
        await asyncio.sleep(0)  # else the first track starves the others
        return self._items[self._next - 1]


def av_packets(kind: Kind) -> "list[av.Packet[Any]]":
    made = []
    for each, item in programme():
        if each is kind:
            packet = av.Packet(item.data)
            packet.pts = packet.dts = item.pts // 1000
            packet.time_base = Fraction(1, 1_000_000)
            made.append(packet)
    return made


async def connected(connection: RTCPeerConnection) -> None:
    reached = asyncio.Event()

    def changed() -> None:
        if connection.connectionState == "connected":
            reached.set()

    connection.on("connectionstatechange", changed)
    if connection.connectionState != "connected":
        await reached.wait()


async def aiortc(viewers: int) -> tuple[float, int]:
    """(CPU us per packet, packets) of connected pairs, counted by the senders themselves."""
    go, done = asyncio.Event(), asyncio.Semaphore(0)
    pairs, senders = [], []
    items = {kind: av_packets(kind) for kind in Kind}
    for _ in range(viewers):
        near, far = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
        pairs += [near, far]
        senders += [near.addTrack(EncodedTrack(kind, items[kind], go, done)) for kind in Kind]
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        await far.setLocalDescription(await far.createAnswer())
        await near.setRemoteDescription(far.localDescription)
        async with asyncio.timeout(20):
            await asyncio.gather(connected(near), connected(far))
    for far in pairs[1::2]:
        for receiver in far.getReceivers():  # the far ends are in this process: they must not cost
            datagrams: Any = receiver.transport.transport._connection._nominated[1].protocol.transport
            datagrams._loop._remove_reader(datagrams.get_extra_info("socket").fileno())
    gc.collect()
    begun = cpu()
    go.set()
    async with asyncio.timeout(300):
        for _ in senders:
            await done.acquire()
    spent = cpu() - begun
    stats = [report for sender in senders for report in (await sender.getStats()).values() if report.type == "outbound-rtp"]
    packets = sum(report.packetsSent for report in stats)
    await asyncio.gather(*(connection.close() for connection in pairs))
    return spent * 1e6 / packets, packets


def native_part() -> ModuleType | None:
    try:
        return native.module()
    except native.CannotSend as why:
        print(f"without the native part: {why}")
        return None


def lowest(viewers: int, items: Sequence[tuple[Kind, EncodedPacket]]) -> float | None:
    """`least` of several rounds; None, and it is said why, where it cannot be measured."""
    try:
        return min(least(viewers, items) for _ in range(ROUNDS))
    except NoFloor as why:
        print(f"without a floor: {why}")
        return None


def main(counts: list[int]) -> None:
    part = native_part()
    ways = [("fan-out", None), *([("  by the native part", part)] if part is not None else [])]
    print(f"python {sys.version.split()[0]}; {SECONDS} s of programme a round, least of {ROUNDS} rounds; us CPU per RTP packet")
    theirs = {}
    for viewers in AIORTC_VIEWERS:
        theirs[viewers], packets = min(asyncio.run(aiortc(viewers)) for _ in range(ROUNDS))
        print(f"aiortc RTCRtpSender  {viewers:4d} viewers  {theirs[viewers]:6.2f}  ({packets} packets)")
    for viewers in counts:
        reference = theirs[max(count for count in theirs if count <= viewers)]
        bottom, below = lowest(viewers, programme()), ""
        for name, module in ways:
            cost, packets = min(ours(viewers, module=module) for _ in range(ROUNDS))
            if bottom is not None:
                each = bottom * SECONDS * 1e6 / packets
                below = f"  {cost / each:5.2f} x the floor in C ({each:.2f})"
            print(
                f"{name:<20} {viewers:4d} viewers  {cost:6.2f}{below}  {reference / cost:5.1f} x cheaper  ({packets} packets)"
            )
    for codec in (Codec.VP8, Codec.VP9, Codec.AV1):
        alone, _ = min(ours(1, codec=codec) for _ in range(ROUNDS))
        cost, _ = min(ours(25, codec=codec) for _ in range(ROUNDS))
        print(f"  {codec}               1 and 25 viewers  {alone:6.2f} {cost:6.2f}")
    cost, _ = min(ours(25, segmentation=False) for _ in range(ROUNDS))
    print(f"  without UDP_SEGMENT  25 viewers  {cost:6.2f}")


if __name__ == "__main__":
    begun = time.monotonic()
    main([int(argument) for argument in sys.argv[1:]] or [1, 25, 50, 100])
    print(f"{time.monotonic() - begun:.0f} s")
