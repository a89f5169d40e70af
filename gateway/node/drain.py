"""Leaving without hurting anybody: from the start of a drain no new stream is taken, and those that are live go on until they end.

Kept true: a drain is never taken back; an encoder of a stream that is live may come back to it, for only this gateway has its call.
"""

import asyncio
import logging

from gateway.sessions.registry import Registry
from gateway.telemetry.log import event

log = logging.getLogger(__name__)


class Drain:
    """One gateway's way out: `begin`, then `finished` once nobody streams any more; `end` for those who still do. It is the
    `gateway.sessions.admission.Closing` of all that takes streams."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._begun = False

    @property
    def begun(self) -> bool:
        return self._begun

    @property
    def streams(self) -> int:
        """Those that are still here, those of absent encoders included."""
        return len(self._registry.seats)

    def begin(self, why: str) -> None:
        """New publishers are refused from here on."""
        if not self._begun:
            self._begun = True
            event(log, logging.INFO, "draining: no new streams are taken", why=why, streams=self.streams)

    async def finished(self, limit_s: float) -> bool:
        """Waits until no stream is left, at most `limit_s`; True when none is."""
        try:
            async with asyncio.timeout(limit_s):
                while self._registry.seats:
                    await self._registry.changed.wait()
        except TimeoutError:
            event(log, logging.WARNING, "the limit of the drain is reached", streams=self.streams)
        return not self._registry.seats

    def end(self, why: str) -> None:
        """Nobody is taken any more, and who is live is told `why` it is over."""
        self._begun = True
        for seat in list(self._registry.seats.values()):
            seat.end(why)
