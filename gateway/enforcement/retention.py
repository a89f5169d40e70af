"""Calls that have ended are deleted after a while, if the operator says so: what strangers make does not stay for ever.

Kept true: no transaction deletes more than `_AT_ONCE` calls, so that nobody who writes waits long for it.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.store.database import StoreUnavailable
from gateway.store.store import Store
from gateway.telemetry.log import event

log = logging.getLogger(__name__)

_EVERY_S: Final = 3600.0
_AT_ONCE: Final = 100


async def forget_ended_calls(store: Store, keep: timedelta) -> None:
    """Until cancelled, at once and then every hour: those that ended longer than `keep` ago are deleted with members and keys."""
    while True:
        try:
            deleted = await forget_now(store, datetime.now(UTC) - keep)
            if deleted:
                event(log, logging.INFO, "calls that ended long ago are deleted", calls=deleted)
        except StoreUnavailable:
            pass  # the change feed says so; they are deleted the next time
        await asyncio.sleep(_EVERY_S)


async def forget_now(store: Store, before: datetime) -> int:
    """How many calls ended before this, and are deleted. Raises `StoreUnavailable`."""
    deleted = 0
    while cids := await store.calls.forget_ended(before, limit=_AT_ONCE):
        deleted += len(cids)
    return deleted
