"""The story of a livestream, as an application tells it over HTTP: a call is created and is in backstage, three hosts publish by RTMP, SRT
and WHIP, a viewer is refused, the call goes live, a browser shows the three, people react, one is removed, and the show is over.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from playwright.async_api import Page

from tests.browser.chromium import moving_picture, open_page, state, until
from tests.support.application import Application, running_application, told
from tests.support.encoders import X264_LIVE, ffmpeg, programme

CALL = "/call/livestream/show"
CID = "livestream:show"
# As the documentation of the user's system has it, but for the host.
CURL = """
curl -X POST "%s/api/v2/video/call/livestream/${CALL_ID}?api_key=${API_KEY}" \\
  -H "Authorization: ${TOKEN}" \\
  -H "Content-Type: application/json" \\
  -H "stream-auth-type: jwt" \\
  -d '{
    "data": {
      "created_by_id": "john",
      "members": [
        { "role": "host", "user_id": "john" }
      ]
    }
  }'
"""
PICTURE = [*programme(320, 180, 15), *X264_LIVE]
THREE_PICTURES = "[...document.querySelectorAll('video')].filter((video) => video.videoWidth === 320).length === 3"
NO_PICTURE = "[...document.querySelectorAll('video')].every((video) => video.videoWidth === 0)"


async def test_a_livestream_from_its_creation_to_its_end() -> None:
    async with running_application() as application:
        call = await created_by_curl(application)
        assert call["backstage"] is True
        await application.ok(
            "POST",
            f"{CALL}/members",
            {"update_members": [{"user_id": each, "role": "host"} for each in ("amy", "zoe")]},
            user="john",
        )
        async with published(application, call):
            await everybody_in(application)
            await strangers_are_shown_no_streams(application)
            await viewers_are_refused_in_backstage(application)
            async with aiohttp.ClientSession() as http:
                await the_show(application, http)


async def created_by_curl(application: Application) -> Any:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", CURL % application.gateway.url("")),
        env={"PATH": "/usr/bin:/bin", "CALL_ID": "show", "API_KEY": application.api_key, "TOKEN": application.token()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    answer = json.loads(output)
    assert answer["created"] is True
    assert [(each["user_id"], each["role"]) for each in answer["members"]] == [("john", "host")]
    return answer["call"]


@contextlib.asynccontextmanager
async def published(application: Application, call: Any) -> AsyncIterator[None]:
    """John by RTMP with his own token as the stream key, Amy by SRT and Zoe by WHIP with short stream keys."""
    addresses = {name: each["address"] for name, each in call["ingress"].items()}
    amy = await application.ok("POST", f"{CALL}/stream_keys", {}, user="amy")
    zoe = await application.ok("POST", f"{CALL}/stream_keys", {"user_id": "zoe", "expires_in_seconds": 3600}, user="john")
    assert addresses["whip"] == zoe["whip"]["server"]
    aac, opus = ("-c:a", "aac"), ("-c:a", "libopus", "-ar", "48000", "-ac", "2")
    whip = ["-f", "whip", "-authorization", zoe["whip"]["bearer_token"], addresses["whip"]]
    async with (
        ffmpeg(*PICTURE, *aac, "-f", "flv", f"{addresses['rtmp']}/{application.token('john')}"),
        ffmpeg(*PICTURE, *aac, "-f", "mpegts", amy["srt"]["address"]),
        ffmpeg(*PICTURE, *opus, *whip, version=9),
    ):
        yield


async def everybody_in(application: Application) -> None:
    for user in ("john", "amy", "zoe"):
        await application.gateway.stream(user, tracks=2, timeout=60, token=application.token("john"))
    streams = (await application.ok("GET", f"{CALL}/streams"))["streams"]
    live = {each["user"]: each["protocol"] for each in streams if each["state"] == "live" and len(each["tracks"]) == 2}
    assert live == {"john": "rtmp", "amy": "srt", "zoe": "whip"}
    session = (await application.ok("GET", CALL, user="john"))["call"]["session"]
    assert {each["user_id"] for each in session["participants"]} == {"john", "amy", "zoe"}
    stream = (await application.ok("GET", f"{CALL}/streams/john", user="amy"))["stream"]
    assert {each["codec"]: each["mode"] for each in stream["tracks"]} == {"h264": "passthrough", "aac": "transcode"}
    assert all(each["why"] for each in stream["tracks"])


async def strangers_are_shown_no_streams(application: Application) -> None:
    for token, users in (
        ("", set()),
        (application.token("viewer"), set()),
        (application.token("john"), {"john", "amy", "zoe"}),
    ):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as http,
            http.get(application.gateway.url("/api/streams"), headers=headers) as response,
        ):
            assert {each["user"] for each in (await response.json())["streams"]} == users


async def viewers_are_refused_in_backstage(application: Application) -> None:
    for user, status, why in (("viewer", 403, "backstage"), (None, 401, "without a token")):
        headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {application.token(user)}"} if user else {})
        address = application.gateway.url(f"/whep/{CID}")
        async with aiohttp.ClientSession() as http, http.post(address, data="v=0", headers=headers) as response:
            assert response.status == status
            assert why in (await response.json())["detail"]
    assert (await application.ask("GET", CALL, user=None))[0] == 401
    seen = (await application.ok("GET", CALL, user="viewer"))["call"]["session"]
    assert (seen["participants"], seen["viewers"]) == ([], 0)
    assert (await application.ask("POST", f"{CALL}/go_live", user="viewer"))[0] == 403


async def listening_in_backstage(page: Page) -> None:
    """The watch page has been refused, and will hear when the call is live."""
    subscribed = asyncio.Event()

    def hears(frame: str | bytes) -> None:
        if "subscribed" in str(frame):
            subscribed.set()

    address = page.url
    await page.goto("about:blank")  # no socket of the page before is taken for the one that hears
    page.once("websocket", lambda socket: socket.on("framereceived", hears))
    await page.goto(address)
    async with asyncio.timeout(60):
        await subscribed.wait()
    await state(page, "error", 60)


async def the_show(application: Application, http: aiohttp.ClientSession) -> None:
    bearer = {"Authorization": application.token("viewer")}
    async with (
        http.ws_connect(application.url("/connect"), headers=bearer) as socket,
        open_page(application.gateway.url(f"/watch/{CID}#token={application.token('viewer')}")) as (page, _),
    ):
        await socket.send_json({"type": "subscribe", "id": "1", "cid": CID})
        assert (await told(socket, "subscribed"))["cid"] == CID
        await listening_in_backstage(page)
        live = await application.ok("POST", f"{CALL}/go_live", user="john")
        assert live["call"]["live"] is True
        await told(socket, "call.live_started")
        await until(page, THREE_PICTURES, 60)
        assert await moving_picture(page, timeout_s=60)
        assert sorted(await page.locator(".name").all_inner_texts()) == ["amy", "john", "zoe"]
        assert (await application.ok("GET", CALL, user="john"))["call"]["session"]["viewers"] == 1

        await application.ok("POST", f"{CALL}/reaction", {"type": "like", "emoji_code": "👍"}, user="viewer")
        reaction = await told(socket, "call.reaction_new")
        assert reaction["payload"]["reaction"]["type"] == "like"
        assert reaction["payload"]["user"]["id"] == "viewer"

        await application.ok("POST", f"{CALL}/mute_users", {"user_ids": ["amy"], "video": True}, user="john")
        muted = (await application.ok("GET", CALL, user="john"))["call"]["session"]["participants"]
        assert {each["user_id"] for each in muted if each["muted_audio"] and each["muted_video"]} == {"amy"}
        await page.get_by_text("Picture muted").wait_for()
        assert await page.locator(".muted:visible").all_inner_texts() == ["Muted"]

        await application.ok("POST", f"{CALL}/kick", {"user_id": "zoe", "block": True}, user="john")
        await application.gateway.logged("the call's host has taken you out of it", 60)
        await application.ok("POST", f"{CALL}/stop_live", user="john")
        await told(socket, "call.live_ended")
        await until(page, NO_PICTURE, 60)
        stopped = (await application.ok("GET", CALL, user="john"))["call"]
        assert (stopped["backstage"], stopped["session"]["viewers"]) == (True, 0)
        assert {each["user_id"] for each in stopped["session"]["participants"]} == {"john", "amy"}

        await application.ok("DELETE", f"{CALL}/streams/amy", user="john")
        await application.gateway.logged("the stream was ended by the call's host", 60)
        await application.ok("POST", f"{CALL}/mark_ended", user="john")
        await told(socket, "call.ended")
        await application.gateway.logged("the call has ended", 60)
