"""A protocol that only the tests know, beside those of the gateway: over TCP, one line with key and call, then packets with a header.

It is the smallest whole listener: what a new protocol has to bring is all here.
"""

import asyncio
import secrets
import struct
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic_ns
from typing import Self

from gateway.config import Config
from gateway.node.selftest import CheckResult, Mark, Preconditions, WantedPort
from gateway.wiring.protocol import IngressProtocol, ListenerNeeds, Listening
from protocols.errors import Rejected
from protocols.media import EncodedPacket, Track, TracksChanged
from protocols.metric import MetricFamily
from protocols.publisher import BoundPort, Credential, PublisherStats, ReachedBy

HEADER = struct.Struct(">BQ?I")  # track, pts in ns, key frame, bytes that follow


class LinePublisher:
    """One connection that has said its line."""

    protocol = "test"
    software = "line"

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, call: str, tracks: tuple[Track, ...]
    ) -> None:
        self.id = secrets.token_urlsafe(12)
        self.remote = "{}:{}".format(*writer.get_extra_info("peername"))
        self.credential = Credential(key)
        self.params: Mapping[str, str] = {"call": call}
        self.stats = PublisherStats()
        self._reader, self._writer, self._tracks = reader, writer, tracks

    async def accept(self) -> None:
        self._writer.write(b"go on\n")

    async def reject(self, refusal: Rejected) -> None:
        self._writer.write(f"{refusal.detail}\n".encode())
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[TracksChanged | EncodedPacket]:
        yield TracksChanged(self._tracks)
        with suppress(asyncio.IncompleteReadError):
            while True:
                track, pts, keyframe, size = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                data, now = await self._reader.readexactly(size), monotonic_ns()
                yield EncodedPacket(track, pts, pts, keyframe, data, now, now)

    def pause(self, paused: bool) -> None: ...

    def request_keyframe(self, layer: str = "") -> bool:
        return False

    async def aclose(self, why: str = "") -> None:
        self._writer.close()


class LineListener:
    """Its streams have `tracks`; the port is any free one."""

    protocol = "test"

    def __init__(self, tracks: tuple[Track, ...]) -> None:
        self._tracks = tracks
        self._new: asyncio.Queue[LinePublisher | None] = asyncio.Queue()
        self._given: list[LinePublisher] = []
        self._lines = self._unread = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for publisher in self._given:
            await publisher.aclose()
        self._new.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[LinePublisher]:
        while (publisher := await self._new.get()) is not None:
            yield publisher

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key, _, call = (await reader.readline()).decode().strip().partition(" ")
        if not call:
            self._unread += 1
            writer.close()
            return
        self._lines += 1
        self._given.append(LinePublisher(reader, writer, key, call, self._tracks))
        self._new.put_nowait(self._given[-1])

    @property
    def ports(self) -> Sequence[BoundPort]:
        return [BoundPort("test", self._server.sockets[0].getsockname()[1])]

    def failures(self) -> Mapping[str, int]:
        return {"no_line": self._unread}

    def refusals(self) -> Mapping[str, int]:
        return {}

    def counters(self) -> Iterable[MetricFamily]:
        yield MetricFamily("lines", "First lines that could be read", {(): self._lines})

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]:
        return {"test": f"test://{by.host}:{self.ports[0].number}/{call}"}


def line_protocol(*tracks: Track, port: int = 0, file: str = "", connections: int = 0) -> IngressProtocol:
    """What stands in `gateway/wiring/` for a protocol of the gateway's own; `port` and `file` are what the self-test tries."""

    def preconditions(config: Config) -> Preconditions:
        good = CheckResult(Mark.GOOD, "test", "the protocol of the tests is here")
        wanted = [WantedPort("test.port", "127.0.0.1", port)]
        return Preconditions(wanted, [good], files={"test.file": file}, descriptors=connections)

    @asynccontextmanager
    async def listening(needs: ListenerNeeds) -> AsyncIterator[Sequence[Listening]]:
        async with LineListener(tracks) as listener:
            yield [Listening(listener)]

    return IngressProtocol(LineListener.protocol, preconditions, listening, way=None)
