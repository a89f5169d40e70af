"""What an application signed and does not say gives no power, over the wire: it is refused in words that name the part."""

import base64
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.application import Application, new_key, running_application
from tests.support.gateway_process import running_gateway

DAY_S: Final = 86400
HEADS: Final = (
    "[" * 1400,
    '{"alg":"HS256","a":' + "[" * 1400,
    '{"alg":7}',
    '{"alg":"HS256","kid":[]}',
    '{"alg":"HS256","crit":["x"]}',
)


def missing() -> Iterator[tuple[dict[str, Any], str]]:
    """Claims, and the part of them that the refusal names."""
    soon = {"exp": int(time.time()) + 600}
    yield {}, "exp"
    yield soon, "user_id"
    yield {"sub": "john", **soon}, "user_id"
    yield {"userId": "john", **soon}, "user_id"
    yield {"user_id": None, **soon}, "user_id is null"
    yield {"server": None, **soon}, "server is null"
    yield {"server": True}, "exp"
    yield {"server": True, "call_cids": [], **soon}, "call_cids is []"
    yield {"server": True, "call_cids": None, **soon}, "call_cids is null"
    yield {"server": True, "callCids": ["livestream:x"], **soon}, "spells call_cids"
    yield {"user_id": "john", "exp": int(time.time()) + 31 * DAY_S}, "exp is sooner"


def signed(secret: bytes, body: str, head: str = '{"alg":"HS256","typ":"JWT"}') -> str:
    text = ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in (head, body))
    return f"{text}.{base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), 'sha256')).rstrip(b'=').decode()}"


async def asked(application: Application, token: str) -> tuple[int, str]:
    """The answer to who wants to see the application's users."""
    address = application.url("/users/query")
    async with aiohttp.ClientSession() as http, http.post(address, json={}, headers={"Authorization": token}) as answer:
        return answer.status, await answer.text()


async def test_what_a_token_leaves_out_gives_it_nothing() -> None:
    async with running_application() as application:
        for claims, named in missing():
            status, text = await asked(application, signed(application.secret.encode(), json.dumps(claims)))
            assert (status, named in text) == (401, True), (claims, text)
        for head in HEADS:
            status, text = await asked(application, signed(application.secret.encode(), '{"user_id":"john"}', head))
            assert status == 401, (head, text)
        assert (await asked(application, application.token()))[0] == 200


async def test_secrets_that_do_not_open_sign_nothing(tmp_path: Path) -> None:
    api_key, _ = await new_key(str(tmp_path), secrets.token_hex(32))
    async with running_gateway(f"state.directory={tmp_path}") as gateway:  # with another secret
        forged = signed(b"", json.dumps({"server": True, "exp": int(time.time()) + 600}))
        status, text = await asked(Application(gateway, api_key, ""), forged)
        assert status == 401, text
        assert (await gateway.logged("signs nothing"))["level"] == "error"
