"""A stand-in for the gateway's HTTP side, so that each page is tested by itself: our real pages, and a WHEP and an API that do as told.

Its calls are real too: aiortc sends a moving picture and a tone, so that the page's connection, tiles and statistics are exercised.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy
from aiohttp import web
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription, VideoStreamTrack

from gateway.api.pages import Pages
from gateway.config import Config

_LINKS = '<{0}/events>; rel="urn:ietf:params:whep:ext:core:server-sent-events", <{0}/layer>; rel="urn:ietf:params:whep:ext:core:layer"'


class MovingPicture(VideoStreamTrack):
    """A bright square that crosses a dark gradient, 320x180."""

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        picture = numpy.zeros((180, 320, 3), dtype=numpy.uint8)
        picture[:, :, 2] = numpy.linspace(0, 200, 320, dtype=numpy.uint8)
        left = (pts // 3000 * 7) % 260
        picture[60:120, left : left + 60] = 255
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    """440 Hz at a quarter of full scale."""

    async def recv(self) -> av.AudioFrame:
        silent = await super().recv()
        assert isinstance(silent, av.AudioFrame)
        assert silent.pts is not None
        rate, samples = silent.sample_rate, silent.samples
        at = (silent.pts + numpy.arange(samples)) / rate
        wave = (8000 * numpy.sin(2 * numpy.pi * 440 * at)).astype(numpy.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, silent.pts, Fraction(1, rate)
        return frame


@dataclass(slots=True)
class FakeGateway:
    """What the pages are to see, and what they did."""

    address: str = ""
    streams: list[dict[str, Any]] = field(default_factory=list)
    participants: list[tuple[str, str]] = field(default_factory=list)  # (id, name), in slots in this order
    unplayable: dict[str, str] = field(default_factory=dict)  # participant -> the codec that the page is told it cannot show
    muted: dict[str, set[str]] = field(default_factory=dict)  # participant -> kinds
    refusal: tuple[int, dict[str, str]] | None = None
    answering: asyncio.Event | None = None  # refusals are said once it is set
    asked: list[tuple[int, str]] = field(default_factory=list)  # per offer: its video m-lines, its Authorization
    sizes: list[dict[str, Any]] = field(default_factory=list)  # of tiles, as the page told them
    deleted: asyncio.Event = field(default_factory=asyncio.Event)
    peers: list[RTCPeerConnection] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    capabilities: list[str] = field(default_factory=list)  # what the page may do in the call
    said: list[dict[str, Any]] = field(default_factory=list)  # what it said over its WebSocket
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=lambda: {"type": "sent"})  # to what it sends
    recent: list[dict[str, Any]] = field(default_factory=list)  # what was said before a page came
    told: int = 0

    def event(self, kind: str, **payload: Any) -> dict[str, Any]:
        """A new one, of the call."""
        self.told += 1
        at = "2026-11-25T10:00:00.000+00:00"
        return {"id": f"evt_{self.told}", "type": kind, "cid": "livestream:demo", "created_at": at, "payload": payload}

    async def show(self, *participants: tuple[str, str]) -> None:
        self.participants = list(participants)
        async with self.changed:
            self.changed.notify_all()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/streams", self._streams),
            web.post("/whep/{call}", self._offer),
            web.delete("/whep/resource/{id}", self._delete),
            web.get("/whep/resource/{id}/events", self._events),
            web.post("/whep/resource/{id}/layer", self._layer),
            web.get("/api/v2/video/connect", self._connect),
        ]

    async def _streams(self, request: web.Request) -> web.Response:
        return web.json_response({"streams": self.streams})

    async def _offer(self, request: web.Request) -> web.Response:
        offer = await request.text()
        self.asked.append((offer.count("m=video"), request.headers.get("Authorization", "")))
        if self.refusal is not None:
            status, problem = self.refusal
            if self.answering is not None:
                await self.answering.wait()
            return web.json_response(problem, status=status, content_type="application/problem+json")
        # aiortc is no lite agent: without a candidate it does not even start. This one leads nowhere; the browser's checks find it.
        offer = offer.replace("a=mid:", "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\na=mid:")
        peer = RTCPeerConnection()
        self.peers.append(peer)
        for _ in range(min(len(self.participants) or 1, self.asked[-1][0])):  # aiortc cannot send what was not asked for
            peer.addTrack(MovingPicture())
            peer.addTrack(Tone())
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return web.Response(
            status=201,
            text=peer.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": (location := f"/whep/resource/{len(self.peers) - 1}"), "Link": _LINKS.format(location)},
        )

    async def tell(self, kind: str, **payload: Any) -> None:
        """An event of the call, to every page."""
        event = self.event(kind, **payload)
        for socket in self.sockets:
            await socket.send_json(event)

    async def _connect(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        try:
            async for message in socket:
                said = json.loads(message.data)
                async with self.changed:
                    self.said.append(said)
                    self.changed.notify_all()
                match said["type"]:
                    case "authenticate":
                        user = {"id": "vera" if said["token"] else "", "name": "", "role": "user"}
                        await socket.send_json({"type": "connection.ok", "user": user})
                    case "subscribe":
                        form = {"type": "subscribed", "own_capabilities": self.capabilities, "recent": self.recent}
                        await socket.send_json(form | {"reply_to": said["id"]})
                    case _:
                        await socket.send_json(self.answer | {"reply_to": said["id"]})
        finally:
            self.sockets.remove(socket)
        return socket

    async def heard(self, kind: str) -> dict[str, Any]:
        """The first message of this type that a page has said."""
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: any(said["type"] == kind for said in self.said))
        return next(said for said in self.said if said["type"] == kind)

    async def _layer(self, request: web.Request) -> web.Response:
        self.sizes.append(await request.json())
        async with self.changed:
            self.changed.notify_all()
        return web.Response()

    async def until_size(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: bool(self.sizes) and wanted(self.sizes[-1]))

    async def _delete(self, request: web.Request) -> web.Response:
        self.deleted.set()
        return web.Response()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        pairs = self.asked[int(request.match_info["id"])][0]
        while True:
            shown = self.participants[:pairs]
            slots = [
                {
                    "slot": n,
                    "video_mid": str(2 * n),
                    "audio_mid": str(2 * n + 1),
                    "participant": i,
                    "name": name,
                    "video": i not in self.unplayable,
                    "unplayable": self.unplayable.get(i),
                    "muted_video": "video" in self.muted.get(i, ()),
                    "muted_audio": "audio" in self.muted.get(i, ()),
                    "audio": True,
                }
                for n, (i, name) in enumerate(shown)
            ]
            message = json.dumps({"slots": slots, "waiting": len(self.participants) - len(shown)})
            await response.write(f"data: {message}\n\n".encode())
            async with self.changed:
                await self.changed.wait()


@asynccontextmanager
async def fake_gateway() -> AsyncIterator[FakeGateway]:
    fake = FakeGateway()
    application = web.Application()
    application.add_routes([*Pages(Config()).routes(), *fake.routes()])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        fake.address = f"http://{host}:{port}"
        yield fake
    finally:
        for peer in fake.peers:
            await peer.close()
        await runner.cleanup()
