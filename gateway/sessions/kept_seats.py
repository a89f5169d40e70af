"""The seats of this node in the store, and those that are awaited here after the process that had them has gone.

Kept true:

* Every live seat has one row, not older than `PERIOD_S`, written for all of them together. While the store is away nothing else is
  lost than that: who is live goes on, and would begin anew after a crash.
* A seat that was ended does not come back; one that only its gateway left goes on with its encoder, as the same participant, within its
  grace. Nobody is told that it left unless that grace has passed, and then once, by whichever node finds it.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Final, Protocol

from gateway.model.kept import KeptSeat
from gateway.model.records import Json
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import ResumableDestination
from gateway.sessions.seat import OnSeatChange, Seat
from gateway.sessions.seat_start import SeatStart, away, counted
from gateway.sessions.seat_state import SeatChange
from gateway.store.database import StoreUnavailable
from gateway.store.seats import LEASE, Seats, orphaned
from gateway.telemetry.log import event

log = logging.getLogger(__name__)

PERIOD_S: Final = 2.0
LEAST_S: Final = 0.25  # between two writings
LOOK_S: Final = 10.0  # between two looks for seats of nodes that have gone
LOOK_UP_S: Final = 1.0  # that an encoder may wait for the store, which need not answer
HAND_OVER_S: Final = 1.0
MOST_ENDED: Final = 10_000  # that wait to be taken out of a store that is away: the oldest are left to their grace
NOT_BACK: Final = "the gateway was restarted or lost, and the encoder did not come back in time"

_Key = tuple[str, str]


class LiveSeats(Protocol):
    """The seats of this process (`gateway.sessions.registry.Registry`)."""

    @property
    def seats(self) -> dict[_Key, Seat]: ...

    def retire(self, protocol: str, totals: PipelineCounters) -> None: ...


class OnKept(Protocol):
    """Who tells others of seats that have no encoder and no process yet. Neither blocks nor raises."""

    def awaited(self, seat: KeptSeat) -> None:
        """Its encoder may come back here."""

    def gave_up(self, seat: KeptSeat, why: str) -> None:
        """It has left its call."""


@dataclass(frozen=True, slots=True)
class _Awaited:
    seat: KeptSeat
    until: float  # in the loop's time


class KeptSeats:
    """Of one process, whose `node` is the same after a restart and whose `epoch` is higher. `restore` before encoders come, `run` while
    they may, `hand_over` before they are sent away."""

    def __init__(
        self,
        live: LiveSeats,
        store: Seats,
        outputs: Sequence[ResumableDestination],
        on_change: OnSeatChange,
        on_kept: OnKept,
        *,
        node: str,
        epoch: int,
    ) -> None:
        """`on_change` is told of what becomes of seats, `on_kept` of those that are awaited."""
        self._live = live
        self._store = store
        self._outputs = outputs
        self._on_change = on_change
        self._on_kept = on_kept
        self._node = node
        self._epoch = epoch
        self._awaited: dict[_Key, _Awaited] = {}
        self._returning: dict[_Key, _Awaited] = {}  # their encoder is there, and not yet in the call
        self._ended: dict[_Key, str] = {}  # sessions that the store still has; the oldest first
        self._handed_over: frozenset[_Key] = frozenset()
        self._leaving = False
        self._due = asyncio.Event()
        self._look_at = 0.0  # for what nobody has come back to, in the loop's time
        self._answers_since: float | None = None  # the store, without a break
        for output in outputs:
            output.follow(self._due.set)

    async def restore(self) -> None:
        """Await the encoders of what the process before this one had. Raises `StoreUnavailable`."""
        for seat in await self._store.left_by(self._node, datetime.now(UTC)):
            self._await(seat)
            self._on_kept.awaited(seat)
        if self._awaited:
            event(log, logging.INFO, "encoders of before the restart are awaited", seats=len(self._awaited))

    def _await(self, seat: KeptSeat) -> None:
        self._awaited[seat.key] = _Awaited(seat, asyncio.get_running_loop().time() + seat.grace_s)
        self._look_at = 0.0
        for output in self._outputs:
            output.resume(seat, away(seat))

    # For admission

    async def look_up(self, cid: str, user_id: str) -> None:
        """Whether another node that has gone had this seat. A store that does not answer keeps nobody out."""
        if (cid, user_id) in self._awaited:
            return
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LOOK_UP_S):
                found = await self._store.find(cid, user_id)
            if found is not None and orphaned(found, self._node, datetime.now(UTC)):
                self._await(found)

    def claim(self, cid: str, user_id: str) -> SeatStart | None:
        """How the seat that is made now begins, where it is one that was awaited."""
        awaited = self._awaited.pop((cid, user_id), None)
        if awaited is None:
            return None
        self._returning[cid, user_id] = awaited
        self._due.set()  # it is ours, for as long as that takes
        return SeatStart.of(awaited.seat, monotonic_ns())

    def closed(self, seat: Seat) -> None:
        """It has gone. One that never came into its call is awaited as before."""
        key = seat.call_cid, seat.user_id
        if (awaited := self._returning.pop(key, None)) is not None:
            self._awaited[key] = awaited
            self._look_at = 0.0

    def changed(self, seat: Seat, change: SeatChange) -> None:
        """`gateway.sessions.seat.SeatPolicy.on_change`: tells others, but not that somebody joins who never left."""
        key = seat.call_cid, seat.user_id
        if change is SeatChange.JOINED:
            self._ended.pop(key, None)  # its row takes the place of the former one's
            self._due.set()
            if self._returning.pop(key, None) is not None:
                self._live.retire(seat.protocol, counted())
                return
        elif change is SeatChange.LEFT:
            if key in self._handed_over:
                return
            self._ended[key] = seat.id
            if len(self._ended) > MOST_ENDED:
                del self._ended[next(iter(self._ended))]
            self._due.set()
        self._on_change(seat, change)

    # In the store

    async def run(self) -> None:
        """Keeps the rows, until cancelled."""
        while True:
            now = asyncio.get_running_loop().time()
            first = min((awaited.until - now for awaited in self._awaited.values()), default=PERIOD_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(first, PERIOD_S))):
                    await self._due.wait()
            self._due.clear()
            if not self._leaving:
                await self._turn()
            await asyncio.sleep(LEAST_S)

    async def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        over = [key for key, awaited in self._awaited.items() if awaited.until <= now]
        for key in over:
            del self._awaited[key]
            for output in self._outputs:
                output.give_up(*key)
        try:
            await self._write(self._node)
            if over or now >= self._look_at:
                await self._look(now)
                self._look_at = now if over else now + LOOK_S  # once more for these: the store's clock is another
        except StoreUnavailable:
            if self._answers_since is not None:
                event(log, logging.WARNING, "the store does not answer: after a crash streams would begin anew")
            self._answers_since = None
        else:
            self._answers_since = now if self._answers_since is None else self._answers_since

    async def _write(self, node: str) -> frozenset[_Key]:
        """All seats, as `node`'s; gives which those are."""
        now = datetime.now(UTC)
        seats = [replace(each.seat, node=node, epoch=self._epoch, since=now) for each in self._returning.values()]
        joined = (
            seat for seat in self._live.seats.values() if seat.joined and (seat.call_cid, seat.user_id) not in self._ended
        )
        seats += [self._kept(seat, node, now) for seat in joined]
        ended = dict(self._ended)
        if seats or ended:
            await self._store.keep(seats, ended, self._node, now)
        for key in ended:
            self._ended.pop(key, None)
        return frozenset(seat.key for seat in seats)

    def _kept(self, seat: Seat, node: str, now: datetime) -> KeptSeat:
        parts = ((output.name, output.kept(seat.call_cid, seat.user_id)) for output in self._outputs)
        outputs: dict[str, Json] = {name: part for name, part in parts if part is not None}
        return KeptSeat(
            seat.call_cid,
            seat.user_id,
            seat.id,
            seat.protocol,
            seat.started_at,
            seat.media_now(monotonic_ns()),
            seat.reconnects,
            seat.grace_s,
            now,
            now,
            node,
            self._epoch,
            outputs,
        )

    async def _look(self, now: float) -> None:
        """Who has not come back in time has left. After a store that was away the nodes that live are given time to say so."""
        sound = self._answers_since is not None and now - self._answers_since >= LEASE.total_seconds()
        for seat in await self._store.take_expired(datetime.now(UTC), of_nodes=sound):
            event(log, logging.INFO, "ended", session=seat.session, call=seat.call_cid, user=seat.user_id, why=NOT_BACK)
            self._on_kept.gave_up(seat, NOT_BACK)

    async def hand_over(self) -> None:
        """All seats are anybody's to go on with, and are about to end here. Where the store does not take them they end for good."""
        self._leaving = True
        for output in self._outputs:
            output.hand_over()
        self._ended |= {key: seat.id for key, seat in self._live.seats.items() if not seat.grace_s}
        try:
            async with asyncio.timeout(HAND_OVER_S):
                handed_over = await self._write("")
        except (StoreUnavailable, TimeoutError):
            event(log, logging.WARNING, "the store does not answer: streams are not handed over")
            return
        self._handed_over = handed_over
