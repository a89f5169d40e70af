"""One encoder's media on its way into a call: timeline, pacer, and for each track a lane of plan, stage and publications.

Kept true: all tracks go through one timeline and one pacer, so they stay in step; a track is transcoded only when the plan says so, and
the plan is asked again whenever a fact changes — also when B-frames or intra refresh appear that the stream's headers did not announce, or
a viewer comes who does not take the codec. A stream never ends because of a viewer: where there is no room it passes as before.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic_ns
from typing import assert_never

from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import Participation
from gateway.sessions.pacer import LiveEdgePolicy, Pacer
from gateway.sessions.timeline import Timeline
from gateway.sessions.track_pipeline import Tap, TrackPipeline
from gateway.sessions.track_selection import Selected, select
from gateway.sessions.transcoders import Transcoders
from gateway.telemetry.latency import Step
from gateway.telemetry.log import event
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.publisher import Publisher
from transcode.adaptation import Effort
from transcode.host import passthrough
from transcode.host.layered import Below, Layered
from transcode.host.pool import Workers
from transcode.host.process import OnFailure
from transcode.plan import Decision, Passthrough, Refuse, Transcode, VideoTarget, same_treatment
from transcode.stage import OnTracks, Stage

log = logging.getLogger(__name__)

NO_ROOM_NS = 10_000_000_000  # until what there was no room for is tried again


class Pipeline:
    """All lanes of one publisher. Fed with its items in order; closes its worker and leaves the publications when closed."""

    def __init__(
        self,
        publisher: Publisher,
        participation: Participation,
        workers: Workers,
        *,
        decide: Callable[[Track, frozenset[Codec]], Decision],
        admit: Callable[[Sequence[Decision]], None],
        live_edge: LiveEdgePolicy,
        max_bitrate: int,
        origin: int,
        fail: Callable[[str], None],
        taps: Sequence[Tap] = (),
    ) -> None:
        """`decide` what to do with a track for viewers who take these codecs; `admit` raises `Rejected` where there is no room for all that
        was decided. `max_bitrate` is of one track, bit/s, 0 for none; `origin` the session media time in ns at which this publisher
        starts; `fail` ends the publisher with a reason."""
        self.totals = PipelineCounters()
        self.track_pipelines: dict[int, TrackPipeline] = {}
        self._publisher = publisher
        self._participation = participation
        self._transcoders = Transcoders(workers, publisher.id, fail)
        self._decide = decide
        self._admit = admit
        self._accepts = participation.accepts  # by which the lanes are planned
        self._outdated = False  # they are to be planned anew with the next key frame
        self._no_room_until = 0  # monotonic ns; 0: there was room
        self._max_bitrate = max_bitrate
        self._fail = fail
        self._taps = taps
        self._timeline = Timeline(origin=origin)
        self._pacer = Pacer(live_edge)
        self._tracks: tuple[Track, ...] = ()  # what the publisher has
        self._loop = asyncio.get_running_loop()
        self._release_timer: asyncio.TimerHandle | None = None
        self._flowing = asyncio.Event()  # cleared while the pacer holds as much as it may: nothing more is read
        self._flowing.set()
        self._entered: dict[tuple[int, int], int] = {}  # track and dts -> when the pacer took what it holds
        participation.set_clock(self.media_now)
        participation.on_accepts(self._viewers_changed)

    async def change(self, tracks: tuple[Track, ...]) -> None:
        """The publisher's tracks are these from here on."""
        self._release(self._pacer.flush(), monotonic_ns())
        measured = {track.id: track.bitrate for track in self._tracks}  # by us: the publisher does not know
        self._tracks = tuple(replace(track, bitrate=measured.get(track.id, 0)) for track in tracks)
        accepts = self._participation.accepts
        self._accepts = accepts if await self._room_for(self._select(accepts)) else self._participation.carries
        await self._arrange()

    def _select(self, accepts: frozenset[Codec]) -> list[Selected]:
        return select(self._tracks, lambda track: self._decide(track, accepts))

    async def _arrange(self) -> None:
        """A lane for each track that is to go into the call, and none for the others."""
        selected = self._select(self._accepts)
        wanted = {track.id for track, _ in selected}
        for track, decision in selected:
            await self._set(track, decision)
        for track_pipeline in list(
            self.track_pipelines.values()
        ):  # last: what another lane has taken over goes on without a pause
            if track_pipeline.track.id not in wanted:
                await self._close(track_pipeline)
        for kind in {track_pipeline.track.kind for track_pipeline in self.track_pipelines.values()}:
            self._participation.retain(kind, self._published(kind))

    def _published(self, kind: Kind) -> frozenset[str]:
        track_pipelines = [
            track_pipeline for track_pipeline in self.track_pipelines.values() if track_pipeline.track.kind is kind
        ]
        return frozenset(layer for track_pipeline in track_pipelines for layer in track_pipeline.publications)

    async def _set(self, track: Track, decision: Decision) -> None:
        track_pipeline = self.track_pipelines.get(track.id)
        if track_pipeline is None:
            track_pipeline = self.track_pipelines[track.id] = TrackPipeline(track, decision, self.totals, self._taps)
        elif track_pipeline.track == track and same_treatment(decision, track_pipeline.decision):
            track_pipeline.decision = decision
            return
        elif (
            same_treatment(decision, track_pipeline.decision)
            and track_pipeline.stage is not None
            and track.codec is track_pipeline.track.codec
        ):
            track_pipeline.track, track_pipeline.decision = track, decision
            track_pipeline.stage.reconfigure(track)
            if isinstance(decision, Passthrough):
                self._publish(track_pipeline, track_pipeline.stage.tracks)
            return
        same_stream = track.codec is track_pipeline.track.codec and (track.width, track.height) == (
            track_pipeline.track.width,
            track_pipeline.track.height,
        )
        track_pipeline.track, track_pipeline.decision = track, decision
        priming = track_pipeline.take_priming()
        await self._build(track_pipeline)
        if same_stream:
            self._prime(track_pipeline, priming)

    async def _build(self, track_pipeline: TrackPipeline) -> None:
        """Give the lane the stage that its decision asks for, and its publication."""
        await track_pipeline.close_stage()
        self.totals.treatments[track_pipeline.track.kind, track_pipeline.mode, track_pipeline.decision.why.label] += 1
        event(
            log,
            logging.INFO if not isinstance(track_pipeline.decision, Refuse) else logging.WARNING,
            f"{track_pipeline.track.kind.value} {track_pipeline.mode}: {track_pipeline.decision.why.text}",
            session=self._publisher.id,
            codec=track_pipeline.track.codec.value,
            advice=track_pipeline.decision.why.advice or None,
        )
        match track_pipeline.decision:
            case Passthrough(below=below):
                track_pipeline.stage = await self._passing(track_pipeline, below)
            case Transcode():
                track_pipeline.stage = await self._transcoder(track_pipeline, track_pipeline.track, track_pipeline.decision)
            case Refuse():
                self._publish(track_pipeline, ())
                return
            case _ as never:
                assert_never(never)
        self._publish(track_pipeline, track_pipeline.stage.tracks)

    def _publish(self, track_pipeline: TrackPipeline, tracks: tuple[Track, ...]) -> None:
        """What comes out of the lane's stage from here on."""
        track_pipeline.publish(
            tracks,
            lambda track: self._participation.publish(
                track, lambda: track_pipeline.request_keyframe(self._publisher, track.layer), track_pipeline.sent
            ),
        )

    async def _passing(self, track_pipeline: TrackPipeline, below: VideoTarget | None) -> Stage:
        """The track itself, and smaller layers of it where they are wanted and this gateway has room for them."""
        if below is None:
            return passthrough.PassthroughStage(track_pipeline.track, track_pipeline.out)
        spare, changed = self._transcoders.spare, partial(self._publish, track_pipeline)

        async def start(track: Track, on_tracks: OnTracks, lost: OnFailure) -> Below:
            worker = await spare(lost)
            return Below(worker, worker.video(track, below, track_pipeline.out, on_tracks, on_adaptation=self._economised))

        try:
            return await Layered.started(track_pipeline.track, track_pipeline.out, changed, start, self._layers_told)
        except Rejected as refusal:
            self._layers_told(False, f"no layers below the video: {refusal.detail}")
            return passthrough.PassthroughStage(track_pipeline.track, track_pipeline.out)

    def _layers_told(self, there: bool, what: str) -> None:
        self.totals.layers_lost += not there
        event(log, logging.INFO if there else logging.WARNING, what, session=self._publisher.id)

    async def _transcoder(self, track_pipeline: TrackPipeline, track: Track, decision: Transcode) -> Stage:
        worker = await self._transcoders.needed()
        changed = partial(self._publish, track_pipeline)
        if isinstance(decision.target, VideoTarget):
            return worker.video(track, decision.target, track_pipeline.out, changed, track_pipeline.shown, self._economised)
        return worker.audio(track, decision.target, track_pipeline.out, changed)

    def _economised(self, effort: Effort, cheaper: bool) -> None:
        words = "transcoding cannot keep up, it gets cheaper" if cheaper else "transcoding has room again, it gets better"
        event(log, logging.WARNING if cheaper else logging.INFO, f"{words}: {effort.text}", session=self._publisher.id)

    @property
    def adaptation(self) -> Effort | None:
        """What the video is encoded with, where that is less than was planned, since the CPU does not suffice."""
        return self._transcoders.adaptation

    def shed(self) -> bool:
        """Make room for others by a layer less, the top one that is encoded; False where there is none to spare."""
        return self._transcoders.shed()

    def _viewers_changed(self) -> None:
        """The call accepts other codecs. If that matters here the plan changes with the video's next key frame, which the source is asked
        for until it comes; where it makes none on request, a decoder takes over in mid-group."""
        self._outdated = self._differs(self._select(self._participation.accepts))
        if self._outdated:
            self._request_source_keyframe()

    def _differs(self, selected: list[Selected]) -> bool:
        """Whether other tracks are to go into the call than do, or in another way."""
        present = {track_pipeline.track.id: track_pipeline.decision for track_pipeline in self.track_pipelines.values()}
        wanted = {track.id: decision for track, decision in selected}
        return present.keys() != wanted.keys() or not all(same_treatment(wanted[id], present[id]) for id in wanted)

    async def _follow_viewers(self, track_pipeline: TrackPipeline, now: int, at_keyframe: bool) -> None:
        """The lane is at a key frame, or is primed: plan by what the viewers take now, if it is this lane that changes for it."""
        accepts = self._participation.accepts
        selected = self._select(accepts)
        if self._differs(selected):
            videos = [track.id for track, _ in selected if track.kind is Kind.VIDEO]
            if track_pipeline.track.id not in videos[:1] or now < self._no_room_until:
                return
            self._outdated = False
            if not await self._room_for(selected):
                return
            self._release(self._pacer.flush(), now)
            if at_keyframe:
                track_pipeline.take_priming()  # a decoder begins with this one
        self._outdated = False
        self._accepts = accepts
        await self._arrange()

    async def _room_for(self, selected: list[Selected]) -> bool:
        """Whether there is room for what has to be transcoded only because viewers do not take the codec."""
        carried = self._participation.carries
        only_for_viewers = [
            (track, decision)
            for track, decision in selected
            if not isinstance(decision, Passthrough) and isinstance(self._decide(track, carried), Passthrough)
        ]
        if not only_for_viewers:
            return True
        track, decision = only_for_viewers[0]
        try:
            if isinstance(decision, Refuse):  # nothing is transcoded here
                raise Rejected(Reason.UNSUPPORTED_MEDIA, decision.why.text)
            self._admit([decision for _, decision in selected])
            await self._transcoders.needed()
        except Rejected as refusal:
            if not self._no_room_until:
                words = f"{track.codec.value} passes though a viewer's player does not take it: {refusal.detail}"
                event(log, logging.WARNING, words, session=self._publisher.id)
            self._no_room_until = monotonic_ns() + NO_ROOM_NS
            return False
        self._no_room_until = 0
        return True

    async def push(self, packet: EncodedPacket) -> None:
        """One packet of the publisher, on its own clock."""
        now = monotonic_ns()
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
        if 0 < self._max_bitrate < track_pipeline.meter.sustained_bitrate:
            self._fail(
                f"the {kind.value} has {track_pipeline.meter.bitrate / 1e6:.1f} Mbit/s, more than the {self._max_bitrate / 1e6:.1f} Mbit/s "
                "allowed here: lower the encoder's bitrate"
            )
            return
        if kind is Kind.VIDEO:
            if packet.keyframe and self._accepts != self._participation.accepts:
                await self._follow_viewers(track_pipeline, now, at_keyframe=True)
            elif self._outdated and not track_pipeline.request_keyframe_from(self._publisher) and track_pipeline.primed:
                await self._follow_viewers(track_pipeline, now, at_keyframe=False)
            track_pipeline.keep(packet)
        if track_pipeline.watched and track_pipeline.reorders(packet):
            await self._revise(replace(track_pipeline.track, reorder=1))
            return
        if packet.keyframe and track_pipeline.outgrown:
            self._release(self._pacer.flush(), now)
            await self._revise(replace(track_pipeline.track, bitrate=track_pipeline.meter.sustained_bitrate))
        if track_pipeline.lacks_keyframe(packet):
            track_pipeline.request_keyframe_from(self._publisher)
        self._entered[packet.track, packet.dts] = now
        self._pacer.push(packet, kind, now)
        if self._pacer.needs_keyframe:
            self._request_source_keyframe()
        self._release(self._pacer.pop(now), now)
        await self._flowing.wait()

    def _request_source_keyframe(self) -> None:
        """The pacer cut the video: only the source's own key frame lets it go on."""
        for track_pipeline in self.track_pipelines.values():
            if track_pipeline.track.kind is Kind.VIDEO:
                track_pipeline.request_keyframe_from(self._publisher)

    async def _revise(self, found: Track) -> None:
        """A fact showed that the stream had not announced. With B-frames it is decoded from the last key frame on, and sent from where it
        was sent to."""
        self._tracks = tuple(found if track.id == found.id else track for track in self._tracks)
        await self._arrange()

    @staticmethod
    def _prime(track_pipeline: TrackPipeline, packets: list[EncodedPacket]) -> None:
        """Let a stage that decodes begin with the group of pictures that is under way; whoever taps the lane has seen it."""
        if isinstance(track_pipeline.decision, Transcode) and track_pipeline.stage is not None:
            for packet in packets:
                track_pipeline.stage.process(packet)

    def _release(self, packets: list[EncodedPacket], now: int) -> None:
        for packet in packets:
            track_pipeline = self.track_pipelines.get(packet.track)
            if track_pipeline is not None:
                track_pipeline.delays.steps[Step.QUEUE].observe(now - self._entered.get((packet.track, packet.dts), now))
                track_pipeline.process(packet, now)
            self._entered.pop((packet.track, packet.dts), None)
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
            self._release_timer = self._loop.call_later(max(0, due - now) / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._release_timer = None
        now = monotonic_ns()
        self._release(self._pacer.pop(now), now)

    def media_now(self, now: int) -> int:
        """The session's media time in ns that is live at `now` (monotonic ns), also after the end."""
        return self._pacer.media_now(now)

    def gather(self) -> PipelineCounters:
        """The totals with what the parts count themselves."""
        totals = self.totals
        totals.rebases = self._timeline.rebases
        self._transcoders.count(totals)
        totals.dropped = Counter(self._pacer.dropped)
        return totals

    async def _close(self, track_pipeline: TrackPipeline) -> None:
        del self.track_pipelines[track_pipeline.track.id]
        track_pipeline.unpublish(self._published(track_pipeline.track.kind))
        await track_pipeline.close_stage()

    async def aclose(self) -> None:
        """Stop the stages and the worker. Publications stay as they are: the session may go on with another publisher."""
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        self._participation.on_accepts(lambda: None)
        self._pacer.flush()
        for track_pipeline in self.track_pipelines.values():
            await track_pipeline.close_stage()
        await self._transcoders.aclose()
