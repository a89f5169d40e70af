"""A publisher and a call that live in memory: the contracts' smallest real implementations, for tests of what stands between them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic_ns

from gateway.sessions.output import Sent
from protocols.errors import ProtocolError, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track, TracksChanged
from protocols.publisher import Credential, PublisherStats

H264 = Track(1, Codec.H264, width=640, height=360, reorder=0)
OPUS = Track(2, Codec.OPUS, sample_rate=48_000, channels=2)
MS = 1_000_000

Item = TracksChanged | EncodedPacket | ProtocolError | None
"""None ends the stream as an encoder does, an error breaks it off."""


class MemoryPublisher:
    """Gives what `say` is told; remembers what it was told itself."""

    protocol = "rtmp"
    remote = "192.0.2.7:4711"
    software = "memory"

    _numbers = itertools.count(1)

    def __init__(self, key: str = "key", *, answers_keyframes: bool = False) -> None:
        self.id = f"publisher-{next(self._numbers)}"
        self.credential = Credential(key)
        self.params: Mapping[str, str] = {}
        self.stats = PublisherStats()
        self.accepted = asyncio.Event()
        self.rejected: Rejected | None = None
        self.closed = asyncio.Event()
        self.why = ""
        self.paused = False
        self.keyframe_requests = 0
        self.asked_layers: list[str] = []
        self._answers_keyframes = answers_keyframes
        self._items: asyncio.Queue[Item] = asyncio.Queue()

    def say(self, *items: Item) -> None:
        for item in items:
            self._items.put_nowait(item)

    async def accept(self) -> None:
        self.accepted.set()

    async def reject(self, refusal: Rejected) -> None:
        self.rejected = refusal
        self.closed.set()

    async def __aiter__(self) -> AsyncIterator[TracksChanged | EncodedPacket]:
        while (item := await self._items.get()) is not None:
            if isinstance(item, ProtocolError):
                raise item
            yield item

    def pause(self, paused: bool) -> None:
        self.paused = paused

    def request_keyframe(self, layer: str = "") -> bool:
        self.keyframe_requests += 1
        self.asked_layers.append(layer)
        return self._answers_keyframes

    async def aclose(self, why: str = "") -> None:
        self.why = self.why or why
        self.closed.set()


class MemoryPublication:
    def __init__(self, track: Track, request_keyframe: Callable[[], bool]) -> None:
        self.track = track
        self.request_keyframe = request_keyframe
        self.packets: list[EncodedPacket] = []
        self.closed = False
        self.progress = asyncio.Event()

    def push(self, packet: EncodedPacket) -> None:
        self.packets.append(packet)
        self.progress.set()

    def update(self, track: Track) -> None:
        self.track = track

    def close(self) -> None:
        self.closed = True

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.packets) < count:
                self.progress.clear()
                await self.progress.wait()


class MemoryCall:
    """A call of one participant, which is also the participation."""

    accepts = carries = frozenset({Codec.H264, Codec.OPUS})
    viewers = 0

    def __init__(self, *, refuses: Rejected | None = None) -> None:
        self.refuses = refuses
        self.joined = 0
        self.left = asyncio.Event()
        self.publications: dict[Kind, MemoryPublication] = {}
        """The newest of each kind, whatever its layer is."""
        self.layers: dict[tuple[Kind, str], MemoryPublication] = {}
        self.media_now: Callable[[int], int] = lambda now: now
        self.all: list[MemoryPublication] = []
        """Each that there was, in the order of their beginnings."""
        self.changed: Callable[[], None] = lambda: None
        self._published = asyncio.Event()

    def on_accepts(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    async def join(self, user_id: str) -> "MemoryCall":
        if self.refuses is not None:
            raise self.refuses
        self.joined += 1
        return self

    def publish(self, track: Track, request_keyframe: Callable[[], bool], on_sent: Sent) -> MemoryPublication:
        publication = self.layers.get((track.kind, track.layer))
        if publication is None or publication.closed or publication.track.codec is not track.codec:
            publication = self.layers[track.kind, track.layer] = MemoryPublication(track, request_keyframe)
            self.all.append(publication)
        self.publications[track.kind] = publication
        publication.track, publication.request_keyframe = track, request_keyframe
        self._published.set()
        return publication

    def retain(self, kind: Kind, layers: frozenset[str]) -> None:
        for (of, layer), publication in self.layers.items():
            if of is kind and layer not in layers:
                publication.close()

    def set_clock(self, media_now: Callable[[int], int]) -> None:
        self.media_now = media_now

    async def leave(self) -> None:
        self.left.set()

    async def publication(self, kind: Kind) -> MemoryPublication:
        async with asyncio.timeout(10):
            while kind not in self.publications:
                self._published.clear()
                await self._published.wait()
        return self.publications[kind]


def packet(
    track: int, at_ms: float, *, keyframe: bool = False, pts_ms: float | None = None, data: bytes = b"frame"
) -> EncodedPacket:
    """A packet that has just arrived."""
    now = monotonic_ns()
    dts = int(at_ms * MS)
    pts = dts if pts_ms is None else int(pts_ms * MS)
    return EncodedPacket(track, pts, dts, keyframe, data, now, now)
