"""One encoder's media on its way into a call: timeline, pacer, and for each track a lane of plan, stage and publication.

Kept true: both tracks go through one timeline and one pacer, so they stay in step; a track is transcoded only when the plan says so, and
the plan is asked again whenever a fact changes — also when B-frames or intra refresh appear that the stream's headers did not announce.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic_ns
from typing import assert_never

from gateway.calls import Participation, Publication
from gateway.diagnostics import TrackMeter
from gateway.latency import Histogram, Step
from gateway.log import event
from gateway.pacer import LiveEdgePolicy, Pacer
from protocols.media import EncodedPacket, Kind, Track
from protocols.publisher import Publisher
from protocols.timeline import Timeline
from transcode import passthrough
from transcode.economy import Effort
from transcode.plan import Decision, Passthrough, Refuse, Transcode, VideoTarget
from transcode.pool import Workers
from transcode.process import Worker
from transcode.stage import Stage

log = logging.getLogger(__name__)

PRIMING_SPAN = 5_000_000_000  # ns of media kept at the start of a stream that passes: its frames may yet show that it must not
PRIMING_BYTES = 8 << 20
KEYFRAME_REQUEST_INTERVAL = 500_000_000  # ns: requests of many viewers become one


@dataclass(slots=True)
class Delays:
    """Where a track's time goes: one histogram per step, and the total to the first viewer by treatment."""

    steps: dict[Step, Histogram] = field(default_factory=lambda: {step: Histogram() for step in Step})
    total: dict[str, Histogram] = field(default_factory=lambda: {"passthrough": Histogram(), "transcode": Histogram()})

    def add(self, other: "Delays") -> None:
        for step, histogram in other.steps.items():
            self.steps[step].add(histogram)
        for mode, histogram in other.total.items():
            self.total[mode].add(histogram)


@dataclass(slots=True)
class PipelineTotals:
    """What one pipeline did, as plain totals; ended ones are added up for the metrics."""

    packets: Counter[Kind] = field(default_factory=Counter)
    bytes: Counter[Kind] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # by the pacer's reasons
    treatments: Counter[tuple[Kind, str, str]] = field(default_factory=Counter)  # kind, mode, reason label
    rebases: int = 0
    worker_restarts: int = 0
    worker_dropped: int = 0  # packets, before the worker or in it
    worker_lowered: int = 0  # steps down to cheaper encoding
    worker_cpu_ns: int = 0
    delays: dict[Kind, Delays] = field(default_factory=lambda: {kind: Delays() for kind in Kind})

    def add(self, other: "PipelineTotals") -> None:
        self.packets.update(other.packets)
        self.bytes.update(other.bytes)
        self.dropped.update(other.dropped)
        self.treatments.update(other.treatments)
        self.rebases += other.rebases
        self.worker_restarts += other.worker_restarts
        self.worker_dropped += other.worker_dropped
        self.worker_lowered += other.worker_lowered
        self.worker_cpu_ns += other.worker_cpu_ns
        for kind, delays in other.delays.items():
            self.delays[kind].add(delays)


class Lane:
    """One track's way: what was decided about it, the stage that does it, and where its packets go."""

    def __init__(self, track: Track, decision: Decision, totals: PipelineTotals) -> None:
        self.track = track
        self.decision = decision
        self.meter = TrackMeter(track.kind)
        self.totals = totals
        self.delays = totals.delays[track.kind]
        self.stage: Stage | None = None
        self.publication: Publication | None = None
        self.shown: int | None = None  # the highest pts that was sent
        self._released: dict[int, int] = {}  # arrival -> when it went into the stage, while a worker has it
        self._pushed = 0
        self._highest_pts = -1
        self._watched = track.kind is Kind.VIDEO
        self._since_keyframe: list[EncodedPacket] = []
        self._priming_bytes = 0
        self._first_dts: int | None = None
        self._keyframe_asked = 0

    @property
    def mode(self) -> str:
        """`passthrough`, `transcode` or `refuse`: what is shown and counted."""
        return type(self.decision).__name__.lower()

    @property
    def watched(self) -> bool:
        """Passed through, and so young that its frames may yet show what its headers did not say: B-frames, intra refresh."""
        return self._watched and isinstance(self.decision, Passthrough)

    def reorders(self, packet: EncodedPacket) -> bool:
        """True when this packet proves B-frames (pts goes back in decoding order). Keeps what a decoder would need to take over."""
        if packet.keyframe:
            self._since_keyframe.clear()
            self._priming_bytes = 0
        if self._first_dts is None:
            self._first_dts = packet.dts
        self._since_keyframe.append(packet)
        self._priming_bytes += len(packet.data)
        behind = packet.pts < self._highest_pts and self.track.reorder is None
        self._highest_pts = max(self._highest_pts, packet.pts)
        if not behind and (packet.dts - self._first_dts > PRIMING_SPAN or self._priming_bytes > PRIMING_BYTES):
            self._watched = False  # enough seen; should it come later, a changed track says so
            if self.track.reorder is None:
                self.track = replace(self.track, reorder=0)
            self._since_keyframe.clear()
        return behind

    def take_priming(self) -> list[EncodedPacket]:
        """What a decoder needs to take over; viewers have seen it up to `shown`."""
        packets, self._since_keyframe = self._since_keyframe, []
        return packets

    def process(self, packet: EncodedPacket, now: int) -> None:
        if self.stage is None:
            return
        if isinstance(self.decision, Transcode):
            self._released[packet.arrival] = now
            while len(self._released) > 256:
                del self._released[next(iter(self._released))]
        self.stage.process(packet)

    def out(self, packet: EncodedPacket) -> None:
        """What comes out of the stage goes to the call."""
        if self.publication is None:
            return
        now = self._pushed = monotonic_ns()
        if self._released:
            self.delays.steps[Step.TRANSCODE].observe(now - self._released.get(packet.arrival, now))
        self.shown = packet.pts if self.shown is None else max(self.shown, packet.pts)
        self.publication.push(packet)

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        """The call has sent a packet to its first viewer: `ready` and `sent` are when its payloads were made and handed over."""
        steps = self.delays.steps
        steps[Step.PACKETIZE].observe(ready - self._pushed)
        steps[Step.SEND].observe(sent - ready)
        self.delays.total[self.mode].observe(sent - packet.arrival)

    def update(self, track: Track) -> None:
        """What comes out of the stage has other facts from here on."""
        if self.publication is not None:
            self.publication.update(track)

    def request_keyframe(self, publisher: Publisher) -> bool:
        """Ask whoever makes this track's key frames, at most twice a second; True if one will come."""
        if isinstance(self.decision, Transcode):
            return self.stage is not None and self.stage.request_keyframe()
        return self.request_keyframe_from(publisher)

    def request_keyframe_from(self, publisher: Publisher) -> bool:
        """Ask the source itself, at most twice a second."""
        now = monotonic_ns()
        if now - self._keyframe_asked < KEYFRAME_REQUEST_INTERVAL:
            return True
        if publisher.request_keyframe():
            self._keyframe_asked = now
            return True
        return False

    async def close_stage(self) -> None:
        stage, self.stage = self.stage, None
        self._released.clear()
        if stage is not None:
            await stage.aclose()


class Pipeline:
    """All lanes of one publisher. Fed with its items in order; closes its worker and leaves the publications when closed."""

    def __init__(
        self,
        publisher: Publisher,
        participation: Participation,
        workers: Workers,
        *,
        decide: Callable[[Track], Decision],
        live_edge: LiveEdgePolicy,
        max_bitrate: int,
        origin: int,
        fail: Callable[[str], None],
    ) -> None:
        """`max_bitrate` is of one track, bit/s, 0 for none; `origin` the session media time in ns at which this publisher starts;
        `fail` ends the publisher with a reason."""
        self.totals = PipelineTotals()
        self.lanes: dict[int, Lane] = {}
        self._publisher = publisher
        self._participation = participation
        self._workers = workers
        self._worker: Worker | None = None
        self._decide = decide
        self._max_bitrate = max_bitrate
        self._fail = fail
        self._timeline = Timeline(origin=origin)
        self._pacer = Pacer(live_edge)
        self._loop = asyncio.get_running_loop()
        self._release_timer: asyncio.TimerHandle | None = None
        self._flowing = asyncio.Event()  # cleared while the pacer holds as much as it may: nothing more is read
        self._flowing.set()
        participation.set_clock(self._pacer.media_now)

    async def change(self, tracks: tuple[Track, ...]) -> None:
        """The publisher's tracks are these from here on. The first video and the first audio are taken."""
        self._release(self._pacer.flush())
        wanted = {track.kind: track for track in reversed(tracks)}
        for lane in list(self.lanes.values()):
            if lane.track.kind not in wanted or wanted[lane.track.kind].id != lane.track.id:
                await self._close(lane)
        for track in wanted.values():
            await self._set(track)

    async def _set(self, track: Track) -> None:
        lane = self.lanes.get(track.id)
        decision = self._decide(track)
        if lane is None:
            lane = self.lanes[track.id] = Lane(track, decision, self.totals)
        elif lane.track == track:
            return
        elif type(decision) is type(lane.decision) and lane.stage is not None and track.codec is lane.track.codec:
            lane.track, lane.decision = track, decision
            lane.stage.reconfigure(track)
            if isinstance(decision, Passthrough):
                lane.update(track)
            return
        same_stream = track.codec is lane.track.codec and (track.width, track.height) == (lane.track.width, lane.track.height)
        lane.track, lane.decision = track, decision
        priming = lane.take_priming()
        await self._build(lane)
        if same_stream:
            self._prime(lane, priming)

    async def _build(self, lane: Lane) -> None:
        """Give the lane the stage that its decision asks for, and its publication."""
        await lane.close_stage()
        self.totals.treatments[lane.track.kind, lane.mode, lane.decision.why.label] += 1
        event(
            log,
            logging.INFO if not isinstance(lane.decision, Refuse) else logging.WARNING,
            f"{lane.track.kind.value} {lane.mode}: {lane.decision.why.text}",
            session=self._publisher.id,
            codec=lane.track.codec.value,
            advice=lane.decision.why.advice or None,
        )
        match lane.decision:
            case Passthrough():
                lane.stage = passthrough.Passthrough(lane.track, lane.out)
            case Transcode():
                lane.stage = await self._transcoder(lane, lane.track, lane.decision)
            case Refuse():
                await self._unpublish(lane)
                return
            case _ as never:
                assert_never(never)
        if lane.publication is None:
            lane.publication = self._participation.publish(
                lane.stage.track, lambda: lane.request_keyframe(self._publisher), lane.sent
            )
        else:
            lane.publication.update(lane.stage.track)

    async def _transcoder(self, lane: Lane, track: Track, decision: Transcode) -> Stage:
        if self._worker is None:
            self._worker = await self._workers.start(self._publisher.id)
            self._worker.on_failure(self._fail)
            self._worker.on_note(lambda text: event(log, logging.WARNING, text, session=self._publisher.id))
        if isinstance(decision.target, VideoTarget):
            return self._worker.video(track, decision.target, lane.out, lane.update, lane.shown, self._economised)
        return self._worker.audio(track, decision.target, lane.out, lane.update)

    def _economised(self, effort: Effort, cheaper: bool) -> None:
        words = "transcoding cannot keep up, it gets cheaper" if cheaper else "transcoding has room again, it gets better"
        event(log, logging.WARNING if cheaper else logging.INFO, f"{words}: {effort.text}", session=self._publisher.id)

    @property
    def economy(self) -> Effort | None:
        """What the video is encoded with, where that is less than was planned, since the CPU does not suffice."""
        return self._worker.economy if self._worker is not None else None

    async def push(self, packet: EncodedPacket) -> None:
        """One packet of the publisher, on its own clock."""
        now = monotonic_ns()
        lane = self.lanes.get(packet.track)
        if lane is None:
            return
        kind = lane.track.kind
        packet = self._timeline.map(packet)
        lane.meter.count(packet)
        self.totals.packets[kind] += 1
        self.totals.bytes[kind] += len(packet.data)
        steps = lane.delays.steps
        steps[Step.RECEIVE].observe(packet.arrival - packet.begun)
        steps[Step.DEMUX].observe(now - packet.arrival)
        if 0 < self._max_bitrate < lane.meter.sustained_bitrate:
            self._fail(
                f"the {kind.value} has {lane.meter.bitrate / 1e6:.1f} Mbit/s, more than the {self._max_bitrate / 1e6:.1f} Mbit/s allowed "
                "here: lower the encoder's bitrate"
            )
            return
        if lane.watched and lane.reorders(packet):
            await self._take_over(lane)
            return
        self._pacer.push(packet, kind, now)
        if self._pacer.needs_keyframe:
            self._request_source_keyframe()
        self._release(self._pacer.pop(now), now)
        await self._flowing.wait()

    def _request_source_keyframe(self) -> None:
        """The pacer cut the video: only the source's own key frame lets it go on."""
        for lane in self.lanes.values():
            if lane.track.kind is Kind.VIDEO:
                lane.request_keyframe_from(self._publisher)

    async def _take_over(self, lane: Lane) -> None:
        """B-frames appeared in a stream that did not announce them: decode from the last key frame on, send what was not sent yet."""
        lane.track = replace(lane.track, reorder=1)
        lane.decision = self._decide(lane.track)
        priming = lane.take_priming()
        await self._build(lane)
        self._prime(lane, priming)

    @staticmethod
    def _prime(lane: Lane, packets: list[EncodedPacket]) -> None:
        """Let a stage that decodes begin with the group of pictures that is under way."""
        if isinstance(lane.decision, Transcode):
            now = monotonic_ns()
            for packet in packets:
                lane.process(packet, now)

    def _release(self, packets: list[EncodedPacket], now: int = 0) -> None:
        now = now or monotonic_ns()
        for packet in packets:
            lane = self.lanes.get(packet.track)
            if lane is not None:
                lane.delays.steps[Step.QUEUE].observe(now - packet.arrival)
                lane.process(packet, now)
        if self._pacer.paused is self._flowing.is_set():
            self._publisher.pause(self._pacer.paused)
            (self._flowing.clear if self._pacer.paused else self._flowing.set)()
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        due = self._pacer.next_release
        if due is not None:
            self._release_timer = self._loop.call_later(max(0, due - now) / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._release_timer = None
        now = monotonic_ns()
        self._release(self._pacer.pop(now), now)

    def media_now(self, now: int) -> int:
        return self._pacer.media_now(now)

    def gather(self) -> PipelineTotals:
        """The totals with what the parts count themselves."""
        totals = self.totals
        totals.rebases = self._timeline.rebases
        if self._worker is not None:
            stats = self._worker.stats
            totals.worker_restarts, totals.worker_cpu_ns = stats.restarts, stats.cpu_ns
            totals.worker_dropped, totals.worker_lowered = stats.dropped, stats.lowered
        totals.dropped = Counter(self._pacer.dropped)
        return totals

    async def _unpublish(self, lane: Lane) -> None:
        if lane.publication is not None:
            lane.publication.close()
            lane.publication = None

    async def _close(self, lane: Lane) -> None:
        del self.lanes[lane.track.id]
        await lane.close_stage()
        await self._unpublish(lane)

    async def aclose(self) -> None:
        """Stop the stages and the worker. Publications stay as they are: the session may go on with another publisher."""
        if self._release_timer is not None:
            self._release_timer.cancel()
        self.gather()
        for lane in self.lanes.values():
            await lane.close_stage()
        if self._worker is not None:
            await self._worker.aclose()
