"""Whoever shows wrong tokens is slowed by their address at every way in over HTTP, and a good one is let in all the same."""

from collections.abc import Mapping

import aiohttp
import pytest

from tests.support.application import BASE, Application, running_application

MOST = 5
SDP = {"Content-Type": "application/sdp"}
WAYS = {
    "the API": ("GET", f"{BASE}/call/livestream/demo", {}),
    "a list": ("POST", f"{BASE}/calls", {}),
    "the page of live streams": ("GET", "/api/streams", {}),
    "WHIP": ("POST", "/whip/livestream:demo", SDP),
    "WHEP": ("POST", "/whep/livestream:secret", SDP),
    "HLS": ("GET", "/hls/livestream:secret", {}),
    "draining": ("POST", "/drain", {}),
    "events": (
        "GET",
        f"{BASE}/connect",
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="},
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_wrong_tokens_are_slowed_by_address_whichever_way_they_come(way: str) -> None:
    method, path, headers = WAYS[way]
    async with running_application(f"auth.max_failures_per_minute={MOST}", "calls.public=livestream:demo") as application:
        await application.ok("POST", "/call/livestream/secret", {"data": {"created_by_id": "john"}})
        wrong = application.token("john")[:-4] + "AAAA"
        statuses = [await asked(application, method, path, wrong, headers) for _ in range(MOST + 2)]
        assert statuses == [401] * MOST + [429] * 2
        assert await asked(application, "GET", "/api/streams", application.token("john"), {}) == 200


async def asked(application: Application, method: str, path: str, token: str, headers: Mapping[str, str]) -> int:
    shown = {"Authorization": f"Bearer {token}", **headers}
    async with aiohttp.ClientSession() as http, http.request(method, application.gateway.url(path), headers=shown) as response:
        return response.status
