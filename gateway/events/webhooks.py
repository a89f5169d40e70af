"""Webhooks: events told to the operator's own server by HTTP POST, signed, at least once, and in order within each call.

An event goes from the bus into a short list in memory, from there at once into the outbox in the store, and leaves the outbox when the
receiver has answered with 2xx; a restart goes on where it was, and so does another node with the same store. The receiver may see an event
twice and knows it by its id.

Kept true: nothing waits for a receiver but this file's own tasks; a receiver that hangs, fails or is away is tried again, one request at a
time, after growing waits (`protocols.back_off`); once it answers, everything flows again.
An event that it refuses (4xx) holds up its own call alone and is dropped after `MAX_REFUSALS`. What waits is bounded: the oldest is
dropped and counted.
"""

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Final, Protocol

import aiohttp

from gateway.events.webhook_call import DeliveryFailure, Receiver, call
from gateway.model.events import Event
from gateway.model.records import Delivery
from gateway.telemetry.log import event as log_event
from protocols.back_off import BackOff
from protocols.defects import log_defect
from protocols.errors import Rejected

log = logging.getLogger(__name__)
_log_defect = partial(log_defect, log, "the webhook is not told everything")

MAX_UNSAVED: Final = 2000  # events in memory, while the store does not take them
PARALLEL: Final = 8  # calls told at once
MAX_REFUSALS: Final = 8  # of the same event
BACK_OFF: Final = BackOff(1.0, 60.0)
_SAVE_S: Final = 1.0  # for what is left at the end
_PAGE: Final = 100
_CLAIM_S: Final = 5.0  # beyond the time of a request: who claimed an event and died is given up then


class DueEvents(Protocol):
    """What `gateway.store.outbox` does; raises `Rejected` where the store does not answer."""

    async def add(self, events: Sequence[tuple[str, str, bytes]], now: datetime) -> int: ...
    async def first_of_each_call(self, limit: int) -> Sequence[Delivery]: ...
    async def waiting(self) -> int: ...
    async def delivered(self, seq: int) -> None: ...
    async def postpone(self, seq: int, due_at: datetime) -> None: ...
    async def claim(self, seq: int, now: datetime, until: datetime) -> bool: ...
    async def release(self, seq: int) -> None: ...


class Webhooks:
    """Tells one receiver. `hear` is the bus's listener; `running` does the work."""

    def __init__(self, receiver: Receiver, outbox: DueEvents, back_off: BackOff = BACK_OFF, *, shared: bool = False) -> None:
        """`shared`: other gateways deliver from the same outbox; each event is then claimed by the one that sends it."""
        self.delivered = 0
        self.failed: Counter[str] = Counter()  # attempts: timeout, unreachable, private, refused, error
        self.dropped: Counter[str] = Counter()  # events: overflow, refused
        self.waiting = 0
        self._receiver = receiver
        self._outbox = outbox
        self._back_off = back_off
        self._shared = shared
        self._unsaved: deque[Event] = deque()
        self._heard = asyncio.Event()
        self._look = asyncio.Event()  # there may be something to send
        self._sending: dict[str, asyncio.Task[None]] = {}  # by call
        self._failures = 0  # of the receiver, in a row
        self._silent_until = 0.0

    def hear(self, event: Event) -> None:
        if event.elsewhere or (self._receiver.types and event.type not in self._receiver.types):
            return
        if len(self._unsaved) >= MAX_UNSAVED:
            self._unsaved.popleft()
            self.dropped["overflow"] += 1
        self._unsaved.append(event)
        self._heard.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends meanwhile; at the end saves what has not been saved. Raises nothing of its own."""
        tasks = [asyncio.create_task(each, name="webhooks") for each in (self._keep(), self._send())]
        for task in tasks:
            task.add_done_callback(_log_defect)
        try:
            yield
        finally:
            leaving = [*tasks, *self._sending.values()]
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            try:
                async with asyncio.timeout(_SAVE_S):
                    await self._save()
            except (TimeoutError, Rejected):
                log_event(log, logging.WARNING, "events for the webhook were lost", events=len(self._unsaved))

    async def _keep(self) -> None:
        failures = 0
        while True:
            await self._heard.wait()
            self._heard.clear()
            try:
                await self._save()
                failures = 0
            except Rejected as refusal:
                failures += 1
                log_event(log, logging.WARNING, f"events for the webhook wait in memory: {refusal.detail}")
                await asyncio.sleep(self._back_off.wait_s(failures))
                self._heard.set()

    async def _save(self) -> None:
        batch = list(self._unsaved)
        if not batch:
            return
        saving = [(event.cid, event.type.value, event.text.encode()) for event in batch]
        dropped = await self._outbox.add(saving, datetime.now(UTC))
        for event in batch:  # what came meanwhile is behind them, unless so much came that some of these have been dropped
            if self._unsaved and self._unsaved[0] is event:
                self._unsaved.popleft()
        if dropped:
            self.dropped["overflow"] += dropped
        self.waiting += len(batch) - dropped
        self._look.set()

    async def _send(self) -> None:
        async with self._receiver.session(PARALLEL) as http:
            counted = False
            while True:
                try:
                    if not counted:
                        self.waiting, counted = await self._outbox.waiting(), True
                    wait = await self._start_due(http)
                except Rejected:
                    wait = self._back_off.first_s
                await self._next_look(wait)

    async def _next_look(self, wait_s: float | None) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._look.wait()
        except TimeoutError:
            pass
        self._look.clear()

    async def _start_due(self, http: aiohttp.ClientSession) -> float | None:
        """Starts what may be sent now; gives the seconds until there is more to do by the clock, None when there is nothing."""
        if (silent := self._silent_until - monotonic()) > 0:
            return silent
        room = (1 if self._failures else PARALLEL) - len(self._sending)
        now = datetime.now(UTC)
        soonest: float | None = None
        busy = set(self._sending)  # as the store is read: what ends meanwhile may still be in the answer
        waiting = await self._outbox.first_of_each_call(_PAGE) if room > 0 else ()
        if room > 0 and not waiting and not busy:
            self.waiting = 0  # others may have delivered from the same outbox
        for delivery in waiting:
            if delivery.call_cid in busy:
                continue
            if delivery.due_at is not None and delivery.due_at > now:
                seconds = (delivery.due_at - now).total_seconds()
                soonest = seconds if soonest is None else min(soonest, seconds)
            elif room > 0:
                room -= 1
                self._sending[delivery.call_cid] = task = asyncio.create_task(self._tell(http, delivery), name="webhook")
                task.add_done_callback(_log_defect)
        return soonest

    async def _tell(self, http: aiohttp.ClientSession, delivery: Delivery) -> None:
        try:
            now = datetime.now(UTC)
            name = json.loads(delivery.body)["id"]
            until = now + timedelta(seconds=self._receiver.timeout_s + _CLAIM_S)
            if self._shared and not await self._outbox.claim(delivery.seq, now, until):
                return
            fault = await call(http, self._receiver, name, delivery.body, int(now.timestamp()))
            if fault is None:
                self._recovered()
                self.delivered += 1
                await self._done(delivery)
            elif fault.of_event:
                self._recovered()
                await self._refused(delivery, fault)
            else:
                self._failed(fault)
                if self._shared:
                    await self._outbox.release(delivery.seq)
        except Rejected:
            # The store does not answer: the event stays there, and is sent again.
            self._silent_until = monotonic() + self._back_off.first_s
        finally:
            self._sending.pop(delivery.call_cid, None)
            self._look.set()

    async def _done(self, delivery: Delivery) -> None:
        await self._outbox.delivered(delivery.seq)
        self.waiting = max(0, self.waiting - 1)

    async def _refused(self, delivery: Delivery, fault: DeliveryFailure) -> None:
        self.failed[fault.kind] += 1
        if delivery.attempts + 1 >= MAX_REFUSALS:
            self.dropped["refused"] += 1
            log_event(log, logging.WARNING, f"an event was dropped: the webhook's receiver does not take it, {fault.words}",
                      call=delivery.call_cid, type=delivery.type)  # fmt: skip
            await self._done(delivery)
        else:
            wait = timedelta(seconds=self._back_off.wait_s(delivery.attempts + 1))
            await self._outbox.postpone(delivery.seq, datetime.now(UTC) + wait)

    def _failed(self, fault: DeliveryFailure) -> None:
        if not self._failures:
            log_event(
                log, logging.WARNING, f"the webhook's receiver fails: {fault.words}; events wait for it", reason=fault.kind
            )
        self.failed[fault.kind] += 1
        if monotonic() < self._silent_until:  # one of several that were on their way: one failure of the receiver
            return
        self._failures += 1
        self._silent_until = monotonic() + self._back_off.wait_s(self._failures)

    def _recovered(self) -> None:
        if self._failures:
            log_event(log, logging.INFO, "the webhook's receiver answers again", waiting=self.waiting, failures=self._failures)
        self._failures, self._silent_until = 0, 0.0
