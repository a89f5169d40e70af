"""What a viewer's network does to the picture: joining in mid-stream, and loss."""

import statistics
from typing import Any

from playwright.async_api import Route

from tests.browser.chromium import inbound, open_page, state, until
from tests.support.encoders import ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.relay import relaying

LONG_GOP = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0", "-g", "120", "-c:a", "aac")

JOIN = """async () => {
    const peer = new RTCPeerConnection();
    const video = document.createElement("video");
    video.muted = true;
    document.body.append(video);
    peer.addTransceiver("video", {direction: "recvonly"});
    peer.addTransceiver("audio", {direction: "recvonly"});
    const shown = new Promise((resolve) => video.requestVideoFrameCallback(resolve));
    peer.addEventListener("track", (event) => {
        if (event.track.kind === "video") { video.srcObject = new MediaStream([event.track]); video.play(); }
    });
    await peer.setLocalDescription(await peer.createOffer());
    const asked = performance.now();
    const response = await fetch("/whep/livestream:demo", {
        method: "POST", headers: {"Content-Type": "application/sdp"}, body: peer.localDescription.sdp,
    });
    await peer.setRemoteDescription({type: "answer", sdp: await response.text()});
    await shown;
    const took = performance.now() - asked;
    peer.close();
    video.remove();
    return took;
}"""


async def test_a_viewer_who_joins_in_the_middle_of_a_long_gop_sees_a_picture_at_once() -> None:
    async with running_gateway() as gateway, open_page(gateway.url("/")) as (page, _):
        async with ffmpeg(*programme(), *LONG_GOP, "-f", "flv", gateway.rtmp()):
            await gateway.stream(tracks=2)
            took = [await page.evaluate(JOIN) for _ in range(8)]
    # 30 to 80 ms on an idle machine. 4 s between key frames: without the cache half of the joins would take 2 s and more.
    assert statistics.median(took) < 500, took
    assert max(took) < 1500, took


async def test_five_percent_loss_at_twenty_ms_freezes_nothing() -> None:
    async with running_gateway("webrtc.host=127.0.0.1") as gateway:
        async with relaying(gateway.ports["webrtc"], loss=0.05, round_trip_s=0.02) as relay:
            async with open_page("about:blank") as (page, observed):

                async def reroute(route: Route) -> None:
                    if route.request.method != "POST":
                        await route.fallback()
                        return
                    response = await route.fetch()
                    body = relay.through(await response.text()) if response.status == 201 else await response.text()
                    await route.fulfill(response=response, body=body)

                await page.route("**/whep/**", reroute)
                async with ffmpeg(*programme(), *LONG_GOP, "-f", "flv", gateway.rtmp()):
                    await gateway.stream(tracks=2)
                    await page.goto(gateway.url("/watch/livestream:demo"))
                    await state(page, "live")
                    await until(page, "document.querySelector('video').currentTime > 1")
                    before = await video_report(page)
                    await until(page, "document.querySelector('video').currentTime > 14", 40)
                    report = await video_report(page)
    assert relay.lost > 100
    assert report["nackCount"] > 0
    assert report["retransmittedPacketsReceived"] > 0
    assert report["freezeCount"] - before["freezeCount"] == 0, report
    assert report["pliCount"] == before["pliCount"], report
    assert not observed.complaints


async def video_report(page: Any) -> dict[str, Any]:
    (report,) = [report for report in await inbound(page, "video") if report.get("framesDecoded")]
    return report
