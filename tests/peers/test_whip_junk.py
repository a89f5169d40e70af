"""Everything that is thrown at a gateway's WHIP side while somebody publishes: refused with the right status, at no cost that stays."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.support.gateway_process import running_gateway
from tests.support.publishing import Pasted, publishing
from tests.support.viewer import watching

SDP = {"Content-Type": "application/sdp"}
OFFER = (Path(__file__).parents[1] / "data/sdp/chromium-156-h264.sdp").read_bytes()
LARGEST = 65_507  # bytes: the largest UDP datagram over IPv4
AT_ONCE = 32


async def flood(url: str, count: int, headers: Mapping[str, str], body: bytes = OFFER) -> Counter[int]:
    """POSTs of which `AT_ONCE` run at the same time; the statuses."""
    statuses: Counter[int] = Counter()

    async def post(http: aiohttp.ClientSession, times: int) -> None:
        for _ in range(times):
            async with http.post(url, data=body, headers=headers) as response:
                await response.read()
                statuses[response.status] += 1

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(post(http, count // AT_ONCE))
    return statuses


@pytest.mark.slow
async def test_nothing_that_strangers_send_ends_a_session_or_stays_in_memory() -> None:
    async with (
        running_gateway("webrtc.connect_timeout_s=1", "calls.linger_s=1") as gateway,
        publishing("whip", Pasted.of_gateway(gateway, "livestream:demo")),
    ):
        process = psutil.Process(gateway.pid)
        endpoint = gateway.url("/whip/livestream:demo")
        broken = {**SDP, "Authorization": f"Bearer {gateway.key(user='broken')}"}
        other = {**SDP, "Authorization": f"Bearer {gateway.key(user='never')}"}
        stream = await gateway.stream(tracks=2)
        async with watching(gateway.url("/whep/livestream:demo")) as viewer:
            await viewer.until(frames=30)
            assert await flood(endpoint, 320, SDP) == {401: 320}  # what the first ones cost is code, buffers and pools
            before = process.memory_info().rss

            assert await flood(endpoint, 10_016, SDP) == {401: 10_016}
            unread = await flood(endpoint, 320, broken, b"v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n")
            assert set(unread) == {400, 429}  # who offers in a loop is told to wait before their offer is read
            assert unread[400] < 60
            for status, reason in ((400, "bad_request"), (429, "too_many_requests")):
                assert await gateway.metric(f'ingress_refused_total{{protocol="whip",reason="{reason}"}}') == unread[status]
            assert await gateway.metric('ingress_refused_total{protocol="whip",reason="unauthorized"}') == 10_336
            never = await flood(endpoint, 320, other)  # who offers and never connects
            assert set(never) <= {201, 409, 429, 503}
            assert never[201] > 0
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                address = ("127.0.0.1", gateway.ports["webrtc"])
                noise = random.Random(7)
                for size in (0, 1, 12, 1200, LARGEST) * 100:
                    for first in (0x00, 0x16, 0x80, 0xFF):  # as STUN, as DTLS, as RTP, as nothing
                        stranger.sendto((bytes([first]) + noise.randbytes(size))[:size], address)

            await viewer.until(frames=len(viewer.numbers) + 60)
            assert process.memory_info().rss - before < 24 << 20
        after = await gateway.stream(tracks=2)
        assert (after["id"], after["reconnects"]) == (stream["id"], 0)
        assert not [entry for entry in gateway.log if entry["level"] in ("error", "critical", "raw")]
