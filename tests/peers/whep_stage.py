"""A call for WHEP tests over real HTTP and UDP: participants with live video (the frame number burnt in) and Opus (a 1 kHz tone)."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from aiohttp import web

from protocols.bitstream.av1 import Av1Stream
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.send.source import Source, call_at_on
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.fanout import CallViewer
from protocols.whep.resource import WhepResource
from protocols.whep.viewer import Viewer
from tests.support.encoders import BITS, FFMPEG, STRIP
from tests.unit.protocols.bitstream.samples import ivf_frames
from tests.unit.protocols.webrtc.loopback import source_of

WIDTH, HEIGHT, RATE = 320, 176, 30
FRAME_NS = 1_000_000_000 // RATE
AUDIO_NS = 20_000_000
Video = tuple[tuple[bool, bytes], ...]
WALL_OFFSET = time.time_ns() - time.monotonic_ns()
_VPX = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
_ENCODERS = {
    Codec.H264: (
        "libx264",
        {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "repeat-headers=1:annexb=1:scenecut=0:aud=0"},
    ),
    Codec.VP8: ("libvpx", _VPX),
    Codec.VP9: ("libvpx-vp9", _VPX),
}
_AV1 = (  # PyAV has SVT-AV1 alone, which stands still for ever now and then
    *(FFMPEG, "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE), "-i", "-"),
    *("-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", "-threads", "1"),
)


@cache
def pictures(count: int, group: int = 60, codec: Codec = Codec.H264) -> Video:
    """(key frame, access unit) of `count` pictures that carry their number."""
    texture = np.random.default_rng(1).integers(
        60, 190, (HEIGHT - STRIP, WIDTH // 2), np.uint8
    )  # key frames of several packets

    def drawn() -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        for number in range(count):
            picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            for bit in range(BITS):
                picture[:STRIP, bit * WIDTH // BITS : (bit + 1) * WIDTH // BITS] = 235 if number >> bit & 1 else 16
            picture[STRIP:HEIGHT, (number * 4) % WIDTH :] = 60
            picture[STRIP:HEIGHT, WIDTH // 2 :] = texture
            yield picture

    if codec is Codec.AV1:
        arguments = [*_AV1, "-g", str(group), "-f", "ivf", "-"]
        done = subprocess.run(arguments, input=b"".join(map(bytes, drawn())), stdout=subprocess.PIPE, check=True)
        stream = Av1Stream(0)
        units = [stream.temporal_unit(frame) for frame in ivf_frames(done.stdout)]
        return tuple((unit.keyframe, unit.data) for unit in units)
    name, options = _ENCODERS[codec]
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.gop_size = group
    encoder.options = dict(options)
    encoder.thread_count = 1
    packets = []
    for number, picture in enumerate(drawn()):
        frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return tuple((packet.is_keyframe, bytes(packet)) for packet in packets)


@cache
def tone(count: int) -> tuple[bytes, ...]:
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
    return tuple(bytes(packet) for packet in packets)


@dataclass(eq=False)
class Participant:
    """Publishes from `begin` until `stop`; `name` is its id too."""

    name: str
    video: Video
    audio: tuple[bytes, ...]
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

    def change(self, codec: Codec, video: Video) -> None:
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

    @property
    def known(self) -> bool:
        return self.token is not None

    user = ""

    def add_viewer(self, viewer: CallViewer) -> None:
        assert isinstance(viewer, Viewer)
        self.viewers.add(viewer)
        for participant in self.participants:
            viewer.show(participant.name, participant.name, participant.sources)
        self.changed.set()

    def remove_viewer(self, viewer: CallViewer) -> None:
        assert isinstance(viewer, Viewer)
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

    async def until_viewers(self, count: int, timeout: float = 60) -> None:
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
