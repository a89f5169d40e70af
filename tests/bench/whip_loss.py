"""How a lossy way to us shows in a browser's stream, ours against aiortc's own receiver: `python -m tests.bench.whip_loss [percent ...]`.

Chromium publishes H.264 at 640x360 and Opus from its fake devices over a relay with 20 ms of round trip that loses that many packets of
100, both ways, with the same seed. Ours counts what its session gets; aiortc's what `track.recv()` gives (it decodes, with all cores).
A freeze is the longest time between two pictures, a gap the longest stretch of media time that is not there.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from protocols.media import Kind
from protocols.webrtc.http import SDP
from tests.browser.chromium import FAKE_DEVICES, running_chromium
from tests.peers.whip_page import browser_publisher
from tests.peers.whip_stage import whip_stage
from tests.support.relay import relaying

Handler = Callable[[web.Request], Awaitable[web.Response]]

ROUND_TRIP_S = 0.02
SECONDS = 15
LOSSES = (0, 2, 5, 10)


@dataclass
class Seen:
    """Of one kind: (arrival, media time), ns, of each frame."""

    frames: list[tuple[int, int]] = field(default_factory=list)

    @property
    def freeze_ms(self) -> float:
        return max((after[0] - before[0]) / 1e6 for before, after in pairwise(self.frames))

    @property
    def gap_ms(self) -> float:
        return max((after[1] - before[1]) / 1e6 for before, after in pairwise(self.frames))


async def ours(loss: float) -> tuple[Seen, Seen]:
    async with whip_stage() as stage, relaying(stage.mux.port, loss=loss, round_trip_s=ROUND_TRIP_S) as relay:
        async with running_chromium(*FAKE_DEVICES) as studio, browser_publisher(studio) as browser:
            await browser.go_through(relay.through)
            await browser.publish(stage.url(), "key", codec="h264")
            received = await stage.publisher()
            await received.until(video=1)
            await asyncio.sleep(SECONDS)
            video, audio = ([(each.arrival, each.pts) for each in received.of(kind)] for kind in (Kind.VIDEO, Kind.AUDIO))
            return Seen(video), Seen(audio)


async def aiortcs(loss: float) -> tuple[Seen, Seen]:
    seen = {"video": Seen(), "audio": Seen()}
    begun = asyncio.Event()

    async def watch(track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert frame.pts is not None
            assert frame.time_base is not None
            seen[track.kind].frames.append((time.monotonic_ns(), int(frame.pts * frame.time_base * 1_000_000_000)))
            begun.set()

    async with AsyncExitStack() as stack:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        stack.push_async_callback(connection.close)
        watchers: list[asyncio.Task[None]] = []
        connection.on("track", lambda track: watchers.append(asyncio.create_task(watch(track))))

        async def answer(request: web.Request) -> web.Response:
            await connection.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
            text = connection.localDescription.sdp
            host = next(line.split() for line in text.splitlines() if line.startswith("a=candidate") and " udp " in line)
            relay = await stack.enter_async_context(relaying(int(host[5]), loss=loss, round_trip_s=ROUND_TRIP_S))
            relay.target = (host[4], int(host[5]))
            headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Location", "Location": "/1"}
            return web.Response(status=201, text=relay.through(text), content_type=SDP, headers=headers)

        async def allow(request: web.Request) -> web.Response:
            return web.Response(
                headers={"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*, Authorization"}
            )

        address = await stack.enter_async_context(_serving(answer, allow))
        studio = await stack.enter_async_context(running_chromium(*FAKE_DEVICES))
        browser = await stack.enter_async_context(browser_publisher(studio))
        await browser.publish(address, "key", codec="h264")
        async with asyncio.timeout(30):
            await begun.wait()
        await asyncio.sleep(SECONDS)
        return seen["video"], seen["audio"]


@asynccontextmanager
async def _serving(answer: Handler, allow: Handler) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/", answer)
    application.router.add_options("/", allow)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def main() -> None:
    for percent in [float(each) for each in sys.argv[1:]] or LOSSES:
        for name, measure in (("ours", ours), ("aiortc", aiortcs)):
            video, audio = asyncio.run(measure(percent / 100))
            print(
                f"{percent:4g} % lost, {name:>6}: picture freezes {video.freeze_ms:5.0f} ms at most ({len(video.frames)} frames), "
                f"sound misses {audio.gap_ms:4.0f} ms at most ({len(audio.frames)} frames)",
                flush=True,
            )


if __name__ == "__main__":
    main()
