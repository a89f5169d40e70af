"""The watch page in a browser that lacks the codec that is on air."""

from tests.browser.chromium import moving_picture, open_page, until
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway

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


async def test_a_browser_without_the_codec_says_so_and_shows_the_call_as_hls() -> None:
    async with running_gateway("hls.auto=true") as gateway, open_page(gateway.url("/")) as (page, _):
        async with ffmpeg(*programme(), *X264_LIVE, "-c:a", "aac", "-f", "flv", gateway.rtmp()):
            await gateway.stream()
            await page.add_init_script(_WITHOUT_H264)
            await page.goto(gateway.url("/watch/livestream:demo"))
            await page.get_by_text("This browser cannot show H.264.").wait_for()
            await until(page, "document.getElementById('state').textContent === 'Live, some seconds behind'", 30)
            await until(page, "document.querySelector('#tiles video')?.currentTime > 1", 30)
            assert await moving_picture(page)
            assert await page.get_by_text("This browser cannot show H.264.").count() == 0
