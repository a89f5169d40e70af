"""What a publisher is told of its way, from its packets through a narrow network into a running gateway, and back by REMB."""

import pytest

from tests.support.relay import relaying
from tests.support.shared import OwnCall
from tests.support.slow import slow
from tests.support.whip_client import PLANNED, whip_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

NARROW = 2_000_000


@pytest.mark.parametrize("send_times", [slow(False, id="by timestamps"), pytest.param(True, id="by send times")])
async def test_it_falls_before_a_queue_that_fills_loses_anything_and_rises_again(own: OwnCall, send_times: bool) -> None:
    async with relaying(own.gateway.ports["webrtc"], loss=0, round_trip_s=0.02) as relay:
        address, key = own.gateway.url(f"/whip/{own.cid}"), own.key()
        async with whip_client(address, key, relay.through, send_times=send_times) as client:
            await own.stream(tracks=2)
            for _ in range(3):
                assert await client.until_told(lambda bits: True) >= PLANNED
            relay.uplink = NARROW
            assert await client.until_told(lambda bits: bits < PLANNED, timeout=5) < NARROW
            assert relay.lost == 0
            for _ in range(10):  # a second each, or less
                assert NARROW / 2 < await client.until_told(lambda bits: True) < NARROW * 1.3
            assert relay.lost == 0
            relay.uplink = 0
            await client.until_told(lambda bits: bits >= PLANNED)
            assert await own.rise("ingress_whip_lost_total") == 0
