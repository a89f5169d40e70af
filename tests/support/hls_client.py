"""A player of low-latency HLS that looks at everything: it follows every rendition by blocking reloads, checks each playlist, and fetches
all that is listed."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from tests.support.hls_checker import Follower, Media, Playlist

_IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass
class Rendition:
    """What one rendition has given."""

    url: URL
    follower: Follower = field(default_factory=Follower)
    files: dict[str, bytes] = field(default_factory=dict)
    media: Media = field(default_factory=Media)
    deltas: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def starts(self) -> list[int]:
        return self.media.starts

    @property
    def playlist(self) -> Playlist:
        assert self.follower.last is not None
        return self.follower.last

    @property
    def seconds(self) -> float:
        """Of media that was listed so far."""
        return sum(segment.duration or sum(part.duration for part in segment.parts) for segment in self.follower.seen.values())

    async def until(self, seconds: float, timeout: float = 60) -> None:
        async with asyncio.timeout(timeout):
            while self.seconds < seconds:
                self.news.clear()
                await self.news.wait()

    async def until_segment(self, number: int, timeout: float = 60) -> None:
        async with asyncio.timeout(timeout):
            while self.follower.last is None or self.playlist.last_part[0] < number:
                self.news.clear()
                await self.news.wait()


class Client:
    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = URL(url)
        self.multivariant = ""
        self.renditions: dict[str, Rendition] = {}

    async def load(self) -> None:
        async with self.http.get(self.url) as response:
            assert response.status == 200, await response.text()
            self.multivariant = await response.text()
        uris = re.findall(r'^(?!#)(\S+)$|URI="([^"]+)"', self.multivariant, re.M)
        for uri in dict.fromkeys(a or b for a, b in uris):
            self.renditions.setdefault(uri.split("/")[-2], Rendition(self.url.join(URL(uri))))

    async def follow(self) -> None:
        """Every rendition until its end."""
        async with asyncio.TaskGroup() as group:
            for rendition in self.renditions.values():
                group.create_task(self._follow(rendition))

    async def _follow(self, rendition: Rendition) -> None:
        query: dict[str, str] = {}
        while True:
            async with self.http.get(rendition.url.with_query(query)) as response:
                text = await response.text()
                if response.status == 503:  # nothing new has come, the encoder is away
                    continue
                assert response.status == 200, text
                assert "immutable" not in response.headers["Cache-Control"]
            rendition.deltas += "EXT-X-SKIP" in text
            playlist = rendition.follower.take(text)
            await self._fetch(rendition, playlist)
            rendition.news.set()
            if playlist.ended:
                return
            number, part = playlist.last_part
            complete = bool(playlist.segments[-1].uri)
            query = {"_HLS_msn": str(number + complete), "_HLS_part": str(0 if complete else part + 1), "_HLS_skip": "YES"}
            known = set(rendition.follower.seen)
            if min(known) + 12 < playlist.first:
                query.pop("_HLS_skip")  # too old for a delta update

    async def _fetch(self, rendition: Rendition, playlist: Playlist) -> None:
        for segment in playlist.segments:
            if segment.init and segment.init not in rendition.files:
                assert (await self.get(rendition, segment.init))[4:8] == b"ftyp"
            before = rendition.follower.seen.get(segment.number - 1)
            for number, part in enumerate(segment.parts):
                if part.uri not in rendition.files and not part.gap:
                    data = await self.get(rendition, part.uri)
                    assert data[4:8] == b"moof", "a part is whole fragments"
                    rendition.media.take(segment, number, rendition.files[segment.init], data, before)
            if segment.uri and segment.uri not in rendition.files and not segment.gap:
                whole = await self.get(rendition, segment.uri)
                parts = [rendition.files[part.uri] for part in segment.parts if part.uri in rendition.files]
                assert len(parts) < len(segment.parts) or not parts or whole == b"".join(parts)

    async def get(self, rendition: Rendition, uri: str) -> bytes:
        async with self.http.get(rendition.url.join(URL(uri))) as response:
            assert response.status == 200, (uri, await response.text())
            assert response.headers["Cache-Control"] == _IMMUTABLE
            data = rendition.files[uri] = await response.read()
        return data


@asynccontextmanager
async def following(url: str) -> AsyncIterator[tuple[Client, asyncio.Task[None]]]:
    """A client that has loaded the playlist at `url` and follows it; the task ends with the stream, or with what was wrong."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        client = Client(http, url)
        await client.load()
        task = asyncio.create_task(client.follow())
        try:
            yield client, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
