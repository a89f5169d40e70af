"""A page that publishes by WHIP from Chromium's fake camera and microphone, from an origin of its own as a streamer's page would be."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from playwright.async_api import Page

from tests.browser.chromium import Chromium

PAGE = """<!doctype html><title>publisher</title><script>
async function publish({endpoint, token, codec, layers, width, height}) {
    const stream = await navigator.mediaDevices.getUserMedia({audio: true, video: {width, height, frameRate: 30}});
    const peer = globalThis.peer = new RTCPeerConnection({bundlePolicy: "max-bundle"});
    const [video] = stream.getVideoTracks();
    const rids = ["h", "m", "l"].slice(0, layers);
    const encodings = layers > 1
        ? rids.map((rid, index) => ({rid, scaleResolutionDownBy: 2 ** index, maxBitrate: 1200000 >> (2 * index)})) : [{}];
    peer.addTransceiver(stream.getAudioTracks()[0], {direction: "sendonly", streams: [stream]});
    const transceiver = peer.addTransceiver(video, {direction: "sendonly", streams: [stream], sendEncodings: encodings});
    if (codec) {
        const {codecs} = RTCRtpSender.getCapabilities("video");
        const wanted = codecs.filter((each) => each.mimeType.toLowerCase() === `video/${codec}`);
        const repair = codecs.filter((each) => each.mimeType === "video/rtx");
        transceiver.setCodecPreferences([...wanted, ...repair]);
    }
    const {sdp: made} = await peer.createOffer();
    const asked = made.replace(/(a=rtpmap:(\\d+) opus\\/48000\\/2\\r\\n)/, "$1a=rtcp-fb:$2 nack\\r\\n"); // as our host page does
    await peer.setLocalDescription({type: "offer", sdp: asked});
    const answer = await fetch(endpoint, {
        method: "POST", body: peer.localDescription.sdp,
        headers: {"Content-Type": "application/sdp", Authorization: `Bearer ${token}`},
    });
    if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
    globalThis.resource = new URL(answer.headers.get("Location"), endpoint).href;
    globalThis.etag = answer.headers.get("ETag");
    globalThis.token = token;
    const sdp = await answer.text();
    globalThis.answered = globalThis.rewrite ? await rewrite(sdp) : sdp;
    await peer.setRemoteDescription({type: "answer", sdp: answered});
}
async function restart() {
    const line = (sdp, name) => sdp.match(new RegExp(`a=${name}:.*`))[0];
    await peer.setLocalDescription(await peer.createOffer({iceRestart: true}));
    const offer = peer.localDescription.sdp;
    const body = [line(offer, "ice-ufrag"), line(offer, "ice-pwd"), "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", ""].join("\\r\\n");
    const headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*", Authorization: `Bearer ${token}`};
    const response = await fetch(resource, {method: "PATCH", body, headers});
    const fragment = await response.text();
    let sdp = answered;
    for (const name of ["ice-ufrag", "ice-pwd"]) sdp = sdp.replaceAll(new RegExp(`a=${name}:.*`, "g"), line(fragment, name));
    await peer.setRemoteDescription({type: "answer", sdp});
    return response.status;
}
async function stop() {
    const gone = await fetch(resource, {method: "DELETE", headers: {Authorization: `Bearer ${token}`}});
    peer.close();
    return gone.status;
}
async function outbound() {
    return [...(await peer.getStats()).values()].filter((each) => each.type === "outbound-rtp");
}
</script>"""


@dataclass
class BrowserPublisher:
    """`publish` must have been awaited before the others."""

    page: Page

    async def go_through(self, rewrite: Callable[[str], str]) -> None:
        """Have the answer rewritten before it is taken."""
        await self.page.expose_function("rewrite", rewrite)

    async def publish(
        self, endpoint: str, token: str, *, codec: str = "", layers: int = 1, width: int = 640, height: int = 360
    ) -> None:
        """`codec` as in a MIME type, in lower case; empty: the browser's own order."""
        options = {"endpoint": endpoint, "token": token, "codec": codec, "layers": layers, "width": width, "height": height}
        await self.page.evaluate("(options) => publish(options)", options)

    async def outbound(self) -> list[dict[str, Any]]:
        """`RTCOutboundRtpStreamStats` of each stream that is sent."""
        found: list[dict[str, Any]] = await self.page.evaluate("() => outbound()")
        return found

    async def restart(self) -> int:
        """An ICE restart; gives the status of its PATCH."""
        return int(await self.page.evaluate("() => restart()"))

    async def stop(self) -> int:
        """DELETE; gives its status."""
        return int(await self.page.evaluate("() => stop()"))


@asynccontextmanager
async def browser_publisher(studio: Chromium) -> AsyncIterator[BrowserPublisher]:
    async def page_of(request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    application = web.Application()
    application.router.add_get("/", page_of)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with studio.open_page(f"http://127.0.0.1:{runner.addresses[0][1]}/") as (page, _):
            yield BrowserPublisher(page)
    finally:
        await runner.cleanup()
