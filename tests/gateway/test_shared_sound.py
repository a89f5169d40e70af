"""The sound of several streams is made by one worker: killed under all of them, it is heard on from each, and no stream ends."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.viewer import watching

USERS = ("one", "two", "three")
CALLS = [f"livestream:{user}" for user in USERS]


async def test_a_killed_worker_of_sound_is_replaced_for_all_its_streams() -> None:
    async with running_gateway(f"calls.public={','.join(CALLS)}") as gateway, AsyncExitStack() as live:
        viewers = [await live.enter_async_context(watching(gateway.url(f"/whep/{call}"))) for call in CALLS]
        for call, user in zip(CALLS, USERS, strict=True):
            where = ("-c:a", "aac", "-b:a", "128k", "-f", "flv", gateway.rtmp(call, user))
            await live.enter_async_context(ffmpeg(*programme(320, 192), *X264_LIVE, *where))
        for viewer in viewers:
            await viewer.until(frames=30, audio=60)
        before = [(await gateway.stream(user, tracks=2))["id"] for user in USERS]
        (killed,) = gateway.workers()
        os.kill(killed, signal.SIGKILL)
        heard = [viewer.sounding for viewer in viewers]
        async with asyncio.TaskGroup() as group:
            for viewer, sounding in zip(viewers, heard, strict=True):
                group.create_task(viewer.until_sounding(sounding + 100, timeout=4))  # two seconds of it, within two more
        assert [viewer.frequency for viewer in viewers] == [pytest.approx(1000, rel=0.03)] * len(USERS)
        (replaced,) = gateway.workers()
        assert replaced != killed
        after = [await gateway.stream(user, tracks=2) for user in USERS]
        assert [stream["id"] for stream in after] == before
        assert [stream["reconnects"] for stream in after] == [0] * len(USERS)
        assert await gateway.metric('ingress_worker_restarts_total{protocol="rtmp"}') == len(USERS)
    assert all(viewer.in_order for viewer in viewers)
