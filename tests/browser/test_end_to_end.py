"""The main job, as people see it: an encoder is started, and Chromium at the watch page shows and plays it."""

from typing import Any

import pytest

from tests.browser.chromium import Chromium, decoded_frames, heard, moving_picture, state, until
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.shared import OwnCall
from tests.support.srt_encoders import Way, by_ffmpeg, by_gstreamer, by_srt_live_transmit

pytestmark = pytest.mark.asyncio(loop_scope="module")

AAC = ("-c:a", "aac", "-b:a", "128k")
X264_B_FRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "60")
AV1 = ("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "pred-struct=1", "-g", "60")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "bframes=0:log-level=none")


@pytest.mark.parametrize(
    ("video", "audio", "version", "treatment"),
    [
        pytest.param(X264_LIVE, AAC, 5, "passed through", id="h264"),
        pytest.param(X264_B_FRAMES, AAC, 5, "transcoded", id="h264 with B-frames"),
        pytest.param(HEVC, ("-c:a", "libopus"), 9, "transcoded", id="hevc and opus"),
        pytest.param(AV1, ("-c:a", "libopus"), 9, "passed through", id="av1 and opus"),
    ],
)
async def test_a_stream_appears_in_the_browser(
    own: OwnCall, chromium: Chromium, video: tuple[str, ...], audio: tuple[str, ...], version: int, treatment: str
) -> None:
    async with chromium.open_page(own.page()) as (page, observed):
        await state(page, "waiting")  # who comes before the stream starts gets it when it does
        arguments = [*programme(), *video, *audio, "-f", "flv", own.rtmp()]
        async with ffmpeg(*arguments, version=version):
            await state(page, "live")
            await until(page, "document.querySelector('video').videoWidth === 640")
            await page.get_by_role("button", name="Turn sound on").click()
            assert await moving_picture(page)
            frames = await decoded_frames(page)
            assert await moving_picture(page, frames=30)
            assert await decoded_frames(page) >= frames + 25
            await heard(page)
            async with chromium.open_page(own.gateway.url("/")) as (overview, _):
                card = overview.get_by_role("article", name=f"{own.cid} – {own.user()}")
                await card.get_by_text(f"{treatment}:").first.wait_for()
        await state(page, "waiting", 30)  # the encoder has gone, and nobody came back for it
        assert not observed.complaints


async def test_two_streams_are_two_tiles(own: OwnCall, chromium: Chromium) -> None:
    async with chromium.open_page(own.page()) as (page, _):
        arguments = [*programme(320, 180, 15), *X264_LIVE, *AAC, "-f", "flv"]
        async with ffmpeg(*arguments, own.rtmp("ann")):
            await until(page, "document.querySelectorAll('.tile').length === 1")
            async with ffmpeg(*arguments, own.rtmp("bob")):
                await until(
                    page, "[...document.querySelectorAll('video')].filter((video) => video.videoWidth === 320).length === 2"
                )
                assert sorted(await page.locator(".name").all_inner_texts()) == [own.user("ann"), own.user("bob")]


async def test_sound_only(own: OwnCall, chromium: Chromium) -> None:
    async with (
        chromium.open_page(own.page()) as (page, _),
        ffmpeg(*programme(video=False), *AAC, "-f", "flv", own.rtmp()),
    ):
        await state(page, "live")
        await page.get_by_text("Sound only").wait_for()
        await page.get_by_role("button", name="Turn sound on").click()
        await until(page, "document.querySelector('video').currentTime > 1")
        await heard(page)


@pytest.mark.parametrize(
    ("publish", "encrypted"),
    [
        pytest.param(by_ffmpeg, True, id="ffmpeg, encrypted"),
        pytest.param(by_srt_live_transmit, False, id="srt-live-transmit, in clear"),
        pytest.param(by_gstreamer, True, id="GStreamer, encrypted"),
    ],
)
async def test_srt_appears_in_the_browser_and_the_overview_shows_the_link(
    own: OwnCall, chromium: Chromium, publish: Any, encrypted: bool
) -> None:
    async with chromium.open_page(own.page()) as (page, observed):
        async with publish(Way(own.gateway, encrypted, user=own.user(), call=own.cid)):
            await state(page, "live")
            await until(page, "document.querySelector('video').videoWidth === 640")
            await page.get_by_role("button", name="Turn sound on").click()
            assert await moving_picture(page, frames=30)
            await heard(page)
            async with chromium.open_page(own.gateway.url("/")) as (overview, complaints):
                card = overview.get_by_role("article", name=f"{own.cid} – {own.user()}")
                await card.get_by_text("120 ms").wait_for()
                await card.get_by_text("0 lost (0.0 %), 0 sent again, 0 given up").wait_for()
                assert not complaints.complaints
        assert not observed.complaints
