"""From wire to wire: an anonymous viewer does its worst, and another one, who does nothing wrong, goes on seeing every packet."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from protocols.webrtc.transport.dtls import Certificate
from tests.bench.viewers import Viewer
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.slow import slow
from tests.support.whip_client import whip_client
from tests.unit.protocols.webrtc import hostile

CALL = "livestream:demo"
ATTACK_S = 3.0
RATE = 100  # datagrams a second
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(gateway: GatewayProcess) -> float:
    """Seconds that its process has used."""
    fields = Path(f"/proc/{gateway.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(gateway: GatewayProcess) -> int:
    """MiB of memory."""
    return int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


@asynccontextmanager
async def viewing(http: aiohttp.ClientSession, url: str) -> AsyncIterator[Viewer]:
    """A viewer that reads all that comes, and keeps its consent."""
    viewer = Viewer(Certificate.generate(), measuring=True)
    await viewer.join(http, url)
    assert viewer._socket is not None
    loop = asyncio.get_running_loop()
    loop.add_reader(viewer._socket, viewer.drain)
    try:
        async with asyncio.timeout(60):
            await viewer.joined.wait()
        yield viewer
    finally:
        loop.remove_reader(viewer._socket)
        viewer.close()


async def rate(viewer: Viewer, seconds: float) -> float:
    """Packets a second that come to it."""
    before, begun = viewer.seen.packets, time.monotonic()
    await asyncio.sleep(seconds)
    return (viewer.seen.packets - before) / (time.monotonic() - begun)


async def flood(viewer: Viewer, datagram: bytes) -> None:
    """A hundred a second, until it is cancelled."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(1 << 30):
        assert viewer._outbound is not None
        viewer._send(viewer._outbound.protect_rtcp(datagram))
        viewer.check()
        await asyncio.sleep(max(0, begun + number / RATE - loop.time()))


@pytest.mark.parametrize(
    "name",
    [
        "feedback on 2048 packets in 24 bytes each",
        slow("NACKs of everything"),
        slow("PLIs"),
    ],
)
async def test_what_one_viewer_says_takes_nothing_from_another(name: str) -> None:
    """It stopped all media for as long as it lasted, at 7.3 s of CPU in 8.3 s."""
    async with (
        running_gateway(f'calls.public=["{CALL}"]') as gateway,
        aiohttp.ClientSession() as http,
        whip_client(gateway.url(f"/whip/{CALL}"), gateway.key(), lambda answer: answer, send_times=True),
    ):
        await gateway.logged("live")
        url = gateway.url(f"/whep/{CALL}")
        async with viewing(http, url) as victim, viewing(http, url) as thief:
            usual = await rate(victim, 2)
            before, held = cpu(gateway), resident(gateway)
            media = next(ssrc for ssrc, kind in thief._kinds.items() if kind == "video")
            flooding = asyncio.create_task(flood(thief, hostile.rtcp(media, thief.seen.packets - 500 & 0xFFFF)[name]))
            under_attack = await rate(victim, ATTACK_S)
            used = cpu(gateway) - before
            flooding.cancel()
            await asyncio.wait({flooding})
            after = await rate(victim, 1)
            more = resident(gateway) - held
            print(
                f"{name}: {usual:.0f} packets/s, {under_attack:.0f} under attack, {after:.0f} after; {used:.2f} s of CPU, {more} MiB"
            )
            assert under_attack > 0.8 * usual
            assert after > 0.8 * usual
            assert used < 0.5 * ATTACK_S
            assert more < 32
