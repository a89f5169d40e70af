"""Muting, from the API to the picture and through everything that comes after it: the encoder comes back as a new participant, the gateway
is restarted, and a second gateway with the same database mutes and unmutes what the first has live.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from gateway.access.sealing import Sealing
from gateway.model import lifecycle
from gateway.model.records import ApiKey, Member, SealedSecret
from gateway.store.store import Store
from tests.support.application import Application, running_application
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.hls_client import following
from tests.support.postgres import Postgres, running_postgres
from tests.support.viewer import Viewer, watching
from tests.support.waiting import eventually

CID, CALL = "livestream:show", "/call/livestream/show"
GROUP = 30  # pictures from one key frame to the next
ENCODER = (*programme(320, 180), *X264_LIVE, "-g", str(GROUP), "-c:a", "aac", "-f", "flv")
MUCH_LATER = 90  # access units: by then something would have been seen and heard


@dataclass(frozen=True)
class Shared:
    """A database that several gateways share, with a live call, and with the application's key."""

    url: str
    own: str  # the gateways' secret
    app: str  # the application's

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Application]:
        async with running_gateway(f"database.url={self.url}", "calls.linger_s=1", secret=self.own) as gateway:
            yield Application(gateway, "app", self.app)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
async def shared(postgres: Postgres) -> Shared:
    it, now = Shared(postgres.url(), secrets.token_hex(32), secrets.token_urlsafe(32)), datetime.now(UTC)
    async with Store.open(it.url) as store:
        await store.api_keys.add(
            ApiKey("app", "", (SealedSecret(Sealing(it.own.encode()).seal(it.app.encode(), "app"), now),), now)
        )
        await store.call_types.ensure_built_in(now)
        kind = (await store.call_types.all())["livestream"]
        call = lifecycle.gone_live(lifecycle.created(kind, "show", "john", now), now)
        await store.calls.get_or_create(call, [Member(CID, "john", now, now, "host")])
    return it


def encoder(gateway: GatewayProcess) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return ffmpeg(*ENCODER, gateway.rtmp(CID, "john"))


def watched(application: Application) -> AbstractAsyncContextManager[Viewer]:
    return watching(application.gateway.url(f"/whep/{CID}"), application.token("vera"))


async def until_muted(application: Application, muted: tuple[bool, bool]) -> None:
    """John is live there, and the sound and the picture are muted so."""

    async def shown() -> bool:
        participants = (await application.ok("GET", CALL))["call"]["session"]["participants"]
        return [(each["muted_audio"], each["muted_video"]) for each in participants] == [muted]

    await eventually(shown)


async def until_received(application: Application, more: int) -> None:
    """So many access units of video have come from encoders since."""
    series = 'ingress_frames_total{kind="video",protocol="rtmp"}'
    start = await application.gateway.metric(series)

    async def received() -> bool:
        return await application.gateway.metric(series) >= start + more

    await eventually(received)


async def tile(viewer: Viewer) -> Any:
    """What a viewer's page is told first of its one slot."""
    async with aiohttp.ClientSession() as http, http.get(f"{viewer.resource}/events") as response:
        async for line in response.content:
            if line.startswith(b"data:"):
                (slot,) = json.loads(line[len(b"data:") :])["slots"]
                return slot
    raise AssertionError("the events ended")


async def nothing_is_seen_or_heard(application: Application) -> None:
    """By who comes now, who is told so."""
    async with watched(application) as viewer:
        slot = await tile(viewer)
        assert (slot["participant"], slot["muted_audio"], slot["muted_video"]) == ("john", True, True)
        await until_received(application, MUCH_LATER)
        assert (viewer.numbers, viewer.audio_frames) == ([], 0)


@pytest.mark.slow
async def test_muting_holds_on_every_node_and_outlives_the_participant_and_the_gateway(shared: Shared) -> None:
    everything = {"audio": True, "video": True}
    async with shared.gateway() as other:
        async with shared.gateway() as first:
            async with encoder(first.gateway), watched(first) as viewer:
                await viewer.until(frames=GROUP, audio=GROUP)
                await other.ok("POST", f"{CALL}/mute_users", {"user_ids": ["john"]} | everything, user="john")
                await until_muted(first, (True, True))
                await until_received(first, GROUP)  # what was on its way has come
                seen, heard = len(viewer.numbers), viewer.audio_frames
                await nothing_is_seen_or_heard(first)
                assert (len(viewer.numbers), viewer.audio_frames) == (seen, heard)
            left = await first.gateway.logged("'message': 'ended'")
            async with encoder(first.gateway):
                assert (await first.gateway.stream("john", token=first.token("john")))["id"] != left["session"]
                await until_muted(first, (True, True))
                await nothing_is_seen_or_heard(first)
        async with shared.gateway() as first, encoder(first.gateway), watched(first) as viewer:
            await until_muted(first, (True, True))
            await nothing_is_seen_or_heard(first)
            await other.ok("POST", f"{CALL}/unmute_users", {"user_ids": ["john"]} | everything, user="john")
            await until_muted(first, (False, False))
            await viewer.until(frames=GROUP, audio=GROUP)
            assert viewer.numbers[0] % GROUP == 0, "it begins with a key frame"
            await other.ok("POST", f"{CALL}/mute_users", {"mute_all_users": True}, user="john")
            await until_muted(first, (True, False))


async def test_a_muted_host_is_neither_in_hls_and_comes_back_with_both() -> None:
    everything = {"user_ids": ["john"], "audio": True, "video": True}
    async with (
        running_application(f"calls.public={CID}", "hls.auto=true", "hls.segment_s=1") as application,
        encoder(application.gateway),
        following(application.gateway.url(f"/hls/{CID}/open/index.m3u8")) as (client, followed),
    ):
        video, audio = client.renditions["video"], client.renditions["audio"]

        async def has_more_than(parts: int) -> bool:
            return min(len(video.starts), len(audio.starts)) > parts

        await eventually(lambda: has_more_than(3))
        await application.ok("POST", f"{CALL}/mute_users", everything)
        await until_muted(application, (True, True))
        await until_received(application, GROUP)  # what was on its way has come
        known = len(video.files), len(audio.files)
        await until_received(application, MUCH_LATER)
        assert (len(video.files), len(audio.files)) == known
        assert not followed.done(), "the show is not over"

        await application.ok("POST", f"{CALL}/unmute_users", everything)
        parts = max(len(video.starts), len(audio.starts))
        await eventually(lambda: has_more_than(parts + 3))
        assert video.starts == sorted(video.starts)
        assert audio.starts == sorted(audio.starts)
        assert not followed.done()
