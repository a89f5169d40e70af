"""Nobody makes more of anybody than they are, nor shuts themselves out; and what an application's key gave goes with the key."""

import secrets
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.application import Application, command, new_key, running_application
from tests.support.gateway_process import running_gateway
from tests.support.publishing import OFFER
from tests.support.waiting import eventually

CALL, CID = "/call/livestream/x", "livestream:x"
MADE = {"data": {"created_by_id": "john", "members": [{"user_id": "john", "role": "host"}]}}
SDP = {"Content-Type": "application/sdp"}


def gives(user: str, role: str) -> dict[str, Any]:
    return {"update_members": [{"user_id": user, "role": role}]}


async def publishes(application: Application, token: str) -> int:
    """The status of an offer to publish; what it makes is ended."""
    address = application.gateway.url(f"/whip/{CID}")
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(address, data=OFFER, headers=SDP) as made:
        if made.status == 201:
            await http.delete(application.gateway.url(made.headers["Location"]))
        return made.status


async def test_nobody_gives_a_role_above_their_own_nor_blocks_themselves() -> None:
    async with running_application() as application:
        await application.ok("POST", CALL, MADE)
        for user in ("john", "amy"):
            status, answer = await application.ask("POST", f"{CALL}/members", gives(user, "admin"), user="john")
            assert (status, "above your own role" in str(answer)) == (403, True)
        await application.ok("POST", f"{CALL}/members", gives("amy", "host"), user="john")
        for path, body in (("/block", {}), ("/kick", {"block": True})):
            status, answer = await application.ask("POST", CALL + path, {"user_id": "john", **body}, user="john")
            assert (status, "yourself" in str(answer)) == (400, True)


async def test_what_a_key_gave_goes_with_it(tmp_path: Path) -> None:
    state, secret = str(tmp_path), secrets.token_hex(32)
    keys = [await new_key(state, secret) for _ in range(2)]
    async with running_gateway(f"state.directory={state}", secret=secret) as gateway:
        application, leaked = [Application(gateway, *key) for key in keys]
        await application.ok("POST", CALL, MADE)
        await leaked.ok("POST", f"{CALL}/members", gives("eve", "host"))
        key = (await leaked.ok("POST", f"{CALL}/stream_keys", {}, user="john"))["key"]
        shown = {"eve": application.token("eve"), "john's key": key}
        assert {await publishes(application, token) for token in shown.values()} == {201}
        await command(secret, "apikey", "revoke", leaked.api_key, "--set", f"state.directory={state}")

        async def refused() -> bool:
            return {await publishes(application, token) for token in shown.values()} <= {401, 403}

        await eventually(refused, within_s=10)
        assert await publishes(application, application.token("john")) == 201
