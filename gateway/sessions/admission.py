"""Admission: each publisher that a listener yields is authorised and becomes a seat, takes over its own seat, or is told why not.

Kept true: `examine` alone decides; who asks before there is a publisher (SRT, before the handshake; WHIP, before the offer is read) gets
the same answer, unless they ask without end. `rights` has the grants of each seat that is in the registry, so that they can be asked again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import ceil
from time import monotonic_ns
from typing import Final, Protocol

from gateway.access.credentials import Grant
from gateway.model.records import OnConflict
from gateway.sessions.input import Input
from gateway.sessions.output import Destination
from gateway.sessions.registry import Registry
from gateway.sessions.rivals import LIVELY, SILENT
from gateway.sessions.seat import Seat, SeatPolicy
from gateway.sessions.seat_start import SeatStart
from gateway.telemetry.log import event
from gateway.telemetry.tracing import Begin, Trace
from protocols.addresses import host_of
from protocols.defects import log_defect
from protocols.errors import Reason, Rejected
from protocols.publisher import Applicant, Credential, Listener, Publisher
from protocols.rate_limit import RateLimit
from transcode.host.pool import Workers

log = logging.getLogger(__name__)

STREAMS_PER_S: Final = 2.0
"""That one user may begin in one call, where beginning costs us work before there is a handshake of the encoder's own,"""
STREAMS_AT_ONCE: Final = 30
"""and so many at once: an encoder that reconnects every second never gets there."""
MOST_INPUTS: Final = 4
"""Encoders of one stream: the one that is live, and those that stand by."""

Rights = dict[tuple[str, str, int], Grant]
"""What the inputs of the seats that are in the registry came with, by call, user and rank: the newest, also while nobody is there."""

Adapt = Callable[[SeatPolicy, Grant], SeatPolicy]
"""How a seat behaves in the call that it is for."""


class Gate(Protocol):
    """Who may publish (`gateway.access.authorizer.Authorizer`)."""

    async def prepare(self, credential: Credential, call: str | None) -> None: ...

    def examine(self, credential: Credential, call: str | None, address: str) -> Grant: ...

    async def settle(self, grant: Grant) -> Grant: ...


class Closing(Protocol):
    """The gateway's way out."""

    @property
    def begun(self) -> bool:
        """No new streams are wanted any more."""


class Awaited(Protocol):
    """Seats that an earlier process had (`gateway.sessions.kept_seats.KeptSeats`)."""

    async def look_up(self, cid: str, user_id: str) -> None:
        """Find out whether there is one."""

    def claim(self, cid: str, user_id: str) -> SeatStart | None:
        """How the seat that is made now begins, where there is one."""

    def closed(self, seat: Seat) -> None:
        """It has gone, whether it came into its call or not."""


class NobodyAwaited:
    """A gateway that keeps nothing of its seats."""

    async def look_up(self, cid: str, user_id: str) -> None: ...

    def claim(self, cid: str, user_id: str) -> SeatStart | None:
        return None

    def closed(self, seat: Seat) -> None: ...


class Admission:
    """Serves listeners until cancelled. At most `max_sessions` at once; more are refused as overloaded.

    `destinations` take media besides the call itself. `on_conflict` says what becomes of a second encoder with the same
    right, where neither its key nor its call does. `fits` raises `Rejected` while there is no room for any further stream.
    `on_refused` is told of each publisher that is turned away; `awaited` has the seats that go on from before a restart.
    """

    def __init__(
        self,
        registry: Registry,
        gate: Gate,
        workers: Workers,
        destinations: Sequence[Destination],
        *,
        max_sessions: int,
        on_conflict: OnConflict,
        closing: Closing,
        adapt: Adapt,
        fits: Callable[[], None],
        on_refused: Callable[[Applicant, Rejected], None],
        trace: Begin,
        awaited: Awaited | None = None,
    ) -> None:
        self._awaited: Awaited = awaited or NobodyAwaited()
        self.rights: Rights = {}
        self._begun = RateLimit(STREAMS_PER_S, STREAMS_AT_ONCE)
        self._closing = closing
        self._fits = fits
        self._on_refused = on_refused
        self._trace = trace
        self._registry = registry
        self._gate = gate
        self._adapt = adapt
        self._workers = workers
        self._destinations = destinations
        self._max_sessions = max_sessions
        self._on_conflict = on_conflict

    async def serve(self, listener: Listener, policy: SeatPolicy) -> None:
        """Seats of `listener`'s publishers behave by `policy`."""
        # No TaskGroup: in it a defect met with one publisher would cancel all the others.
        receiving: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            receiving.discard(task)
            log_defect(log, "a publisher was lost", task)

        try:
            async for publisher in listener:
                task = asyncio.create_task(self._receive(publisher, policy), name=f"publisher {publisher.id}")
                receiving.add(task)
                task.add_done_callback(ended)
            if receiving:
                await asyncio.wait(receiving)
        finally:
            leaving = list(receiving)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)

    def examine(self, credential: Credential, call: str | None, address: str) -> Grant:
        """What a publisher at `address`, without its port, may do now; raises `Rejected`. Reads memory only."""
        grant = self._gate.examine(credential, call, address)
        present = self._registry.seats.get((grant.call_cid, grant.user_id))
        if present is None:
            self._check_room(grant)
        elif not present.closing:
            self._check_place(present, grant, address)
        return grant

    def _check_room(self, grant: Grant) -> None:
        """Raises `Rejected` where no other seat may be taken."""
        if self._closing.begun:
            raise Rejected(Reason.OVERLOADED, "the gateway is shutting down: connect again in a moment")
        self._check_streams()
        most = grant.settings.limits.participants
        if sum(cid == grant.call_cid for cid, _ in self._registry.seats) >= most:
            raise Rejected(Reason.OVERLOADED, f"the call has its {most} participants already")
        self._fits()

    def _check_streams(self) -> None:
        """Raises `Rejected` where no other encoder may come, be it for a seat that is there."""
        if self._registry.encoders >= self._max_sessions:
            raise Rejected(Reason.OVERLOADED, "the gateway has no room for another stream: try again later or on another node")

    def _check_place(self, present: Seat, grant: Grant, address: str) -> None:
        """Raises `Rejected` where there is no place for it beside the encoders of its seat, nor in the place of one."""
        there, on_conflict = [each for each in present.inputs.connected if not each.ended], self._policy_of(grant)
        same = next((each for each in there if each.rank == grant.rank), None)
        if same is not None:
            self._check_conflict(present, same, address, take_over=on_conflict != "refuse")
        elif on_conflict == "priority":
            for each in there:
                self._check_rank(present, each, grant)
        elif there:  # it would stand by
            if len(there) >= MOST_INPUTS:
                raise Rejected(Reason.OVERLOADED, f"the stream has its {MOST_INPUTS} encoders already: stop one of them")
            self._check_streams()
            self._fits()

    def _policy_of(self, grant: Grant) -> OnConflict:
        return grant.identity.on_conflict or grant.settings.on_conflict or self._on_conflict

    def _check_conflict(self, present: Seat, there: Input, address: str, *, take_over: bool) -> None:
        """Raises `Rejected` where the encoder that is there stays. One that does not send any more never does."""
        now, rivals = monotonic_ns(), present.inputs.rivals(there.rank)
        if not there.paused and not rivals.sends(
            there.publisher if there.begun else None, now, LIVELY if take_over else SILENT
        ):
            return
        if not take_over:
            raise rivals.refusal("another encoder is live with this key: stop that one first, or wait until it is gone", now)
        rivals.check(address, now)

    def _check_rank(self, present: Seat, there: Input, grant: Grant) -> None:
        """The same, of one whose key has another rank."""
        now, rivals = monotonic_ns(), present.inputs.rivals(there.rank)
        if not there.paused and not rivals.sends(there.publisher if there.begun else None, now, LIVELY):
            return
        if there.rank < grant.rank:
            words = f"an encoder is live with a key of rank {there.rank}, before this one's {grant.rank}: wait until it is gone"
            raise Rejected(Reason.CONFLICT, words)
        if present.inputs.held(now):
            words = "encoders have taken the stream from each other too often: stop one of them, or try again in a minute"
            raise Rejected(Reason.CONFLICT, words)

    async def authorise(self, applicant: Applicant) -> None:
        """For a listener, before it does work for somebody: raises `Rejected` for those who may not publish, and for those who begin one
        stream after the other; they are counted and told of as any other. Others are examined again when their publisher comes."""
        credential, call = applicant.credential, applicant.params.get("call")
        trace = self._trace_of(applicant)
        try:
            await self._gate.prepare(credential, call)
            self._check_rate(self.examine(credential, call, host_of(applicant.remote)))
        except Rejected as refusal:
            self._refuse(applicant, refusal, trace)
            raise

    def _check_rate(self, grant: Grant) -> None:
        """Raises `Rejected` where their key begins more streams than any encoder does that reconnects."""
        whose, now = (grant.call_cid, grant.user_id), monotonic_ns()
        if not self._begun.take(whose, now):
            wait_s = self._begun.wait_s(whose, now)
            words = (
                f"this key begins too many streams: wait {ceil(wait_s)} s, and let the encoder reconnect once a second at most"
            )
            raise Rejected(Reason.TOO_MANY_REQUESTS, words, wait_s)

    def log_refusal(self, refusal: Rejected, **who: str) -> None:
        event(log, logging.WARNING, f"refused: {refusal.detail}", **who, reason=refusal.reason.label)

    async def _receive(self, publisher: Publisher, policy: SeatPolicy) -> None:
        trace = self._trace_of(publisher)
        try:
            seat = await self._admit(publisher, policy, trace)
        except Rejected as refusal:
            self._refuse(publisher, refusal, trace)
            await publisher.reject(refusal)
            return
        if seat is not None:
            try:
                await seat.run()
            finally:
                self._registry.remove(seat)
                self._awaited.closed(seat)
                for key in [key for key in self.rights if key[:2] == (seat.call_cid, seat.user_id)]:
                    del self.rights[key]

    def _trace_of(self, applicant: Applicant) -> Trace:
        trace = self._trace()
        trace.know(session=applicant.id, protocol=applicant.protocol, software=applicant.software)
        trace.step("authorise")
        return trace

    def _refuse(self, applicant: Applicant, refusal: Rejected, trace: Trace) -> None:
        trace.end(refusal.detail, refusal.reason.label)
        self._registry.refused[applicant.protocol, refusal.reason.label] += 1
        who = {"protocol": applicant.protocol, "remote": applicant.remote, "software": applicant.software}
        self.log_refusal(refusal, session=applicant.id, **who)
        self._on_refused(applicant, refusal)

    async def _admit(self, publisher: Publisher, policy: SeatPolicy, trace: Trace) -> Seat | None:
        """The new seat to run, or None when the publisher went to the seat that its user already has."""
        credential, call, host = publisher.credential, publisher.params.get("call"), host_of(publisher.remote)
        await self._gate.prepare(credential, call)
        grant = self.examine(credential, call, host)
        if not grant.exists:
            await self._gate.settle(grant)
            grant = self.examine(credential, call, host)  # others may have come meanwhile
        key = grant.call_cid, grant.user_id
        if key not in self._registry.seats:
            await self._awaited.look_up(*key)
            grant = self.examine(credential, call, host)
        present = self._registry.seats.get(key)
        trace.know(call=grant.call_cid, user=grant.user_id)
        event(
            log,
            logging.INFO,
            "publishing",
            session=present.id if present is not None else publisher.id,
            publisher=publisher.id if present is not None else None,
            protocol=publisher.protocol,
            remote=publisher.remote,
            software=publisher.software,
            call=grant.call_cid,
            user=grant.user_id,
        )
        if present is not None:
            trace.end(f"it goes on in the session {present.id}")
            self.rights[*key, grant.rank] = grant
            alone = self._policy_of(grant) == "priority"
            present.withhold(grant.muted, grant.barred, grant.rank)  # another credential of the same user may give less
            await present.take_over(publisher, grant.rank, grant.barred, alone=alone)
            return None
        seat = Seat(
            publisher,
            grant.user_id,
            grant.call_cid,
            [self._registry.call(grant.call_cid), *self._destinations],
            self._workers,
            self._adapt(policy, grant),
            grant.muted,
            trace,
            grant.barred,
            grant.rank,
            self._awaited.claim(*key),
        )
        self.rights[*key, grant.rank] = grant
        self._registry.add(seat)
        return seat
