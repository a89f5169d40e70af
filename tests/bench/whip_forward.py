"""CPU of whole WHIP sessions with their viewers, and how many a core carries: `python -m tests.bench.whip_forward [viewers ...]`.

Each session is a publisher of 2.5 Mbit/s (H.264 at 30 frames a second with a 60 KB key frame each second, 50 Opus packets a second, 1 % of
packets lost and sent again) over a real socket and DTLS, its pipeline, and its place in a call; each viewer has a socket and SRTP keys of
his own, and does not read. All run in real time, as they live: what is counted is this process's CPU less what sending the publishers'
packets takes. The figure for a forwarded packet is what a viewer more costs.
"""

import asyncio
import contextlib
import gc
import socket
import sys
import time
from dataclasses import dataclass

from gateway.outputs.embedded.call import EmbeddedCall, Participant
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.routes import Routes
from gateway.sessions.transcoders import SpareWorker
from protocols.media import EncodedPacket, Kind, TracksChanged
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.srtp import Arena, OutboundSrtp
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.publisher import WhipPublisher
from tests.bench.fanout import attach, viewer
from tests.bench.whip_receive import Publisher, programme, protected
from tests.support.memory import EnoughRoom, SeatOf
from tests.unit.protocols.whip.publishers import published
from transcode.host.pool import Workers
from transcode.plan import Policy, plan

SESSIONS = 10
SECONDS = 5
ROUNDS = 2  # of which the cheaper counts
VIEWERS = (0, 1, 4)
KEY_BYTES, DELTA_BYTES = 60_000, 8_700
TICK_S = 1 / 30
JOINED_S = 0.5  # the group of pictures that viewers begin with is out


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU in seconds, of how many packets in and out, in how much time."""

    cpu: float
    elapsed: float
    received: int
    sent: int


async def session(publisher: WhipPublisher, participant: Participant, published: asyncio.Event) -> None:
    """What the gateway does with one publisher, less its log and its timers."""
    routes, workers = Routes(), Workers()
    routes.add(participant)
    pipeline = Pipeline(
        publisher,
        routes,
        workers,
        SpareWorker(workers, publisher.id, lambda: None),
        decide=lambda track, want: plan(track, want, Policy()),
        room=EnoughRoom(),
        live_edge=LiveEdgePolicy(),
        max_bitrate=0,
        origin=0,
        fail=print,
        on_lack=print,
    )
    async for item in publisher:
        if isinstance(item, TracksChanged):
            await pipeline.change(item.tracks)
            if len(item.tracks) == 2:
                published.set()
        elif isinstance(item, EncodedPacket):
            await pipeline.push(item)
    await pipeline.aclose()


async def measure(viewers: int) -> Cost:
    frames, arena = programme(1 + SECONDS, KEY_BYTES, DELTA_BYTES), Arena()
    async with UdpMux("127.0.0.1") as mux, asyncio.TaskGroup() as group:
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            out.bind(("127.0.0.1", 0))
            out.setblocking(False)
            egress = Egress(out)
            peers: list[Publisher] = []
            receivers: list[WhipPublisher] = []
            participants: list[tuple[Participant, asyncio.Event]] = []
            call = EmbeddedCall("bench", max_participants=SESSIONS, on_empty=lambda cid: None)
            for number in range(SESSIONS):
                peers.append(Publisher(mux))
                receivers.append(await published(mux, peers[-1]))
                participants.append((await call.join(SeatOf(str(number)), lambda: None), asyncio.Event()))
                group.create_task(session(receivers[-1], *participants[-1]))
            streams = [[protected(frame, outbound, arena) for frame in frames] for outbound in _keys(peers)]
            await _play(peers, [stream[:30] for stream in streams])
            senders: list[Sender] = []
            for participant, ready in participants:
                await ready.wait()
                sources = {kind: each for kind in Kind if isinstance(each := participant.sources[kind][0], Source)}
                for _ in range(viewers):
                    senders += attach(viewer(stack, egress), sources, time.monotonic_ns())
            await asyncio.sleep(JOINED_S)
            gc.collect()
            received, sent = _received(receivers), sum(sender.stream.packets for sender in senders)
            began, clock = time.monotonic(), time.process_time()
            sending = await _play(peers, [stream[30:] for stream in streams])
            cost = Cost(
                time.process_time() - clock - sending,
                time.monotonic() - began,
                _received(receivers) - received,
                sum(sender.stream.packets for sender in senders) - sent,
            )
            if dropped := sum(sender.dropped for sender in senders):
                print(f"this machine was too busy: {dropped} packets for viewers were dropped", flush=True)
            for receiver, peer in zip(receivers, peers, strict=True):
                await receiver.aclose()
                peer.socket.close()
            return cost


def _keys(peers: list[Publisher]) -> list[OutboundSrtp]:
    return [OutboundSrtp(peer.outbound) for peer in peers]


def _received(receivers: list[WhipPublisher]) -> int:
    return sum(receiver.stats.packets_received for receiver in receivers)


async def _play(peers: list[Publisher], streams: list[list[list[bytes]]]) -> float:
    """Every publisher's frames in real time, each at its own moment within the tick; gives the CPU seconds that sending them took."""
    spent, begun = 0.0, time.monotonic()
    for number in range(len(streams[0])):
        for index, (peer, stream) in enumerate(zip(peers, streams, strict=True)):
            await asyncio.sleep(begun + (number + index / len(peers)) * TICK_S - time.monotonic())
            clock = time.process_time()
            for datagram in stream[number]:
                peer.send(datagram)
            spent += time.process_time() - clock
    await asyncio.sleep(TICK_S)
    return spent


def main() -> None:
    before: tuple[int, Cost] | None = None
    for viewers in [int(each) for each in sys.argv[1:]] or VIEWERS:
        cost = min((asyncio.run(measure(viewers)) for _ in range(ROUNDS)), key=lambda each: each.cpu)
        line = f"{viewers:2} viewers each: {cost.cpu * 1e6 / cost.received:5.1f} us of CPU per packet received"
        if before is not None and cost.sent > before[1].sent:
            extra = (cost.cpu - before[1].cpu) * 1e6 / (cost.sent - before[1].sent)
            line += f", {extra:4.1f} us per packet forwarded"
        print(f"{line}; {SESSIONS * cost.elapsed / cost.cpu:4.0f} sessions of 2.5 Mbit/s a core", flush=True)
        before = viewers, cost


if __name__ == "__main__":
    main()
