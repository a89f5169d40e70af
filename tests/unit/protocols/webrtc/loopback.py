"""A viewer on a loopback socket that decrypts and parses what it gets with aiortc's classes, and a programme to send to it."""

import heapq
import itertools
import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha512
from typing import Any

from aiortc.codecs.h264 import h264_depayload
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import HeaderExtensionsMap, RtpPacket, unwrap_rtx
from pylibsrtp import Policy, Session

from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.rtp import SendFormat, SendParameters
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import CallAt, Source, SourceClock
from protocols.webrtc.send.way import ViewerWay
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.srtp import InboundSrtp, OutboundSrtp

MS = 1_000_000
SECOND = 1_000_000_000
FRAME = SECOND // 30
MID, ABS_SEND_TIME, TRANSPORT_CC = 4, 2, 3
FORMATS = {
    Kind.VIDEO: {
        Codec.H264: SendFormat(96, 97),
        Codec.VP8: SendFormat(98, 99),
        Codec.VP9: SendFormat(100, 101),
        Codec.AV1: SendFormat(102),
    },
    Kind.AUDIO: {Codec.OPUS: SendFormat(111)},
}
GCM_256 = Policy.SRTP_PROFILE_AEAD_AES_256_GCM
_KEY_SIZES = {GCM_256: 44, Policy.SRTP_PROFILE_AEAD_AES_128_GCM: 28, Policy.SRTP_PROFILE_AES128_CM_SHA1_80: 30}

_extensions = HeaderExtensionsMap()
_extensions.configure(
    RTCRtpParameters(
        headerExtensions=[
            RTCRtpHeaderExtensionParameters(MID, "urn:ietf:params:rtp-hdrext:sdes:mid"),
            RTCRtpHeaderExtensionParameters(ABS_SEND_TIME, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
            RTCRtpHeaderExtensionParameters(
                TRANSPORT_CC, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            ),
        ]
    )
)


def sessions(profile: int = GCM_256, secret: bytes = b"") -> tuple[Session, Session]:
    """What the two ends of one direction have after DTLS, with aiortc's policies. `secret`: what their key is made of; empty: any."""
    key = sha512(secret or os.urandom(64)).digest()[: _KEY_SIZES[profile]]
    made = []
    for kind in (Policy.SSRC_ANY_OUTBOUND, Policy.SSRC_ANY_INBOUND):
        policy = Policy(key=key, ssrc_type=kind, srtp_profile=profile)
        policy.allow_repeat_tx = True
        policy.window_size = 1024
        made.append(Session(policy))
    return made[0], made[1]


def parameters(kind: Kind = Kind.VIDEO, **changes: Any) -> SendParameters:
    values: dict[str, Any] = {
        "kind": kind,
        "mid": "0",
        "formats": FORMATS[kind],
        "ssrc": 0xABCDEF01,
        "cname": "host",
        "rtx_ssrc": 0x12345678,
        "mid_extension": MID,
        "abs_send_time_extension": ABS_SEND_TIME,
        "transport_cc_extension": TRANSPORT_CC,
    }
    return SendParameters(**(values | changes))


class Peer:
    """A `SenderTransport` and the far end of it."""

    def __init__(self, egress: Egress, profile: int = GCM_256, secret: bytes = b"") -> None:
        outbound, inbound = sessions(profile, secret)
        self.socket = socket.socket(egress.family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind(("127.0.0.1" if egress.family == socket.AF_INET else "::1", 0))
        self.socket.setblocking(False)
        self.address: tuple[Any, ...] | None = self.socket.getsockname()
        self.outbound: OutboundSrtp | None = OutboundSrtp(outbound)
        self.egress = egress
        self.way = ViewerWay(self, 65_530)
        self.rtcp: list[bytes] = []
        self.sizes: list[int] = []
        self._inbound = InboundSrtp(inbound)

    @property
    def transport_sequence(self) -> int:
        """The next, of 16 bits."""
        return self.way.departures.next & 0xFFFF

    def receive(self) -> list[RtpPacket]:
        """What has come on the loopback so far, decrypted: RTP; RTCP goes to `rtcp`."""
        packets = []
        while (data := self.datagram()) is not None:
            self.sizes.append(len(data))
            if 192 <= data[1] <= 223:
                self.rtcp.append(self._inbound.unprotect_rtcp(data))
            else:
                packets.append(RtpPacket.parse(self._inbound.unprotect_rtp(data), _extensions))
        return packets

    def datagram(self) -> bytes | None:
        try:
            return self.socket.recv(2048)
        except BlockingIOError:
            return None


@dataclass
class Timers:
    """`CallAt` in simulated time."""

    now: int = 0
    _due: list[tuple[int, int, Callable[[int], None]]] = field(default_factory=list)
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    def __call__(self, when: int, run: Callable[[int], None]) -> None:
        heapq.heappush(self._due, (when, next(self._count), run))

    def advance(self, until: int) -> None:
        while self._due and self._due[0][0] <= until:
            when, _, run = heapq.heappop(self._due)
            self.now = max(self.now, when)
            run(self.now)
        self.now = until

    @property
    def idle(self) -> bool:
        return not self._due


@dataclass
class Programme:
    """30 frames a second, a key frame every `group` frames; frame n has the media time n/30 s and is pushed then."""

    source: Source
    timers: Timers
    group: int = 30
    key_bytes: int = 40_000
    delta_bytes: int = 13_000
    number: int = 0
    units: list[bytes] = field(default_factory=list)

    def play(self, frames: int) -> None:
        for _ in range(frames):
            now = self.number * FRAME
            self.timers.advance(now)
            keyframe = self.number % self.group == 0
            size = self.key_bytes if keyframe else self.delta_bytes
            self.units.append(push(self.source, size, now, key=keyframe))
            self.number += 1


def clock(now: int) -> tuple[int, int]:
    """Media time and monotonic time are one; the wall clock stands 1000 s ahead."""
    return now + 1000 * SECOND, now


def packet(data: bytes, at: int, keyframe: bool) -> EncodedPacket:
    return EncodedPacket(0, at, at, keyframe, data, at, at)


def push(source: Source, size: int, at: int, *, key: bool, now: int | None = None) -> bytes:
    """Gives the source a picture of `size` bytes with the media time `at`, and at that time if not `now`. The picture, in Annex B."""
    unit = access_unit(key, size)
    source.push(packet(unit, at, key), at if now is None else now)
    return unit


def nal_unit(kind: int, size: int) -> bytes:
    """Without start codes in it, and never ending in zero."""
    return bytes((0x60 | kind,)) + random.randbytes(size - 1).translate(_NO_ZERO)


def access_unit(keyframe: bool, size: int) -> bytes:
    sets = [nal_unit(7, 20), nal_unit(8, 6)] if keyframe else []
    return b"".join(b"\0\0\0\1" + unit for unit in (*sets, nal_unit(5 if keyframe else 1, size)))


_NO_ZERO = bytes((value or 1) for value in range(256))


def source_of(track: Track, timers: CallAt, clock: SourceClock = clock, **options: Any) -> Source:
    """One whose owner makes no key frames and hears nothing, but for what `options` say."""
    callbacks: dict[str, Any] = {
        "on_keyframe_wanted": lambda: False,
        "on_bitrate": lambda bits_per_second: None,
        "on_sent": lambda *_: None,
    }
    return Source(track, clock, timers, **(callbacks | options))


def video(timers: Timers, **options: Any) -> Source:
    return source_of(Track(1, Codec.H264), timers, **options)


def sender_to(peer: Peer, parameters: SendParameters, **options: Any) -> Sender:
    return Sender(peer.way, parameters, **({"on_turn": lambda: None} | options))


def watch(source: Source, peer: Peer, now: int, **options: Any) -> Sender:
    sender = sender_to(peer, parameters(source.kind, **options))
    sender.attach(source, now)
    return sender


def access_units(packets: list[RtpPacket]) -> list[tuple[int, bytes]]:
    """(timestamp, Annex B) by timestamp, in the order of arrival."""
    units: list[tuple[int, bytes]] = []
    for each in packets:
        data = h264_depayload(each.payload)
        if units and units[-1][0] == each.timestamp:
            units[-1] = (each.timestamp, units[-1][1] + data)
        else:
            units.append((each.timestamp, data))
    return units


def restored(rtx: RtpPacket) -> RtpPacket:
    return unwrap_rtx(rtx, 96, 0xABCDEF01)


def contiguous(packets: list[RtpPacket]) -> bool:
    return all(b.sequence_number == (a.sequence_number + 1) & 0xFFFF for a, b in itertools.pairwise(packets))


def growing(packets: list[RtpPacket]) -> bool:
    return all((b.timestamp - a.timestamp) & 0xFFFFFFFF < 1 << 31 for a, b in itertools.pairwise(packets))
