"""HLS in Chromium: hls.js plays calls fed over each protocol, so far behind and no further, and the watch page falls back to it, where
WebRTC does not get through and where the browser lacks the codec that is on air."""

import asyncio
import statistics
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.browser.chromium import Chromium, moving_picture, state, until
from tests.support.encoders import BITS, X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.hls_clock import TICKS, clock_programme
from tests.support.publishing import PROTOCOLS
from tests.support.rtmp_client import rtmp_client
from tests.support.shared import OwnCall, shared_gateway
from tests.support.sparse import sparse
from tests.support.srt_encoders import Way
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODES = {"low latency": True, "ordinary": False}
SEGMENTS = 5
SAMPLES = 120  # of each player
LIMITS_S = {"low latency": 3.0, "ordinary": 8.0}  # three segments of 2 s, and up to one that is not whole yet
TRIES = 3  # a player that does not catch up keeps what this machine made it wait for at its start

# Plays an address twice, at the live edge and as an ordinary player, and reads the time in the pictures that it shows.
_PLAY = """async ({address, modes, bits, ticks, samples}) => {
    const {default: Hls} = await import("/web/hls.min.js");
    const result = {};
    const play = (name, address, lowLatencyMode) => new Promise((resolve, reject) => {
        const video = Object.assign(document.createElement("video"), {muted: true, autoplay: true, width: 320});
        document.body.append(video);
        const hls = new Hls({enableWorker: false, lowLatencyMode, maxLiveSyncPlaybackRate: lowLatencyMode ? 1.25 : 1});
        hls.on(Hls.Events.ERROR, (_, {fatal, details}) => fatal && reject(new Error(`${name}: ${details}`)));
        hls.loadSource(address);
        hls.attachMedia(video);
        const canvas = Object.assign(document.createElement("canvas"), {width: bits, height: 1});
        const context = canvas.getContext("2d", {willReadFrequently: true});
        const delays = [];
        const look = () => {
            context.drawImage(video, 0, video.videoHeight * 6 / 180, video.videoWidth, video.videoHeight * 4 / 180, 0, 0, bits, 1);
            const {data} = context.getImageData(0, 0, bits, 1);
            let shown = 0;
            for (let bit = 0; bit < bits; bit++) shown += (data[4 * bit] > 125) * 2 ** bit;
            const now = Math.floor(Date.now() / 1000 * ticks) % 2 ** bits;
            delays.push(((now - shown + 2 ** bits) % 2 ** bits) / ticks);
            if (delays.length < samples) video.requestVideoFrameCallback(look);
            else {
                result[name] = {delays: delays.slice(samples / 3), audio: hls.audioTracks.length, height: video.videoHeight};
                hls.destroy();
                resolve();
            }
        };
        video.requestVideoFrameCallback(look);
    });
    await Promise.all(Object.entries(modes).map(([mode, low]) => play(mode, address, low)));
    return result;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with shared_gateway("hls.auto=true", "calls.linger_s=1") as running:
        yield running


def published(gateway: GatewayProcess, protocol: str, call: str) -> AbstractAsyncContextManager[object]:
    """An encoder that publishes over `protocol` into the call."""
    picture = clock_programme()
    aac, opus = ("-c:a", "aac", "-b:a", "96k"), ("-profile:v", "baseline", "-c:a", "libopus", "-ac", "2")
    target: dict[str, tuple[str, ...]] = {
        "rtmp": (*aac, "-f", "flv", gateway.rtmp(call)),
        "srt": (*aac, "-f", "mpegts", Way(gateway, call=call).url()),
        "whip": (*opus, "-f", "whip", "-authorization", gateway.key(call), gateway.url(f"/whip/{call}")),
    }
    encoder: AbstractAsyncContextManager[object] = ffmpeg(*picture, *target[protocol], version=9 if protocol == "whip" else 5)
    return encoder


async def play(page: Page, address: str, modes: Mapping[str, bool]) -> dict[str, float]:
    """How far behind each player is (p50, s)."""
    asked = {"address": address, "modes": modes, "bits": BITS, "ticks": TICKS, "samples": SAMPLES}
    async with asyncio.timeout(60):
        played: dict[str, Any] = await page.evaluate(_PLAY, asked)
    assert all((each["audio"], each["height"]) == (1, 180) for each in played.values())
    return {mode: statistics.median(each["delays"]) for mode, each in played.items()}


async def enough_segments(own: OwnCall) -> bool:
    """Of video and audio: ordinary players stay three segments behind, which must be there."""
    return await own.rise("ingress_hls_segments_total") >= SEGMENTS * 2 * len(PROTOCOLS)


async def test_hls_js_plays_every_protocol_at_the_live_edge_and_as_an_ordinary_player(own: OwnCall, chromium: Chromium) -> None:
    gateway, calls = own.gateway, {protocol: own.another().cid for protocol in PROTOCOLS}
    async with chromium.open_page(gateway.url("/")) as (page, observed), AsyncExitStack() as stack:
        for protocol, call in calls.items():
            await stack.enter_async_context(published(gateway, protocol, call))
        await eventually(partial(enough_segments, own), within_s=60)
        medians: dict[str, float] = {}
        for protocol, call in calls.items():
            modes = MODES
            for _ in range(TRIES):
                played = await play(page, gateway.url(f"/hls/{call}/open/index.m3u8"), modes)
                medians |= {f"{protocol}, {mode}": median for mode, median in played.items()}
                modes = {mode: MODES[mode] for mode in modes if played[mode] > LIMITS_S[mode]}
                if not modes:
                    break
        print({name: round(median, 2) for name, median in medians.items()})
        assert len(medians) == 6
        assert all(median <= LIMITS_S[name.partition(", ")[2]] for name, median in medians.items()), medians
        assert not [words for words in observed.complaints if "404" not in words]


# Plays an address for some seconds of media, and says what was not smooth about it.
_PLAY_ON = """async ({address, lowLatencyMode, seconds}) => {
    const PATIENCE = lowLatencyMode ? [] : ["levelLoadTimeOut", "audioTrackLoadTimeOut"];
    const {default: Hls} = await import("/web/hls.min.js");
    const video = Object.assign(document.createElement("video"), {muted: true, autoplay: true, width: 320});
    document.body.append(video);
    const hls = new Hls({enableWorker: false, lowLatencyMode});
    const faults = [];
    hls.on(Hls.Events.ERROR, (_, {details, fatal}) => (fatal || !PATIENCE.includes(details)) && faults.push(details));
    hls.loadSource(address);
    hls.attachMedia(video);
    await new Promise((resolve) => video.addEventListener("playing", resolve, {once: true}));
    const begun = video.currentTime;
    video.addEventListener("waiting", () => faults.push(`waits at ${video.currentTime - begun}`));
    video.addEventListener("seeking", () => faults.push(`jumps to ${video.currentTime - begun}`));
    await new Promise((resolve) => video.addEventListener("timeupdate", () => video.currentTime - begun > seconds && resolve()));
    const holes = video.buffered.length - 1;
    hls.destroy();
    video.remove();
    return {faults, holes};
}"""


@pytest.mark.slow
async def test_hls_js_plays_over_pauses_of_the_picture_without_a_stall(
    own: OwnCall, chromium: Chromium, tmp_path: Path
) -> None:
    # Eight seconds for the players to begin in, then two pauses of two and a half seconds
    source = await sparse(tmp_path, "lt(t,8)+lt(mod(t,4),1.5)", 22)
    address = own.gateway.url(f"/hls/{own.cid}/open/index.m3u8")

    async def play_on(low_latency: bool) -> tuple[dict[str, Any], list[str]]:
        # In a page of its own: a browser has six connections to one server for each, and low latency leaves requests open.
        async with chromium.open_page(own.gateway.url("/")) as (page, observed), asyncio.timeout(60):
            played = await page.evaluate(_PLAY_ON, {"address": address, "lowLatencyMode": low_latency, "seconds": 8})
            return played, [words for words in observed.complaints if "404" not in words]

    async with rtmp_client(own.gateway.ports["rtmp"], own.key()) as client, asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(client.send(source))
        await own.stream(tracks=2)
        await eventually(partial(segments, own, 2 * 3))
        played = await asyncio.gather(*(play_on(low_latency) for low_latency in MODES.values()))
        sending.cancel()
    assert played == [({"faults": [], "holes": 0}, [])] * len(MODES)


async def segments(own: OwnCall, count: int) -> bool:
    return await own.rise("ingress_hls_segments_total") >= count


async def test_the_watch_page_falls_back_to_hls_where_webrtc_does_not_get_through(chromium: Chromium) -> None:
    # An address of a network that is none (RFC 5737): WebRTC finds no way.
    async with running_gateway("hls.auto=true", "webrtc.external_addresses=192.0.2.1") as running:
        async with ffmpeg(*programme(), *X264_LIVE, "-c:a", "aac", "-f", "flv", running.rtmp()):
            await running.stream()
            async with chromium.open_page(running.url("/watch/livestream:demo")) as (page, observed):
                await until(page, "document.querySelector('#tiles video')?.currentTime > 1", 60)
                await state(page, "live")
                assert await moving_picture(page)
                assert await page.locator("#state").inner_text() == "Live, some seconds behind"
                assert not [words for words in observed.complaints if "404" not in words]


# As Firefox is without its plug-in: it offers no H.264 over WebRTC, and plays it otherwise.
_WITHOUT_H264 = """
const add = RTCPeerConnection.prototype.addTransceiver;
RTCPeerConnection.prototype.addTransceiver = function (kind, options) {
    const made = add.call(this, kind, options);
    const { codecs } = RTCRtpReceiver.getCapabilities(kind);
    made.setCodecPreferences(codecs.filter(({ mimeType }) => mimeType !== "video/H264"));
    return made;
};
"""


async def test_a_browser_without_the_codec_says_so_and_shows_the_call_as_hls(own: OwnCall, chromium: Chromium) -> None:
    async with (
        chromium.open_page("about:blank") as (page, _),
        ffmpeg(*programme(), *X264_LIVE, "-c:a", "aac", "-f", "flv", own.rtmp()),
    ):
        await own.stream()
        await page.add_init_script(_WITHOUT_H264)
        await page.goto(own.page())
        await page.get_by_text("This browser cannot show H.264.").wait_for()
        await until(page, "document.getElementById('state').textContent === 'Live, some seconds behind'", 30)
        await until(page, "document.querySelector('#tiles video')?.currentTime > 1", 30)
        assert await moving_picture(page)
        assert await page.get_by_text("This browser cannot show H.264.").count() == 0
