"""A publisher and outputs that live in memory: the contracts' smallest real implementations, for tests of what stands between them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import monotonic_ns
from typing import Any

from gateway.access.credentials import Grant, Identity
from gateway.sessions.admission import Rights
from gateway.sessions.capacity import Demand
from gateway.sessions.output import DelayFamily, Feedback, OnChange, Output, SeatView, Want
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat, SeatPolicy
from gateway.sessions.socket_watch import WatchPolicy
from gateway.telemetry.latency import Histogram
from protocols.errors import ProtocolError, Rejected
from protocols.media import WEBRTC_VIDEO, Codec, EncodedPacket, Kind, LeftOut, Track, TracksChanged
from protocols.metric import MetricFamily
from protocols.publisher import Credential, PublisherStats
from transcode.host.fragments import Done
from transcode.host.pool import Workers
from transcode.plan import Policy, plan

H264 = Track(1, Codec.H264, width=640, height=360, reorder=0)
OPUS = Track(2, Codec.OPUS, sample_rate=48_000, channels=2)
MS = 1_000_000

Item = TracksChanged | EncodedPacket | LeftOut | ProtocolError | None
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

    async def __aiter__(self) -> AsyncIterator[TracksChanged | EncodedPacket | LeftOut]:
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


class MemorySink:
    def __init__(self, track: Track, feedback: Feedback, read: Histogram) -> None:
        self.track = track
        self.read = read
        self.feedback = feedback
        self.packets: list[EncodedPacket] = []
        self.closed = False
        self.progress = asyncio.Event()

    def push(self, packet: EncodedPacket) -> None:
        self.packets.append(packet)
        self.read.observe(packet.arrival - packet.begun)
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


class MemoryOutput:
    """An output of one participant, which is also the destination. It takes `accepts` as they come, else whatever of it can be made."""

    overhead = Demand()

    def __init__(self, name: str = "memory", *, essential: bool = False, refuses: Rejected | None = None) -> None:
        self.name = name
        self.essential = essential
        self.accepts: frozenset[Codec] | None = frozenset({Codec.H264, Codec.OPUS})
        """None: it takes nothing."""
        self.carries = frozenset({Codec.H264, Codec.OPUS})
        self.reorder = self.idle = False
        self.refuses = refuses
        self.joined = 0
        self.left = asyncio.Event()
        self.sinks: dict[Kind, MemorySink] = {}
        """The newest of each kind, whatever its layer is."""
        self.layers: dict[tuple[Kind, str], MemorySink] = {}
        self.all: list[MemorySink] = []
        """Each that there was, in the order of their beginnings."""
        self.refusals: list[Rejected] = []
        self.seat: SeatView | None = None
        self.changed: Callable[[], None] = lambda: None
        self.published = asyncio.Event()
        self._read = Histogram()

    async def join(self, seat: SeatView, on_change: OnChange) -> "MemoryOutput":
        if self.refuses is not None:
            raise self.refuses
        self.seat, self.changed = seat, on_change
        self.joined += 1
        return self

    def wants(self, track: Track) -> Want | None:
        if self.accepts is None:
            return None
        return Want(self.accepts, self.accepts, carries=self.carries, reorder=self.reorder, idle=self.idle)

    def publish(self, track: Track, feedback: Feedback) -> MemorySink:
        sink = self.layers[track.kind, track.layer] = self.sinks[track.kind] = MemorySink(track, feedback, self._read)
        self.all.append(sink)
        self.published.set()
        return sink

    def refused(self, refusal: Rejected) -> None:
        self.refusals.append(refusal)

    async def aclose(self) -> None:
        self.left.set()

    def counters(self) -> Iterator[MetricFamily]:
        yield MetricFamily("sinks", "Tracks that it was given", {(): len(self.all)})

    def delays(self) -> Iterator[DelayFamily]:
        yield DelayFamily("read", "From a packet's first byte to its last", {MemoryPublisher.protocol: self._read})

    async def sink(self, kind: Kind) -> MemorySink:
        async with asyncio.timeout(10):
            while kind not in self.sinks:
                self.published.clear()
                await self.published.wait()
        return self.sinks[kind]


class NoFeedback:
    """Nobody who could do anything about it."""

    def keyframe(self) -> bool:
        return False

    def bitrate(self, bits_per_second: int) -> None:
        pass

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        pass


class SeatOf:
    """A seat of this user without an encoder, as outputs see it."""

    id, protocol, reconnects = "seat", "rtmp", 0

    def __init__(self, user_id: str, call_cid: str = "livestream:demo", muted: frozenset[Kind] = frozenset()) -> None:
        self.user_id = user_id
        self.call_cid = call_cid
        self.muted = muted
        self.muxer = self

    def make(self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done) -> None:
        done(b"", b"")

    def then(self, done: Callable[[], None]) -> None:
        done()

    def cost_of(self, output: Output) -> Demand:
        return output.overhead

    def media_now(self, now: int) -> int:
        return now


class MemoryCall(MemoryOutput):
    """The call, which a stream cannot do without."""

    def __init__(self, *, refuses: Rejected | None = None) -> None:
        super().__init__("call", essential=True, refuses=refuses)


def as_a_call(codecs: frozenset[Codec]) -> Want:
    """What a call wants whose viewers all take these codecs."""
    return Want(codecs, codecs, carries=WEBRTC_VIDEO | {Codec.OPUS})


class EnoughRoom:
    """CPU for everything, for a seat or for a publisher."""

    def admit(self, *_: object) -> None:
        pass

    def admit_optional(self, *_: object) -> None:
        pass


def seat_policy(**different: Any) -> SeatPolicy:
    """Everything passes or is made anew as is usual, there is room for all of it, and nobody is told; `different` are other fields."""
    policy = SeatPolicy(
        decide=lambda track, want: plan(track, want, Policy()),
        live_edge=LiveEdgePolicy(),
        watch=WatchPolicy(),
        linger_s=1,
        max_bitrate=0,
        on_retired=lambda protocol, totals: None,
        room=EnoughRoom(),
        on_change=lambda seat, change: None,
    )
    return replace(policy, **different)


def seated(registry: Registry, rights: Rights, cid: str, user_id: str) -> Seat:
    """A host's seat as admission leaves it, before any media."""
    policy = seat_policy(on_retired=registry.retire)
    seat = Seat(MemoryPublisher(), user_id, cid, [MemoryCall()], Workers(), policy)
    registry.add(seat)
    rights[cid, user_id, seat.inputs.live.rank] = Grant(
        user_id, cid, 0, Identity(user_id, call_cids=frozenset({cid}), claimed="host")
    )
    return seat


def packet(
    track: int, at_ms: float, *, keyframe: bool = False, pts_ms: float | None = None, data: bytes = b"frame"
) -> EncodedPacket:
    """A packet that has just arrived."""
    now = monotonic_ns()
    dts = int(at_ms * MS)
    pts = dts if pts_ms is None else int(pts_ms * MS)
    return EncodedPacket(track, pts, dts, keyframe, data, now, now)
