"""Peers for the SRT tests: a plain caller in a process of its own, and a collector of what a listener gets.

Run as a program it is the caller: `python -m tests.peers.srt_peers '{"port": 9000, "stream_id": "key", …}'` prints one line of JSON:
`{"connected": true}` or `{"reject": 1404}`; then it sends its standard input as messages until that ends.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, Track, TracksChanged
from protocols.srt.address import Address
from protocols.srt.libsrt import Option, SrtError, load
from protocols.srt.listener import SrtListener
from protocols.srt.publisher import SrtPublisher

STEP_S = 20.0


def caller_main(settings: dict[str, Any]) -> None:
    srt = load()
    socket = srt.create()
    for name, value in settings.get("options", {}).items():
        srt.set(socket, Option[name], value)
    if settings.get("stream_id"):
        srt.set(socket, Option.STREAMID, settings["stream_id"])
    if settings.get("passphrase"):
        srt.set(socket, Option.PASSPHRASE, settings["passphrase"])
    try:
        srt.connect(socket, Address(settings.get("host", "127.0.0.1"), settings["port"]))
    except SrtError:
        print(json.dumps({"reject": srt.reject_reason(socket)}), flush=True)
        return
    print(json.dumps({"connected": True}), flush=True)
    while message := sys.stdin.buffer.read(settings.get("message", 1316)):
        srt.send(socket, message)
    srt.close(socket)


@asynccontextmanager
async def caller(
    port: int, stream_id: str = "", **settings: Any
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """The caller's process and what it said of its connection."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        json.dumps({"port": port, "stream_id": stream_id, **settings}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(STEP_S):
            yield process, json.loads(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@dataclass
class Collected:
    """What one publisher gave until it ended."""

    publisher: SrtPublisher
    tracks: list[tuple[Track, ...]] = field(default_factory=list)
    packets: list[EncodedPacket] = field(default_factory=list)
    error: ProtocolError | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self) -> None:
        try:
            await self.publisher.accept()
            async for item in self.publisher:
                if isinstance(item, TracksChanged):
                    self.tracks.append(item.tracks)
                elif isinstance(item, EncodedPacket):
                    self.packets.append(item)
                async with self.news:
                    self.news.notify_all()
        except ProtocolError as error:
            self.error = error
        finally:
            self.over.set()
            async with self.news:
                self.news.notify_all()

    async def until(self, enough: Callable[[], bool], seconds: float = STEP_S) -> None:
        async with asyncio.timeout(seconds), self.news:
            await self.news.wait_for(lambda: enough() or self.over.is_set())

    async def ended(self, seconds: float = STEP_S) -> None:
        async with asyncio.timeout(seconds):
            await self.over.wait()


class Collector:
    """Takes every publisher of a listener."""

    def __init__(self, listener: SrtListener) -> None:
        self.listener = listener
        self.publishers: list[Collected] = []
        self._news = asyncio.Condition()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as running:
            async for publisher in self.listener:
                collected = Collected(publisher)
                self.publishers.append(collected)
                running.create_task(collected.run())
                async with self._news:
                    self._news.notify_all()

    async def publisher(self, key: str) -> Collected:
        def found() -> list[Collected]:
            return [one for one in self.publishers if one.publisher.credential.key == key]

        async with asyncio.timeout(STEP_S), self._news:
            await self._news.wait_for(found)
        return found()[-1]


@asynccontextmanager
async def collecting(listener: SrtListener) -> AsyncIterator[Collector]:
    """The listener open, and everything that comes collected."""
    collector = Collector(listener)
    async with asyncio.TaskGroup() as running:
        async with listener:
            running.create_task(collector.run())
            yield collector


if __name__ == "__main__":
    caller_main(json.loads(sys.argv[1]))
