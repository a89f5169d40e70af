"""Other codecs than H.264 on the way out: video that becomes VP8 or AV1, and VP8 that passes as long as all viewers take it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame
from playwright.async_api import Page

from tests.browser.chromium import Chromium
from tests.support.application import running_application
from tests.support.delivery import assert_delivered, assert_shown, dropped
from tests.support.encoders import BITS, STRIP, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess
from tests.support.shared import OwnCall, shared_gateway
from tests.support.viewer import watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

WIDTH, HEIGHT = 320, 192
JUDGED = 90  # pictures, of 30 a second
B_FRAMES = ("-c:v", "libx264", "-preset", "superfast", "-bf", "2", "-b_strategy", "0", "-g", "30", "-threads", "1")
SOURCE = (*programme(WIDTH, HEIGHT), *B_FRAMES, "-c:a", "aac")

_WATCH = """async ([url, bits]) => {
    globalThis.pc?.close();
    const pc = globalThis.pc = new RTCPeerConnection({bundlePolicy: "max-bundle"});
    const numbers = globalThis.numbers = [];
    pc.ontrack = async ({track}) => {
        const canvas = Object.assign(document.createElement("canvas"), {width: bits, height: 1});
        const context = canvas.getContext("2d", {willReadFrequently: true});
        const decoded = new MediaStreamTrackProcessor({track, maxBufferSize: 100}).readable.getReader();
        for (let {value, done} = await decoded.read(); !done; {value, done} = await decoded.read()) {
            context.drawImage(value, 0, 0, value.displayWidth, 16, 0, 0, bits, 1);
            value.close();
            const {data} = context.getImageData(0, 0, bits, 1);
            numbers.push(Array.from({length: bits}, (_, bit) => (data[4 * bit] > 127 ? 1 << bit : 0)).reduce((sum, each) => sum + each, 0));
        }
    };
    pc.addTransceiver("video", {direction: "recvonly"});
    const connected = new Promise((resolve) => {
        pc.onconnectionstatechange = () => pc.connectionState === "connected" && resolve();
    });
    await pc.setLocalDescription();
    const answer = await fetch(url, {method: "POST", body: pc.localDescription.sdp, headers: {"Content-Type": "application/sdp"}});
    await pc.setRemoteDescription({type: "answer", sdp: await answer.text()});
    await connected;
}"""
_SEEN = """async (last) => {
    while (!numbers.some((each) => each >= last)) await new Promise(requestAnimationFrame);
    const reports = [...(await pc.getStats()).values()];
    const {codecId} = reports.find((each) => each.type === "inbound-rtp");
    return [numbers, reports.find((each) => each.id === codecId).mimeType];
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with shared_gateway("transcode.pass_again_s=1") as running:
        yield running


async def seen_by_chromium(page: Page) -> tuple[list[int], str]:
    async with asyncio.timeout(40):
        numbers, mime_type = await page.evaluate(_SEEN, JUDGED)
        return numbers, mime_type


def video_of(stream: dict[str, Any]) -> tuple[str, str, str]:
    (video,) = (track for track in stream["tracks"] if track["kind"] == "video")
    return video["codec"], video["mode"], video["reason"]


async def test_video_becomes_the_codec_that_the_gateway_or_the_call_chooses(chromium: Chromium) -> None:
    async with running_application("transcode.codec=vp8", "calls.public=livestream:vp8,livestream:av1") as application:
        gateway = application.gateway
        await application.ok(
            "PATCH", "/call/livestream/av1", {"settings_override": {"transcoding": {"codec": "av1", "layers": 2}}}
        )
        address = f"srt://127.0.0.1:{gateway.ports['srt']}?streamid={gateway.key('livestream:vp8', 'vp8')}"
        async with (
            watching(gateway.url("/whep/livestream:vp8"), video=["VP8"]) as viewer,
            ffmpeg(*SOURCE, "-f", "mpegts", address),
        ):
            await viewer.until_number(JUDGED)
            assert video_of(await gateway.stream("vp8", tracks=2)) == ("h264", "transcode", "b_frames")
        async with chromium.open_page(gateway.url("/health/live")) as (page, _):
            await page.evaluate(_WATCH, [gateway.url("/whep/livestream:av1"), BITS])
            async with ffmpeg(*SOURCE, "-f", "flv", gateway.rtmp("livestream:av1", "av1")):
                numbers, mime_type = await seen_by_chromium(page)
                stream = await gateway.stream("av1", tracks=2)
                assert video_of(stream) == ("h264", "transcode", "b_frames")
                assert "It has one layer" in str(stream)
                async with watching(gateway.url("/whep/livestream:av1"), video=["H264"]) as late:
                    await late.until(frames=30)
                    stream = await gateway.stream("av1", tracks=2)
            lost = await dropped(gateway, viewer)
    assert_shown(viewer.numbers, 0, JUDGED - 1, lost)
    assert_shown(numbers, 0, JUDGED - 1, lost)
    assert mime_type == "video/AV1"
    assert "It becomes H.264 and not AV1" in str(stream)


PASSING = {
    "av1": "-c:v libsvtav1 -preset 12 -svtav1-params lp=1 -g 30",
    "vp9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 30 -b:v 1M",
}


@pytest.mark.parametrize("codec", PASSING)
async def test_av1_and_vp9_of_an_encoder_pass_to_a_browser(own: OwnCall, chromium: Chromium, codec: str) -> None:
    others = own.gateway.workers()
    async with chromium.open_page(own.gateway.url("/health/live")) as (page, _):
        await page.evaluate(_WATCH, [own.gateway.url(f"/whep/{own.cid}"), BITS])
        source = (*programme(WIDTH, HEIGHT), *PASSING[codec].split(), "-c:a", "libopus")
        async with ffmpeg(*source, "-f", "flv", own.rtmp(), version=9):
            numbers, mime_type = await seen_by_chromium(page)
            stream = await own.stream(tracks=2)
            assert own.gateway.workers() <= others
    assert_shown(numbers, 0, JUDGED - 1, await own.dropped())
    assert mime_type == f"video/{codec.upper()}"
    assert video_of(stream) == (codec, "passthrough", "same_codec")


class Counting(VideoStreamTrack):
    """Live pictures that carry their number."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        picture = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
        for bit in range(BITS):
            picture[:STRIP, bit * WIDTH // BITS : (bit + 1) * WIDTH // BITS] = 235 if self._number >> bit & 1 else 16
        picture[STRIP:HEIGHT, (self._number * 4) % WIDTH :] = 60
        frame = VideoFrame.from_ndarray(picture, "yuv420p")
        frame.pts, frame.time_base = pts, time_base
        self._number += 1
        return frame


@asynccontextmanager
async def publishing_vp8(own: OwnCall) -> AsyncIterator[None]:
    """aiortc as a WHIP client."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    picture = connection.addTransceiver(Counting(), direction="sendonly")
    picture.setCodecPreferences([each for each in RTCRtpSender.getCapabilities("video").codecs if each.name == "VP8"])
    await connection.setLocalDescription(await connection.createOffer())
    url, token = own.pasted().whip
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {token}"}
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=connection.localDescription.sdp, headers=headers) as response,
        ):
            assert response.status == 201, await response.text()
            await connection.setRemoteDescription(RTCSessionDescription(await response.text(), "answer"))
        yield
    finally:
        await connection.close()


async def test_vp8_passes_until_a_viewer_comes_who_does_not_take_it_and_again_after_that_one(own: OwnCall) -> None:
    others = own.gateway.workers()
    async with own.watching() as viewer, publishing_vp8(own):
        await viewer.until(frames=30)
        first = await own.stream()
        assert video_of(first) == ("vp8", "passthrough", "same_codec")
        assert own.gateway.workers() <= others
        async with own.watching(video=["H264"]) as other:
            await other.until(frames=30)
            changed = await own.stream(wanted=lambda stream: video_of(stream)[1] == "transcode")
            assert video_of(changed) == ("vp8", "transcode", "viewer")
            assert "A viewer's player does not take VP8." in str(changed)
            await viewer.until_number(other.numbers[-1] + 30)
            assert len(own.gateway.workers() - others) == 1
        passing = await own.stream(wanted=lambda stream: video_of(stream)[1] == "passthrough")
        await viewer.until_number(viewer.numbers[-1] + 30)
        async with own.watching(video=["H264"]) as again:
            await again.until(frames=30)
        lost = await own.dropped(viewer)
    assert viewer.in_order, viewer.numbers
    assert other.in_order, other.numbers
    assert passing["id"] == first["id"]
    assert passing["reconnects"] == 0
    last = viewer.numbers[-1]
    assert_delivered(last + 1, len(viewer.numbers), lost, share=1 - 6 / (last + 1))  # aiortc loses one at each change of codec
