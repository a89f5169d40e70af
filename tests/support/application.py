"""An application in front of a real gateway: it has an API key, signs tokens for its users, and asks the livestream API."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import jwt

from tests.support import gateway_forks
from tests.support.gateway_process import GatewayProcess, running_gateway

BASE = "/api/v2/video"


@dataclass(frozen=True)
class Application:
    gateway: GatewayProcess
    api_key: str
    secret: str

    def token(self, user: str = "", *, lasts_s: int = 3600, **claims: Any) -> str:
        """For a user, or (without one) for the application's server."""
        who = {"user_id": user} if user else {"server": True}
        return jwt.encode({**who, "exp": int(time.time()) + lasts_s, **claims}, self.secret, algorithm="HS256")

    def url(self, path: str) -> str:
        return self.gateway.url(f"{BASE}{path}?api_key={self.api_key}")

    async def ask(self, method: str, path: str, body: Any = None, *, user: str | None = "") -> tuple[int, Any]:
        """The status and the answer; `user` None: nobody in particular."""
        headers = {"stream-auth-type": "anonymous"} if user is None else {"Authorization": self.token(user)}
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.url(path), json=body, headers=headers) as response,
        ):
            return response.status, await response.json()

    async def ok(self, method: str, path: str, body: Any = None, *, user: str | None = "") -> Any:
        """The answer of a request that must succeed."""
        status, answer = await self.ask(method, path, body, user=user)
        assert status in (200, 201), (method, path, status, answer)
        return answer


@asynccontextmanager
async def running_application(*settings: str) -> AsyncIterator[Application]:
    """A gateway with `settings` and an application of it, whose key the command line has made before it started."""
    secret = secrets.token_hex(32)
    with TemporaryDirectory() as directory:
        api_key, its_secret = await new_key(directory, secret)
        async with running_gateway(*settings, f"state.directory={directory}", secret=secret) as gateway:
            yield Application(gateway, api_key, its_secret)


async def new_key(directory: str, secret: str) -> tuple[str, str]:
    """Of an application, and its secret, for gateways with this state directory and secret."""
    printed = await command(secret, "apikey", "create", "--name", "tests", "--set", f"state.directory={directory}")
    found = dict(re.findall(r"^(API key|Secret): +(\S+)$", printed, re.MULTILINE))
    return found["API key"], found["Secret"]


async def command(secret: str, *arguments: str) -> str:
    """What the command `gateway` prints, which must succeed."""
    process = await gateway_forks.start(*arguments, environment={"GATEWAY_AUTH__SECRET": secret})
    output, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
    assert await process.wait() == 0, errors.decode()
    return output.decode()


async def told(socket: aiohttp.ClientWebSocketResponse, kind: str, timeout: float = 60) -> Any:
    """The next event of this type."""
    async with asyncio.timeout(timeout):
        while True:
            event = json.loads(await socket.receive_str())
            if event.get("type") == kind:
                return event
