"""HLS in Chromium: hls.js plays calls fed over each protocol, so far behind and no further, and the watch page falls back to it."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.browser.chromium import moving_picture, open_page, state, until
from tests.support.encoders import BITS, X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.hls_clock import TICKS, clock_programme
from tests.support.srt_encoders import Way

CALLS = {protocol: f"livestream:{protocol}" for protocol in ("rtmp", "srt", "whip")}
MODES = {"low latency": True, "ordinary": False}
SAMPLES = 120  # of each player
LOW_LATENCY_S, ORDINARY_S = 3.0, 7.0

# Plays each address twice, at the live edge and as an ordinary player, and reads the time in the pictures that it shows.
_PLAY = """async ({addresses, modes, bits, ticks, samples}) => {
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
    // One call after the other: over HTTP/1.1 a browser has six connections to a host, and requests that wait hold theirs.
    for (const [name, address] of Object.entries(addresses))
        await Promise.all(Object.entries(modes).map(([mode, low]) => play(`${name}, ${mode}`, address, low)));
    return result;
}"""


@asynccontextmanager
async def publishers(gateway: GatewayProcess) -> AsyncIterator[None]:
    """One encoder for each protocol, each into its own call."""
    picture = clock_programme()
    aac, opus = ("-c:a", "aac", "-b:a", "96k"), ("-c:a", "libopus", "-ac", "2", "-f", "whip")
    async with AsyncExitStack() as stack:
        for arguments, version in (
            ([*picture, *aac, "-f", "flv", gateway.rtmp(CALLS["rtmp"])], 5),
            ([*picture, *aac, "-f", "mpegts", Way(gateway, call=CALLS["srt"]).url()], 5),
            (
                [
                    *(*picture, "-profile:v", "baseline", *opus),
                    *("-authorization", gateway.key(CALLS["whip"]), gateway.url(f"/whip/{CALLS['whip']}")),
                ],
                9,
            ),
        ):
            await stack.enter_async_context(ffmpeg(*arguments, version=version))
        yield


async def test_hls_js_plays_every_protocol_at_the_live_edge_and_as_an_ordinary_player() -> None:
    settings = (f"calls.public={','.join(CALLS.values())}", "hls.auto=true")
    async with running_gateway(*settings) as gateway, publishers(gateway):
        addresses = {protocol: gateway.url(f"/hls/{call}/open/index.m3u8") for protocol, call in CALLS.items()}
        async with open_page(gateway.url("/")) as (page, observed):
            asked = {"addresses": addresses, "modes": MODES, "bits": BITS, "ticks": TICKS, "samples": SAMPLES}
            async with asyncio.timeout(90):
                played: dict[str, Any] = await page.evaluate(_PLAY, asked)
        medians = {name: statistics.median(each["delays"]) for name, each in played.items()}
        print({name: round(median, 2) for name, median in medians.items()})
        assert len(played) == 6
        for name, each in played.items():
            assert medians[name] <= (LOW_LATENCY_S if "low" in name else ORDINARY_S), medians
            assert each["audio"] == 1
            assert each["height"] == 180
        assert not [words for words in observed.complaints if "404" not in words]


async def test_the_watch_page_falls_back_to_hls_where_webrtc_does_not_get_through() -> None:
    # An address of a network that is none (RFC 5737): WebRTC finds no way.
    async with running_gateway("hls.auto=true", "webrtc.external_addresses=192.0.2.1") as gateway:
        async with ffmpeg(*programme(), *X264_LIVE, "-c:a", "aac", "-f", "flv", gateway.rtmp()):
            await gateway.stream()
            async with open_page(gateway.url("/watch/livestream:demo")) as (page, observed):
                await until(page, "document.querySelector('#tiles video')?.currentTime > 1", 60)
                await state(page, "live")
                assert await moving_picture(page)
                assert await page.locator("#state").inner_text() == "Live, some seconds behind"
                assert not [words for words in observed.complaints if "404" not in words]
