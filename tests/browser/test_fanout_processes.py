"""The watch page where processes serve the viewers: one of them is killed, and the picture is back before anybody has asked why."""

import asyncio

import psutil
import pytest

from tests.browser.chromium import decoded_frames, open_page, state
from tests.gateway.test_fanout_processes import fanout_processes
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.waiting import eventually

ENCODER = (*programme(320, 180), *X264_LIVE, "-g", "30", "-c:a", "aac", "-f", "flv")
BACK_S = 2.0


@pytest.mark.parametrize("processes", [1, 2])
async def test_the_picture_is_back_within_two_seconds_of_the_death_of_its_process(processes: int) -> None:
    async with running_gateway(f"webrtc.processes={processes}") as gateway, ffmpeg(*ENCODER, gateway.rtmp()):
        await gateway.stream(tracks=2)
        async with open_page(gateway.url("/watch/livestream:demo")) as (page, observed):
            await state(page, "live")

            async def shown() -> bool:
                return await decoded_frames(page) > 30

            await eventually(shown)
            pid = next(iter(fanout_processes(gateway).values()))  # the first viewer's
            await page.evaluate("globalThis.former = viewer.peer")
            psutil.Process(pid).kill()

            async def back() -> bool:
                return (
                    bool(await page.evaluate("viewer.peer !== null && viewer.peer !== former"))
                    and await decoded_frames(page) > 0
                )

            async with asyncio.timeout(BACK_S):
                await eventually(back, every_s=0.05)
            await state(page, "live")
            assert not [words for words in observed.complaints if "404" not in words]  # it lets go of what is lost already
