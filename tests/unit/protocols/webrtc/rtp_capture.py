"""RTP of an independent packetizer (ffmpeg's), by codec, over a loopback socket."""

import asyncio
import socket
from dataclasses import dataclass

from tests.support.encoders import FFMPEG_9


@dataclass(frozen=True, slots=True)
class RtpPacket:
    sequence: int
    timestamp: int
    marker: bool
    payload: bytes


async def rtp_of(*arguments: str, packet_size: int = 1200) -> list[RtpPacket]:
    """What `ffmpeg <arguments> -f rtp` sends, from a plain 12-byte header each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        # The RTCP port of ffmpeg's RTP is the next one: nobody listens there, which it does not mind.
        address = f"rtp://127.0.0.1:{receiver.getsockname()[1]}?pkt_size={packet_size}"
        process = await asyncio.create_subprocess_exec(
            FFMPEG_9, "-hide_banner", "-loglevel", "error", "-nostdin", *arguments, "-f", "rtp", address,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        packets: list[RtpPacket] = []
        while True:
            try:
                data = receiver.recv(2048)
            except BlockingIOError:
                return packets
            if 192 <= data[1] <= 223:
                continue
            assert data[0] == 0x80
            packets.append(
                RtpPacket(int.from_bytes(data[2:4], "big"), int.from_bytes(data[4:8], "big"), data[1] > 0x7F, data[12:])
            )


def frames(packets: list[RtpPacket]) -> list[list[bytes]]:
    """Payloads by frame."""
    made: list[list[bytes]] = [[]]
    for packet in packets:
        made[-1].append(packet.payload)
        if packet.marker:
            made.append([])
    return made[:-1]
