"""A publisher over WHIP whose every packet the test knows: 30 pictures a second of H.264 that nobody could decode, and 50 sounds.

It has goog-remb and no transport-wide feedback, follows what it is told as encoders do, and keeps what it was told.
"""

import asyncio
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiortc.rtp import RtcpPacket, RtcpPsfbPacket, unpack_remb_fci

from protocols.webrtc.rtp import abs_send_time
from protocols.webrtc.send.packetize import packetize_h264
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.dtls import Certificate, DtlsSession
from protocols.webrtc.transport.srtp import Arena, InboundSrtp, OutboundSrtp
from tests.unit.protocols.bitstream.samples import parameter_sets
from tests.unit.protocols.webrtc.receive.test_receiver import rtp

PLANNED = 3_000_000
H264, OPUS, VIDEO_SSRC, AUDIO_SSRC, SEND_TIME = 96, 111, 1, 2, 5
_CHECK_NS = 1_000_000_000
_OFFER = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=sendonly
a=rtcp-mux
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=fingerprint:{fingerprint}
a=setup:active
a=rtpmap:111 opus/48000/2
m=video 9 UDP/TLS/RTP/SAVPF 96
a=mid:1
a=sendonly
a=rtcp-mux
a=ice-ufrag:{ufrag}
a=ice-pwd:{password}
a=fingerprint:{fingerprint}
a=setup:active
a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:96 goog-remb
a=rtcp-fb:96 nack pli
"""


class WhipClient:
    """See the file. `told` are the figures in the order they came, in bit/s."""

    def __init__(self, *, send_times: bool) -> None:
        self.told: list[int] = []
        self.bitrate = PLANNED
        self._news = asyncio.Event()
        self._send_times = send_times
        self._certificate = Certificate.generate()
        self._ufrag, self._password = secrets.token_hex(4), secrets.token_hex(12)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._dtls = DtlsSession(self._certificate, active=True, send=self._send)
        self._inbound: InboundSrtp | None = None
        self._answered = asyncio.Event()
        self._arena = Arena()
        self._sequence = 0
        self._start = b"".join(b"\0\0\0\1" + each for each in parameter_sets("h264_baseline.h264"))

    async def until_told(self, wanted: Callable[[int], bool], *, timeout: float = 40) -> int:
        """The first figure from now on that is as `wanted`."""
        seen = len(self.told)
        async with asyncio.timeout(timeout):
            while True:
                for bits in self.told[seen:]:
                    if wanted(bits):
                        return bits
                seen = len(self.told)
                self._news.clear()
                await self._news.wait()

    async def publish(self, url: str, key: str, through: Callable[[str], str]) -> None:
        """Until it is cancelled. `through` changes the answer."""
        offer = _OFFER.format(ufrag=self._ufrag, password=self._password, fingerprint=self._certificate.fingerprint)
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession() as http, http.post(url, data=offer, headers=headers) as response:
            answer = through(await response.text())
            assert response.status == 201, answer
        self._remote_ufrag, self._remote_password = _line(answer, "ice-ufrag"), _line(answer, "ice-pwd")
        self._destination = ("127.0.0.1", int(_line(answer, "candidate").split()[5]))
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket, self._read)
        try:
            while not self._answered.is_set():
                self._check()
                await asyncio.wait([asyncio.ensure_future(self._answered.wait())], timeout=0.1)
            algorithm, fingerprint = _line(answer, "fingerprint").split()
            outbound, inbound = await self._dtls.handshake([(algorithm, fingerprint)])
            self._outbound, self._inbound = OutboundSrtp(outbound), InboundSrtp(inbound)
            await self._media()
        finally:
            loop.remove_reader(self._socket)
            self._socket.close()

    async def _media(self) -> None:
        begun = time.monotonic_ns()
        checked = frames = sounds = 0
        while True:
            now = time.monotonic_ns() - begun
            if now - checked > _CHECK_NS:  # consent (RFC 7675)
                checked = now
                self._check()
            while frames * 1_000_000_000 // 30 <= now:
                self._picture(frames, now)
                frames += 1
            while sounds * 20_000_000 <= now:
                self._protect(rtp(OPUS, sounds, now * 48 // 1_000_000, AUDIO_SSRC, bytes(160), marker=False))
                sounds += 1
            due = min(frames * 1_000_000_000 // 30, sounds * 20_000_000)
            await asyncio.sleep(max(0, begun + due - time.monotonic_ns()) / 1e9)

    def _picture(self, number: int, now: int) -> None:
        key = number % 60 == 0
        slice_ = bytes((0x65 if key else 0x41,)) + b"\x88\x84" + bytes((0xFF,)) * (self.bitrate // 8 // 30)
        payloads = packetize_h264((self._start if key else b"") + b"\0\0\0\1" + slice_)
        for index, payload in enumerate(payloads):
            times = {SEND_TIME: abs_send_time(now).to_bytes(3, "big")} if self._send_times else {}
            last = index == len(payloads) - 1
            self._protect(rtp(H264, self._sequence, now * 9 // 100_000, VIDEO_SSRC, payload, times, marker=last))
            self._sequence += 1

    def _protect(self, packet: bytes) -> None:
        self._arena.view[: len(packet)] = packet
        size = self._outbound.protect(self._arena, 0, len(packet))
        self._send(bytes(self._arena.view[:size]))

    def _send(self, datagram: bytes) -> None:
        self._socket.sendto(datagram, self._destination)

    def _check(self) -> None:
        attributes = ((stun.Attribute.ICE_CONTROLLING, bytes(8)), (stun.Attribute.USE_CANDIDATE, b""))
        username = f"{self._remote_ufrag}:{self._ufrag}".encode()
        self._send(stun.binding_request(secrets.token_bytes(12), username, self._remote_password.encode(), attributes))

    def _read(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(2048)
            except BlockingIOError:
                return
            if datagram[0] < 4:
                self._answered.set()
            elif datagram[0] < 64:
                self._dtls.receive(datagram)
            elif self._inbound is not None:
                self._hear(self._inbound.unprotect_rtcp(datagram))

    def _hear(self, compound: bytes) -> None:
        for packet in RtcpPacket.parse(compound):
            if isinstance(packet, RtcpPsfbPacket) and packet.fci[:4] == b"REMB":
                bits, _ = unpack_remb_fci(packet.fci)
                self.told.append(bits)
                self.bitrate = min(PLANNED, bits)
                self._news.set()


@asynccontextmanager
async def whip_client(url: str, key: str, through: Callable[[str], str], *, send_times: bool) -> AsyncIterator[WhipClient]:
    client = WhipClient(send_times=send_times)
    publishing = asyncio.create_task(client.publish(url, key, through))
    try:
        yield client
    finally:
        publishing.cancel()
        await asyncio.wait({publishing})
        if not publishing.cancelled():
            publishing.result()


def _line(answer: str, name: str) -> str:
    found = re.search(rf"^a={name}:(.*?)\r?$", answer, re.M)
    assert found is not None, f"no a={name} in the answer"
    return found[1]
