"""A call for WHEP tests over real HTTP and UDP: participants with live video (the frame number burnt in) and Opus (a 1 kHz tone)."""

import asyncio
import pickle
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from aiohttp import web

from protocols.bitstream.av1 import Av1Stream
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.send.source import Source, call_at_on
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.resource import WhepResource
from protocols.whep.viewer import Viewer
from tests.support.encoders import BITS, STRIP
from tests.support.gateway_process import ROOT
from tests.unit.protocols.webrtc.loopback import source_of

WIDTH, HEIGHT, RATE = 320, 176, 30
FRAME_NS = 1_000_000_000 // RATE
AUDIO_NS = 20_000_000
WALL_OFFSET = time.time_ns() - time.monotonic_ns()
_VPX = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
_ENCODERS = {
    Codec.H264: (
        "libx264",
        {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "repeat-headers=1:annexb=1:scenecut=0:aud=0"},
    ),
    Codec.VP8: ("libvpx", _VPX),
    Codec.VP9: ("libvpx-vp9", _VPX),
    Codec.AV1: ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:lookahead=0:scd=0:lp=1"}),
}


_APART = (
    "import pickle, sys; from protocols.media import Codec; from tests.peers.whep_stage import encoded; "
    "pickle.dump(encoded(int(sys.argv[1]), int(sys.argv[2]), Codec.AV1), sys.stdout.buffer)"
)
_APART_S = 60.0


def pictures(count: int, group: int = 60, codec: Codec = Codec.H264) -> list[tuple[bool, bytes]]:
    """(key frame, access unit) of `count` pictures that carry their number. SVT-AV1 stands still for ever now and then (seen once in some
    hundred runs): it works in a process that can be ended, and begins anew."""
    if codec is not Codec.AV1:
        return encoded(count, group, codec)
    for _ in range(3):
        with suppress(subprocess.TimeoutExpired):
            arguments = [sys.executable, "-c", _APART, str(count), str(group)]
            done = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, timeout=_APART_S, check=True)
            units: list[tuple[bool, bytes]] = pickle.loads(done.stdout)
            return units
    raise TimeoutError("SVT-AV1 stood still three times")


def encoded(count: int, group: int, codec: Codec) -> list[tuple[bool, bytes]]:
    """As `pictures`, in this process."""
    name, options = _ENCODERS[codec]
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.gop_size = group
    encoder.options = dict(options)
    encoder.thread_count = 1
    packets = []
    texture = np.random.default_rng(1).integers(
        60, 190, (HEIGHT - STRIP, WIDTH // 2), np.uint8
    )  # key frames of several packets
    for number in range(count):
        luma = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        for bit in range(BITS):
            luma[:STRIP, bit * WIDTH // BITS : (bit + 1) * WIDTH // BITS] = 235 if number >> bit & 1 else 16
        luma[STRIP:HEIGHT, (number * 4) % WIDTH :] = 60
        luma[STRIP:HEIGHT, WIDTH // 2 :] = texture
        frame = av.VideoFrame.from_ndarray(luma, "yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    if codec is Codec.AV1:
        stream = Av1Stream(0)
        units = [stream.temporal_unit(bytes(packet)) for packet in packets]
        return [(unit.keyframe, unit.data) for unit in units]
    return [(packet.is_keyframe, bytes(packet)) for packet in packets]


def tone(count: int) -> list[bytes]:
    """`count` Opus packets of 20 ms."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 48000, "stereo", "s16"
    packets = []
    for number in range(count):
        at = np.arange(number * 960, (number + 1) * 960)
        samples = (np.sin(2 * np.pi * 1000 * at / 48000) * 12000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.repeat(samples, 2).reshape(1, -1), "s16", "stereo")
        frame.sample_rate, frame.pts = 48000, number * 960
        packets += encoder.encode(frame)
    return [bytes(packet) for packet in packets]


@dataclass(eq=False)
class Participant:
    """Publishes from `begin` until `stop`; `name` is its id too."""

    name: str
    video: list[tuple[bool, bytes]]
    audio: list[bytes]
    codec: Codec = Codec.H264
    sources: dict[Kind, tuple[Source, ...]] = field(default_factory=dict)
    keyframes_wanted: int = 0
    layers: dict[str, tuple[int, int]] = field(default_factory=lambda: {"": (WIDTH, HEIGHT)})
    """Of the video, with the sizes that are told of them, the largest first; all have the same pictures."""
    _start: int = 0

    def begin(self) -> None:
        call_at = call_at_on(asyncio.get_running_loop())
        self._start = time.monotonic_ns()
        self.sources = {Kind.VIDEO: self._pictures(), Kind.AUDIO: (source_of(Track(2, Codec.OPUS), call_at, self._clock),)}

    def change(self, codec: Codec, video: list[tuple[bool, bytes]]) -> None:
        """The same pictures go on in another codec: other sources, as a call makes them. `Stage.enter` shows them."""
        assert len(video) == len(self.video)
        self.codec, self.video = codec, video
        self.sources[Kind.VIDEO] = self._pictures()

    def _pictures(self) -> tuple[Source, ...]:
        call_at = call_at_on(asyncio.get_running_loop())
        return tuple(
            source_of(
                Track(1, self.codec, width=width, height=height, layer=name),
                call_at,
                self._clock,
                on_keyframe_wanted=self._keyframe_wanted,
            )
            for name, (width, height) in self.layers.items()
        )

    def _clock(self, now: int) -> tuple[int, int]:
        return now + WALL_OFFSET, now - self._start

    def _keyframe_wanted(self) -> bool:
        self.keyframes_wanted += 1
        return False  # as of an RTMP encoder

    async def publish(self) -> None:
        """In real time, for as long as there are pictures."""
        for at, kind, number in self._schedule():
            wait = self._start + at - time.monotonic_ns()
            if wait > 0:
                await asyncio.sleep(wait / 1e9)
            now = time.monotonic_ns()
            key, data = self.video[number] if kind is Kind.VIDEO else (True, self.audio[number])
            for source in self.sources[kind]:
                source.push(EncodedPacket(0, at, at, key, data, now, now), now)

    def _schedule(self) -> Iterator[tuple[int, Kind, int]]:
        video = [(number * FRAME_NS, Kind.VIDEO, number) for number in range(len(self.video))]
        audio = [(number * AUDIO_NS, Kind.AUDIO, number) for number in range(len(self.audio))]
        return iter(sorted(video + audio))


class Stage:
    """One call, `demo`, with a token for those who know it; it is Program and Audience."""

    def __init__(self) -> None:
        self.participants: list[Participant] = []
        self.viewers: set[Viewer] = set()
        self.changed = asyncio.Event()
        self.token: str | None = None
        self.resource: WhepResource
        self.mux: UdpMux
        self.url = ""

    async def admit(self, call: str, token: str | None, address: str) -> "Stage":
        if call != "livestream:demo":
            raise Rejected(Reason.NOT_FOUND, "no such call")
        if token != self.token:
            raise Rejected(Reason.UNAUTHORIZED, "show the token of the call")
        return self

    def add_viewer(self, viewer: Viewer) -> None:
        self.viewers.add(viewer)
        for participant in self.participants:
            viewer.show(participant.name, participant.name, participant.sources)
        self.changed.set()

    def remove_viewer(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        self.changed.set()

    def enter(self, participant: Participant) -> None:
        """Also of one that is there already and has changed its sources."""
        if participant not in self.participants:
            self.participants.append(participant)
        for viewer in self.viewers:
            viewer.show(participant.name, participant.name, participant.sources)

    def leave(self, participant: Participant) -> None:
        self.participants.remove(participant)
        for viewer in self.viewers:
            viewer.hide(participant.name)

    @property
    def dropped(self) -> int:
        """Frames that were too late for a viewer."""
        return next(value for name, _, value in self.resource.counters() if name == "dropped")

    async def until_viewers(self, count: int, timeout: float = 15) -> None:
        async with asyncio.timeout(timeout):
            while len(self.viewers) != count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def stage(host: str = "127.0.0.1", limits: Limits | None = None) -> AsyncIterator[Stage]:
    """The call served; `url` is its WHEP address."""
    served = Stage()
    async with UdpMux(host, limits=limits) as mux:
        served.mux = mux
        served.resource = WhepResource(mux, served)
        app = web.Application()
        app.add_routes(served.resource.routes())
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/whep/livestream:demo"
        try:
            yield served
        finally:
            await served.resource.aclose()
            await runner.cleanup()
