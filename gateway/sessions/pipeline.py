"""One encoder's media on its way to the outputs: timeline, pacer, and the stages of each track.

Kept true: all tracks go through one timeline and one pacer, so they stay in step. What is made of a track is another's matter
(`staging.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic_ns

from gateway.sessions.arrival_clock import ClockFault
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.lip_sync import LipSync
from gateway.sessions.pacer import LiveEdgePolicy, Pacer
from gateway.sessions.replanner import Decide, Room
from gateway.sessions.routes import Routes
from gateway.sessions.staging import Staging
from gateway.sessions.timeline import Timeline
from gateway.sessions.transcoders import SpareWorker, Transcoders
from gateway.telemetry.latency import Step
from protocols.media import EncodedPacket, Kind, Lack, LeftOut, Track
from protocols.publisher import Publisher
from transcode.adaptation import Effort
from transcode.host.pool import Workers

WEIGHED = 16  # packets from look to look at a track's bit rate: at each it would cost more than to count them


class Pipeline:
    """All tracks of one publisher. Fed with its items in order; closes its workers and leaves the routes when closed."""

    def __init__(
        self,
        publisher: Publisher,
        routes: Routes,
        workers: Workers,
        spare: SpareWorker,
        *,
        decide: Decide,
        room: Room,
        live_edge: LiveEdgePolicy,
        max_bitrate: int,
        origin: int,
        fail: Callable[[str], None],
        on_lack: Callable[[LeftOut], None],
        begun: int | None = None,
    ) -> None:
        """`routes` and `spare` are the seat's. `max_bitrate` is of one track, bit/s, 0 for none; `origin` the seat's media time in ns at
        which this publisher starts; `fail` ends the publisher with a reason; `on_lack` takes what the streamer is to be told, once.
        `begun` is when it started, in monotonic ns; None: now."""
        self.totals = PipelineCounters()
        self._origin, self._begun = origin, begun or monotonic_ns()
        self._publisher = publisher
        self._unreadable = publisher.stats.packets_unreadable  # before
        self._transcoders = Transcoders(workers, publisher.id, fail)
        self._max_bitrate = max_bitrate
        self._fail = fail
        self._on_lack = on_lack
        self._timeline = Timeline(self._tell_of_clock, origin, self._begun if origin else None)
        self._routes = routes
        self._lip_sync = LipSync(lambda apart: on_lack(LeftOut(Lack.APART, apart.later, apart.text)), routes.hold)
        self._pacer = Pacer(live_edge)
        self._loop = asyncio.get_running_loop()
        self._release_timer: asyncio.TimerHandle | None = None
        self._flowing = asyncio.Event()  # cleared while the pacer holds as much as it may: nothing more is read
        self._flowing.set()
        self._entered: dict[tuple[int, int], int] = {}  # track and dts -> when the pacer took what waits there
        self.staging = Staging(
            publisher,
            routes,
            self._transcoders,
            spare,
            self.totals,
            decide=decide,
            room=room,
            flush=lambda now: self._release(self._pacer.flush(), now),
        )
        self.track_pipelines = self.staging.track_pipelines

    @property
    def paused(self) -> bool:
        """Its publisher is not read for now, since it is far enough ahead."""
        return self._pacer.paused

    async def change(self, tracks: tuple[Track, ...]) -> None:
        """The publisher's tracks are these from here on."""
        await self.staging.change(tracks)
        self._lip_sync.expect(each.track.kind for each in self.track_pipelines.values())

    async def push(self, packet: EncodedPacket) -> None:
        """One packet of the publisher, on its own clock."""
        await self._push(packet, monotonic_ns())
        if self._pacer.paused:
            await self._flowing.wait()

    async def catch_up(self, packets: Sequence[EncodedPacket]) -> None:
        """What the publisher gave before this was there, from a key frame on: all goes out at once, as live as if this had been there."""
        for packet in packets:
            await self._push(packet, packet.arrival)

    async def _push(self, packet: EncodedPacket, now: int) -> None:
        staging = self.staging
        if packet.layer:
            staging.note_layer(packet)
        if staging.outdated:
            await staging.follow(packet.track, packet, now)
        track_pipeline = self.track_pipelines.get(packet.track)
        if track_pipeline is None:
            return
        kind = track_pipeline.track.kind
        packet = self._timeline.map(packet)
        track_pipeline.meter.count(packet)
        self.totals.packets[kind] += 1
        self.totals.bytes[kind] += len(packet.data)
        steps = track_pipeline.delays.steps
        steps[Step.RECEIVE].observe(packet.arrival - packet.begun)
        steps[Step.DEMUX].observe(now - packet.arrival)
        if track_pipeline.meter.packets % WEIGHED == 0 and 0 < self._max_bitrate < track_pipeline.meter.sustained_bitrate:
            self._fail(_too_much(kind, track_pipeline.meter.bitrate, self._max_bitrate))
            return
        if track_pipeline.watched and track_pipeline.reorders(packet):
            await staging.revise(replace(track_pipeline.track, reorder=1), now)
        elif packet.keyframe and track_pipeline.outgrown:
            found = replace(track_pipeline.track, bitrate=track_pipeline.meter.sustained_bitrate)
            await staging.revise(found, now, at_keyframe=True)
        if kind is Kind.VIDEO and track_pipeline.lacks_keyframe(packet):
            track_pipeline.request_keyframe(self._publisher)
        settling = self._timeline.settling(packet.track)
        if settling:
            self._lip_sync.forget(packet.track)
        else:
            self._lip_sync.note(packet.track, kind, packet.dts, packet.arrival, now)
        self._pacer.hold_back(self._lip_sync.hold, at_once=self._lip_sync.at_once)
        self._pacer.push(packet, kind, now, settling=settling)
        if self._pacer.needs_keyframe:
            staging.request_source_keyframe()
        released = self._pacer.pop(now)
        if packet not in released:
            self._note_waiting(packet, now)
        self._release(released, now)

    def _note_waiting(self, packet: EncodedPacket, now: int) -> None:
        self._entered[packet.track, packet.dts] = now
        if len(self._entered) > self._pacer.policy.hold_packets:  # the oldest was dropped
            del self._entered[next(iter(self._entered))]

    def _tell_of_clock(self, fault: ClockFault) -> None:
        track_pipeline = self.track_pipelines.get(fault.track) if fault.track is not None else None
        kind = track_pipeline.track.kind if track_pipeline is not None else None
        self._on_lack(LeftOut(Lack.CLOCK, kind, fault.text(kind)))

    def _process(self, packets: list[EncodedPacket], now: int) -> None:
        for packet in packets:
            entered = self._entered.pop((packet.track, packet.dts), now) if self._entered else now
            track_pipeline = self.track_pipelines.get(packet.track)
            if track_pipeline is not None:
                track_pipeline.delays.steps[Step.QUEUE].observe(now - entered)
                track_pipeline.process(packet, now)

    def _release(self, packets: list[EncodedPacket], now: int) -> None:
        self._process(packets, now)
        if self._pacer.paused is self._flowing.is_set():
            self._publisher.pause(self._pacer.paused)
            (self._flowing.clear if self._pacer.paused else self._flowing.set)()
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        due = self._pacer.next_release
        if due is None:
            self._entered.clear()  # what is left there was dropped
        else:
            self._release_timer = self._loop.call_later(max(0, due - monotonic_ns()) / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._release_timer = None
        now = monotonic_ns()
        self._release(self._pacer.pop(now), now)

    def media_now(self, now: int) -> int:
        """The seat's media time in ns that is live at `now` (monotonic ns), also after the end; before the first packet it runs on from
        `origin`."""
        if self.totals.packets or not self._origin:
            return self._pacer.media_now(now)
        return self._origin + now - self._begun

    @property
    def adaptation(self) -> Effort | None:
        """What the video is encoded with, where that is less than was planned, since the CPU does not suffice."""
        return self._transcoders.adaptation

    def shed(self) -> bool:
        """Make room for others by a layer less, the top one that is encoded; False where there is none to spare."""
        return self._transcoders.shed()

    def gather(self) -> PipelineCounters:
        """The totals with what the parts count themselves."""
        totals = self.totals
        totals.rebases = self._timeline.rebases
        totals.unreadable = self._publisher.stats.packets_unreadable - self._unreadable
        self._transcoders.count(totals)
        totals.dropped = Counter(self._pacer.dropped)
        return totals

    async def aclose(self) -> None:
        """Give what waited for another medium, and stop the stages and the worker. Routes stay as they are: the seat may go on with another
        publisher."""
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        now = monotonic_ns()
        self._process(self._pacer.finish(now), now)
        if not self._flowing.is_set():
            self._publisher.pause(False)
        self._routes.hold = self._lip_sync.hold
        await self.staging.aclose()
        await self._transcoders.aclose()


def _too_much(kind: Kind, bitrate: int, limit: int) -> str:
    has, most = f"{bitrate / 1e6:.1f} Mbit/s", f"{limit / 1e6:.1f} Mbit/s"
    return f"the {kind.value} has {has}, more than the {most} allowed here: lower the encoder's bitrate"
