"""CPU of receiving a WHIP publisher, per packet: `python -m tests.bench.whip_receive [publishers ...]`.

Real sockets on the loopback and a real DTLS handshake for each publisher; a programme like 1080p30 at 4 Mbit/s (a 100 KB key frame each
second, 13 KB others) with 50 Opus packets a second, mid and transport-wide sequence number in each header, and 1 % of packets lost and sent
again. The packets are made and protected before the clock starts; what is timed is the event loop's work from the readable socket to the
access unit in the session's queue, RTCP included. Each figure is the least of the rounds.
"""

import asyncio
import gc
import sys
import time
from itertools import chain, count

from protocols.media import EncodedPacket
from protocols.webrtc.send.packetize import packetize_h264
from protocols.webrtc.transport.srtp import TRAILER_LIMIT, Arena, OutboundSrtp
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.publisher import WhipPublisher
from tests.bench.fanout import DELTA_BYTES, KEY_BYTES, OPUS_BYTES, nal_unit
from tests.unit.protocols.bitstream.samples import parameter_sets
from tests.unit.protocols.webrtc.clients import BarePeer
from tests.unit.protocols.webrtc.receive.test_receiver import rtp
from tests.unit.protocols.whip.publishers import published

SECONDS = 2
ROUNDS = 3
PUBLISHERS = (1, 10)
BATCH = 32  # datagrams in the kernel's buffer at once: nothing is lost there
LOSS = 100
H264, RTX, OPUS, VIDEO_SSRC, REPAIR_SSRC, AUDIO_SSRC = 96, 97, 111, 1, 2, 3
MEDIA = """m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=sendonly
a=rtcp-mux
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
m=video 9 UDP/TLS/RTP/SAVPF 96 97
a=mid:1
a=sendonly
a=rtcp-mux
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 transport-cc
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
"""


class Publisher(BarePeer):
    """A publisher whose every packet is made beforehand."""

    media = MEDIA


def programme(
    seconds: int = SECONDS, key_bytes: int = KEY_BYTES, delta_bytes: int = DELTA_BYTES, loss: int = LOSS
) -> list[list[bytes]]:
    """RTP packets in the order of time, those of each frame of 1/30 s with the sound beside it. One in `loss` is lost and sent again."""
    frames: list[list[bytes]] = []
    transport, video, audio, repair = count(), count(), count(), count()
    start = b"".join(b"\0\0\0\1" + each for each in parameter_sets("h264_baseline.h264"))

    def extensions(mid: bytes) -> dict[int, bytes]:
        return {4: mid, 3: (next(transport) & 0xFFFF).to_bytes(2, "big")}

    for frame in range(30 * seconds):
        packets: list[bytes] = []
        frames.append(packets)
        key = frame % 30 == 0
        slice_ = nal_unit(5 if key else 1, key_bytes if key else delta_bytes)
        unit = (start if key else b"") + slice_[:5] + b"\x88\x84" + slice_[5:]  # first macroblock 0, parameter set 0
        payloads = packetize_h264(unit)
        lost: list[tuple[int, bytes]] = []
        for index, payload in enumerate(payloads):
            sequence, marker = next(video), index == len(payloads) - 1
            if sequence % loss == loss - 1 and not marker:
                lost.append((sequence, payload))
                next(transport)
            else:
                packets.append(rtp(H264, sequence, 3000 * frame, VIDEO_SSRC, payload, extensions(b"1"), marker=marker))
        for sequence, payload in lost:
            body = (sequence & 0xFFFF).to_bytes(2, "big") + payload
            packets.append(rtp(RTX, next(repair), 3000 * frame, REPAIR_SSRC, body, extensions(b"1"), marker=False))
        for _ in range(1 + (frame % 3 < 2)):
            number = next(audio)
            packets.append(rtp(OPUS, number, 960 * number, AUDIO_SSRC, bytes(OPUS_BYTES), extensions(b"0"), marker=False))
    return frames


def protected(packets: list[bytes], outbound: OutboundSrtp, arena: Arena) -> list[bytes]:
    made = []
    for packet in packets:
        assert len(packet) + TRAILER_LIMIT < 2048
        arena.view[: len(packet)] = packet
        size = outbound.protect(arena, 0, len(packet))
        made.append(bytes(arena.view[:size]))
    return made


async def measure(publishers: int) -> tuple[float, int, int]:
    """(CPU us per packet, packets, access units)"""
    packets, arena = list(chain.from_iterable(programme())), Arena()
    async with UdpMux("127.0.0.1") as mux:
        peers, receivers, taking, taken = [], [], [], [0]
        for _ in range(publishers):
            peer = Publisher(mux)
            receiver = await published(mux, peer)
            peers.append(peer)
            receivers.append(receiver)
            taking.append(asyncio.create_task(_take(receiver, taken)))
        streams = [protected(packets, OutboundSrtp(peer.outbound), arena) for peer in peers]
        received, counted = sum(receiver.stats.packets_received for receiver in receivers), mux.stats.received
        gc.collect()
        spent, sent = 0, 0
        for begin in range(0, len(packets), BATCH):
            for peer, stream in zip(peers, streams, strict=True):
                for datagram in stream[begin : begin + BATCH]:
                    peer.send(datagram)
                    sent += 1
                clock = time.process_time_ns()
                for _ in range(1000):
                    await asyncio.sleep(0)
                    if mux.stats.received - counted >= sent:
                        break
                await asyncio.sleep(0)
                spent += time.process_time_ns() - clock
        for receiver, peer in zip(receivers, peers, strict=True):
            await receiver.aclose()
            peer.socket.close()
        await asyncio.gather(*taking, return_exceptions=True)
        assert sum(each.stats.packets_received for each in receivers) - received == sent, "the kernel lost some"
        return spent / sent / 1000, sent, taken[0]


async def _take(receiver: WhipPublisher, taken: list[int]) -> None:
    async for item in receiver:
        taken[0] += isinstance(item, EncodedPacket)


def main() -> None:
    for publishers in [int(each) for each in sys.argv[1:]] or PUBLISHERS:
        rounds = [asyncio.run(measure(publishers)) for _ in range(ROUNDS)]
        cost, packets, units = min(rounds)
        print(f"{publishers:3} publishers: {cost:5.1f} us of CPU per packet received ({packets} packets, {units} access units)")


if __name__ == "__main__":
    main()
