"""What happens to a stream, the same for every protocol: real encoders publish by each, and a viewer who decodes sees what comes of it.

One gateway serves the module; each test has a call, a host and a key of its own in it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import pytest
import pytest_asyncio

from tests.support.application import Application, running_application
from tests.support.delivery import assert_shown, dropped
from tests.support.encoders import X264_LIVE
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.publishing import PROTOCOLS, Pasted, publishing, refusal
from tests.support.viewer import Viewer, watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = (320, 240)
PASSED = {"h264": ("passthrough", "same_codec"), "opus": ("passthrough", "same_codec"), "aac": ("transcode", "codec")}
CODEC = {"rtmp": "aac", "srt": "aac", "whip": "opus"}
SOFTWARE = {"rtmp": "Lavf", "srt": "", "whip": "Lavf/"}
TOLD_OF_A_CUT_KEY = {
    "rtmp": "The stream key looks cut off or damaged: copy it again in one piece",
    "srt": "1401",
    "whip": "401 ",
}
TOLD_FORBIDDEN = {"rtmp": "", "srt": "1403", "whip": "403 "}
TOLD_OF_THE_END = ("rtmp", "srt")  # after our goodbye ffmpeg's WHIP may hang (facts: clients §3)
NUMBERS = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def application() -> AsyncIterator[Application]:
    async with running_application("calls.linger_s=5") as it:
        yield it


@dataclass(frozen=True)
class Show:
    """A call of a test's own, which is live, with john as its owner; `pasted` is its host's."""

    application: Application
    protocol: str
    name: str
    host: str
    key: str
    pasted: Pasted

    @property
    def gateway(self) -> GatewayProcess:
        return self.application.gateway

    @property
    def cid(self) -> str:
        return f"livestream:{self.name}"

    def publishing(self, **how: Any) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        return publishing(self.protocol, self.pasted, **how)

    def watching(self) -> AbstractAsyncContextManager[Viewer]:
        return watching(self.gateway.url(f"/whep/{self.cid}"), self.application.token("vera"))

    async def stream(self, **how: Any) -> dict[str, Any]:
        return await self.gateway.stream(self.host, token=self.application.token("john"), **how)

    async def ok(self, path: str, **body: Any) -> Any:
        """A request of the call's owner, which succeeds."""
        return await self.application.ok("POST", f"/call/livestream/{self.name}{path}", body, user="john")

    async def participants(self) -> list[dict[str, Any]]:
        call = await self.application.ok("GET", f"/call/livestream/{self.name}", user="john")
        return list(call["call"]["session"]["participants"])

    async def ended(self, session: str) -> str:
        """Why this session has ended."""
        gateway = self.gateway
        async with asyncio.timeout(60):
            while True:
                for line in gateway.log:
                    if line["message"] == "ended" and line["session"] == session:
                        return str(line["why"])
                gateway.news.clear()
                await gateway.news.wait()

    async def comes_back_refused(self, words: str) -> None:
        said = await refusal(self.protocol, self.gateway, self.key, self.cid)
        assert TOLD_FORBIDDEN[self.protocol] in said
        assert words in said or self.protocol == "srt", said


@pytest_asyncio.fixture(loop_scope="module", params=PROTOCOLS)
async def show(request: pytest.FixtureRequest, application: Application) -> Show:
    name = f"{request.param}-{next(NUMBERS)}"
    host = f"host-of-{name}"
    members = [{"user_id": "john", "role": "host"}, {"user_id": host, "role": "host"}]
    path = f"/call/livestream/{name}"
    await application.ok("POST", path, {"data": {"created_by_id": "john", "members": members}}, user="john")
    await application.ok("POST", f"{path}/go_live", user="john")
    key = await application.ok("POST", f"{path}/stream_keys", {"user_id": host}, user="john")
    return Show(application, request.param, name, host, key["key"], Pasted.of_key(key))


async def test_a_viewer_who_came_first_sees_and_hears_it_whole(show: Show) -> None:
    started = f'ingress_sessions_started_total{{protocol="{show.protocol}"}}'
    before, earlier = await dropped(show.gateway), await show.gateway.metric(started)
    async with show.watching() as viewer:
        async with show.publishing():
            await viewer.until(frames=120, audio=150)
            stream = await show.stream(tracks=2)
            assert [each["user_id"] for each in await show.participants()] == [show.host]
        lost = await dropped(show.gateway, viewer) - before
    first = viewer.numbers[0]
    assert_shown(viewer.numbers, first, first + 119, lost)
    assert viewer.sizes == [(640, 360)]
    assert viewer.loudness > 500
    assert viewer.frequency == pytest.approx(1000, rel=0.03)
    assert (stream["protocol"], stream["call"]) == (show.protocol, show.cid)
    assert stream["software"].startswith(SOFTWARE[show.protocol])
    found = {track["codec"]: (track["mode"], track["reason"]) for track in stream["tracks"]}
    assert found == {codec: PASSED[codec] for codec in ("h264", CODEC[show.protocol])}
    assert await show.gateway.metric(started) == earlier + 1
    match show.protocol:
        case "rtmp":
            assert first == 0, "it is a file's beginning, and nothing of it is lost"
        case "whip" if not lost:
            for counter in ("lost", "broken", "undecodable", "ignored"):
                assert await show.gateway.metric(f"ingress_whip_{counter}_total") == 0


@pytest.mark.parametrize("kind", ["video", "audio"])
async def test_one_of_both_alone(show: Show, kind: str) -> None:
    only = {"audio": ()} if kind == "video" else {"video": ()}
    async with show.watching() as viewer:
        async with show.publishing(**only):
            await viewer.until(frames=30 if kind == "video" else 0, audio=50 if kind == "audio" else 0)
            (track,) = (await show.stream())["tracks"]
    assert track["kind"] == kind
    assert bool(viewer.numbers) == (kind == "video")
    assert bool(viewer.audio_frames) == (kind == "audio")


async def test_a_key_that_was_cut_off_is_refused_in_the_encoders_own_words_and_counted(show: Show) -> None:
    key = show.gateway.key(show.cid, show.host)
    counter = f'ingress_refused_total{{protocol="{show.protocol}",reason="unauthorized"}}'
    earlier, lines = await show.gateway.metric(counter), len(show.gateway.log)
    assert TOLD_OF_A_CUT_KEY[show.protocol] in await refusal(show.protocol, show.gateway, key[:-12], show.cid)
    assert await show.gateway.metric(counter) == earlier + 1
    (line,) = (line for line in show.gateway.log[lines:] if line["message"].startswith("refused"))
    assert line["reason"] == "unauthorized"
    assert key[:20] not in str(show.gateway.log)


async def test_an_encoder_that_dies_and_comes_back_goes_on_as_the_same_participant(show: Show) -> None:
    async with show.watching() as viewer:
        async with show.publishing() as encoding:
            await viewer.until(frames=30, audio=30)
            session = (await show.stream(tracks=2))["id"]
            (participant,) = await show.participants()
            encoding.kill()  # no goodbye
            await encoding.wait()
        seen, heard = len(viewer.numbers), viewer.audio_frames
        async with show.publishing(size=SMALL):
            await viewer.until(frames=seen + 60, audio=heard + 60)
            stream = await show.stream(tracks=2)
            (again,) = await show.participants()
    assert (stream["id"], stream["reconnects"]) == (session, 1)
    assert again["joined_at"] == participant["joined_at"]
    assert viewer.sizes == [(640, 360), SMALL]
    assert viewer.frequency == pytest.approx(1000, rel=0.03)


async def test_a_second_encoder_takes_over_from_the_first(show: Show) -> None:
    async with show.watching() as viewer, show.publishing() as first:
        await viewer.until(frames=30, audio=30)
        session = (await show.stream(tracks=2))["id"]
        async with show.publishing(size=SMALL):
            stream = await show.stream(tracks=2, wanted=lambda seen: seen["reconnects"] == 1)
            seen = len(viewer.numbers)
            await viewer.until(frames=seen + 30)
            if show.protocol in TOLD_OF_THE_END:
                async with asyncio.timeout(60):
                    assert await first.wait() != 0
            again = await show.stream(tracks=2)
    assert stream["id"] == again["id"] == session
    assert again["reconnects"] == 1, "the first one does not come between"
    assert viewer.sizes == [(640, 360), SMALL]


async def test_an_encoder_that_stops_has_left_after_the_time_it_is_waited_for(show: Show) -> None:
    async with show.watching() as viewer:
        async with show.publishing(size=SMALL):
            await viewer.until(frames=10)
            session = (await show.stream(tracks=2))["id"]
        assert await show.ended(session) == "the encoder ended the stream"
        assert await show.participants() == []
        assert not viewer.closed.is_set(), "the viewer waits for the next one"


async def test_a_muted_video_is_not_seen_while_the_sound_goes_on(show: Show) -> None:
    async with show.watching() as viewer, show.publishing(size=SMALL):
        await viewer.until(frames=30, audio=30)
        await show.ok("/mute_users", user_ids=[show.host], audio=False, video=True)
        (muted,) = await show.participants()
        assert (muted["muted_audio"], muted["muted_video"]) == (False, True)
        last, heard = viewer.numbers[-1], viewer.audio_frames
        await viewer.until(audio=heard + 150)  # 3 s
        await show.ok("/unmute_users", user_ids=[show.host], video=True)
        seen = len(viewer.numbers)
        await viewer.until(frames=seen + 30)
        (muted,) = await show.participants()
        assert (muted["muted_audio"], muted["muted_video"]) == (False, False)
    missing = set(range(last, viewer.numbers[-1])) - set(viewer.numbers)
    assert len(missing) > 45, viewer.numbers
    assert all(earlier < later for earlier, later in pairwise(viewer.numbers))


@pytest.mark.parametrize("block", [False, True], ids=["kicked", "blocked"])
async def test_a_host_who_is_sent_out_has_to_go_and_does_not_come_back(show: Show, block: bool) -> None:
    async with show.watching() as viewer, show.publishing(size=SMALL) as encoding:
        await viewer.until(frames=10)
        session = (await show.stream(tracks=2))["id"]
        await show.ok("/kick", user_id=show.host, block=block)
        assert "taken you out" in await show.ended(session)
        if show.protocol in TOLD_OF_THE_END:
            async with asyncio.timeout(60):
                assert await encoding.wait() != 0
        assert await show.participants() == []
        await show.comes_back_refused("blocked" if block else "may come back in")
        assert not viewer.closed.is_set()


async def test_a_call_that_is_ended_ends_its_streams_and_sends_its_viewers_home(show: Show) -> None:
    async with show.watching() as viewer, show.publishing(size=SMALL) as encoding:
        await viewer.until(frames=10)
        session = (await show.stream(tracks=2))["id"]
        await show.ok("/mark_ended")
        assert "the call has ended" in await show.ended(session)
        async with asyncio.timeout(60):
            await viewer.closed.wait()
            if show.protocol in TOLD_OF_THE_END:
                assert await encoding.wait() != 0
        await show.comes_back_refused("has ended")


async def test_a_gateway_that_is_stopped_tells_encoders_and_viewers_of_all_protocols_and_ends_in_five_seconds() -> None:
    calls = {protocol: f"livestream:{protocol}" for protocol in PROTOCOLS}
    reordered = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "60", "-threads", "1")
    async with running_gateway(f"calls.public={','.join(calls.values())}") as gateway, AsyncExitStack() as stack:
        viewers, encoders = [], {}
        for protocol, call in calls.items():
            viewers.append(await stack.enter_async_context(watching(gateway.url(f"/whep/{call}"))))
            pasted = Pasted.of_gateway(gateway, call)
            video = reordered if protocol == "rtmp" else X264_LIVE  # one of them is transcoded
            encoders[protocol] = await stack.enter_async_context(publishing(protocol, pasted, video=video, size=SMALL))
        for viewer in viewers:
            await viewer.until(frames=30, audio=30)
        async with asyncio.timeout(5):
            assert await gateway.terminate() == 0
            for viewer in viewers:
                await viewer.closed.wait()  # DTLS close_notify, long before consent is lost
            for protocol in TOLD_OF_THE_END:
                assert await encoders[protocol].wait() != 0
    ended = [line for line in gateway.log if line["message"] == "ended"]
    assert len(ended) == len(PROTOCOLS)
    for line in ended:
        assert "shutting down" in line["why"]
        of_it = [each for each in gateway.log if each.get("session") == line["session"]]
        assert len(of_it) <= 6, of_it
    assert not [line for line in gateway.log if line["level"] == "error"]
