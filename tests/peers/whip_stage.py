"""A WHIP endpoint with a session that a test decides for, in the test's own process: HTTP, the UDP port, and all that publishers gave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from protocols.errors import ProtocolError, Rejected
from protocols.media import EncodedPacket, Kind, Track, TracksChanged
from protocols.publisher import Applicant
from protocols.webrtc.transport.ice_servers import IceServer
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.limits import WhipLimits
from protocols.whip.listener import Authorise, WhipListener
from protocols.whip.publisher import WhipPublisher

Decide = Callable[[WhipPublisher], Rejected | None]


@dataclass(eq=False)
class Received:
    """What one publisher gave, and how it ended."""

    publisher: WhipPublisher
    tracks: tuple[Track, ...] = ()
    changes: list[tuple[Track, ...]] = field(default_factory=list)
    packets: list[EncodedPacket] = field(default_factory=list)
    error: ProtocolError | None = None
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, kind: Kind) -> list[EncodedPacket]:
        ids = {track.id for tracks in self.changes for track in tracks if track.kind is kind}
        return [packet for packet in self.packets if packet.track in ids]

    async def until(self, *, video: int = 0, audio: int = 0, timeout: float = 60) -> None:
        async with asyncio.timeout(timeout):
            while len(self.of(Kind.VIDEO)) < video or len(self.of(Kind.AUDIO)) < audio:
                self.progress.clear()
                await self.progress.wait()

    async def until_tracks(self, wanted: Callable[[tuple[Track, ...]], bool], timeout: float = 60) -> None:
        async with asyncio.timeout(timeout):
            while not wanted(self.tracks):
                self.progress.clear()
                await self.progress.wait()

    async def take(self) -> None:
        try:
            async for item in self.publisher:
                if isinstance(item, TracksChanged):
                    self.tracks = item.tracks
                    self.changes.append(item.tracks)
                elif isinstance(item, EncodedPacket):
                    self.packets.append(item)
                self.progress.set()
        except ProtocolError as error:
            self.error = error
        finally:
            self.progress.set()
            self.ended.set()


@dataclass
class Stage:
    mux: UdpMux
    listener: WhipListener
    address: str = ""
    decide: Decide | None = None
    """None: the session never answers."""
    received: list[Received] = field(default_factory=list)
    accept: Callable[[WhipPublisher], Awaitable[None]] = WhipPublisher.accept
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/whip/livestream:demo") -> str:
        return self.address + path

    async def publisher(self, number: int = 0, timeout: float = 60) -> Received:
        """The `number`-th that was accepted."""
        async with asyncio.timeout(timeout):
            while len(self.received) <= number:
                self.came.clear()
                await self.came.wait()
        return self.received[number]

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as sessions:
            async for publisher in self.listener:
                sessions.create_task(self._session(publisher))

    async def _session(self, publisher: WhipPublisher) -> None:
        if self.decide is None:
            return
        refusal = self.decide(publisher)
        if refusal is not None:
            await publisher.reject(refusal)
            return
        try:
            await self.accept(publisher)
        except ProtocolError:
            return
        received = Received(publisher)
        self.received.append(received)
        self.came.set()
        await received.take()
        await publisher.aclose()


def accept(publisher: WhipPublisher) -> Rejected | None:
    return None


async def anybody(applicant: Applicant) -> None:
    """Whoever shows a key is asked for the offer."""


@asynccontextmanager
async def whip_stage(
    decide: Decide | None = accept,
    *,
    limits: Limits | None = None,
    whip: WhipLimits | None = None,
    ice_servers: tuple[IceServer, ...] = (),
    authorise: Authorise = anybody,
) -> AsyncIterator[Stage]:
    async with (
        UdpMux("127.0.0.1", limits=limits) as mux,
        WhipListener(mux, authorise=authorise, ice_servers=ice_servers, limits=whip) as listener,
    ):
        stage = Stage(mux, listener, decide=decide)
        application = web.Application()
        application.add_routes(listener.routes())
        runner = web.AppRunner(application, shutdown_timeout=1, handler_cancellation=True)
        await runner.setup()
        serving = asyncio.create_task(stage.serve())
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            stage.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield stage
        finally:
            for received in stage.received:
                await received.publisher.aclose("the test is over")
            serving.cancel()
            await asyncio.wait({serving})
            await runner.cleanup()
