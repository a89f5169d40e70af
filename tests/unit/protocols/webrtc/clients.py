"""Peers for the shared port: a full one (aiortc's RTCPeerConnection), and a bare one whose every datagram the test decides."""

import asyncio
import secrets
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdtlstransport import generate_certificate
from cryptography.hazmat.primitives.asymmetric import rsa

from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.dtls import Certificate, DtlsSession
from protocols.webrtc.transport.peer import Peer
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux

USE_CANDIDATE = (stun.Attribute.USE_CANDIDATE, b"")
SOUND = """m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=recvonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
"""
CONTROLLING = (stun.Attribute.ICE_CONTROLLING, bytes(8))
TIMEOUT = 10


async def within(awaitable: Any, timeout: float = TIMEOUT) -> Any:
    async with asyncio.timeout(timeout):
        return await awaitable


def rsa_certificate() -> Certificate:
    """As GStreamer before 1.28 presents."""
    key: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return Certificate(key, generate_certificate(key))


def browser(video: int = 1, audio: int = 1) -> RTCPeerConnection:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    for _ in range(video):
        connection.addTransceiver("video", "recvonly")
    for _ in range(audio):
        connection.addTransceiver("audio", "recvonly")
    return connection


async def connection_state(connection: RTCPeerConnection, *states: str) -> None:
    """Wait until the connection is in one of `states`."""
    reached = asyncio.Event()

    @connection.on("connectionstatechange")
    def changed() -> None:
        if connection.connectionState in states:
            reached.set()

    changed()
    await within(reached.wait())


@asynccontextmanager
async def connected(mux: UdpMux, connection: RTCPeerConnection | None = None) -> AsyncIterator[tuple[RTCPeerConnection, Peer]]:
    """A full peer with DTLS up on both sides."""
    connection = connection or browser()
    try:
        await connection.setLocalDescription(await connection.createOffer())
        offer = sdp.parse_offer(connection.localDescription.sdp.encode())
        peer = mux.add(offer)
        text = answer.render(offer, answer.sending(offer, "test"), peer.transport)
        await connection.setRemoteDescription(RTCSessionDescription(text, "answer"))
        await within(peer.connected.wait())
        await connection_state(connection, "connected")
        yield connection, peer
    finally:
        await connection.close()


class BarePeer:
    """One UDP socket, ICE credentials and DTLS; nothing happens by itself."""

    media = SOUND
    """The m-lines of its offer."""

    def __init__(
        self,
        mux: UdpMux,
        certificate: Certificate | None = None,
        *,
        setup: str = "active",
        host: str = "127.0.0.1",
        standing: Standing = Standing.PUBLISHER,
        client: str = "",
    ) -> None:
        self.certificate = certificate or Certificate.generate()
        self.ufrag, self.password = secrets.token_hex(4), secrets.token_hex(12)
        self.destination = (host, mux.port)
        self.socket = self._open()
        self.peer = mux.add(self.offer(setup), mux.take(client, standing))
        self.dtls = DtlsSession(self.certificate, active=setup != "passive", send=self.send)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def _open(self) -> socket.socket:
        bare = socket.socket(socket.AF_INET6 if ":" in self.destination[0] else socket.AF_INET, socket.SOCK_DGRAM)
        bare.bind((self.destination[0], 0))
        bare.setblocking(False)
        return bare

    def move(self) -> None:
        """Another port of the same host, as after a NAT rebinding."""
        self.socket.close()
        self.socket = self._open()

    @property
    def address(self) -> tuple[Any, ...]:
        name: tuple[Any, ...] = self.socket.getsockname()
        return name

    def offer(self, setup: str = "active") -> sdp.Offer:
        mids = [line.removeprefix("a=mid:") for line in self.media.splitlines() if line.startswith("a=mid:")]
        lines = [
            "v=0",
            f"a=group:BUNDLE {' '.join(mids)}",
            f"a=ice-ufrag:{self.ufrag}",
            f"a=ice-pwd:{self.password}",
            f"a=fingerprint:{self.certificate.fingerprint}",
            f"a=setup:{setup}",
            self.media,
        ]
        return sdp.parse_offer("\n".join(lines).encode())

    def send(self, datagram: bytes) -> None:
        self.socket.sendto(datagram, self.destination)

    async def receive(self) -> bytes:
        data: bytes = await within(asyncio.get_running_loop().sock_recv(self.socket, 2048))
        return data

    def request(self, *attributes: tuple[int, bytes], password: str | None = None) -> bytes:
        """A connectivity check to us, as bytes."""
        ice = self.peer.transport.ice
        username = f"{ice.ufrag}:{self.ufrag}".encode()
        return stun.binding_request(secrets.token_bytes(12), username, (password or ice.password).encode(), attributes)

    async def check(self, *attributes: tuple[int, bytes]) -> bytes:
        """Send a connectivity check and give the answer."""
        self.send(self.request(CONTROLLING, *attributes))
        return await self.receive()

    async def connect(self) -> None:
        await self.check(USE_CANDIDATE)
        pump = asyncio.create_task(self._pump())
        try:
            fingerprint = self.peer.transport.fingerprint.split()
            self.outbound, self.inbound = await within(self.dtls.handshake([(fingerprint[0], fingerprint[1])]))
            await within(self.peer.connected.wait())
        finally:
            pump.cancel()
            await asyncio.wait({pump})  # its reader must be gone before the descriptor is used again

    async def _pump(self) -> None:
        while True:
            datagram = await asyncio.get_running_loop().sock_recv(self.socket, 2048)
            if 19 < datagram[0] < 64:
                self.dtls.receive(datagram)


def error_code(message: bytes) -> int | None:
    """The ERROR-CODE of a STUN error response."""
    if message[:2] != b"\x01\x11":
        return None
    position = 20
    while position < len(message):
        kind, length = struct.unpack_from("!HH", message, position)
        if kind == stun.Attribute.ERROR_CODE:
            return message[position + 6] * 100 + message[position + 7]
        position += 4 + (length + 3 & ~3)
    return None
