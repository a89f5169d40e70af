"""The address of a playlist that somebody was given ends with their right to watch, whatever takes it from them, within one request."""

import re
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest

from tests.support.application import Application, running_application

WATCHES = ["read-call", "join-call"]
CALL = "/call/club/x"
Steps = list[tuple[str, str, Any]]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([("POST", f"{CALL}/members", {"remove_members": ["ann"]})], id="removed"),
        pytest.param([("POST", f"{CALL}/members", {"update_members": [{"user_id": "ann", "role": "user"}]})], id="demoted"),
        pytest.param([("POST", f"{CALL}/block", {"user_id": "ann"})], id="blocked"),
        pytest.param([("POST", f"{CALL}/kick", {"user_id": "ann"})], id="kicked"),
        pytest.param([("PUT", "/calltypes/club", {"grants": {"guest": []}})], id="the role's grants changed"),
        pytest.param([("POST", f"{CALL}/mark_ended", None)], id="ended"),
        pytest.param([("DELETE", CALL, None)], id="deleted"),
    ],
)
async def test_an_address_ends_with_the_right_to_watch(steps: Steps) -> None:
    async with running_application("hls.auto=true") as application:
        await application.ok("POST", "/calltypes", {"name": "club", "grants": {"guest": WATCHES, "host": WATCHES}})
        members = [{"user_id": each, "role": "guest"} for each in ("ann", "bob")]
        await application.ok("POST", CALL, {"data": {"created_by_id": "john", "members": members}})
        await application.ok("POST", f"{CALL}/go_live")
        anns, bobs = [await address(application, user) for user in ("ann", "bob")]
        assert anns != bobs
        assert await asked_for(anns) == await asked_for(bobs) == HTTPStatus.NOT_FOUND, "they are let in, and there is no stream"
        for method, path, body in steps:
            await application.ok(method, path, body)
        assert await asked_for(anns) == HTTPStatus.FORBIDDEN
        alone = "ann" in str(steps)
        assert await asked_for(bobs) == (HTTPStatus.NOT_FOUND if alone else HTTPStatus.FORBIDDEN)


async def test_an_address_has_one_spelling() -> None:
    async with running_application("hls.auto=true") as application:
        await application.ok("POST", "/calltypes", {"name": "club", "grants": {"guest": WATCHES}})
        member = {"user_id": "ann", "role": "guest"}
        await application.ok("POST", CALL, {"data": {"created_by_id": "john", "members": [member]}})
        await application.ok("POST", f"{CALL}/go_live")
        anns = await address(application, "ann")
        expires = re.search(r"/([0-9a-f]{8})\.", anns)
        assert expires is not None
        assert await asked_for(anns) == HTTPStatus.NOT_FOUND, "they are let in, and there is no stream"
        spellings = [
            form % expires[1]
            for form in ("0%s", "000000000000%s", "0x%s", "%%20%s", "%s_", "%s%%0A", "-0%s", "9" * 5000 + "%s")
        ]
        spellings += {expires[1].upper(), f"{expires[1][:4]}_{expires[1][4:]}"} - {expires[1]}
        for spelling in spellings:
            async with aiohttp.ClientSession() as http, http.get(beside(anns.replace(expires[1], spelling))) as refused:
                assert (refused.status, "address" in await refused.text()) in ((403, True), (404, True)), spelling[:20]


async def address(application: Application, user: str) -> str:
    return str((await application.ok("GET", CALL, user=user))["call"]["egress"]["hls"]["playlist_url"])


def beside(url: str) -> str:
    """A stream that there is not, which nobody waits for."""
    return url.replace("index.m3u8", "none/index.m3u8")


async def asked_for(url: str) -> int:
    async with aiohttp.ClientSession() as http, http.get(beside(url)) as response:
        return response.status
