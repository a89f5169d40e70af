"""A viewer that decodes: WHEP with aiortc as the client, so that what is counted is what a viewer sees."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame
from yarl import URL

from gateway.node.host import udp_drops
from tests.support.encoders import frame_number

LOUD = 500  # of 32767


@dataclass
class Viewer:
    """What has been decoded: frame numbers in the order shown, each size once, and the loudness of the sound.

    aiortc gives all audio of one payload type to one receiver: with several slots only the video is to be trusted.
    """

    numbers: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    audio_frames: int = 0
    sounding: int = 0
    """Of them those that are loud."""
    loudness: float = 0.0
    frequency: float = 0.0
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    resource: str = ""
    """The address of the WHEP resource."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """The gateway has ended the connection."""
    connection: RTCPeerConnection = field(init=False)
    _lost: int = 0

    async def until(self, *, frames: int = 0, audio: int = 0, timeout: float = 60) -> None:
        """Wait until that many frames and audio frames have been decoded."""
        async with asyncio.timeout(timeout):
            while len(self.numbers) < frames or self.audio_frames < audio:
                self.progress.clear()
                await self.progress.wait()

    async def until_sounding(self, frames: int, timeout: float = 60) -> None:
        """Wait until so many loud audio frames have been decoded."""
        async with asyncio.timeout(timeout):
            while self.sounding < frames:
                self.progress.clear()
                await self.progress.wait()

    async def until_number(self, number: int, timeout: float = 60) -> None:
        """Wait until the picture shows `number` or a later one."""
        async with asyncio.timeout(timeout):
            while not self.numbers or self.numbers[-1] < number:
                self.progress.clear()
                await self.progress.wait()

    def lost(self) -> int:
        """Datagrams that the kernel threw away at this viewer's ports, because this process did not read them in time."""
        ports = re.findall(r"^a=candidate:.* (\d+) typ host", self.connection.localDescription.sdp, re.MULTILINE)
        drops = udp_drops(dict.fromkeys(map(int, ports), "lost"))
        self._lost = drops.get("lost", self._lost)  # that of the end, once the ports are closed
        return self._lost

    @property
    def in_order(self) -> bool:
        return all(a < b for a, b in zip(self.numbers, self.numbers[1:], strict=False))

    def look(self, frame: VideoFrame) -> None:
        """Told of each picture."""

    async def _watch(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, VideoFrame):
                self.look(frame)
                self.numbers.append(frame_number(frame))
                if (frame.width, frame.height) not in self.sizes:
                    self.sizes.append((frame.width, frame.height))
            else:
                assert isinstance(frame, AudioFrame)
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0].astype(float)
                self.loudness = float(np.sqrt(np.mean(samples**2)))
                crossings = np.count_nonzero(np.diff(np.signbit(samples)))
                self.frequency = crossings / 2 / (len(samples) / frame.sample_rate)
                self.audio_frames += 1
                self.sounding += self.loudness > LOUD
            self.progress.set()


@asynccontextmanager
async def watching(
    url: str, token: str | None = None, slots: int = 1, viewer: Viewer | None = None, video: Sequence[str] = ()
) -> AsyncIterator[Viewer]:
    """Watch the call at a WHEP `url` until left, up to `slots` participants at once, as `viewer` if one is given, who takes only these
    `video` codecs (of H264 and VP8, as in a MIME type) if any are given."""
    viewer = viewer or Viewer()
    connection = viewer.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    watchers: list[asyncio.Task[None]] = []
    connection.on("track", lambda track: watchers.append(asyncio.create_task(viewer._watch(track))))
    settled = asyncio.Event()

    def changed() -> None:
        if connection.connectionState in ("connected", "failed", "closed"):
            settled.set()
        if connection.connectionState == "closed":
            viewer.closed.set()

    connection.on("connectionstatechange", changed)
    for _ in range(slots):
        picture = connection.addTransceiver("video", direction="recvonly")
        if video:
            known = RTCRtpReceiver.getCapabilities("video")
            assert known is not None
            picture.setCodecPreferences([each for each in known.codecs if each.name in (*video, "rtx")])
        connection.addTransceiver("audio", direction="recvonly")
    await connection.setLocalDescription(await connection.createOffer())
    headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {token}"} if token else {})
    async with aiohttp.ClientSession() as http:
        async with http.post(url, data=connection.localDescription.sdp, headers=headers) as response:
            assert response.status == 201, await response.text()
            location = response.headers["Location"]
            viewer.resource = str(response.url.join(URL(location)))
            answer = await response.text()
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            async with asyncio.timeout(60):
                await settled.wait()  # whoever comes later is shown what is left of the group of pictures that is under way
            yield viewer
        finally:
            for watcher in watchers:
                watcher.cancel()
            viewer.lost()  # is known as long as the ports are open
            await connection.close()
            with contextlib.suppress(aiohttp.ClientError):  # the gateway may have gone first
                async with http.delete(response.url.join(URL(location))):
                    pass
