"""One participant fed by encoders: authorise, join the call, move media, and outlive the encoder's short absences.

States (`TRANSITIONS`): AUTHORISING -> PROBING -> JOINING -> LIVE <-> LINGERING -> CLOSED. A session belongs to one user in one call; a new
connection with the same right takes over from the old one, and one that comes while the session lingers goes on as the same
participant, with media time running on.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic_ns

from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import Call, Participation
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.track_pipeline import Tap
from gateway.sessions.track_selection import select
from gateway.telemetry.log import SESSION, event
from gateway.telemetry.tracing import NO_TRACE, Trace
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import Codec, EncodedPacket, Track, TracksChanged
from protocols.publisher import Publisher
from transcode.host.pool import Workers
from transcode.plan import Decision

log = logging.getLogger(__name__)


class SeatState(StrEnum):
    AUTHORISING = "authorising"
    PROBING = "probing"
    JOINING = "joining"
    LIVE = "live"
    LINGERING = "lingering"
    CLOSED = "closed"


TRANSITIONS: dict[SeatState, frozenset[SeatState]] = {
    SeatState.AUTHORISING: frozenset({SeatState.PROBING, SeatState.CLOSED}),
    SeatState.PROBING: frozenset({SeatState.JOINING, SeatState.LIVE, SeatState.LINGERING, SeatState.CLOSED}),
    SeatState.JOINING: frozenset({SeatState.LIVE, SeatState.LINGERING, SeatState.CLOSED}),
    SeatState.LIVE: frozenset({SeatState.LINGERING, SeatState.CLOSED}),
    SeatState.LINGERING: frozenset({SeatState.PROBING, SeatState.CLOSED}),
    SeatState.CLOSED: frozenset(),
}


class SeatChange(StrEnum):
    """What others may want to know of a session, as it happens; its `why_ended` has the reason where there is one."""

    JOINED = "joined"  # a participant in its call
    STARTED = "started"  # the encoder's media are in the call
    FAILED = "failed"  # the encoder's stream ends because something is wrong with it
    STOPPED = "stopped"  # the encoder's media are in the call no longer, for whatever reason
    LEFT = "left"


_STEPS = {  # as a trace calls what happens in a state
    SeatState.PROBING: "probe",
    SeatState.JOINING: "join",
    SeatState.LIVE: "live",
    SeatState.LINGERING: "linger",
    SeatState.CLOSED: "end",
}

ACCEPT_TIMEOUT_S = 10.0
TRACK_TIMEOUT_S = 15.0  # from the acceptance to the first track of a codec that is known
CLOSE_TIMEOUT_S = 2.0


Plan = Sequence[Decision]
"""What is to be done with those tracks of a stream that go into the call."""

Admit = Callable[["Seat", Sequence[Plan]], None]
"""Lets a session in whose tracks are known by the first of these plans that fits, or a live one go on by another plan; raises `Rejected`
where none fits."""


def _everybody(session: "Seat", plans: Sequence[Plan]) -> None:
    pass


Told = Callable[["Seat", SeatChange], None]
"""Told at once; neither blocks nor raises."""


def _nobody(session: "Seat", happening: SeatChange) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SeatPolicy:
    """How sessions behave; the same for all of a gateway."""

    decide: Callable[[Track, frozenset[Codec]], Decision]
    """What to do with a track in a call that takes these codecs."""
    live_edge: LiveEdgePolicy
    linger_s: float
    max_bitrate: int  # bit/s of one track; 0: no limit
    retire: Callable[[str, PipelineCounters], None]
    """Takes the protocol and the totals of each publisher that has ended."""
    admit: Admit = _everybody
    told: Told = _nobody
    track_timeout_s: float | None = TRACK_TIMEOUT_S  # None: for publishers that may be without media for long


class Seat:
    """One user's stream in one call."""

    def __init__(
        self,
        publisher: Publisher,
        user_id: str,
        call_cid: str,
        call: Call,
        workers: Workers,
        policy: SeatPolicy,
        trace: Trace = NO_TRACE,
    ) -> None:
        self.id = publisher.id
        self.user_id = user_id
        self.call_cid = call_cid
        self.protocol = publisher.protocol
        self.started_at = datetime.now(UTC)
        self.state = SeatState.AUTHORISING
        self.publisher: Publisher | None = publisher
        self.pipeline: Pipeline | None = None
        self.participation: Participation | None = None
        self.reconnects = 0
        self.why_ended = ""
        self.trace = trace
        self.taps: list[Tap] = []
        """Who sees the media besides the call."""
        self._call = call
        self._workers = workers
        self._policy = policy
        self._successor: Publisher | None = None
        self._wake = asyncio.Event()
        self._media_now: Callable[[int], int] = lambda now: 0  # media time at monotonic `now`: it runs on between publishers
        self._closing = False
        self._refused = ""  # why it never came into its call, as a label
        self._aborted = False  # the present publisher is not to be read any more
        self._reading: asyncio.Timeout | None = None  # the scope in which a publisher is read; expiring it ends the reading

    @property
    def occupied(self) -> bool:
        """An encoder has it: it neither ends nor waits for one to come back."""
        absent = self.state in (SeatState.LINGERING, SeatState.CLOSED) and self._successor is None
        return not absent and not self._closing

    def decide(self, track: Track, accepts: frozenset[Codec]) -> Decision:
        """What is done with a track of this publisher for somebody who takes these codecs."""
        return self._policy.decide(track, accepts)

    def _plan(self, tracks: tuple[Track, ...], accepts: frozenset[Codec]) -> Plan:
        return [decision for _, decision in select(tracks, lambda track: self.decide(track, accepts))]

    def _enter(self, state: SeatState) -> None:
        if state is self.state:
            return
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"a session cannot go from {self.state} to {state}")
        self.state = state
        self.trace.step(_STEPS[state])

    async def run(self) -> None:
        """From the first publisher to the end of the last one's linger time. Raises nothing but cancellation."""
        SESSION.set(self.id)
        try:
            await self._serve()
        except Exception:
            # the boundary that the design names: a bug here ends one session, in the log with its trace, and nothing else
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
        try:
            async with asyncio.timeout(0 if self._aborted else self._policy.track_timeout_s) as self._reading:
                async for item in publisher:
                    match item:
                        case TracksChanged(tracks):
                            await self._tracks(publisher, tracks)
                        case EncodedPacket():
                            if self.pipeline is not None:
                                await self.pipeline.push(item)
            self.why_ended = "the encoder ended the stream"
        except TimeoutError:
            if not self._aborted:
                self._fail("no video or audio of a known codec came: choose H.264 and AAC in the encoder")
        except ProtocolError as error:
            self._fail(str(error))
        except Rejected as refusal:
            self._refused = refusal.reason.label if self.participation is None else ""
            self._fail(refusal.detail)
        finally:
            self._reading = None
            if self.state is SeatState.LIVE:
                self._policy.told(self, SeatChange.STOPPED)
            await self._stop(publisher)

    def _fail(self, why: str) -> None:
        self.why_ended = why
        self._policy.told(self, SeatChange.FAILED)

    def _abort(self, why: str) -> None:
        """Stop reading the present publisher; it is then told why."""
        self.why_ended = why
        self._aborted = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def _tracks(self, publisher: Publisher, tracks: tuple[Track, ...]) -> None:
        if not tracks:
            return
        if self.pipeline is None:  # a stream that is live is never refused: what it costs then gets cheaper instead
            # Where there is no room to transcode it for viewers who do not take its codec, it passes for the others.
            accepted = dict.fromkeys((self._call.accepts, self._call.carries))
            self._policy.admit(self, [self._plan(tracks, accepts) for accepts in accepted])
        if self.participation is None:
            self._enter(SeatState.JOINING)
            self.participation = await self._call.join(self.user_id)
            self._policy.told(self, SeatChange.JOINED)
        if self.pipeline is None:
            if self._reading is not None and not self._aborted:
                self._reading.reschedule(None)
            self.pipeline = Pipeline(
                publisher,
                self.participation,
                self._workers,
                decide=self.decide,
                admit=lambda decisions: self._policy.admit(self, [decisions]),
                live_edge=self._policy.live_edge,
                max_bitrate=self._policy.max_bitrate,
                origin=self._media_now(monotonic_ns()),
                taps=self.taps,
                fail=self._abort,  # it cannot go on with this publisher: the session lingers for another try
            )
            self._media_now = self.pipeline.media_now
        await self.pipeline.change(tracks)
        if self.state is not SeatState.LIVE:
            self._enter(SeatState.LIVE)
            self._policy.told(self, SeatChange.STARTED)
            event(
                log,
                logging.INFO,
                "live",
                session=self.id,
                call=self.call_cid,
                user=self.user_id,
                protocol=publisher.protocol,
                tracks=",".join(track.codec.value for track in tracks),
            )

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
                self._policy.retire(publisher.protocol, pipeline.gather())
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await publisher.aclose(self.why_ended)
        except TimeoutError:
            log.warning("the publisher did not close in time", extra={"session": self.id})

    async def _next_publisher(self) -> Publisher | None:
        """The encoder that comes back or takes over; None when nobody does within the linger time."""
        if self.participation is None and self._successor is None:
            return None
        self._enter(SeatState.LINGERING)
        if self._successor is None:
            event(log, logging.INFO, "encoder gone, waiting for it", session=self.id, why=self.why_ended)
            try:
                async with asyncio.timeout(self._policy.linger_s):
                    await self._wake.wait()
            except TimeoutError:
                return None
        publisher, self._successor = self._successor, None
        self._wake.clear()
        self._aborted = self._closing
        if publisher is not None:
            self.reconnects += 1
            self.why_ended = ""
        return publisher

    async def take_over(self, publisher: Publisher) -> None:
        """Another connection with the same right: it replaces the present one. Raises `Rejected` when the session is ending."""
        if self._closing or self.state is SeatState.CLOSED:
            raise Rejected(Reason.CONFLICT, "the stream is just being closed: try again")
        replaced, self._successor = self._successor, publisher
        self._wake.set()
        if replaced is not None:
            await replaced.reject(Rejected(Reason.CONFLICT, "another encoder with the same key connected at the same moment"))
        self._abort("another encoder with the same key took over")

    def end(self, why: str) -> None:
        """End for good: the encoder is told why."""
        self._closing = True
        self._wake.set()
        self._abort(why)

    async def _leave(self) -> None:
        self._closing = True
        self._enter(SeatState.CLOSED)
        participation, self.participation = self.participation, None
        if participation is not None:
            await participation.leave()
            self._policy.told(self, SeatChange.LEFT)
        if self._successor is not None:
            await self._successor.reject(Rejected(Reason.CONFLICT, "the stream is just being closed: try again"))
        if self.publisher is not None:
            await self.publisher.aclose(self.why_ended)
            self.publisher = None
        event(
            log,
            logging.INFO,
            "ended",
            session=self.id,
            why=self.why_ended,
            seconds=round((datetime.now(UTC) - self.started_at).total_seconds(), 1),
            reconnects=self.reconnects or None,
        )
