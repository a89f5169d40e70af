"""Who asks to watch, leaves and asks again as fast as they can is slowed: their offers are not read any more."""

from collections import Counter
from time import monotonic

import aiohttp
import psutil

from tests.support.gateway_process import running_gateway
from tests.support.publishing import OFFER

TURNS = 600
BURST = 128
WANTS = OFFER.replace(b"sendonly", b"recvonly")


async def test_who_watches_and_leaves_in_a_loop_is_slowed() -> None:
    async with running_gateway() as gateway, aiohttp.ClientSession() as http:
        process, statuses = psutil.Process(gateway.pid), Counter[int]()
        endpoint, headers = gateway.url("/whep/livestream:demo"), {"Content-Type": "application/sdp"}

        async def turn() -> None:
            async with http.post(endpoint, data=WANTS, headers=headers) as made:
                statuses[made.status] += 1
                location = made.headers.get("Location")
            if location is not None:
                async with http.delete(gateway.url(location)) as gone:
                    assert gone.status == 200

        before, began = sum(process.cpu_times()[:2]), monotonic()
        for _ in range(TURNS):
            await turn()
        took = monotonic() - began
        print(f"\n{dict(statuses)} in {took:.1f} s, {sum(process.cpu_times()[:2]) - before:.2f} s of CPU")
        assert set(statuses) == {201, 429}
        assert statuses[201] <= BURST * (1 + took / 10) + 1
