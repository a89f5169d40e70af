"""Events to a thousand subscribers of one call: what each costs the gateway, how late the last one has it, and what media notices; and what
API and media notice of a webhook whose receiver hangs.

A real gateway; 1,000 clients that only count bytes, and 20 that measure from the sender's clock to the arrival; messages of 200 characters.
"""

import asyncio
import base64
import json
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median, quantiles

import aiohttp
import psutil

from gateway.access.jwt import VIEWER
from gateway.events.fanout import text_frame
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.receiver import receiving
from tests.support.viewer import watching

CALL = "livestream:demo"
PATH = "/api/v2/video/connect"
SINKS, MEASURING = 1000, 20
RATES = (2, 10, 50)  # events a second
SECONDS = 8
TEXT = "x" * 200


class Sink(asyncio.Protocol):
    """A subscriber that costs this process next to nothing: it counts what comes."""

    def __init__(self) -> None:
        self.bytes = 0
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self.news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        upgrade = (
            f"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13"
        )
        transport.write(f"GET {PATH} HTTP/1.1\r\n{upgrade}\r\n\r\n".encode())
        for message in ({"type": "authenticate"}, {"type": "subscribe", "cid": CALL}):
            transport.write(_masked(json.dumps(message)))

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if b'"subscribed"' in data:
            self.news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.news.set()


def _masked(text: str) -> bytes:
    """A client's frame (RFC 6455 §5.3); a mask of zeros changes nothing."""
    frame = text_frame(text)
    assert len(frame) < 128
    return frame[:1] + bytes((frame[1] | 0x80,)) + bytes(4) + frame[2:]


async def client(stack: AsyncExitStack, gateway: GatewayProcess, user: str = "") -> aiohttp.ClientWebSocketResponse:
    http = await stack.enter_async_context(aiohttp.ClientSession())
    ws = await stack.enter_async_context(http.ws_connect(gateway.url(PATH)))
    token = gateway.tokens.issue(user, [CALL], 3600, VIEWER) if user else ""
    await ws.send_json({"type": "authenticate", "token": token})
    await ws.send_json({"type": "subscribe", "cid": CALL})
    while json.loads((await ws.receive()).data)["type"] != "subscribed":
        pass
    return ws


@dataclass
class Arrivals:
    """How late events came to some clients (ms)."""

    delays: list[float] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def measure(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            now = time.monotonic()
            event = json.loads(message.data)
            if event["type"] == "custom":
                self.delays.append((now - event["payload"]["custom"]["at"]) * 1000)
                self.news.set()

    async def until(self, number: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self.delays) < number:
                self.news.clear()
                await self.news.wait()


async def talk(senders: list[aiohttp.ClientWebSocketResponse], rate: int) -> int:
    begun, sent = time.monotonic(), 0
    while (now := time.monotonic()) < begun + SECONDS:
        await senders[sent % len(senders)].send_json({"type": "custom", "cid": CALL, "custom": {"at": now, "text": TEXT}})
        sent += 1
        await asyncio.sleep(max(0, begun + sent / rate - time.monotonic()))
    return sent


async def figures(gateway: GatewayProcess) -> str:
    """The 95th percentile of the last minute, of events and of timers."""
    told = await gateway.metric('ingress_event_delay_seconds{quantile="0.95"}')
    loop = await gateway.metric('ingress_event_loop_delay_seconds{quantile="0.95"}')
    return f"p95 {told * 1e3:.1f} ms, event loop late by p95 {loop * 1e3:.1f} ms"


async def webhook(hanging: bool) -> None:
    """A live stream and 20 events a second; the time of 200 API requests, and the media's delay."""
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving())
        hook = [f"webhooks.url={receiver.url}", f"webhooks.secret={'s' * 40}", "webhooks.allow_private=true"]
        gateway = await stack.enter_async_context(running_gateway(*(hook if hanging else [])))
        receiver.working.clear()
        await stack.enter_async_context(watching(gateway.url(f"/whep/{CALL}")))
        await stack.enter_async_context(ffmpeg(*programme(), *X264_LIVE, "-an", "-f", "flv", gateway.rtmp()))
        await gateway.stream()
        talking = asyncio.create_task(talk([await client(stack, gateway, f"user{n}") for n in range(10)], 20))
        took: list[float] = []
        for _ in range(200):
            begun = time.monotonic()
            await gateway.json("/api/v2/openapi.json")
            took.append((time.monotonic() - begun) * 1e3)
            await asyncio.sleep(0.02)
        await talking
        labels = 'kind="video",mode="passthrough",protocol="rtmp",quantile="0.95"'
        media = await gateway.metric(f"ingress_latency_seconds{{{labels}}}")
        waiting = await gateway.metric("ingress_webhook_waiting")
        print(
            f"webhook {'hangs' if hanging else 'none '}: API p50 {median(took):.1f} ms, p95 {quantiles(took, n=20)[18]:.1f} ms; "
            f"media p95 {media * 1e3:.2f} ms; events waiting {waiting:.0f}"
        )


async def main() -> None:
    await subscribers()
    for hanging in (False, True):
        await webhook(hanging)


async def subscribers() -> None:
    async with running_gateway() as gateway, AsyncExitStack() as stack:
        loop = asyncio.get_running_loop()
        sinks: list[Sink] = []
        for _ in range(SINKS):
            _, sink = await loop.create_connection(Sink, "127.0.0.1", gateway.ports["http"])
            sinks.append(sink)
        for sink in sinks:
            await asyncio.wait_for(sink.news.wait(), 60)
        measuring = [await client(stack, gateway) for _ in range(MEASURING)]
        senders = [await client(stack, gateway, f"user{n}") for n in range(20)]
        arrivals, last = Arrivals(), Arrivals()  # the senders came last, and are told last
        tasks = [asyncio.create_task(arrivals.measure(ws)) for ws in measuring]
        tasks += [asyncio.create_task(last.measure(ws)) for ws in senders]
        process = psutil.Process(gateway.pid)
        print(f"memory with {SINKS + MEASURING + len(senders)} clients: {process.memory_info().rss >> 20} MiB")
        for rate in RATES:
            arrivals.delays.clear()
            last.delays.clear()
            cpu = sum(process.cpu_times()[:2])
            before = await gateway.metric("ingress_events_sent_total")
            sent = await talk(senders, rate)
            await arrivals.until(sent * len(measuring))
            await last.until(sent * len(senders))
            cpu = sum(process.cpu_times()[:2]) - cpu
            told = await gateway.metric("ingress_events_sent_total") - before
            p50, p95 = quantiles(arrivals.delays, n=20)[9], quantiles(arrivals.delays, n=20)[18]
            print(
                f"{rate:3} events/s: {sent} events, {told:.0f} told, CPU {cpu / SECONDS:.1%}, {cpu / told * 1e6:.1f} µs each; "
                f"from sender to reader p50 {p50:.1f} ms, p95 {p95:.1f} ms; in the gateway {await figures(gateway)}; "
                f"lost {sum(s.lost for s in sinks)}"
            )
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
