"""A process of many WHEP viewers that receive and do not decode; some of them note when each frame arrived.

`python -m tests.bench.viewers JOB` with the job as JSON: `{"joins": [[seconds after the start, url], …], "measuring": [number, …],
"feedback": true}`, and `"through": port` where they reach the gateway by a relay on loopback. Each viewer does real ICE and DTLS and sends
what a browser sends: consent checks, and transport-wide feedback ten times a second. Sockets are emptied every 10 ms and not by events, so
that no wake-up of this process is charged to whoever sends; an arrival is the kernel's timestamp of the datagram, taken as it is put into
the socket. Writes a line `joined` once every viewer has a picture, and at the end of its input what was seen, a JSON list of `Seen`.
"""

import asyncio
import json
import re
import secrets
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import aiohttp
from pylibsrtp import Session
from yarl import URL

from protocols.webrtc import rtcp
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.dtls import Certificate, DtlsSession

VIDEO, RTX, AUDIO = 96, 97, 111

_RTP, _MARKER = 0x80, 0x80
_DRAIN_S, _FEEDBACK_S, _CONSENT_S, _AGAIN_S, _TIMEOUT_S = 0.01, 0.1, 2.5, 0.1, 20
_RECEIVE_BUFFER = 4 << 20
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python has no name for it
_TIMESPEC = struct.Struct("=qq")
_REPORT = struct.Struct("!4xQI")  # of a sender report: NTP time, RTP time
_REFERENCE_NS, _DELTA_NS = 64_000_000, 250_000  # of transport-wide feedback
_MOST = 0x1FFF  # packets in one run of transport-wide feedback


@dataclass(slots=True)
class Seen:
    """What one viewer got. Instants are monotonic ns, RTP times as on the wire."""

    posted: int = 0
    first_picture: int = 0  # arrival of the last packet of the first one
    packets: int = 0
    missing: int = 0  # gaps in the sequence numbers
    video: list[tuple[int, int]] = field(default_factory=list)  # RTP time and arrival of the last packet of each frame
    audio: list[tuple[int, int]] = field(default_factory=list)
    reports: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # NTP time and RTP time of sender reports


class Viewer:
    """One viewer; `joined` is set with its first whole picture."""

    def __init__(self, certificate: Certificate, measuring: bool, source: str = "") -> None:
        """`source`: the address that it comes from; empty: any."""
        self.seen = Seen(reports={"video": [], "audio": []})
        self.joined = asyncio.Event()
        self.port = 0
        """Of the gateway, that it was told."""
        self.resource = ""
        """The address of the WHEP resource."""
        self._measuring = measuring
        self._certificate = certificate
        self._source = source
        self._ufrag, self._password = secrets.token_hex(4), secrets.token_hex(12)
        self._socket: socket.socket | None = None
        self._dtls: DtlsSession | None = None
        self._outbound: Session | None = None
        self._inbound: Session | None = None
        self._remote = ("", "")  # ufrag and password
        self._answered = asyncio.Event()
        self._expected: dict[int, int] = {}  # by payload type
        self._kinds: dict[int, str] = {}  # by SSRC
        self._fed_back = 0  # packets
        self._came: list[tuple[int, int]] = []  # since then: when the socket was emptied, and of how many packets
        self._scratch = bytearray(2048)

    async def join(self, http: aiohttp.ClientSession, url: str, through: int | None = None) -> None:
        """POST the offer, connect, and from then on leave the socket to `drain`. `through`: a port of a relay on loopback."""
        loop = asyncio.get_running_loop()
        self.seen.posted = time.monotonic_ns()
        async with http.post(url, data=self._offer(), headers={"Content-Type": "application/sdp"}) as response:
            answer = await response.text()
            assert response.status == 201, answer
            self.resource = str(response.url.join(URL(response.headers["Location"])))
        candidate = re.search(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+)", answer)
        assert candidate is not None
        self._remote = (_attribute(answer, "ice-ufrag"), _attribute(answer, "ice-pwd"))
        self.port = int(candidate[2])
        to = ("127.0.0.1", through) if through else (candidate[1], int(candidate[2]))
        self._socket = _connected(*to, self._source)
        self._dtls = DtlsSession(self._certificate, active=True, send=self._send)
        loop.add_reader(self._socket, self.drain)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                while not self._answered.is_set():  # a relay on the way may lose the first
                    self.check()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_AGAIN_S):
                            await self._answered.wait()
                algorithm, value = _attribute(answer, "fingerprint").split()
                self._outbound, self._inbound = await self._dtls.handshake([(algorithm, value)])
        finally:
            loop.remove_reader(self._socket)

    def check(self) -> None:
        """A connectivity check: it opens the way, and later renews consent (RFC 7675)."""
        ufrag, password = self._remote
        attributes = [(stun.Attribute.USE_CANDIDATE, b""), (stun.Attribute.ICE_CONTROLLING, bytes(8))]
        self._send(
            stun.binding_request(secrets.token_bytes(12), f"{ufrag}:{self._ufrag}".encode(), password.encode(), attributes)
        )

    def feed_back(self) -> None:
        """Transport-wide feedback: all that came since the last, each when it was read (draft-holmer-rmcat-transport-wide-cc-01 §3.1)."""
        came, self._came = self._came, []
        count = min(sum(packets for _, packets in came), _MOST)
        if self._outbound is None or not count:
            return
        reference = at = came[0][0] // _REFERENCE_NS * _REFERENCE_NS
        deltas = bytearray()
        for read, packets in came:
            delta = min(255, (read - at) // _DELTA_NS)
            at += delta * _DELTA_NS
            deltas += bytes([delta]) + bytes(packets - 1)
        body = struct.pack("!IIHHI", 1, 1, self._fed_back & 0xFFFF, count, reference // _REFERENCE_NS % (1 << 24) << 8)
        body += struct.pack("!H", 1 << 13 | count) + deltas[:count]
        body += bytes(-len(body) % 4)
        self._fed_back += count
        self._send(self._outbound.protect_rtcp(struct.pack("!BBH", 0x80 | 15, 205, len(body) // 4) + body))

    def lack_keyframe(self) -> None:
        """Says that it cannot decode (PLI)."""
        assert self._outbound is not None
        (ssrc,) = (ssrc for ssrc, kind in self._kinds.items() if kind == "video")
        self._send(self._outbound.protect_rtcp(rtcp.picture_loss(1, ssrc)))

    def drain(self) -> None:
        """Read all that the socket holds."""
        if self._socket is None:
            return
        before = self.seen.packets
        self._read(self._socket)
        if self.seen.packets > before:
            self._came.append((time.monotonic_ns(), self.seen.packets - before))

    def _read(self, udp: socket.socket) -> None:
        with suppress(BlockingIOError):
            if self._measuring or not self.joined.is_set():
                while True:
                    data, ancillary, _, _ = udp.recvmsg(2048, 64)
                    self._take(data, _arrival(ancillary))
            receive, scratch = udp.recv_into, self._scratch
            while True:
                receive(scratch)
                self.seen.packets += scratch[0] >= _RTP and not 192 <= scratch[1] <= 223

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _take(self, data: bytes, arrival: int) -> None:
        first, second = data[0], data[1]
        if first < 4:
            self._answered.set()
        elif 19 < first < 64:
            assert self._dtls is not None
            self._dtls.receive(data)
        elif 192 <= second <= 223:
            self._report(data)
        else:
            self._media(second & 0x7F, bool(second & _MARKER), data, arrival)

    def _media(self, payload_type: int, marker: bool, data: bytes, arrival: int) -> None:
        seen = self.seen
        seen.packets += 1
        sequence, timestamp, ssrc = struct.unpack_from("!HII", data, 2)
        seen.missing += sequence - self._expected.get(payload_type, sequence) & 0xFFFF
        self._expected[payload_type] = sequence + 1 & 0xFFFF
        if payload_type == AUDIO:
            self._kinds[ssrc] = "audio"
            seen.audio.append((timestamp, arrival))
        elif payload_type == VIDEO:
            self._kinds[ssrc] = "video"
            if marker:
                seen.video.append((timestamp, arrival))
                if not self.joined.is_set():
                    seen.first_picture = arrival
                    self.joined.set()

    def _report(self, data: bytes) -> None:
        if self._inbound is None:
            return
        for packet in rtcp.parse(self._inbound.unprotect_rtcp(data)):
            if packet.type == rtcp.SR and (kind := self._kinds.get(packet.ssrc)):
                self.seen.reports[kind].append(_REPORT.unpack_from(packet.body))

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._socket.send(data)

    def _offer(self) -> str:
        common = [
            "c=IN IP4 0.0.0.0",
            "a=recvonly",
            "a=rtcp-mux",
            f"a=ice-ufrag:{self._ufrag}",
            f"a=ice-pwd:{self._password}",
            f"a=fingerprint:{self._certificate.fingerprint}",
            "a=setup:active",
            "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        ]
        video = [
            f"a=rtpmap:{VIDEO} H264/90000",
            f"a=fmtp:{VIDEO} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            *(f"a=rtcp-fb:{VIDEO} {each}" for each in ("transport-cc", "nack", "nack pli")),
            f"a=rtpmap:{RTX} rtx/90000",
            f"a=fmtp:{RTX} apt={VIDEO}",
        ]
        audio = [
            f"a=rtpmap:{AUDIO} opus/48000/2",
            f"a=fmtp:{AUDIO} minptime=10;useinbandfec=1",
            f"a=rtcp-fb:{AUDIO} transport-cc",
        ]
        lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE 0 1"]
        lines += [f"m=video 9 UDP/TLS/RTP/SAVPF {VIDEO} {RTX}", "a=mid:0", *common, *video]
        lines += [f"m=audio 9 UDP/TLS/RTP/SAVPF {AUDIO}", "a=mid:1", *common, *audio]
        return "".join(f"{line}\r\n" for line in lines)


def _attribute(sdp: str, name: str) -> str:
    found = re.search(rf"a={name}:(.+?)\r?\n", sdp)
    assert found is not None, f"no {name} in the answer"
    return found[1]


def _connected(address: str, port: int, source: str) -> socket.socket:
    udp = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    udp.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    udp.setblocking(False)
    if source:
        udp.bind((source, 0))
    udp.connect((address, port))
    return udp


def _arrival(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """The kernel's timestamp in monotonic ns."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, rest = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + rest - time.time_ns() + time.monotonic_ns())
    return time.monotonic_ns()


async def _join_all(
    http: aiohttp.ClientSession, viewers: Sequence[Viewer], joins: Sequence[tuple[float, str]], through: int | None
) -> None:
    async def join(viewer: Viewer, after: float, url: str) -> None:
        await asyncio.sleep(after)
        await viewer.join(http, url, through)
        async with asyncio.timeout(_TIMEOUT_S):
            await viewer.joined.wait()

    async with asyncio.TaskGroup() as group:
        for viewer, (after, url) in zip(viewers, joins, strict=True):
            group.create_task(join(viewer, after, url))
    print("joined", flush=True)


async def _receive(viewers: Sequence[Viewer], with_feedback: bool, stopped: asyncio.Event) -> None:
    """The clock of all viewers: empty the sockets, and say what is due."""
    loop = asyncio.get_running_loop()
    feedback, consent = loop.time() + _FEEDBACK_S, loop.time() + _CONSENT_S
    while not stopped.is_set():
        for viewer in viewers:
            viewer.drain()
        if (now := loop.time()) >= feedback:
            feedback = now + _FEEDBACK_S
            for viewer in viewers if with_feedback else ():
                viewer.feed_back()
        if now >= consent:
            consent = now + _CONSENT_S
            for viewer in viewers:
                if viewer.joined.is_set():
                    viewer.check()
        await asyncio.sleep(_DRAIN_S)


async def main(joins: Sequence[tuple[float, str]], measuring: Sequence[int], with_feedback: bool, through: int | None) -> None:
    certificate = Certificate.generate()
    viewers = [Viewer(certificate, number in measuring) for number in range(len(joins))]
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8)) as http:
        async with asyncio.TaskGroup() as group:
            group.create_task(_join_all(http, viewers, joins, through))
            group.create_task(_receive(viewers, with_feedback, stopped))
    for viewer in viewers:
        viewer.close()
    print(json.dumps([asdict(viewer.seen) for viewer in viewers]), flush=True)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    asyncio.run(main(job["joins"], job["measuring"], job["feedback"], job.get("through")))
