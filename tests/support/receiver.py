"""A webhook's receiver: a real HTTP server that notes what it is told, and answers, fails or hangs as the test wants."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Receiver:
    """`told` holds the events that it took, in the order of its answers; `asked` every request: its headers and body."""

    url: str = ""
    status: int = 200
    refused: str = ""  # a type of event that is answered with `status`; empty: all
    working: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: it hangs
    told: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self.news:
            self.asked.append((dict(request.headers), body))
            self.news.notify_all()
        await self.working.wait()
        event = json.loads(body)
        status = self.status if self.refused in ("", event["type"]) else 200
        headers = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
        async with self.news:
            if status == 200:
                self.told.append(event)
            self.news.notify_all()
        return web.Response(status=status, headers=headers)

    async def told_of(self, n: int, timeout: float = 60) -> list[dict[str, Any]]:
        """The first `n` events, once it has taken so many."""
        async with asyncio.timeout(timeout), self.news:
            await self.news.wait_for(lambda: len(self.told) >= n)
        return self.told[:n]

    async def asked_for(self, n: int, timeout: float = 60) -> None:
        async with asyncio.timeout(timeout), self.news:
            await self.news.wait_for(lambda: len(self.asked) >= n)


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    receiver.working.set()
    application = web.Application()
    application.add_routes([web.post("/hook", receiver.take)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        receiver.working.set()
        await runner.cleanup()
