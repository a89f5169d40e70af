"""Chromium: sound and picture are played together from the third second on, whatever sends them."""

from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest
import pytest_asyncio

from tests.browser.chromium import Chromium, state
from tests.support.gateway_process import GatewayProcess
from tests.support.lipsync_encoders import AT_ONCE, IN_SPURTS
from tests.support.shared import OwnCall, chromium, own, shared_gateway

__all__ = ["chromium", "own"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

BEFORE, AFTER = 40, 60  # ms that sound may be before and after the picture: EBU R 37
BEGINS_S, ENDS_S = 3, 12  # after the page shows that it is live

# Some times in each second from `begins` on, by how many ms what is heard is older than what is seen (W3C webrtc-stats,
# estimatedPlayoutTimestamp)
_SOUND_AFTER_PICTURE = """async ([begins, ends]) => {
    const late = Array.from({length: ends - begins}, () => []), begun = performance.now();
    const since = () => (performance.now() - begun) / 1000;
    while (since() < ends) {
        await new Promise((resolve) => setTimeout(resolve, 200));
        const inbound = [...(await viewer.peer.getStats()).values()].filter(({type}) => type === "inbound-rtp");
        const [heard, seen] = ["audio", "video"].map((kind) => inbound.find((each) => each.kind === kind)?.estimatedPlayoutTimestamp);
        if (heard && seen) late[Math.floor(since() - begins)]?.push(seen - heard);
    }
    return late;
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    async with shared_gateway("calls.linger_s=1") as running:
        yield running


@pytest.mark.parametrize("name", [*IN_SPURTS, *AT_ONCE])
async def test_lips_and_voice_are_together_in_chromium(own: OwnCall, chromium: Chromium, name: str, tmp_path: Path) -> None:
    async with chromium.open_page(own.page()) as (page, _):
        await state(page, "waiting")
        async with (IN_SPURTS | AT_ONCE)[name](own.gateway, own.cid, own.user(), tmp_path):
            await state(page, "live")
            await page.get_by_role("button", name="Turn sound on").click()
            late = await page.evaluate(_SOUND_AFTER_PICTURE, [BEGINS_S, ENDS_S])
    assert all(len(second) > 1 for second in late), late
    apart = [round(median(second)) for second in late]  # a busy machine may disturb one look
    print(name, apart)
    assert all(-BEFORE <= each <= AFTER for each in apart), apart
