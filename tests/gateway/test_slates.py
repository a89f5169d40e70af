"""What stands in for an encoder that is away, as settings choose it: for how long, what is seen, and how soon."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import pytest
from av import VideoFrame

from tests.gateway.test_continuity import CALL, CONNECT, Seeing
from tests.support.application import running_application
from tests.support.gateway_process import running_gateway
from tests.support.hls_client import following
from tests.support.listener import listening
from tests.support.publishing import Pasted, publishing
from tests.support.viewer import watching
from tests.unit.transcode.worker.test_slate import mp4

SHOW, CID = "/call/livestream/show", "livestream:show"
GRACE_S = 3


async def test_at_the_end_of_a_calls_own_grace_the_participant_leaves_with_its_reason_and_hls_ends() -> None:
    async with running_application("hls.auto=true", "hls.segment_s=1", "calls.linger_s=1800") as application:
        settings = {"continuity": {"linger_seconds": GRACE_S}}
        members = [{"user_id": "john", "role": "host"}]
        call = {"created_by_id": "john", "members": members, "settings_override": settings}
        await application.ok("POST", SHOW, {"data": call})
        pasted = Pasted.of_key(await application.ok("POST", f"{SHOW}/stream_keys", {}, user="john"))
        gateway, token = application.gateway, application.token("john")
        async with listening(gateway.url(CONNECT), CID, token) as host, publishing("rtmp", pasted) as encoder:
            await application.ok("POST", f"{SHOW}/go_live", {}, user="john")
            session = (await gateway.stream("john", tracks=2, token=token))["id"]
            call = (await application.ok("GET", SHOW, user="john"))["call"]
            async with following(call["egress"]["hls"]["playlist_url"]) as (client, followed):
                video = client.renditions["video"]
                await video.until(2)
                encoder.kill()
                await host.until("ingress.slate")
                began, shown = asyncio.get_running_loop().time(), video.seconds
                left = await host.until("call.session_participant_left")
                assert GRACE_S - 1 < asyncio.get_running_loop().time() - began < GRACE_S + 2
                assert left["payload"]["participant"]["user_id"] == "john"
                assert left["payload"]["reason"] == (await gateway.logged("ended", session=session))["why"]
                async with asyncio.timeout(20):
                    await followed  # each rendition up to its ENDLIST
                assert all(each.playlist.ended for each in client.renditions.values())
                assert video.seconds - shown > GRACE_S - 1.5, "up to then the slate was in it"


class Timed(Seeing):
    """One who notes when the slate was seen first."""

    first = 0.0

    def look(self, frame: VideoFrame) -> None:
        super().look(frame)
        if not self.first and (self.is_strip() or self.is_card()):
            self.first = asyncio.get_running_loop().time()

    def sees_it(self) -> bool:
        return self.first > 0


@pytest.mark.parametrize("watched", [True, False], ids=["others watch", "nobody watched before"])
async def test_who_joins_during_the_slate_sees_it_within_300_ms(watched: bool) -> None:
    async with running_gateway() as gateway, listening(gateway.url(CONNECT), CALL) as told, AsyncExitStack() as others:
        whep = gateway.url(f"/whep/{CALL}")
        async with publishing("rtmp", Pasted.of_gateway(gateway, CALL)) as encoder:
            await gateway.stream(tracks=2)
            if watched:
                viewer = await others.enter_async_context(watching(whep))
                await viewer.until(frames=30)
            encoder.kill()
            await told.until("ingress.slate")
        waited = list[float]()
        for _ in range(5):
            async with watching(whep, viewer=Timed()) as late:
                assert isinstance(late, Timed)
                connected = asyncio.get_running_loop().time()
                await late.until_look(late.sees_it)
                waited.append(late.first - connected)
        assert median(waited) < 0.3, waited
        assert waited[0] < 0.6, "the first one has it made"


class Levels(Seeing):
    """One who notes how bright pictures of one grey are."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = set[int]()

    def look(self, frame: VideoFrame) -> None:
        super().look(frame)
        if (grey := self.grey()).std() < 5:
            self.levels.add(round(float(grey.mean()) / 15))

    def many(self) -> bool:
        return len(self.levels) >= 10


async def test_the_operators_clip_is_seen_moving(tmp_path: Path) -> None:
    (tmp_path / "brb.mp4").write_bytes(mp4(3, size=(320, 180), sound=True))
    clip = (f"slate.folder={tmp_path}", "slate.picture=brb.mp4")
    async with running_gateway(*clip) as gateway, watching(gateway.url(f"/whep/{CALL}"), viewer=Levels()) as viewer:
        assert isinstance(viewer, Levels)
        async with publishing("rtmp", Pasted.of_gateway(gateway, CALL)) as encoder:
            await viewer.until(frames=30)
            encoder.kill()
            await viewer.until_look(viewer.many)
