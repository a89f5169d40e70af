"""Many viewers of one address: a class that joins at once gets in, all of it, though few strangers of an address may be connecting at a
time. Who takes those places and does not connect, or begins handshakes and leaves them, holds up nobody elsewhere, nor strangers others.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from protocols.webrtc.transport.dtls import Certificate
from protocols.webrtc.transport.peer import Limits
from tests.bench.viewers import Viewer
from tests.gateway.test_offers_in_a_loop import WANTS
from tests.support.gateway_process import running_gateway
from tests.support.publishing import OFFER
from tests.support.waiting import eventually

CALL = "livestream:demo"
CLASS = 60
SDP = {"Content-Type": "application/sdp"}


@asynccontextmanager
async def coming_from(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Who has as many connections as they like."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, local_addr=(address, 0))) as http:
        yield http


async def test_a_class_that_joins_at_once_gets_in() -> None:
    certificate = Certificate.generate()
    viewers = [Viewer(certificate, measuring=False) for _ in range(CLASS)]
    async with running_gateway() as gateway, coming_from("127.0.0.1") as http:
        try:
            await asyncio.gather(*(viewer.join(http, gateway.url(f"/whep/{CALL}")) for viewer in viewers))
        finally:
            for viewer in viewers:
                viewer.close()
        assert await gateway.metric("ingress_viewers") == CLASS


async def test_who_does_not_connect_keeps_others_out_for_a_moment_and_nobody_elsewhere() -> None:
    most = Limits().unconnected_per_client
    async with running_gateway() as gateway, coming_from("127.0.0.1") as http, coming_from("127.0.0.2") as elsewhere:

        async def offer(by: aiohttp.ClientSession) -> tuple[int, str]:
            async with by.post(gateway.url(f"/whep/{CALL}"), data=WANTS, headers=SDP) as answer:
                return answer.status, answer.headers.get("Retry-After", "")

        assert {await offer(http) for _ in range(most)} == {(201, "")}
        waiting = asyncio.create_task(offer(http))
        assert await offer(elsewhere) == (201, "")
        assert not waiting.done()
        assert await waiting == (429, "1")


async def test_however_many_strangers_come_there_are_places_for_tokens_and_for_publishers() -> None:
    async with running_gateway("webrtc.max_viewers=20") as gateway, coming_from("127.0.0.1") as http:

        async def offer(path: str, sdp: bytes, user: str = "") -> int:
            headers = {"Authorization": f"Bearer {gateway.key(CALL, user)}"} if user else {}
            async with http.post(gateway.url(f"/{path}/{CALL}"), data=sdp, headers=SDP | headers) as answer:
                return answer.status

        assert [await offer("whep", WANTS) for _ in range(20)] == [201] * 17 + [503] * 3
        assert [await offer("whep", WANTS, "ann") for _ in range(3)] == [201] * 2 + [503]
        assert await offer("whip", OFFER, "host") == 201


class Stalling(Viewer):
    """Begins its handshake, and never hears what is answered."""

    def _take(self, data: bytes, arrival: int) -> None:
        if data[0] < 4:
            super()._take(data, arrival)


async def test_handshakes_that_are_begun_and_left_hold_up_nobody_elsewhere() -> None:
    certificate = Certificate.generate()
    begun = Limits().handshakes_per_client
    async with (
        running_gateway("webrtc.host=127.0.0.1") as gateway,
        coming_from("127.0.0.1") as http,
        coming_from("127.0.0.2") as elsewhere,
    ):
        url = gateway.url(f"/whep/{CALL}")
        stalling = [Stalling(certificate, measuring=True) for _ in range(2 * begun)]
        tasks = [asyncio.create_task(each.join(http, url)) for each in stalling]

        async def under_way() -> bool:
            return await gateway.metric("ingress_webrtc_handshakes_total") >= begun

        await eventually(under_way)
        victim = Viewer(certificate, measuring=True, source="127.0.0.2")
        await victim.join(elsewhere, url)
        assert await gateway.metric("ingress_webrtc_handshakes_failed_total") == 0, "before any of them was given up"
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for each in (victim, *stalling):
            each.close()
