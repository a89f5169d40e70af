"""From glass to glass: `python -m tests.bench.whip_glass [codec ...]` (h264 vp8 vp9 av1; h264x3 for a simulcast).

One Chromium draws the time into a picture, publishes it by WHIP into a gateway of its own, and watches the call by WHEP; the delay is from
the drawing of a picture to the callback that shows it, encoding and decoding in software included. The first seconds, in which the path's
estimate grows, are left out. What the gateway itself adds, it says in `/api/streams`.
"""

import asyncio
import statistics
import sys
from typing import Any

from tests.browser.chromium import FAKE_DEVICES, running_chromium
from tests.peers.whip_page import browser_publisher
from tests.support.gateway_process import running_gateway

SECONDS = 15
SETTLE_S = 5
UNREADABLE_MS = 10_000  # a field that the encoder blurred
CODECS = ("h264", "vp8", "vp9", "av1", "h264x3")

# The top row of 16 fields of 40 by 40 holds performance.now() & 0xffff, the lowest bit first.
GLASS = """async ({whip, whep, token, codec, layers, seconds}) => {
    const canvas = Object.assign(document.createElement("canvas"), {width: 640, height: 360});
    const paint = canvas.getContext("2d", {alpha: false});
    let drawn = 0;
    const draw = () => {
        const time = Math.floor(performance.now()) & 0xffff;
        paint.fillStyle = `hsl(${drawn++ % 360} 60% 40%)`;
        paint.fillRect(0, 0, 640, 360);
        paint.fillStyle = "#fff";
        paint.fillRect(drawn * 7 % 600, 100 + drawn * 3 % 200, 40, 40);
        for (let bit = 0; bit < 16; bit++) {
            paint.fillStyle = time >> bit & 1 ? "#fff" : "#000";
            paint.fillRect(40 * bit, 0, 40, 40);
        }
    };
    setInterval(draw, 1000 / 30);
    navigator.mediaDevices.getUserMedia = () => Promise.resolve(new MediaStream([
        ...canvas.captureStream(30).getVideoTracks(), ...sound.getAudioTracks(),
    ]));
    const context = new AudioContext(), tone = context.createOscillator(), destination = context.createMediaStreamDestination();
    tone.connect(destination);
    tone.start();
    const sound = destination.stream;
    await publish({endpoint: whip, token, codec, layers, width: 640, height: 360});

    const viewer = new RTCPeerConnection();
    viewer.addTransceiver("video", {direction: "recvonly"});
    viewer.addTransceiver("audio", {direction: "recvonly"});
    const video = Object.assign(document.createElement("video"), {muted: true, autoplay: true, width: 640, height: 360});
    document.body.append(video);
    viewer.ontrack = ({track}) => { if (track.kind === "video") video.srcObject = new MediaStream([track]); };
    await viewer.setLocalDescription();
    const response = await fetch(whep, {
        method: "POST", body: viewer.localDescription.sdp, headers: {"Content-Type": "application/sdp"},
    });
    await viewer.setRemoteDescription({type: "answer", sdp: await response.text()});
    const read = Object.assign(document.createElement("canvas"), {width: 640, height: 40}).getContext("2d", {willReadFrequently: true});
    const delays = [];
    const end = performance.now() + 1000 * seconds;
    await new Promise((resolve) => {
        const look = () => {
            read.drawImage(video, 0, 0, video.videoWidth, video.videoHeight / 9, 0, 0, 640, 40);
            let time = 0;
            const {data} = read.getImageData(0, 20, 640, 1);
            for (let bit = 0; bit < 16; bit++) time |= (data[4 * (40 * bit + 20)] > 127) << bit;
            const shown = performance.now();  // what is read may be newer than the callback's own time
            delays.push([shown, (Math.floor(shown) - time) & 0xffff, video.videoHeight]);
            performance.now() < end ? video.requestVideoFrameCallback(look) : resolve();
        };
        video.requestVideoFrameCallback(look);
    });
    return delays;
}"""


async def measure(codec: str) -> tuple[list[float], list[dict[str, Any]], int]:
    """(delays in ms, the gateway's own tracks, the last height)"""
    name, _, layers = codec.partition("x")
    async with (
        running_gateway() as gateway,
        running_chromium(*FAKE_DEVICES) as studio,
        browser_publisher(studio) as browser,
    ):
        options = {
            "whip": gateway.url("/whip/livestream:demo"),
            "whep": gateway.url("/whep/livestream:demo"),
            "token": gateway.key(),
        }
        async with asyncio.timeout(SECONDS + 30):
            seen = await browser.page.evaluate(GLASS, options | {"codec": name, "layers": int(layers or 1), "seconds": SECONDS})
        tracks = (await gateway.stream(tracks=2))["tracks"]
        begun = seen[0][0] + 1000 * SETTLE_S
        return [delay for at, delay, _ in seen if at > begun and delay < UNREADABLE_MS], tracks, seen[-1][2]


def main() -> None:
    for codec in sys.argv[1:] or CODECS:
        delays, tracks, height = asyncio.run(measure(codec))
        of = statistics.quantiles(delays, n=20)
        own = ", ".join(f"{each['kind']} {each['mode']} {each['delay_ms_p50']} / {each['delay_ms_p95']}" for each in tracks)
        print(
            f"{codec:>7} {height}p: glass to glass {of[9]:4.0f} ms p50, {of[18]:4.0f} ms p95 of {len(delays)} pictures; "
            f"the gateway's part in ms p50 / p95: {own}",
            flush=True,
        )


if __name__ == "__main__":
    main()
