"""One user's place in one call, fed by encoders: authorise, join the outputs, move media, and outlive the encoder's short absences.

States (`TRANSITIONS`): AUTHORISING -> PROBING -> JOINING -> LIVE <-> LINGERING -> CLOSED. A seat belongs to one user in one call; a new
connection with the same right takes over from the old one, and one that comes while the seat lingers goes on as the same
participant, with media time running on.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Protocol

from gateway.sessions.capacity import Demand, Seen
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import Destination, Muxer, Output
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.replanner import Decide
from gateway.sessions.rivals import Rivals
from gateway.sessions.routes import Routes
from gateway.sessions.seat_log import log_ended, log_gone, log_left_out, log_live
from gateway.sessions.seat_state import STEPS, TRANSITIONS, SeatChange, SeatState
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
TRACK_TIMEOUT_S = 15.0  # from the acceptance to the first track of a codec that is known
CLOSE_TIMEOUT_S = 2.0


class SeatRoom(Protocol):
    """The CPU of this node. Each raises `Rejected` where it does not suffice."""

    def admit(self, seat: "Seat", plans: Sequence[Sequence[Decision]]) -> None:
        """Lets a seat in whose tracks are known by the first of these plans that fits, or a live one go on by another plan."""

    def admit_optional(self, seat: "Seat", wanted: Demand) -> None:
        """For all that its stream can do without."""


OnSeatChange = Callable[["Seat", SeatChange], None]
"""Told at once; neither blocks nor raises."""


@dataclass(frozen=True, slots=True)
class SeatPolicy:
    """How seats behave; the same for all of a gateway but for `decide`."""

    decide: Decide
    live_edge: LiveEdgePolicy
    watch: WatchPolicy
    linger_s: float
    max_bitrate: int  # bit/s of one track; 0: no limit
    on_retired: Callable[[str, PipelineCounters], None]
    """Takes the protocol and the totals of each publisher that has ended."""
    room: SeatRoom
    on_change: OnSeatChange
    track_timeout_s: float | None = TRACK_TIMEOUT_S  # None: for publishers that may be without media for long


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
    ) -> None:
        self.id = publisher.id
        self.user_id = user_id
        self.call_cid = call_cid
        self.protocol = publisher.protocol
        self.started_at = datetime.now(UTC)
        self.state = SeatState.AUTHORISING
        self.publisher: Publisher | None = publisher
        self.pipeline: Pipeline | None = None
        self.muted = muted
        """What no output is given, by the word of who may mute: it outlasts the encoder's reconnects."""
        self.barred = barred
        """What no output is given because its user may not send it."""
        self.reconnects = 0
        self.rivals = Rivals(monotonic_ns())
        self.left_out: list[LeftOut] = []
        """Of the present publisher's stream, or the last one's."""
        self.why_ended = ""
        self.trace = trace
        self._destinations = destinations
        self._workers = workers
        self._policy = policy
        self._routes: Routes | None = None  # once it is in its call
        self._spare = SpareWorker(workers, self.id, self._lost_spare)
        self._succession = Succession(policy.linger_s)
        self._media_now: Callable[[int], int] = lambda now: 0
        self._closing = False
        self._refused = ""  # why it never came into its call, as a label
        self._aborted = False  # the present publisher is not to be read any more
        self._reading: asyncio.Timeout | None = None  # the scope in which a publisher is read; expiring it ends the reading

    @property
    def occupied(self) -> bool:
        """An encoder has it: it neither ends nor waits for one to come back."""
        absent = self.state in (SeatState.LINGERING, SeatState.CLOSED) and not self._succession.waiting
        return not absent and not self._closing

    @property
    def joined(self) -> bool:
        """It is a participant of its call."""
        return self._routes is not None

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
        elif self._routes is not None:
            for kind in muted | barred:
                self._routes.keep(kind, ())  # whoever joins while the encoder is away sees nothing of it

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
        self._enter(SeatState.PROBING)
        self.publisher, self.protocol = publisher, publisher.protocol
        self.left_out.clear()
        try:
            policy, longest = self._policy, 0 if self._aborted else self._policy.track_timeout_s
            watching = watched(publisher, policy.watch, policy.max_bitrate, self._abort, self.rivals.note)
            async with asyncio.timeout(longest) as self._reading, watching:
                async for item in publisher:
                    match item:
                        case EncodedPacket():
                            if self.pipeline is not None:
                                await self.pipeline.push(item)
                        case TracksChanged(tracks):
                            await self._tracks(publisher, tracks)
                        case LeftOut():
                            self._leave_out(item)
            self.why_ended = "the encoder ended the stream"
        except TimeoutError:
            if not self._aborted:
                why = " ".join(["no video or audio of a known codec came:", *(each.text for each in self.left_out)])
                self._fail(why if self.left_out else f"{why} choose H.264 and AAC in the encoder")
        except ProtocolError as error:
            self._fail(str(error))
        except Rejected as refusal:
            self._refused = refusal.reason.label if self._routes is None else ""
            self._fail(refusal.detail)
        finally:
            self._reading = None
            if self.state is SeatState.LIVE:
                self._policy.on_change(self, SeatChange.STOPPED)
            await self._stop(publisher)

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
        self._aborted = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def _tracks(self, publisher: Publisher, tracks: tuple[Track, ...]) -> None:
        if not tracks:
            return
        if self.pipeline is None:
            self.pipeline = await self._begin(publisher, tracks)
            self._media_now = self.pipeline.media_now
            if self._reading is not None and not self._aborted:
                self._reading.reschedule(None)
        await self.pipeline.change(tracks)
        if self.state is not SeatState.LIVE:
            self._enter(SeatState.LIVE)
            self._policy.on_change(self, SeatChange.STARTED)
            log_live(self, tracks)

    async def _begin(self, publisher: Publisher, tracks: tuple[Track, ...]) -> Pipeline:
        """The publisher's pipeline, and the participant in its call and wherever else media go, if it is not there yet. Raises `Rejected`,
        and leaves nothing behind, where there is no room; once a stream is live it is never refused: what it costs gets cheaper instead."""
        if self._routes is None:
            self._enter(SeatState.JOINING)
        routes = self._routes or await self._join()
        pipeline = Pipeline(
            publisher,
            routes,
            self._workers,
            self._spare,
            decide=self._decide,
            room=_Room(self, self._policy.room),
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
            self._policy.on_change(self, SeatChange.JOINED)
        return pipeline

    async def _join(self) -> Routes:
        routes = Routes()
        try:
            for destination in self._destinations:
                routes.add(await destination.join(self, self._output_changed))
        except BaseException:
            await routes.aclose()
            raise
        return routes

    async def _stop(self, publisher: Publisher) -> None:
        pipeline = self.pipeline
        if pipeline is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await pipeline.aclose()
            except TimeoutError:
                log.warning("the worker did not end in time", extra={"session": self.id})
            finally:
                # In one step: a scrape in between would see the totals go back.
                self.pipeline = None
                self._policy.on_retired(publisher.protocol, pipeline.gather())
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await publisher.aclose(self.why_ended)
        except TimeoutError:
            log.warning("the publisher did not close in time", extra={"session": self.id})

    async def _next_publisher(self) -> Publisher | None:
        """The encoder that comes back or takes over; None when nobody does within the linger time."""
        if self._routes is None and not self._succession.waiting:
            return None
        self._enter(SeatState.LINGERING)
        if not self._succession.waiting:
            log_gone(self)
        publisher = await self._succession.next()
        self._aborted = self._closing
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


@dataclass(frozen=True, slots=True)
class _Room:
    """`replanner.Room` of one seat."""

    seat: Seat
    room: SeatRoom

    def admit(self, plans: Sequence[Sequence[Decision]]) -> None:
        self.room.admit(self.seat, plans)

    def admit_optional(self, wanted: Demand) -> None:
        self.room.admit_optional(self.seat, wanted)
