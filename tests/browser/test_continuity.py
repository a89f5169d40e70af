"""A host whose encoder breaks off, comes back and is stopped, as somebody at the watch page sees it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.browser.chromium import Chromium, decoded_frames, moving_picture, state, until
from tests.support.gateway_process import GatewayProcess
from tests.support.publishing import publishing
from tests.support.shared import OwnCall, shared_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACK = "document.querySelector('video').srcObject.getVideoTracks()[0].id"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    """Where encoders have time to come back."""
    async with shared_gateway() as running:
        yield running


async def test_the_page_says_at_once_what_became_of_the_host(own: OwnCall, chromium: Chromium) -> None:
    async with chromium.open_page(own.page()) as (page, observed):
        async with publishing("rtmp", own.pasted()) as encoder:
            await state(page, "live")
            assert await moving_picture(page)
            track, before = await page.evaluate(TRACK), await decoded_frames(page)
            encoder.kill()
            await state(page, "slate", 10)
            assert await page.get_by_text("The host is reconnecting").is_visible()
        async with publishing("rtmp", own.pasted(), version=9):
            await state(page, "live")
            assert await moving_picture(page)
            assert await page.evaluate(TRACK) == track, "the same track goes on"
            assert await decoded_frames(page) > before
        await until(page, "document.getElementById('notice').textContent === 'The show has ended'", 30)
        await state(page, "waiting")
        assert not observed.complaints
