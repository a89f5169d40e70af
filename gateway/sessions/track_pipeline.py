"""One track's way from its encoder to the outputs: the stages that are made of it, and where the packets of each go.

Kept true: the group of pictures under way is kept once, for whoever has to begin in the middle of it: a decoder that takes over, or one
that starts anew.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic_ns

from gateway.sessions.counters import PipelineCounters
from gateway.sessions.replanner import Form, PlannedStage, Taker
from gateway.sessions.routes import Routes, TrackRoute
from gateway.sessions.track_meter import TrackMeter
from gateway.telemetry.latency import Step
from protocols.media import EncodedPacket, Kind, Track
from protocols.publisher import Publisher
from transcode.group_cache import GroupCache
from transcode.plan import Decision, Passthrough, Transcode
from transcode.stage import Stage

WATCHED_SPAN = 5_000_000_000  # ns at the start of a stream that passes in which its frames may show that it must not
KEYFRAME_REQUEST_INTERVAL = 500_000_000  # ns: requests of many viewers become one
_IN_WORK = 256  # packets in a stage whose time is measured


class TrackStage:
    """One form of a track at work: its stage, and the routes that its packets take. The `Feeder` of those routes."""

    def __init__(self, owner: "TrackPipeline", planned: PlannedStage, publisher: Publisher, routes: Routes) -> None:
        self.planned = planned
        self.stage: Stage | None = None
        """None while it is made, and where nothing comes of it."""
        self.used: tuple[TrackRoute, ...] = ()
        self.waits = False
        """For a key frame of the source: it begins in the middle of a group."""
        self._owner = owner
        self._publisher = publisher
        self._routes = routes
        self._by_layer: dict[str, tuple[TrackRoute, ...]] = {}
        self._released: dict[int, int] = {}  # arrival -> when it went into the stage, while a worker has it
        self.pushed = 0
        """When it last gave a packet, in monotonic ns."""

    @property
    def decision(self) -> Decision:
        return self.planned.decision

    @property
    def mode(self) -> str:
        return self.planned.mode

    def process(self, packet: EncodedPacket, now: int) -> None:
        if self.stage is None:
            if self.planned.essential:
                self._owner.note_shown(packet.pts)  # whoever comes later is shown what comes then
            return
        if self.waits:
            if not packet.keyframe:
                return
            self.waits = False
        if self.planned.essential and isinstance(self.decision, Transcode):
            self._released[packet.arrival] = now
            while len(self._released) > _IN_WORK:
                del self._released[next(iter(self._released))]
        self.stage.process(packet)

    def out(self, packet: EncodedPacket) -> None:
        """The stage's `Sink`."""
        routes = self._by_layer.get(packet.layer)
        if not routes:
            return
        now = self.pushed = monotonic_ns()
        if self._released:
            self._owner.delays.steps[Step.TRANSCODE].observe(now - self._released.get(packet.arrival, now))
        if self.planned.essential:
            self._owner.note_shown(packet.pts)
        for route in routes:
            route.push(packet, self)

    def publish(self, tracks: tuple[Track, ...]) -> None:
        """What comes out of the stage from here on, the largest layer first."""
        used: dict[str, list[TrackRoute]] = {}
        for taker in self.planned.takers:
            for track in self._taken(taker, tracks):
                used.setdefault(track.layer, []).append(self._routes.to(taker.output, track, self))
        self._by_layer = {layer: tuple(routes) for layer, routes in used.items()}
        self.used = tuple(route for routes in used.values() for route in routes)

    def _taken(self, taker: Taker, tracks: Sequence[Track]) -> Sequence[Track]:
        if taker.smaller:
            return [track for track in tracks if 0 < track.height < self._owner.track.height]
        return tracks[: taker.layers]

    def lacks_keyframe(self, packet: EncodedPacket) -> bool:
        """Whether nothing can be made of the packets up to the next key frame."""
        if packet.keyframe or self.stage is None:
            return False
        return self.waits or self.stage.starved or any(route.waits for route in self.used)

    # What outputs say

    def keyframe(self, layer: str) -> bool:
        """Ask whoever makes this layer's key frames."""
        return self.stage is not None and (self.stage.request_keyframe(layer) or self._owner.request_keyframe(self._publisher))

    def bitrate(self) -> None:
        """Of several layers each viewer takes the one that its way carries; where there is one alone its encoder follows the least."""
        said = [route.carries for route in self.used if route.carries]
        if self.stage is not None and len(self._by_layer) == 1 and said:
            self.stage.set_bitrate(min(said))

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        steps = self._owner.delays.steps
        steps[Step.PACKETIZE].observe(ready - self.pushed)
        steps[Step.SEND].observe(sent - ready)
        self._owner.delays.total[self.mode].observe(sent - packet.arrival)

    async def close_stage(self) -> None:
        stage, self.stage = self.stage, None
        self._released.clear()
        if stage is not None:
            await stage.aclose()


class TrackPipeline:
    """See the file; `totals` are those of its pipeline."""

    def __init__(self, track: Track, totals: PipelineCounters) -> None:
        self.track = track
        self.meter = TrackMeter(track.kind)
        self.delays = totals.delays[track.kind]
        self.stages: dict[Form, TrackStage] = {}
        """Those for an essential output first."""
        self.group = GroupCache()
        self.shown: int | None = None
        """The highest pts that an essential output was given."""
        self._highest_pts = -1
        self._watched = track.kind is Kind.VIDEO
        self._first_dts: int | None = None
        self._keyframe_asked = 0

    @property
    def shown_stage(self) -> TrackStage:
        """The one that stands for the track where one answer is wanted: the call's, where it has one."""
        return next(iter(self.stages.values()))

    @property
    def decision(self) -> Decision:
        return self.shown_stage.decision

    @property
    def mode(self) -> str:
        return self.shown_stage.mode

    @property
    def used(self) -> list[TrackRoute]:
        return [route for stage in self.stages.values() for route in stage.used]

    @property
    def watched(self) -> bool:
        """Passed through, and so young that its frames may yet show what its headers did not say: B-frames, intra refresh."""
        return self._watched and isinstance(self.decision, Passthrough)

    @property
    def outgrown(self) -> bool:
        """Passed through, and for some time with more bits than may pass."""
        return isinstance(self.decision, Passthrough) and 0 < self.decision.up_to < self.meter.sustained_bitrate

    def reorders(self, packet: EncodedPacket) -> bool:
        """True when this packet proves B-frames (pts goes back in decoding order)."""
        if self._first_dts is None:
            self._first_dts = packet.dts
        behind = packet.pts < self._highest_pts and self.track.reorder is None
        self._highest_pts = max(self._highest_pts, packet.pts)
        if not behind and packet.dts - self._first_dts > WATCHED_SPAN:
            self._watched = False  # enough seen; should it come later, a changed track says so
            if self.track.reorder is None:
                self.track = replace(self.track, reorder=0)
        return behind

    def note_shown(self, pts: int) -> None:
        self.shown = pts if self.shown is None else max(self.shown, pts)

    def process(self, packet: EncodedPacket, now: int) -> None:
        if self.meter.kind is Kind.VIDEO:
            self.group.add(packet)
        for stage in self.stages.values():
            stage.process(packet, now)

    def lacks_keyframe(self, packet: EncodedPacket) -> bool:
        return any(stage.lacks_keyframe(packet) for stage in self.stages.values())

    def request_keyframe(self, publisher: Publisher) -> bool:
        """Ask the source itself, at most twice a second; True if one will come."""
        now = monotonic_ns()
        if now - self._keyframe_asked < KEYFRAME_REQUEST_INTERVAL:
            return True
        if publisher.request_keyframe(self.track.layer):
            self._keyframe_asked = now
            return True
        return False

    async def close(self) -> None:
        for stage in self.stages.values():
            await stage.close_stage()
