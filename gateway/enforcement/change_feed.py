"""Follows what is written into the store: by this process at once, by others (nodes with the same database, the command line) within half a
second, in the order of writing.

Kept true: no change is lost, whoever is cancelled or whatever fails meanwhile; one may be applied twice.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from gateway.access.rights_cache import NotInMemory, RightsCache
from gateway.enforcement.enforcement import Enforcement
from gateway.model.records import Call, Change, ChangeKind
from gateway.store.database import StoreUnavailable
from gateway.store.store import Store
from gateway.telemetry.log import event
from protocols.errors import Rejected

FOLLOW_S: Final = 0.5
_FORGET_S: Final = 600.0

log = logging.getLogger(__name__)


class ChangeFeed:
    """`start`, then `run` until cancelled."""

    def __init__(
        self,
        store: Store,
        rights_cache: RightsCache,
        enforcement: Enforcement,
        on_elsewhere: Callable[[Call | None, Call | None], None],
    ) -> None:
        """`on_elsewhere` is told of each call that another process has written: what it was, as far as that is known here, and what it
        is."""
        self._store = store
        self._rights_cache = rights_cache
        self._enforcement = enforcement
        self._on_elsewhere = on_elsewhere
        self._seen = 0
        self._applied: set[int] = set()  # after `_seen`, by ourselves
        self._missed: list[Change] = []

    async def start(self) -> None:
        self._seen = await self._store.changes.last()  # first: what comes while the rights cache reads is applied once more
        await self._rights_cache.start()
        self._store.follow(self._written)

    async def _written(self, changes: Sequence[Change]) -> None:
        numbers = {change.seq for change in changes}
        self._applied |= numbers
        done = False
        try:
            await self._enforcement.apply(changes)
            done = True
        except (StoreUnavailable, NotInMemory):
            pass  # it is written all the same; the rest comes when the store answers again
        finally:
            if not done:
                self._missed += changes

    async def run(self) -> None:
        forget_at, answering = monotonic() + _FORGET_S, True
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self._catch_up()
                await self._enforcement.end_overdue(datetime.now(UTC))
                if monotonic() >= forget_at:
                    forget_at = monotonic() + _FORGET_S
                    await self._store.changes.forget()
            except Rejected as refusal:  # the store is away; or what was just looked up is forgotten again
                if answering:
                    event(log, logging.ERROR, "the store does not answer: live streams go on", cause=_cause(refusal))
                answering = False
            else:
                if not answering:
                    event(log, logging.INFO, "the store answers again")
                answering = True

    async def _catch_up(self) -> None:
        changes = await self._store.changes.since(self._seen)
        if changes is None:
            self._seen = await self._store.changes.last()
            await self._enforcement.start_anew()
            return
        missed = list(self._missed)
        theirs = [change for change in changes if change.seq not in self._applied]
        before = {change.key: self._known(change.key) for change in theirs if change.kind is ChangeKind.CALL}
        await self._enforcement.apply([*missed, *theirs])
        del self._missed[: len(missed)]
        for cid, call in before.items():
            self._on_elsewhere(call, self._known(cid))
        if changes:
            self._seen = changes[-1].seq
            self._applied = {number for number in self._applied if number > self._seen}

    def _known(self, cid: str) -> Call | None:
        try:
            known = self._rights_cache.call(cid)
        except NotInMemory:
            return None
        return known.call if known is not None else None


def _cause(refusal: Rejected) -> str:
    """What kind of fault; its text may hold the server's address."""
    return type(refusal.__cause__ or refusal).__name__
