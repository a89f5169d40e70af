"""One user's place in one call, fed by encoders: authorise, join the outputs, move media, and outlive the encoder's short absences.

States (`TRANSITIONS`): AUTHORISING -> PROBING -> JOINING -> LIVE <-> STALLED -> SLATE -> LIVE or CLOSED. A seat belongs to one user in one
call; a new connection with the same right takes over from the old one, or stands by for it (`inputs.py`), and whichever goes on is the same
participant, with media time running on.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic_ns

from gateway.sessions.capacity import Demand, Seen
from gateway.sessions.continuity import Continuity
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.input import Input
from gateway.sessions.inputs import Inputs, Switch
from gateway.sessions.output import Destination, Muxer, Output
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.replanner import Decide
from gateway.sessions.rivals import Rivals
from gateway.sessions.routes import Routes, join
from gateway.sessions.seat_log import (
    log_ended,
    log_gone,
    log_held,
    log_input,
    log_interrupted,
    log_left_out,
    log_live,
    log_switched,
)
from gateway.sessions.seat_room import RoomFor, RoomOf
from gateway.sessions.seat_start import SeatStart
from gateway.sessions.seat_state import INTERRUPTED, STEPS, TRANSITIONS, Interruption, SeatChange, SeatState
from gateway.sessions.slate import SlatePolicy
from gateway.sessions.socket_watch import WatchPolicy
from gateway.sessions.succession import Return, Succession
from gateway.sessions.transcoders import SpareWorker
from gateway.sessions.withheld import why_withheld
from gateway.telemetry.log import SESSION
from gateway.telemetry.tracing import NO_TRACE, Trace
from protocols.errors import Rejected
from protocols.media import EncodedPacket, Kind, LeftOut, Track
from protocols.publisher import Publisher
from transcode.host.pool import Workers
from transcode.plan import Decision, Refuse, Want

log = logging.getLogger(__name__)

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
    return_to_primary: Return = Return.REVERT_AFTER
    revert_after_s: float = 10.0  # that a better input is well


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
        rank: int = 1,
        start: SeatStart | None = None,
    ) -> None:
        """`barred` and `rank` are those of the first publisher's credential; `start`: it goes on from there."""
        start = start or SeatStart.anew(publisher.id)
        self.id = start.id
        self.user_id = user_id
        self.call_cid = call_cid
        self.protocol = publisher.protocol
        self.started_at, self.reconnects = start.started_at, start.reconnects
        self.state = SeatState.AUTHORISING
        self.muted = muted
        """What no output is given, by the word of who may mute: it outlasts the encoder's reconnects."""
        self.switch: Switch | None = None
        """To the input that is forwarded; None: nobody was there."""
        self.trace = trace
        self._destinations = destinations
        self._workers = workers
        self._policy, self.grace_s = policy, policy.linger_s
        self._routes: Routes | None = None  # once it is in its call
        self._spare = SpareWorker(workers, self.id, self._lost_spare)
        self._continuity = Continuity(self, start.interruption)
        self._kept_until = 0.0  # in the loop's time, while none is
        self._media_now: Callable[[int], int] = start.media_now
        self.closing = False
        """It is about to end: nobody can come any more."""
        succession = Succession(policy.return_to_primary, int(policy.revert_after_s * 1e9))
        self.inputs = Inputs(publisher, rank, barred, self, policy, succession)
        self.left_out: list[LeftOut] = self.inputs.live.left_out
        """Of the stream of the one that is forwarded, or was last."""

    @property
    def publisher(self) -> Publisher | None:
        """Of the encoder that is forwarded."""
        return None if self.inputs.live.over.is_set() else self.inputs.live.publisher

    @property
    def pipeline(self) -> Pipeline | None:
        """What its media go through."""
        return self.inputs.live.pipeline

    @property
    def barred(self) -> frozenset[Kind]:
        """What no output is given because its user may not send it."""
        return self.inputs.live.barred

    @property
    def rivals(self) -> Rivals:
        """For its place."""
        return self.inputs.rivals(self.inputs.live.rank)

    @property
    def why_ended(self) -> str:
        """Its stream, or the last one's."""
        return self.inputs.live.why_ended

    @why_ended.setter
    def why_ended(self, why: str) -> None:
        self.inputs.live.why_ended = why

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
        return self.inputs.live.paused

    def interrupted(self, interruption: Interruption, change: SeatChange) -> None:
        """Told by its `Continuity`."""
        before = self.state
        self._enter(INTERRUPTED[change])
        self._count(lambda totals: totals.interrupted(interruption, change, before))
        log_interrupted(self, interruption, change)
        self._policy.on_change(self, change)

    def stands_in(self) -> bool:
        """The same: whether another input goes on in place of the one that is silent."""
        return self.inputs.stalled()

    def _count(self, what: Callable[[PipelineCounters], None]) -> None:
        totals = self.pipeline.totals if self.pipeline is not None else PipelineCounters()
        what(totals)
        if self.pipeline is None:
            self._policy.on_retired(self.protocol, totals)

    @property
    def muxer(self) -> Muxer:
        return self._spare

    def media_now(self, now: int) -> int:
        """The media time in ns that is live at monotonic `now`: it runs on between publishers."""
        return self._media_now(now)

    def withhold(self, muted: frozenset[Kind], barred: frozenset[Kind], rank: int = 1) -> None:
        """These and no others are given to no output, at once, until the next call; barred is what comes with credentials of this rank."""
        before = self.muted, self.barred
        self.muted = muted
        self.inputs.bar(rank, barred)
        if (muted, self.barred) == before:
            return
        if self.pipeline is not None:
            self.pipeline.staging.replan()
        if self._routes is not None and (self.pipeline is None or self.interruption is not None):
            for kind in muted | self.barred:
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
        """From the first input to the end of the last one's place. Raises nothing but cancellation."""
        SESSION.set(self.id)
        self.trace.step("accept")
        try:
            await self.inputs.run()
        except asyncio.CancelledError:
            self.inputs.cancel()
            raise
        except Exception:
            # the boundary that the design names: a bug here ends one seat, in the log with its trace, and nothing else
            log.exception("session failed", extra={"session": self.id})
            self.why_ended = "internal error"
        finally:
            refused = self.inputs.live.refused if self._routes is None else ""
            try:
                await self._leave()
            finally:
                self.trace.end(self.why_ended, refused)

    # Told by its inputs

    def accepted(self, input: Input) -> None:
        if input is not self.inputs.live:
            log_input(self, input.publisher, input.rank, "an encoder stands by")
        elif self._routes is None:
            self._enter(SeatState.PROBING)
        else:
            self.trace.step(STEPS[SeatState.PROBING])

    def forwards(self, input: Input, switch: Switch | None) -> None:
        self.protocol, self.left_out, self.switch = input.publisher.protocol, input.left_out, switch
        self.reconnects += 1
        self.trace.step("accept")
        if self._routes is None:
            self._enter(SeatState.PROBING)

    def waits(self) -> None:
        log_gone(self)

    def held(self) -> None:
        self._count(PipelineCounters.hold)
        log_held(self)

    def expect(self, tracks: tuple[Track, ...]) -> None:
        self._continuity.expect(tracks)

    def started(self, input: Input, tracks: tuple[Track, ...]) -> None:
        if self.state is SeatState.JOINING:
            self._enter(SeatState.LIVE)
        else:
            self.trace.step(STEPS[self.state])
        self._policy.on_change(self, SeatChange.STARTED)
        log_live(self, tracks)
        if (switch := self.switch) is not None:
            self._count(lambda totals: totals.switched(switch.cause))
            log_switched(self, switch.before, switch.after, switch.cause)
            self._policy.on_change(self, SeatChange.TAKEN_OVER if switch.taken_over else SeatChange.SWITCHED)

    def heard(self, packet: EncodedPacket) -> None:
        self._continuity.heard(packet)

    def well(self, input: Input) -> None:
        self.inputs.changed()

    def lacks(self, input: Input, item: LeftOut) -> None:
        log_left_out(self, item)
        if input is self.inputs.live:
            self._policy.on_change(self, SeatChange.LACKING)

    def failed(self, input: Input) -> None:
        if input is self.inputs.live:
            self._policy.on_change(self, SeatChange.FAILED)

    def stopped(self, input: Input) -> None:
        self._continuity.ending()
        clean = input.publisher.stats.stopped and not input.aborted
        grace_s = self._policy.stop_linger_s if clean else self._policy.linger_s
        self._kept_until = asyncio.get_running_loop().time() + grace_s
        self._policy.on_change(self, SeatChange.STOPPED)

    def drained(self, input: Input) -> None:
        if not self.closing and ((goes_on := self.inputs.goes_on()) or self.left_s >= WORTH_SHOWING_S):
            self._continuity.gone(replaced=goes_on)

    def retired(self, input: Input, pipeline: Pipeline) -> None:
        self._policy.on_retired(input.publisher.protocol, pipeline.gather())

    def over(self, input: Input) -> None:
        if input is not self.inputs.live:
            log_input(self, input.publisher, input.rank, f"an encoder stands by no more: {input.why_ended}")
        self.inputs.ended(input)

    async def begin(self, input: Input, tracks: tuple[Track, ...], since: int) -> Pipeline:
        """The input's pipeline, and the participant in its call and wherever else media go, if it is not there yet. Raises `Rejected`,
        and leaves nothing behind, where there is no room; once a stream is live it is never refused: what it costs gets cheaper instead."""
        if self._routes is None:
            self._enter(SeatState.JOINING)
        routes = self._routes or await join(self._destinations, self, self._output_changed)
        for route in routes if self.switch is not None and not self.switch.taken_over else ():
            route.splice()
        live = self._media_now(now := monotonic_ns())
        pipeline = Pipeline(
            input.publisher,
            routes,
            self._workers,
            self._spare,
            decide=self._decide,
            room=RoomOf(self, self._policy.room),
            live_edge=self._policy.live_edge,
            max_bitrate=self._policy.max_bitrate,
            origin=live - (now - since) if live else 0,
            begun=since,
            fail=input.abort,  # it cannot go on with this one: the seat lingers for another try
            on_lack=input.leave_out,
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
                self._continuity.begin(self._policy.slate, self, routes)
            self._policy.on_change(self, SeatChange.JOINED)
        self._media_now = pipeline.media_now
        return pipeline

    @property
    def left_s(self) -> float:
        """For which the seat is still kept without an encoder."""
        return max(0.0, self._kept_until - asyncio.get_running_loop().time())

    async def take_over(
        self, publisher: Publisher, rank: int = 1, barred: frozenset[Kind] = frozenset(), *, alone: bool = False
    ) -> None:
        """Another connection, whose credential has this rank: it replaces the one of the same rank, or stands by; `alone`: it replaces
        any. Raises `Rejected` when the seat is ending."""
        await self.inputs.come(publisher, rank, barred, alone=alone)

    def end(self, why: str) -> None:
        """End for good: the encoders are told why."""
        self.closing = True
        self.inputs.end(why)

    async def _leave(self) -> None:
        self.closing = True
        self.inputs.end(self.why_ended)
        await self.inputs.aclose()
        self._continuity.close()
        self._enter(SeatState.CLOSED)
        routes, self._routes = self._routes, None
        if routes is not None:
            await routes.aclose()
            self._policy.on_change(self, SeatChange.LEFT)
        await self._spare.aclose()
        log_ended(self)
