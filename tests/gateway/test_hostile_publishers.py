"""A publisher whose frame never ends: what of it is held is bounded."""

import asyncio
import time

from tests.gateway.test_hostile_viewers import resident
from tests.support.gateway_process import running_gateway
from tests.support.whip_client import H264, VIDEO_SSRC, WhipClient
from tests.unit.protocols.webrtc.receive.test_receiver import rtp

CALL = "livestream:demo"
PACKET = b"\x41" + b"\xff" * 1099
PACKETS, PER_S = 44_000, 8_000  # 46 MiB at 70 Mbit/s


class Endless(WhipClient):
    """All its packets are of one frame."""

    async def _media(self) -> None:
        begun = time.monotonic()
        for number in range(PACKETS):
            self._protect(rtp(H264, number & 0xFFFF, 0, VIDEO_SSRC, PACKET, marker=False))
            if not number % 80:
                self._check()
                await asyncio.sleep(max(0, begun + number / PER_S - time.monotonic()))


async def test_a_frame_that_never_ends_is_not_kept() -> None:
    async with running_gateway(f'calls.public=["{CALL}"]') as gateway:
        first = WhipClient(send_times=False)
        publishing = asyncio.create_task(first.publish(gateway.url(f"/whip/{CALL}"), gateway.key(user="usual"), str))
        await gateway.logged("live")
        held = resident(gateway)
        await Endless(send_times=False).publish(gateway.url(f"/whip/{CALL}"), gateway.key(user="endless"), str)
        more = resident(gateway) - held
        print(f"{PACKETS * len(PACKET) >> 20} MiB of one frame: {more} MiB more")
        assert more < 16
        publishing.cancel()
        await asyncio.wait({publishing})
