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

from gateway.sessions.counters import PipelineTotals
from gateway.sessions.output import Participation
from gateway.sessions.pacer import LiveEdgePolicy, Pacer
from gateway.sessions.timeline import Timeline
from gateway.sessions.track_pipeline import Lane, Tap
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
        self.totals = PipelineTotals()
        self.lanes: dict[int, Lane] = {}
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
        for lane in list(self.lanes.values()):  # last: what another lane has taken over goes on without a pause
            if lane.track.id not in wanted:
                await self._close(lane)
        for kind in {lane.track.kind for lane in self.lanes.values()}:
            self._participation.retain(kind, self._published(kind))

    def _published(self, kind: Kind) -> frozenset[str]:
        lanes = [lane for lane in self.lanes.values() if lane.track.kind is kind]
        return frozenset(layer for lane in lanes for layer in lane.publications)

    async def _set(self, track: Track, decision: Decision) -> None:
        lane = self.lanes.get(track.id)
        if lane is None:
            lane = self.lanes[track.id] = Lane(track, decision, self.totals, self._taps)
        elif lane.track == track and same_treatment(decision, lane.decision):
            lane.decision = decision
            return
        elif same_treatment(decision, lane.decision) and lane.stage is not None and track.codec is lane.track.codec:
            lane.track, lane.decision = track, decision
            lane.stage.reconfigure(track)
            if isinstance(decision, Passthrough):
                self._publish(lane, lane.stage.tracks)
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
            case Passthrough(below=below):
                lane.stage = await self._passing(lane, below)
            case Transcode():
                lane.stage = await self._transcoder(lane, lane.track, lane.decision)
            case Refuse():
                self._publish(lane, ())
                return
            case _ as never:
                assert_never(never)
        self._publish(lane, lane.stage.tracks)

    def _publish(self, lane: Lane, tracks: tuple[Track, ...]) -> None:
        """What comes out of the lane's stage from here on."""
        lane.publish(
            tracks,
            lambda track: self._participation.publish(
                track, lambda: lane.request_keyframe(self._publisher, track.layer), lane.sent
            ),
        )

    async def _passing(self, lane: Lane, below: VideoTarget | None) -> Stage:
        """The track itself, and smaller layers of it where they are wanted and this gateway has room for them."""
        if below is None:
            return passthrough.Passthrough(lane.track, lane.out)
        spare, changed = self._transcoders.spare, partial(self._publish, lane)

        async def start(track: Track, on_tracks: OnTracks, lost: OnFailure) -> Below:
            worker = await spare(lost)
            return Below(worker, worker.video(track, below, lane.out, on_tracks, on_economy=self._economised))

        try:
            return await Layered.started(lane.track, lane.out, changed, start, self._layers_told)
        except Rejected as refusal:
            self._layers_told(False, f"no layers below the video: {refusal.detail}")
            return passthrough.Passthrough(lane.track, lane.out)

    def _layers_told(self, there: bool, what: str) -> None:
        self.totals.layers_lost += not there
        event(log, logging.INFO if there else logging.WARNING, what, session=self._publisher.id)

    async def _transcoder(self, lane: Lane, track: Track, decision: Transcode) -> Stage:
        worker = await self._transcoders.needed()
        changed = partial(self._publish, lane)
        if isinstance(decision.target, VideoTarget):
            return worker.video(track, decision.target, lane.out, changed, lane.shown, self._economised)
        return worker.audio(track, decision.target, lane.out, changed)

    def _economised(self, effort: Effort, cheaper: bool) -> None:
        words = "transcoding cannot keep up, it gets cheaper" if cheaper else "transcoding has room again, it gets better"
        event(log, logging.WARNING if cheaper else logging.INFO, f"{words}: {effort.text}", session=self._publisher.id)

    @property
    def economy(self) -> Effort | None:
        """What the video is encoded with, where that is less than was planned, since the CPU does not suffice."""
        return self._transcoders.economy

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
        present = {lane.track.id: lane.decision for lane in self.lanes.values()}
        wanted = {track.id: decision for track, decision in selected}
        return present.keys() != wanted.keys() or not all(same_treatment(wanted[id], present[id]) for id in wanted)

    async def _follow_viewers(self, lane: Lane, now: int, at_keyframe: bool) -> None:
        """The lane is at a key frame, or is primed: plan by what the viewers take now, if it is this lane that changes for it."""
        accepts = self._participation.accepts
        selected = self._select(accepts)
        if self._differs(selected):
            videos = [track.id for track, _ in selected if track.kind is Kind.VIDEO]
            if lane.track.id not in videos[:1] or now < self._no_room_until:
                return
            self._outdated = False
            if not await self._room_for(selected):
                return
            self._release(self._pacer.flush(), now)
            if at_keyframe:
                lane.take_priming()  # a decoder begins with this one
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
        if kind is Kind.VIDEO:
            if packet.keyframe and self._accepts != self._participation.accepts:
                await self._follow_viewers(lane, now, at_keyframe=True)
            elif self._outdated and not lane.request_keyframe_from(self._publisher) and lane.primed:
                await self._follow_viewers(lane, now, at_keyframe=False)
            lane.keep(packet)
        if lane.watched and lane.reorders(packet):
            await self._revise(replace(lane.track, reorder=1))
            return
        if packet.keyframe and lane.outgrown:
            self._release(self._pacer.flush(), now)
            await self._revise(replace(lane.track, bitrate=lane.meter.sustained_bitrate))
        if lane.lacks_keyframe(packet):
            lane.request_keyframe_from(self._publisher)
        self._entered[packet.track, packet.dts] = now
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

    async def _revise(self, found: Track) -> None:
        """A fact showed that the stream had not announced. With B-frames it is decoded from the last key frame on, and sent from where it
        was sent to."""
        self._tracks = tuple(found if track.id == found.id else track for track in self._tracks)
        await self._arrange()

    @staticmethod
    def _prime(lane: Lane, packets: list[EncodedPacket]) -> None:
        """Let a stage that decodes begin with the group of pictures that is under way; whoever taps the lane has seen it."""
        if isinstance(lane.decision, Transcode) and lane.stage is not None:
            for packet in packets:
                lane.stage.process(packet)

    def _release(self, packets: list[EncodedPacket], now: int) -> None:
        for packet in packets:
            lane = self.lanes.get(packet.track)
            if lane is not None:
                lane.delays.steps[Step.QUEUE].observe(now - self._entered.get((packet.track, packet.dts), now))
                lane.process(packet, now)
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

    def gather(self) -> PipelineTotals:
        """The totals with what the parts count themselves."""
        totals = self.totals
        totals.rebases = self._timeline.rebases
        self._transcoders.count(totals)
        totals.dropped = Counter(self._pacer.dropped)
        return totals

    async def _close(self, lane: Lane) -> None:
        del self.lanes[lane.track.id]
        lane.unpublish(self._published(lane.track.kind))
        await lane.close_stage()

    async def aclose(self) -> None:
        """Stop the stages and the worker. Publications stay as they are: the session may go on with another publisher."""
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        self._participation.on_accepts(lambda: None)
        self._pacer.flush()
        for lane in self.lanes.values():
            await lane.close_stage()
        await self._transcoders.aclose()
