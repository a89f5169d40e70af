"""The stages that are made of a publisher's tracks, as the plan says (`replanner.py`), and their workers.

Kept true: the plan is asked again whenever a fact changes: B-frames or intra refresh appear that the stream's headers did not announce, an
output wants something else, there is room again. What the call shows changes at a key frame of the source, or with a decoder that takes
over in mid-group; what other outputs get changes at once, and nothing that is made for them makes the call wait.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic_ns
from typing import assert_never

from gateway.sessions.capacity import Demand
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import Output
from gateway.sessions.replanner import Decide, Form, Plan, PlannedStage, Replanner, Room
from gateway.sessions.routes import Routes
from gateway.sessions.spaced import Spaced
from gateway.sessions.track_pipeline import TrackPipeline, TrackStage
from gateway.sessions.transcoders import SpareWorker, Transcoders
from gateway.telemetry.log import event
from protocols.errors import Rejected
from protocols.media import EncodedPacket, Kind, Track
from protocols.publisher import Publisher
from transcode.adaptation import Effort
from transcode.host.layered import Below, Layered
from transcode.host.passthrough import PassthroughStage
from transcode.host.process import OnFailure
from transcode.plan import Decision, Passthrough, Refuse, Transcode, VideoTarget, same_treatment
from transcode.stage import OnTracks, Stage

log = logging.getLogger(__name__)

SILENT_NS = 1_500_000_000  # after which a layer that has stopped gives way to another
REPLAN_S = 1.0  # between two plans for what others change
LOST_WORKER_NS = 5_000_000_000  # until what was made in a spare worker is made anew


class Staging:
    """Of one publisher, for the outputs of its seat."""

    def __init__(
        self,
        publisher: Publisher,
        routes: Routes,
        transcoders: Transcoders,
        spare: SpareWorker,
        totals: PipelineCounters,
        *,
        decide: Decide,
        room: Room,
        flush: Callable[[int], None],
    ) -> None:
        """`routes` and `spare` are the seat's. `flush` processes, at this monotonic ns, what the pacer holds: what comes next is of another
        kind."""
        self.track_pipelines: dict[int, TrackPipeline] = {}
        """By track id: those of which something is made, or would be."""
        self._publisher = publisher
        self._routes = routes
        self._transcoders = transcoders
        self._spare = spare
        self._totals = totals
        self._flush = flush
        self._replanner = Replanner(decide, room)
        self._plan = Plan({}, Demand())
        self.outdated = False
        """A fact has changed that the plan does not know: `follow` with each packet until that is so no more."""
        self._kept = ""  # why viewers miss a codec, as it was told
        self._silent: set[int] = set()  # layers from which nothing comes
        self._last_of_layer: dict[int, int] = {}  # track -> arrival of its newest packet
        self._arranging = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.replan_soon = Spaced(self.replan, REPLAN_S)
        """For what viewers and publishers can change as often as they like."""
        self._tracks: tuple[Track, ...] = ()  # what the publisher has
        self._retired: set[asyncio.Task[None]] = set()  # stages of optional outputs that are being closed

    def admit(self, tracks: tuple[Track, ...]) -> None:
        """Before the first `change`: raises `Rejected` where there is no room for these."""
        self._replanner.admit(tracks, self._outputs)

    async def change(self, tracks: tuple[Track, ...]) -> None:
        """The publisher's tracks are these from here on."""
        self._flush(monotonic_ns())
        measured = {track.id: track.bitrate for track in self._tracks}  # by us: the publisher does not know
        self._tracks = tuple(replace(track, bitrate=measured.get(track.id, 0)) for track in tracks)
        self._last_of_layer = {track.id: last for track in tracks if (last := self._last_of_layer.get(track.id))}
        self._silent &= self._last_of_layer.keys()
        await self._arrange(self._replan())

    def replan(self) -> None:
        """An output wants something else, or what may be sent has changed: the plan follows with the next packets."""
        self.outdated = True
        if self._differs(self._replan()):
            self.request_source_keyframe()

    def lost_spare(self) -> None:
        """The spare worker has failed: what was made in it is made anew in a while."""
        now = monotonic_ns()
        for output in self._outputs:
            if not output.essential:
                self._replanner.no_room_for(output.name, now, LOST_WORKER_NS)
        self.outdated = True

    def cost_of(self, output: Output) -> Demand:
        """What this output costs by what it wants now, whether there is room or not."""
        return self._replanner.cost_of(output, self._tracks, self._outputs)

    @property
    def decisions(self) -> list[Decision]:
        """What is made that the stream cannot do without."""
        return [stage.decision for stage in self._plan.stages.values() if stage.essential]

    @property
    def idle(self) -> bool:
        """Some of that is not made just now, since nobody is there for whom."""
        return any(stage.idle for stage in self._plan.stages.values())

    @property
    def optional(self) -> Demand:
        """What the outputs cost that the stream can do without."""
        return self._plan.optional

    @property
    def _outputs(self) -> Sequence[Output]:
        return tuple(self._routes.outputs.values())

    def _replan(self) -> Plan:
        return self._replanner.replan(self._tracks, self._outputs, monotonic_ns(), self._silent)

    def _differs(self, plan: Plan) -> bool:
        """Whether the essential outputs get another picture by this plan in the place of the one that they have."""
        present = self._shown(self._plan)
        return bool(present) and bool(self._shown(plan).keys() - present.keys())

    @staticmethod
    def _shown(plan: Plan) -> dict[Form, PlannedStage]:
        video = (stage for stage in plan.stages.values() if stage.essential and stage.track.kind is Kind.VIDEO)
        return {stage.form: stage for stage in video if not isinstance(stage.decision, Refuse)}

    async def follow(self, id: int, packet: EncodedPacket, now: int) -> None:
        """The plan is out of date, and this packet of the track `id` comes next: follow it, for the call at a key frame of the picture that
        is to be shown, or in mid-group where the source makes none on request."""
        plan = self._replan()
        if self._differs(plan):
            if id != next(iter(self._shown(plan)))[0]:
                return
            if not packet.keyframe and not self._may_begin_in_mid_group(plan, self.track_pipelines.get(id)):
                return
            self._flush(now)
        await self._arrange(plan, at_keyframe=packet.keyframe)

    def _may_begin_in_mid_group(self, plan: Plan, track_pipeline: TrackPipeline | None) -> bool:
        """Only a decoder may, where the group under way is at hand; and only where no key frame comes on request."""
        if track_pipeline is None or track_pipeline.request_keyframe(self._publisher):
            return False
        decoded = all(isinstance(stage.decision, Transcode) for stage in self._shown(plan).values())
        return decoded and bool(track_pipeline.group.packets)

    async def _arrange(self, plan: Plan, at_keyframe: bool = False) -> None:
        """Stages for all that the plan asks for, and none for anything else."""
        plan = await self._with_workers(plan)
        self.outdated = False
        self._plan = plan
        self._plan_again_at(plan.again)
        if plan.kept and not self._kept:
            event(log, logging.WARNING, plan.kept, session=self._publisher.id)
        self._kept = plan.kept
        by_track: dict[int, list[PlannedStage]] = {}
        for planned in plan.stages.values():
            by_track.setdefault(planned.track.id, []).append(planned)
        self._arranging = True
        try:
            for stages in by_track.values():
                await self._set(stages, at_keyframe)
            gone = [self.track_pipelines.pop(id) for id in self.track_pipelines.keys() - by_track.keys()]
            for track_pipeline in gone:  # last: what another has taken over goes on without a pause
                await track_pipeline.close()
        finally:
            self._arranging = False
        self._keep_routes(gone)
        await self._transcoders.keep(plan.transcodes)
        if plan.optional == Demand():
            self._spare.release()

    def _plan_again_at(self, when: int | None) -> None:
        """What there was no room for may fit then (monotonic ns)."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if when is None else self._loop.call_later(max(0, when - monotonic_ns()) / 1e9, self.replan)

    async def _with_workers(self, plan: Plan) -> Plan:
        """The plan, or what is left of it where there are no workers for it. Raises `Rejected` where that is not enough for the stream."""
        for name, refusal in plan.refused.items():
            self._routes.outputs[name].refused(refusal)
        for kind in plan.transcodes:
            try:
                await self._transcoders.needed(kind)
            except Rejected as refusal:
                if not plan.for_viewers:
                    raise
                self._replanner.no_room(refusal, monotonic_ns())
                return await self._with_workers(self._replan())
        if plan.optional != Demand():
            try:
                await self._spare.needed()
            except Rejected as refusal:
                now = monotonic_ns()
                for output in self._outputs:
                    if not output.essential:
                        self._replanner.no_room_for(output.name, now)
                        output.refused(refusal)
                return await self._with_workers(self._replan())
        return plan

    async def _set(self, wanted: Sequence[PlannedStage], at_keyframe: bool) -> None:
        """These are the forms of one track that are made from here on."""
        track = wanted[0].track
        track_pipeline = self.track_pipelines.get(track.id)
        if track_pipeline is None:
            track_pipeline = self.track_pipelines[track.id] = TrackPipeline(track, self._totals)
        before, track_pipeline.track = track_pipeline.track, track
        stays = {
            planned.form: stage
            for planned in wanted
            if (stage := track_pipeline.stages.get(planned.form)) is not None
            and track.codec is before.codec
            and (planned.essential, planned.idle) == (stage.planned.essential, stage.planned.idle)
            and same_treatment(planned.decision, stage.decision)
        }
        for form, stage in track_pipeline.stages.items():
            if form not in stays:
                await self._close(stage)
        same_stream = (track.codec, track.width, track.height) == (before.codec, before.width, before.height)
        if not same_stream:
            track_pipeline.group.clear()
        known, track_pipeline.stages = track_pipeline.stages, {}
        for planned in wanted:
            stage = stays.get(planned.form)
            if stage is None:
                stage = track_pipeline.stages[planned.form] = TrackStage(track_pipeline, planned, self._publisher, self._routes)
                if planned.form not in known:
                    self._tell(planned)
                await self._build(track_pipeline, stage, at_keyframe)
            else:
                track_pipeline.stages[planned.form] = stage
                self._go_on(stage, planned, track != before)

    def _go_on(self, stage: TrackStage, planned: PlannedStage, changed: bool) -> None:
        """A stage that is there does it; `changed`: the track has other facts than before."""
        takers, stage.planned = stage.planned.takers, planned
        if stage.stage is None:
            return
        if changed:
            stage.stage.reconfigure(planned.track)
        lost = any(route.closed for route in stage.used)
        if lost or planned.takers != takers or (changed and isinstance(planned.decision, Passthrough)):
            stage.publish(stage.stage.tracks)

    def _tell(self, planned: PlannedStage) -> None:
        """In the log and the counters, once for each form that a track takes."""
        mode, why = planned.mode, planned.decision.why
        self._totals.treatments[planned.track.kind, mode, why.label] += 1
        whose = "" if planned.essential else f"{', '.join(taker.output for taker in planned.takers)}: "
        event(
            log,
            logging.INFO if not isinstance(planned.decision, Refuse) else logging.WARNING,
            f"{whose}{planned.track.kind.value} {mode}: {why.text}",
            session=self._publisher.id,
            codec=planned.track.codec.value,
            advice=why.advice or None,
        )

    async def _build(self, track_pipeline: TrackPipeline, stage: TrackStage, at_keyframe: bool) -> None:
        """Give it the stage that its decision asks for, and its routes."""
        track, planned = track_pipeline.track, stage.planned
        match planned.decision:
            case Passthrough(below=below):
                stage.stage = await self._passing(track_pipeline, stage, below)
            case Transcode() if planned.idle:
                return  # made once somebody comes
            case Transcode():
                stage.stage = await self._transcoder(track_pipeline, stage, planned.decision)
            case Refuse():
                return
            case _ as never:
                assert_never(never)
        stage.publish(stage.stage.tracks)
        if isinstance(planned.decision, Transcode) and track.kind is Kind.VIDEO and not at_keyframe:
            if planned.essential and track_pipeline.group.packets:
                for packet in track_pipeline.group.packets:  # a decoder that takes over; what was shown does not come out again
                    stage.stage.process(packet)
            else:
                stage.waits = True

    async def _passing(self, track_pipeline: TrackPipeline, stage: TrackStage, below: VideoTarget | None) -> Stage:
        """The track itself, and smaller layers of it where they are wanted and this gateway has room for them."""
        if below is None:
            return PassthroughStage(track_pipeline.track, stage.out)
        worker_for_layers, changed = self._transcoders.below, partial(self._published, stage)

        async def start(track: Track, on_tracks: OnTracks, on_lost: OnFailure) -> Below:
            worker = await worker_for_layers(on_lost)
            group = track_pipeline.group
            return Below(worker, worker.video(track, below, stage.out, group, on_tracks, on_adaptation=self._adapted))

        layered = Layered(track_pipeline.track, stage.out, changed, start, self._on_layers)
        try:
            if not stage.planned.idle:
                await layered.open()
        except Rejected as refusal:
            self._on_layers(False, f"no layers below the video: {refusal.detail}")
            return PassthroughStage(track_pipeline.track, stage.out)
        return layered

    def _on_layers(self, there: bool, what: str) -> None:
        self._totals.layers_lost += not there
        event(log, logging.INFO if there else logging.WARNING, what, session=self._publisher.id)

    async def _transcoder(self, track_pipeline: TrackPipeline, stage: TrackStage, decision: Transcode) -> Stage:
        essential, track = stage.planned.essential, track_pipeline.track
        worker = await (self._transcoders.needed(track.kind) if essential else self._spare.needed())
        changed = partial(self._published, stage)
        if isinstance(decision.target, VideoTarget):
            shown = track_pipeline.shown if essential else None
            adapted = self._adapted if essential else None
            return worker.video(track, decision.target, stage.out, track_pipeline.group, changed, shown, adapted)
        return worker.audio(track, decision.target, stage.out, changed)

    def _published(self, stage: TrackStage, tracks: tuple[Track, ...]) -> None:
        """Other tracks come out of a stage than before."""
        stage.publish(tracks)
        if not self._arranging:
            self._keep_routes()

    def _keep_routes(self, gone: Sequence[TrackPipeline] = ()) -> None:
        """The routes that nobody uses end; of a kind that this publisher has not had, they wait for its track."""
        for kind in {track_pipeline.track.kind for track_pipeline in (*self.track_pipelines.values(), *gone)}:
            used = [each for each in self.track_pipelines.values() if each.track.kind is kind]
            self._routes.keep(kind, [route for each in used for route in each.used])

    def _adapted(self, effort: Effort, cheaper: bool) -> None:
        words = "transcoding cannot keep up, it gets cheaper" if cheaper else "transcoding has room again, it gets better"
        event(log, logging.WARNING if cheaper else logging.INFO, f"{words}: {effort.text}", session=self._publisher.id)

    # What the packets show

    def note_layer(self, packet: EncodedPacket) -> None:
        """A layer of several: those that have fallen silent give way to others where one alone is made into something."""
        self._last_of_layer[packet.track] = packet.arrival
        if not packet.keyframe:
            return
        silent = {id for id, last in self._last_of_layer.items() if packet.arrival - last > SILENT_NS}
        if silent != self._silent:
            self._silent = silent
            self.replan_soon.ask()

    def request_source_keyframe(self) -> None:
        """Where only the source's own key frame lets the video go on."""
        for track_pipeline in self.track_pipelines.values():
            if track_pipeline.track.kind is Kind.VIDEO:
                track_pipeline.request_keyframe(self._publisher)

    async def revise(self, found: Track, now: int, at_keyframe: bool = False) -> None:
        """A fact showed that the stream had not announced. With B-frames it is decoded from the last key frame on, and sent from where it
        was sent to."""
        self._flush(now)
        self._tracks = tuple(found if track.id == found.id else track for track in self._tracks)
        await self._arrange(self._replan(), at_keyframe)

    async def _close(self, stage: TrackStage) -> None:
        """What the call is given is waited for; others must not make it wait."""
        self._routes.drop_optional(stage.used)
        if stage.planned.essential:
            await stage.close_stage()
        else:
            task = asyncio.create_task(stage.close_stage(), name=f"a stage of {self._publisher.id} that nobody takes")
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)

    async def aclose(self) -> None:
        """Close all stages. Routes stay as they are: the seat may go on with another publisher."""
        self._plan_again_at(None)
        self.replan_soon.close()
        for track_pipeline in self.track_pipelines.values():
            await track_pipeline.close()
        if self._retired:
            await asyncio.wait(list(self._retired))
