"""The page of live streams, where a stream has several encoders."""

import asyncio

from tests.browser.chromium import open_page
from tests.gateway.test_primary_and_backup import CALL, encoders, key, stage
from tests.support.publishing import Pasted, publishing


async def test_the_page_of_streams_shows_who_is_live_who_stands_by_and_what_is_wrong_with_it() -> None:
    async with stage() as it, asyncio.timeout(90):
        primary, backup = [Pasted.of_key(await key(it, rank)) for rank in (1, 2)]
        async with publishing("rtmp", primary), open_page(it.gateway.url("/")) as (page, observed):
            await it.gateway.stream(tracks=2)
            async with publishing("srt", backup) as encoder:
                await encoders(it, 1, standby=2)
                card = page.get_by_role("article", name=f"{CALL} – host")
                await card.get_by_text("Primary", exact=True).wait_for()
                await card.get_by_text("stands by: SRT").wait_for()
                encoder.kill()
                await card.get_by_text("Backup", exact=True).wait_for(state="detached")
            assert not observed.complaints
