"""A gateway that is killed while pages are open: they say so, and are back as soon as it is, each at a time of its own."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import Page, Request

from tests.browser.chromium import Chromium, moving_picture, state
from tests.browser.test_host import at_camera, go_live
from tests.gateway.test_restart import (
    BACK_S,
    SECRET,
    assert_in_time,
    call,
    encode_for_ever,
    free_ports,
    in_the_background,
    settings,
    streams,
)
from tests.support.gateway_process import running_gateway
from tests.support.publishing import PROTOCOLS, Pasted

AGAIN_S = 1.0  # in which a page asks again once the gateway listens
SMALL = {"width": 480, "height": 320}

pytestmark = pytest.mark.asyncio(loop_scope="module")


def offers(page: Page) -> list[float]:
    """When this page makes an offer from here on, in s since 1970."""
    made: list[float] = []

    def note(request: Request) -> None:
        if request.method == "POST" and "/whep/" in request.url:
            made.append(time.time())

    page.on("request", note)
    return made


async def test_pages_of_hosts_and_viewers_say_so_and_are_back_at_once(studio: Chromium, tmp_path: Path) -> None:
    fixed = settings(tmp_path, free_ports())
    async with AsyncExitStack() as stack:
        async with running_gateway(*fixed, secret=SECRET, expect_exit=-signal.SIGKILL) as gateway:
            enter = stack.enter_async_context
            address = gateway.url(f"/host/{call('whip')}#token={gateway.key(call('whip'))}")
            host, _ = await enter(at_camera(studio, address))
            await go_live(host)
            before = await gateway.stream(tracks=2)
            watch, _ = await enter(studio.open_page(gateway.url(f"/watch/{call('whip')}"), viewport=SMALL))
            await state(watch, "live")
            assert await moving_picture(watch)
            gateway.process.kill()
            await gateway.process.wait()
            await state(watch, "reconnecting", 5)
            assert await watch.get_by_text("The gateway does not answer").is_visible()
            made = offers(watch)
        async with running_gateway(*fixed, secret=SECRET) as again:
            ready = time.time()
            async with asyncio.timeout(BACK_S):
                after = await again.stream(tracks=2)
            assert (after["id"], after["reconnects"]) == (before["id"], before["reconnects"] + 1)
            await state(watch, "live", BACK_S)
            assert made[0] - ready < AGAIN_S
            assert await moving_picture(watch)


@pytest.mark.slow
async def test_three_protocols_and_ten_viewers_are_back_in_five_seconds(chromium: Chromium, tmp_path: Path) -> None:
    fixed = settings(tmp_path, free_ports())
    async with AsyncExitStack() as stack:
        async with running_gateway(*fixed, secret=SECRET, expect_exit=-signal.SIGKILL) as gateway:
            encoders = [encode_for_ever(each, Pasted.of_gateway(gateway, call(each))) for each in PROTOCOLS]
            await stack.enter_async_context(in_the_background(*encoders))
            before = await streams(gateway)
            pages = []
            for number in range(10):
                address = gateway.url(f"/watch/{call(PROTOCOLS[number % 3])}")
                page, _ = await stack.enter_async_context(chromium.open_page(address, viewport=SMALL))
                pages.append(page)
            for page in pages:
                await state(page, "live")
            made = [offers(page) for page in pages]
            gateway.process.kill()
            killed = asyncio.get_running_loop().time()
            await gateway.process.wait()
        async with running_gateway(*fixed, secret=SECRET) as again:
            ready, listens = time.time(), asyncio.get_running_loop().time()
            back: dict[str, float] = {}
            after = await streams(again, back)
            assert_in_time(back, killed, listens)
            for page in pages:
                await state(page, "live", 2)
            assert {name: each["id"] for name, each in after.items()} == {name: each["id"] for name, each in before.items()}
            first = sorted(each[0] - ready for each in made)
            assert first[-1] < AGAIN_S
            assert first[-1] - first[0] > 0.1, "not all in the same moment"
            assert all(await asyncio.gather(*map(moving_picture, pages)))
