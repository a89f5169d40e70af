"""One user's place in one call, fed by encoders: authorise, join the outputs, move media, and outlive the encoder's short absences.

States (`TRANSITIONS`): AUTHORISING -> PROBING -> JOINING -> LIVE <-> STALLED -> SLATE -> LIVE or CLOSED. A seat belongs to one user in one
call; a new connection with the same right takes over from the old one, and one that comes while nothing comes of the encoder goes on as the
same participant, with media time running on.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns
from typing import assert_never

from gateway.sessions.capacity import Demand, Seen
from gateway.sessions.closing import close_in_time
from gateway.sessions.continuity import Continuity
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import Destination, Muxer, Output
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.reading import Item, Reading
from gateway.sessions.replanner import Decide
from gateway.sessions.rivals import Rivals
from gateway.sessions.routes import Routes, join
from gateway.sessions.seat_log import log_ended, log_gone, log_interrupted, log_left_out, log_live
from gateway.sessions.seat_room import RoomFor, RoomOf
from gateway.sessions.seat_start import SeatStart
from gateway.sessions.seat_state import INTERRUPTED, STEPS, TRANSITIONS, Interruption, SeatChange, SeatState
from gateway.sessions.slate import SlatePolicy
from gateway.sessions.socket_watch import WatchPolicy, watched
from gateway.sessions.succession import Succession
from gateway.sessions.transcoders import SpareWorker
from gateway.sessions.withheld import why_withheld
from gateway.telemetry.log import SESSION
from gateway.telemetry.tracing import NO_TRACE, Trace
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import EncodedPacket, Kind, LeftOut, Track, TracksChanged
from protocols.publisher import Publisher
from transcode.host.pool import Workers
from transcode.plan import Decision, Refuse, Want

log = logging.getLogger(__name__)

ACCEPT_TIMEOUT_S = 10.0
WORTH_SHOWING_S = 0.5  # that an encoder is away: what lasts less is over before anybody has read it
TRACK_TIMEOUT_S = 15.0  # from the acceptance to the first track of a codec that is known

SeatRoom = RoomFor["Seat"]
OnSeatChange = Callable[["Seat", SeatChange], None]
"""Told at once; neither blocks nor raises."""


@dataclass(frozen=True, slots=True)
class SeatPolicy:
    """How seats behave; the same for all of a gateway but for `decide`."""

    decide: Decide
    live_edge: LiveEdgePolicy
    watch: WatchPolicy
    linger_s: float  # that it is kept for an encoder that broke off
    max_bitrate: int  # bit/s of one track; 0: no limit
    on_retired: Callable[[str, PipelineCounters], None]
    """Takes the protocol and the totals of each publisher that has ended."""
    room: SeatRoom
    on_change: OnSeatChange
    track_timeout_s: float | None = TRACK_TIMEOUT_S  # None: for publishers that may be without media for long
    slate: SlatePolicy | None = None  # None: viewers keep the last picture while an encoder is away
    stop_linger_s: float = 0.0  # as `linger_s`, for one that has said that it ends


class Seat:
    """One user's stream in one call; the `SeatView` of its outputs."""

    def __init__(
        self,
        publisher: Publisher,
        user_id: str,
        call_cid: str,
        destinations: Sequence[Destination],
        workers: Workers,
        policy: SeatPolicy,
        muted: frozenset[Kind] = frozenset(),
        trace: Trace = NO_TRACE,
        barred: frozenset[Kind] = frozenset(),
        start: SeatStart | None = None,
    ) -> None:
        start = start or SeatStart.anew(publisher.id)
        self.id = start.id
        self.user_id = user_id
        self.call_cid = call_cid
        self.protocol = publisher.protocol
        self.started_at, self.reconnects = start.started_at, start.reconnects
        self.state = SeatState.AUTHORISING
        self.publisher: Publisher | None = publisher
        self.pipeline: Pipeline | None = None
        self.muted = muted
        """What no output is given, by the word of who may mute: it outlasts the encoder's reconnects."""
        self.barred = barred
        """What no output is given because its user may not send it."""
        self.rivals = Rivals(monotonic_ns())
        self.left_out: list[LeftOut] = []
        """Of the present publisher's stream, or the last one's."""
        self.why_ended = ""
        self.trace = trace
        self._destinations = destinations
        self._workers = workers
        self._policy, self.grace_s = policy, policy.linger_s
        self._routes: Routes | None = None  # once it is in its call
        self._spare = SpareWorker(workers, self.id, self._lost_spare)
        self._succession = Succession()
        self._continuity = Continuity(self, start.interruption)
        self._started = False  # media of the present publisher are in the call
        self._kept_until = 0.0  # in the loop's time, while none is
        self._media_now: Callable[[int], int] = start.media_now
        self._closing = False
        self._refused = ""  # why it never came into its call, as a label
        self._reading = Reading()

    @property
    def occupied(self) -> bool:
        """An encoder has it: it neither ends nor waits for one to come back."""
        there = self.publisher is not None or self._succession.waiting
        return there and not self._closing

    @property
    def joined(self) -> bool:
        """It is a participant of its call."""
        return self._routes is not None

    @property
    def interruption(self) -> Interruption | None:
        """While nothing comes of its encoder."""
        return self._continuity.interruption

    @property
    def paused(self) -> bool:
        """Its encoder is not read for now, since it is far enough ahead."""
        return self.pipeline is not None and self.pipeline.paused

    def interrupted(self, interruption: Interruption, change: SeatChange) -> None:
        """Told by its `Continuity`."""
        totals = self.pipeline.totals if self.pipeline is not None else PipelineCounters()
        totals.interrupted(interruption, change, self.state)
        self._enter(INTERRUPTED[change])
        if self.pipeline is None:
            self._policy.on_retired(self.protocol, totals)
        log_interrupted(self, interruption, change)
        self._policy.on_change(self, change)

    @property
    def muxer(self) -> Muxer:
        return self._spare

    def media_now(self, now: int) -> int:
        """The media time in ns that is live at monotonic `now`: it runs on between publishers."""
        return self._media_now(now)

    def withhold(self, muted: frozenset[Kind], barred: frozenset[Kind]) -> None:
        """These and no others are given to no output, at once, until the next call."""
        if (muted, barred) == (self.muted, self.barred):
            return
        self.muted, self.barred = muted, barred
        if self.pipeline is not None:
            self.pipeline.staging.replan()
        if self._routes is not None and (self.pipeline is None or self.interruption is not None):
            for kind in muted | barred:
                self._routes.keep(kind, ())  # no packet comes with which the plan would be followed

    def cost_of(self, output: Output) -> Demand:
        """What one of its outputs costs, by what it wants now, whether there is room or not."""
        return self.pipeline.staging.cost_of(output) if self.pipeline is not None else output.overhead

    @property
    def optional(self) -> Seen | None:
        """What its outputs use that the stream can do without, for `Capacity.sample`; None: nothing."""
        demand = self.pipeline.staging.optional if self.pipeline is not None else Demand()
        if demand == Demand():
            return None
        return Seen(demand, self._spare.cpu_ns, economised=self._spare.adaptation is not None, optional=True)

    def _decide(self, track: Track, want: Want) -> Decision:
        why = why_withheld(track.kind, self.muted, self.barred)
        return Refuse(why) if why is not None else self._policy.decide(track, want)

    def _output_changed(self) -> None:
        if self.pipeline is not None:
            self.pipeline.staging.replan_soon.ask()

    def _lost_spare(self) -> None:
        if self.pipeline is not None:
            self.pipeline.staging.lost_spare()

    def _enter(self, state: SeatState) -> None:
        if state is self.state:
            return
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a session cannot go from {self.state} to {state}")
        self.state = state
        self.trace.step(STEPS[state])

    async def run(self) -> None:
        """From the first publisher to the end of the last one's linger time. Raises nothing but cancellation."""
        SESSION.set(self.id)
        try:
            await self._serve()
        except Exception:
            # the boundary that the design names: a bug here ends one seat, in the log with its trace, and nothing else
            log.exception("session failed", extra={"session": self.id})
            self.why_ended = "internal error"
        finally:
            try:
                await self._leave()
            finally:
                self.trace.end(self.why_ended, self._refused)

    async def _serve(self) -> None:
        publisher = self.publisher
        while publisher is not None:
            self.trace.step("accept")
            try:
                async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                    await publisher.accept()
            except (TimeoutError, ProtocolError) as error:
                self.why_ended = str(error) or "the encoder did not answer"
                await publisher.aclose()
            else:
                await self._live(publisher)
            self.publisher = None
            publisher = None if self._closing else await self._next_publisher()

    async def _live(self, publisher: Publisher) -> None:
        """One publisher from its acceptance to its end, however it ends."""
        if self._routes is None:
            self._enter(SeatState.PROBING)
        else:
            self.trace.step(STEPS[SeatState.PROBING])
        self.publisher, self.protocol, self._started = publisher, publisher.protocol, False
        self.left_out.clear()
        try:
            policy = self._policy
            async with watched(publisher, policy.watch, policy.max_bitrate, self._abort, self.rivals.note):
                await self._reading.run(publisher, policy.track_timeout_s, partial(self._take, publisher))
            self.why_ended = "the encoder ended the stream"
        except TimeoutError:
            if not self._reading.aborted:
                why = " ".join(["no video or audio of a known codec came:", *(each.text for each in self.left_out)])
                self._fail(why if self.left_out else f"{why} choose H.264 and AAC in the encoder")
        except ProtocolError as error:
            self._fail(str(error))
        except Rejected as refusal:
            self._refused = refusal.reason.label if self._routes is None else ""
            self._fail(refusal.detail)
        finally:
            if self._started:
                stopped = publisher.stats.stopped and not self._reading.aborted
                grace_s = self._policy.stop_linger_s if stopped else self._policy.linger_s
                self._kept_until = asyncio.get_running_loop().time() + grace_s
                self._policy.on_change(self, SeatChange.STOPPED)
            await self._stop(publisher)

    async def _take(self, publisher: Publisher, item: Item) -> None:
        match item:
            case EncodedPacket():
                if self.pipeline is not None:
                    self._continuity.heard(item)
                    await self.pipeline.push(item)
            case TracksChanged(tracks):
                await self._tracks(publisher, tracks)
            case LeftOut():
                self._leave_out(item)
            case _ as never:
                assert_never(never)

    def _fail(self, why: str) -> None:
        self.why_ended = why
        self._policy.on_change(self, SeatChange.FAILED)

    def _leave_out(self, item: LeftOut) -> None:
        self.left_out.append(item)
        log_left_out(self, item)
        self._policy.on_change(self, SeatChange.LACKING)

    def _abort(self, why: str) -> None:
        """Stop reading the present publisher; it is then told why."""
        self.why_ended = why
        self._reading.abort()

    async def _tracks(self, publisher: Publisher, tracks: tuple[Track, ...]) -> None:
        if not tracks:
            return
        if self.pipeline is None:
            self.pipeline = await self._begin(publisher, tracks)
            self._media_now = self.pipeline.media_now
            self._reading.found()
        self._continuity.expect(tracks)
        await self.pipeline.change(tracks)
        if not self._started:
            self._started = True
            if self.state is SeatState.JOINING:
                self._enter(SeatState.LIVE)
            else:
                self.trace.step(STEPS[self.state])
            self._policy.on_change(self, SeatChange.STARTED)
            log_live(self, tracks)

    async def _begin(self, publisher: Publisher, tracks: tuple[Track, ...]) -> Pipeline:
        """The publisher's pipeline, and the participant in its call and wherever else media go, if it is not there yet. Raises `Rejected`,
        and leaves nothing behind, where there is no room; once a stream is live it is never refused: what it costs gets cheaper instead."""
        if self._routes is None:
            self._enter(SeatState.JOINING)
        routes = self._routes or await join(self._destinations, self, self._output_changed)
        pipeline = Pipeline(
            publisher,
            routes,
            self._workers,
            self._spare,
            decide=self._decide,
            room=RoomOf(self, self._policy.room),
            live_edge=self._policy.live_edge,
            max_bitrate=self._policy.max_bitrate,
            origin=self._media_now(monotonic_ns()),
            fail=self._abort,  # it cannot go on with this publisher: the seat lingers for another try
            on_lack=self._leave_out,
        )
        try:
            pipeline.staging.admit(tracks)
        except Rejected:
            if self._routes is None:
                await routes.aclose()
            raise
        if self._routes is None:
            self._routes = routes
            if self._policy.slate is not None:
                self._continuity.slate = self._policy.slate.slate(self, routes, self._continuity.returned)
            self._policy.on_change(self, SeatChange.JOINED)
        return pipeline

    async def _stop(self, publisher: Publisher) -> None:
        pipeline = self.pipeline
        self._continuity.ending()
        if pipeline is not None:
            try:
                await close_in_time(pipeline.aclose(), "the worker did not end in time", self.id)
            finally:
                if self._started and not self._closing and (self._succession.waiting or self._left_s >= WORTH_SHOWING_S):
                    self._continuity.gone(replaced=self._succession.waiting)
                # In one step: a scrape in between would see the totals go back.
                self.pipeline = None
                self._policy.on_retired(publisher.protocol, pipeline.gather())
        await close_in_time(publisher.aclose(self.why_ended), "the publisher did not close in time", self.id)

    @property
    def _left_s(self) -> float:
        """For which the seat is still kept without an encoder."""
        return max(0.0, self._kept_until - asyncio.get_running_loop().time())

    async def _next_publisher(self) -> Publisher | None:
        """The encoder that comes back or takes over; None when nobody does within the time for which the seat is kept."""
        if not self._succession.waiting:
            if self._routes is None or self._left_s <= 0:
                return None
            log_gone(self)
        publisher = await self._succession.next(self._left_s)
        self._reading.aborted = self._closing
        if publisher is not None:
            self.reconnects += 1
            self.why_ended = ""
        return publisher

    async def take_over(self, publisher: Publisher) -> None:
        """Another connection with the same right: it replaces the present one. Raises `Rejected` when the seat is ending."""
        if self._closing or self.state is SeatState.CLOSED:
            raise Rejected(Reason.CONFLICT, "the stream is just being closed: try again")
        self.rivals.taken_over(None if self._succession.waiting else self.publisher, monotonic_ns())
        refusal = Rejected(Reason.CONFLICT, "another encoder with the same key connected at the same moment")
        await self._succession.come(publisher, refusal)
        self._abort("another encoder with the same key took over")

    def end(self, why: str) -> None:
        """End for good: the encoder is told why."""
        self._closing = True
        self._succession.stop_waiting()
        self._abort(why)

    async def _leave(self) -> None:
        self._closing = True
        self._continuity.close()
        self._enter(SeatState.CLOSED)
        routes, self._routes = self._routes, None
        if routes is not None:
            await routes.aclose()
            self._policy.on_change(self, SeatChange.LEFT)
        await self._spare.aclose()
        await self._succession.refuse(Rejected(Reason.CONFLICT, "the stream is just being closed: try again"))
        if self.publisher is not None:
            await self.publisher.aclose(self.why_ended)
            self.publisher = None
        log_ended(self)
