"""One event to a thousand sockets: each call's events go to its outlets in rounds, encoded once and written in small portions.

Kept true: an outlet gets the events of its audience in order and each once, and none that was published after its right to it was taken
away (`reconsider`); between two portions of a round the event loop serves the
media; what is published during a round goes out together in the next one, so that a crowd that writes fast costs fewer writes, not more.
At most `MAX_PENDING` events of a call wait; beyond that the oldest are dropped and counted. An outlet that does not read is its owner's
to end: nothing waits for it here.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic_ns
from typing import Final, Protocol

from gateway.events.history import EventHistory
from gateway.model.events import AUDIENCE, Event, EventAudience
from gateway.telemetry.latency import Histogram
from protocols.defects import log_defect

log = logging.getLogger(__name__)

MAX_PENDING: Final = 1000
PORTION: Final = 100  # outlets between two turns of the event loop: a millisecond, at 3 to 10 microseconds for each write
EVERY_CALL: Final = "*"


class Outlet(Protocol):
    """Somebody who listens."""

    def write(self, frames: bytes) -> None:
        """Take whole WebSocket frames; neither blocks nor raises."""

    def reconsider(self, cid: str) -> EventAudience | None:
        """The audience it is now of in this call; None: it may not listen any more, has been told so, and is removed."""


Pending = tuple[int, Event | None]
"""When it came (monotonic ns), and the event; None: rights have changed, those that follow are for other eyes."""


class EventFanout:
    """`hear` is the bus's listener; events are written while it is `running`."""

    def __init__(self) -> None:
        self.written = 0  # events times outlets
        self.dropped = 0
        self.recent = EventHistory()
        """What late comers are given."""
        self.delay = Histogram()  # from an event's arrival here until the last outlet had it
        self._outlets: dict[str, dict[Outlet, EventAudience]] = {}
        self._pending: OrderedDict[str, deque[Pending]] = OrderedDict()
        self._wake = asyncio.Event()

    def add(self, outlet: Outlet, cid: str, audience: EventAudience) -> None:
        """Events of `cid` (`EVERY_CALL`: of all) from now on. One that is there already is of this audience now."""
        self._outlets.setdefault(cid, {})[outlet] = audience

    def remove(self, outlet: Outlet, cid: str) -> None:
        there = self._outlets.get(cid, {})
        there.pop(outlet, None)
        if not there:
            self._outlets.pop(cid, None)

    def hear(self, event: Event) -> None:
        self.recent.hear(event)
        if event.cid in self._outlets or EVERY_CALL in self._outlets:
            self._put(event.cid, event)

    def reconsider(self, cid: str) -> None:
        """Rights in this call (`EVERY_CALL`: in any) may have changed: each outlet is asked again before it is told more."""
        for each in list(self._outlets) if cid == EVERY_CALL else [cid]:
            if each in self._outlets:
                self._put(each, None)
        if cid == EVERY_CALL and EVERY_CALL in self._pending:
            self._pending.move_to_end(EVERY_CALL, last=False)  # before the events of any call are told to who listens to all

    def _put(self, cid: str, event: Event | None) -> None:
        pending = self._pending.setdefault(cid, deque())
        if event is None and pending and pending[-1][1] is None:
            return
        pending.append((monotonic_ns(), event))
        if len(pending) > MAX_PENDING:
            self.dropped += 1
            oldest = next(n for n, (_, each) in enumerate(pending) if each is not None)
            del pending[oldest]
        self._wake.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        # No TaskGroup: what fails inside the block is to come out as it is.
        task = asyncio.create_task(self._run(), name="events to sockets")
        task.add_done_callback(partial(log_defect, log, "events are not written any more"))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                cid, pending = self._pending.popitem(last=False)
                while pending:
                    if batch := _next_batch(pending):
                        await self._round(cid, batch)
                    else:
                        pending.popleft()
                        await self._reconsider(cid)

    async def _round(self, cid: str, batch: list[tuple[int, Event]]) -> None:
        events = [event for _, event in batch]
        encoded = {audience: _frames(events, audience) for audience in EventAudience}
        joined = {audience: b"".join(frames) for audience, frames in encoded.items()}
        for key in (cid, EVERY_CALL):
            for n, (outlet, audience) in enumerate(list(self._outlets.get(key, {}).items()), 1):
                if joined[audience]:
                    outlet.write(joined[audience])
                    self.written += len(encoded[audience])
                if n % PORTION == 0:
                    await asyncio.sleep(0)
        now = monotonic_ns()
        for heard, _ in batch:
            self.delay.observe(now - heard)

    async def _reconsider(self, cid: str) -> None:
        for n, outlet in enumerate(list(self._outlets.get(cid, ())), 1):
            audience = outlet.reconsider(cid)
            if audience is None:
                self.remove(outlet, cid)
            elif outlet in self._outlets.get(cid, {}):
                self.add(outlet, cid, audience)
            if n % PORTION == 0:
                await asyncio.sleep(0)


def text_frame(text: str) -> bytes:
    """One unmasked WebSocket text frame (RFC 6455 §5.2), as a server sends it."""
    data = text.encode()
    size = len(data)
    if size < 126:
        return bytes((0x81, size)) + data
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2) + data
    return b"\x81\x7f" + size.to_bytes(8) + data


def _next_batch(pending: deque[Pending]) -> list[tuple[int, Event]]:
    """The events up to the next change of rights."""
    batch: list[tuple[int, Event]] = []
    while pending and (event := pending[0][1]) is not None:
        batch.append((pending.popleft()[0], event))
    return batch


def _frames(events: Iterable[Event], audience: EventAudience) -> list[bytes]:
    return [text_frame(event.told(audience)) for event in events if AUDIENCE[event.type] <= audience]
