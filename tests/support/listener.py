"""A client of the gateway's WebSocket that listens to one call, and can speak in it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass
class Client:
    """`told`: the call's events so far."""

    ws: aiohttp.ClientWebSocketResponse
    cid: str
    told: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    async def until(self, kind: str, timeout: float = 60) -> dict[str, Any]:
        """The first event of this type, be it told already."""
        async with asyncio.timeout(timeout):
            while True:
                for event in self.told:
                    if event["type"] == kind:
                        return event
                await self._hear()

    async def ask(self, kind: str, timeout: float = 60, **fields: Any) -> dict[str, Any]:
        """The answer to a message about the call."""
        await self.ws.send_json({"type": kind, "id": str(len(self.answers)), "cid": self.cid, **fields})
        n = len(self.answers)
        async with asyncio.timeout(timeout):
            while len(self.answers) == n:
                await self._hear()
        return self.answers[n]

    async def _hear(self) -> None:
        message = await self.ws.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, (message, self.ws.close_code)
        said = json.loads(message.data)
        if "payload" in said:
            self.told.append(said)
        elif "reply_to" in said:
            self.answers.append(said)


@asynccontextmanager
async def listening(url: str, cid: str, token: str = "") -> AsyncIterator[Client]:
    """`url` is that of `/api/v2/video/connect`. Subscribed to the call."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url) as ws:
        await ws.send_json({"type": "authenticate", "token": token})
        client = Client(ws, cid)
        answer = await client.ask("subscribe")
        assert answer["type"] == "subscribed", answer
        yield client
