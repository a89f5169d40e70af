"""Several encoders of one stream, as viewers and the API see them: who is live, who stands by, and who goes on when one is down."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from time import monotonic
from typing import Any

import psutil
import pytest
from av import VideoFrame

from tests.support.application import Application, running_application
from tests.support.listener import Client, listening
from tests.support.publishing import Pasted, over_rtmp, publishing
from tests.support.slow import slow
from tests.support.viewer import Viewer, watching

CALL = "livestream:demo"
PATH = "/call/livestream/demo"
GAP_S = 0.2
SMALL = (320, 180)
MEASURED = 240  # pictures


class Timed(Viewer):
    """One who notes when each picture is shown, and its size."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[float, int]] = []

    def look(self, frame: VideoFrame) -> None:
        self.shown.append((monotonic(), frame.width))

    async def until_size(self, size: tuple[int, int], frames: int = 30) -> None:
        """So many pictures of this size have been shown from now on."""
        before = len(self.shown)
        async with asyncio.timeout(60):
            while sum(width == size[0] for _, width in self.shown[before:]) < frames:
                self.progress.clear()
                await self.progress.wait()

    def longest_gap(self, since: float) -> float:
        times = [at for at, _ in self.shown if at >= since]
        return max(later - earlier for earlier, later in pairwise(times))


@asynccontextmanager
async def stage(*settings: str) -> AsyncIterator[Application]:
    async with running_application(*settings) as application:
        hosts = [{"user_id": user, "role": "host"} for user in ("host", "ann")]
        await application.ok("POST", f"{PATH}/members", {"update_members": hosts})
        yield application


async def key(application: Application, rank: int, **more: Any) -> dict[str, Any]:
    asked = {"user_id": "host", "rank": rank, **more}
    return dict(await application.ok("POST", f"{PATH}/stream_keys", asked))


async def encoders(application: Application, live: int, **standbys: int) -> dict[str, Any]:
    """The stream, once the encoder of this rank is live and those of the others stand by, in these states."""

    def there(stream: dict[str, Any]) -> bool:
        return (stream["rank"], {each["state"]: each["rank"] for each in stream["standbys"]}) == (live, standbys)

    return await application.gateway.stream(tracks=2, wanted=there)


def watched(application: Application, viewer: Viewer | None = None) -> Any:
    return watching(application.gateway.url(f"/whep/{CALL}"), viewer=viewer)


@asynccontextmanager
async def told_host(application: Application) -> AsyncIterator[Client]:
    async with listening(application.url("/connect"), CALL, token=application.token("ann")) as client:
        yield client


async def test_when_the_primary_is_killed_viewers_see_the_backup_at_once_and_then_the_primary_again() -> None:
    async with stage() as it, told_host(it) as host:
        primary, backup = [Pasted.of_key(await key(it, rank)) for rank in (1, 2)]
        viewer = Timed()
        async with publishing("rtmp", primary) as encoder, watched(it, viewer):
            await it.gateway.stream(tracks=2)
            async with publishing("srt", backup, size=SMALL):
                await encoders(it, 1, standby=2)
                await viewer.until_size((640, 360), 90)
                encoder.kill()
                killed = monotonic()
                switched = (await host.until("ingress.switched"))["payload"]
                await viewer.until_size(SMALL, 60)
                gap = viewer.longest_gap(killed - 1)
                assert (switched["from"], switched["to"], switched["cause"], switched["protocol"]) == (1, 2, "closed", "srt")
                assert "ingress.slate" not in [event["type"] for event in host.told]
                async with publishing("rtmp", primary):
                    await encoders(it, 2, standby=1)
                    well = monotonic()
                    await viewer.until_size((640, 360), 60)
                    returned = next(at for at, width in viewer.shown if at > well and width == 640)
                    stream = await encoders(it, 1, standby=2)
        print(f"without a picture: {gap * 1000:.0f} ms; the primary was live again after {returned - well:.1f} s")
        assert gap <= GAP_S
        assert 8 < returned - well < 15
        assert set(viewer.sizes) == {SMALL, (640, 360)}
        assert (stream["role"], stream["standbys"][0]["role"]) == ("primary", "backup")
        assert await it.gateway.metric('ingress_input_switches_total{cause="closed",protocol="srt"}') >= 1
        assert await it.gateway.metric('ingress_input_switches_total{cause="returned",protocol="rtmp"}') >= 1


async def test_a_primary_that_falls_silent_is_left_before_viewers_are_told_and_somebody_switches_back() -> None:
    async with stage("calls.return_to_primary=sticky", "calls.revert_after_s=0") as it, told_host(it) as host:
        primary, backup = [Pasted.of_key(await key(it, rank)) for rank in (1, 2)]
        viewer = Timed()
        async with publishing("rtmp", primary) as encoder, watched(it, viewer):
            await it.gateway.stream(tracks=2)
            async with publishing("srt", backup, size=SMALL):
                await encoders(it, 1, standby=2)
                await viewer.until_size((640, 360), 30)
                encoder.send_signal(signal.SIGSTOP)
                assert (await host.until("ingress.switched"))["payload"]["cause"] == "silent"
                await viewer.until_size(SMALL, 30)
                (warned,) = (await encoders(it, 2, silent=1))["warnings"]
                assert warned.startswith("Nothing comes of the encoder of rank 1")
                status, refused = await it.ask("POST", f"{PATH}/streams/host/switch", {"rank": 1})
                assert (status, refused["code"]) == (409, "conflict")
                assert refused["message"].startswith("nothing comes of an encoder with a key of rank 1")
                encoder.send_signal(signal.SIGCONT)
                await encoders(it, 2, standby=1)
                await viewer.until_size(SMALL, 30)
                host.told.clear()
                await it.ok("POST", f"{PATH}/streams/host/switch", {"rank": 1}, user="host")
                switched = (await host.until("ingress.switched"))["payload"]
                await viewer.until_size((640, 360), 30)
    assert (switched["from"], switched["to"], switched["cause"]) == (2, 1, "manual")
    assert not {"ingress.stalled", "ingress.slate"} & {event["type"] for event in host.told}


async def test_a_key_that_is_revoked_ends_its_own_encoder_and_a_kick_all_of_them() -> None:
    async with stage() as it, told_host(it) as host:
        first, second = await key(it, 1), await key(it, 2)
        async with publishing("rtmp", Pasted.of_key(first)) as primary, publishing("srt", Pasted.of_key(second)) as backup:
            await encoders(it, 1, standby=2)
            await it.ok("DELETE", f"{PATH}/stream_keys/{first['stream_key']['name']}")
            await host.until("ingress.switched")
            async with asyncio.timeout(20):
                await primary.wait()
            await encoders(it, 2)
            await it.ok("POST", f"{PATH}/kick", {"user_id": "host"})
            async with asyncio.timeout(20):
                await backup.wait()
            left = await host.until("call.session_participant_left")
    assert left["payload"]["reason"] == "the call's host has taken you out of it"


async def test_by_priority_the_better_rank_is_live_alone() -> None:
    async with stage("calls.on_conflict=priority") as it, told_host(it) as host:
        worse, better = await key(it, 2), await key(it, 1)
        async with publishing("rtmp", Pasted.of_key(worse)) as encoder:
            await it.gateway.stream(tracks=2)
            async with publishing("srt", Pasted.of_key(better)):
                await host.until("ingress.taken_over")
                async with asyncio.timeout(20):
                    await encoder.wait()
                await encoders(it, 1)
                said = await over_rtmp(it.gateway, worse["key"], CALL)
                stream = await encoders(it, 1)
    assert "an encoder is live with a key of rank 1, before this one's 2" in said
    assert (stream["protocol"], stream["reconnects"]) == ("srt", 1)


async def test_a_key_may_refuse_where_its_call_lets_take_over() -> None:
    async with stage() as it:
        shy = await key(it, 1, on_conflict="refuse")
        async with publishing("srt", Pasted.of_key(await key(it, 1))):
            stream = await it.gateway.stream(tracks=2)
            said = await over_rtmp(it.gateway, shy["key"], CALL)
            after = await it.gateway.stream(tracks=2)
    assert "another encoder is live with this key: stop that one first" in said
    assert (after["id"], after["reconnects"]) == (stream["id"], 0)


@pytest.mark.parametrize("protocol", ["rtmp", slow("srt"), slow("whip")])
async def test_one_that_stands_by_costs_parsing_alone(protocol: str) -> None:
    async with stage() as it:
        primary, backup = [Pasted.of_key(await key(it, rank)) for rank in (1, 2)]
        async with publishing("rtmp", primary), watched(it) as viewer:
            await viewer.until(frames=60)
            alone = await cores(it, viewer)
            async with publishing(protocol, backup, size=(1280, 720)):
                await encoders(it, 1, standby=2)
                both = await cores(it, viewer)
    print(f"a standby by {protocol} at 720p takes {100 * (both - alone):.2f} % of a core, the live stream {100 * alone:.2f} %")
    assert both - alone < 0.03


async def cores(application: Application, viewer: Viewer) -> float:
    """That the gateway's own process uses while so many pictures are shown."""
    process, begun = psutil.Process(application.gateway.pid), monotonic()
    used = process.cpu_times()
    await viewer.until(frames=len(viewer.numbers) + MEASURED)
    now, seconds = process.cpu_times(), monotonic() - begun
    return float(now.user + now.system - used.user - used.system) / seconds
