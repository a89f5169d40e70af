"""`/stat` and `/stats`: read as scene switchers read them, and by whom."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.framework.middleware import errors
from gateway.api.framework.quotas import Quotas
from gateway.api.scene_switchers import Arriving, SceneSwitchers, nginx_rtmp, srt_live_server
from gateway.config.quotas import QuotasConfig
from gateway.sessions.seat import Seat
from gateway.sessions.seat_state import SeatState
from protocols.media import TracksChanged
from tests.support.api import Stage, api_stage
from tests.support.memory import H264, OPUS, MemoryPublisher, packet, seated
from tests.support.waiting import eventually

DEMO, OTHER = "livestream:demo", "livestream:other"
MANY = 5  # streams in an answer
ONE = Arriving(
    call=DEMO,
    user="john",
    uptime_s=12.5,
    video_bps=2_500_400,
    audio_bps=128_000,
    bytes_received=4_000_000,
    round_trip_ms=41.26,
    packets_lost=30,
    packets_dropped=2,
    packet_bytes=1300,
    capacity_mbps=18.5,
    buffer_ms=180,
    video=replace(H264, profile="High", level=31),
    frame_rate=29.97,
    audio=OPUS,
)


def switching(text: str, application: str, key: str) -> tuple[int, str] | None:
    """As a reader of nginx-rtmp's form: kbit/s of the picture, and what it is; None: offline. What they insist on has to be there."""
    for each in ElementTree.fromstring(text.encode()).findall("server/application"):
        if each.findtext("name") == application:
            for stream in each.findall("live/stream"):
                if stream.findtext("name") == key:
                    meta = stream.find("meta")
                    return int(stream.findtext("bw_video", "")) // 1024, _picture(meta) if meta is not None else ""
    return None


def _picture(meta: ElementTree.Element) -> str:
    assert meta.find("audio") is not None
    width, height, rate, codec = (meta.findtext(f"video/{each}", "") for each in ("width", "height", "frame_rate", "codec"))
    level = meta.findtext("video/level")
    return f"{int(width)}x{int(height)} {float(rate)} {codec}" + (f" {float(level)}" if level is not None else "")


def test_the_form_of_nginx_rtmp_has_rate_and_picture() -> None:
    text = nginx_rtmp([DEMO], [ONE])
    assert switching(text, DEMO, "john") == (2441, "640x360 29.97 H264 3.1")
    assert switching(text, DEMO, "zoe") is None
    sound_alone = replace(ONE, video=None, video_bps=0)
    assert switching(nginx_rtmp([], [sound_alone]), DEMO, "john") == (0, "")


def test_a_call_without_a_stream_is_there_and_empty() -> None:
    """Readers refuse a document without an application."""
    (application,) = ElementTree.fromstring(nginx_rtmp([DEMO], []).encode()).findall("server/application")
    assert (application.findtext("name"), application.findall("live/stream")) == (DEMO, [])


def test_the_form_of_srt_live_server_has_rate_round_trip_and_loss() -> None:
    assert json.loads(srt_live_server([DEMO], [ONE])) == {
        "publishers": {
            "livestream:demo/john": {
                "bitrate": 2628,
                "bytesRcvDrop": 2600,
                "bytesRcvLoss": 39_000,
                "mbpsBandwidth": 18.5,
                "mbpsRecvRate": 2.628,
                "msRcvBuf": 180,
                "pktRcvDrop": 2,
                "pktRcvLoss": 30,
                "rtt": 41.26,
                "uptime": 12,
            }
        },
        "status": "ok",
    }


@dataclass
class Shown:
    stage: Stage
    client: TestClient[Any, Any]
    live: AsyncExitStack
    publishers: dict[str, MemoryPublisher] = field(default_factory=dict)

    async def publish(self, user: str, cid: str = DEMO) -> None:
        await self.live.enter_async_context(publishing(self, user, cid))

    async def ask(self, credential: str = "", path: str = "/stats", *, basic: bool = True, call: str = "") -> tuple[int, str]:
        spoken = f"Basic {base64.b64encode(f'any:{credential}'.encode()).decode()}" if basic else f"Bearer {credential}"
        headers = {"Authorization": spoken} if credential else {}
        async with self.client.get(path, headers=headers, params={"call": call} if call else {}) as response:
            if response.status == 401:
                assert response.headers["WWW-Authenticate"].startswith("Basic ")
            return response.status, await response.text()

    async def names(self, credential: str, call: str = "") -> list[str]:
        status, text = await self.ask(credential, call=call)
        assert status == 200, text
        return list(json.loads(text)["publishers"])

    async def key(self, user: str, cid: str = DEMO) -> str:
        answered = await self.stage.ok("POST", f"/call/{cid.replace(':', '/')}/stream_keys", {"user_id": user})
        return str(answered["key"])


@asynccontextmanager
async def publishing(shown: Shown, user: str, cid: str) -> AsyncIterator[None]:
    seat = seated(shown.stage.registry, shown.stage.rights, cid, user)
    publisher = shown.publishers[user] = seat.publisher  # type: ignore[assignment]
    assert isinstance(publisher, MemoryPublisher)
    publisher.stats.round_trip_ns = 20_000_000
    running = asyncio.create_task(seat.run())
    publisher.say(TracksChanged((H264, OPUS)), packet(1, 0, keyframe=True), packet(2, 0))
    await eventually(partial(_live, seat), every_s=0.01)
    yield
    seat.end("the test is over")
    await running


async def _live(seat: Seat) -> bool:
    return seat.state is SeatState.LIVE


async def _away(seat: Seat) -> bool:
    return seat.state not in (SeatState.LIVE, SeatState.STALLED)


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[Shown]:
    async with api_stage(tmp_path) as stage:
        for cid in (DEMO, OTHER):
            members = [{"user_id": each, "role": "host"} for each in ("john", "zoe")]
            body = {"data": {"created_by_id": "john", "members": members}}
            await stage.ok("POST", f"/call/{cid.replace(':', '/')}", body)
        switchers = SceneSwitchers(stage.registry, stage.store_access.authorizer, Quotas(QuotasConfig()), most=MANY)
        application = web.Application(middlewares=[errors])
        application.add_routes(switchers.routes())
        async with TestClient(TestServer(application)) as client, AsyncExitStack() as live:
            yield Shown(stage, client, live)


async def test_a_stream_key_shows_its_own_stream_and_no_other(shown: Shown) -> None:
    await shown.publish("john")
    await shown.publish("zoe")
    for key in (await shown.key("john"), shown.stage.tokens.issue("john", [DEMO], 3600, role="host")):
        assert "livestream:demo/john" in await shown.names(key)
    key = await shown.key("zoe")
    assert await shown.names(key) == ["livestream:demo/zoe"]
    status, text = await shown.ask(key, "/stat")
    assert (status, switching(text, DEMO, "john")) == (200, None)
    assert switching(text, DEMO, "zoe") is not None
    assert (await shown.ask(key, basic=False))[0] == 200


async def test_a_token_shows_what_may_be_listed(shown: Shown) -> None:
    for user, cid in (("john", DEMO), ("zoe", OTHER)):
        await shown.publish(user, cid)
    server = shown.stage.token()
    assert await shown.names(server) == ["livestream:demo/john", "livestream:other/zoe"]
    assert await shown.names(server, call=OTHER) == ["livestream:other/zoe"]
    assert await shown.names(shown.stage.token("stranger")) == ["livestream:demo/john"], (
        "which is public; the other is in backstage"
    )


@pytest.mark.parametrize("path", ["/stat", "/stats"])
async def test_without_a_key_that_is_good_nothing_is_told(shown: Shown, path: str) -> None:
    await shown.publish("john")
    key = await shown.key("john")
    assert (await shown.ask("", path))[0] == 401
    assert (await shown.ask(key[:-1] + ("a" if key[-1] != "a" else "b"), path))[0] == 401
    await shown.stage.ok("DELETE", f"/call/livestream/demo/stream_keys/{key.partition('-')[0]}")
    assert (await shown.ask(key, path))[0] == 401
    async with shown.client.get(path, headers={"Authorization": "Basic %%%"}) as response:
        assert response.status == 401


async def test_a_token_for_watching_is_not_one_for_its_users_own_stream(shown: Shown) -> None:
    await shown.publish("ann", OTHER)
    token = shown.stage.token("ann")
    assert await shown.names(token) == ["livestream:other/ann"]
    watching, _ = shown.stage.tokens.for_watching(shown.stage.store_access.authorizer.identify(token), OTHER)
    assert await shown.names(watching) == []


async def test_what_is_away_is_not_there(shown: Shown) -> None:
    await shown.publish("john")
    key = await shown.key("john")
    assert await shown.names(key) == ["livestream:demo/john"]
    shown.publishers["john"].say(None)
    seat = shown.stage.registry.seats[DEMO, "john"]
    await eventually(partial(_away, seat), every_s=0.01)
    assert await shown.names(key) == []


async def test_an_answer_has_so_many_streams_at_most_and_ones_own_first(shown: Shown) -> None:
    for number in range(MANY + 3):
        await shown.publish(f"user-{number:04}")
    await shown.publish("zoe")
    names = await shown.names(shown.stage.token("zoe"))
    assert len(names) == MANY
    assert "livestream:demo/zoe" in names


async def test_who_asks_in_a_loop_is_refused(shown: Shown) -> None:
    key = await shown.key("john")
    statuses = [200]
    while statuses[-1] == 200 and len(statuses) < 500:
        statuses.append((await shown.ask(key))[0])
    assert statuses[-1] == 429
