"""What webhooks are still to be told: written before it is sent, gone when it was taken. Each method is one transaction.

Kept true: `seq` gives the order in which events were added; no more than `MAX_WAITING` wait, of which the oldest go first.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, insert, select, update

from gateway.model.records import Delivery
from gateway.store import rows
from gateway.store.database import Database
from gateway.store.models import OUTBOX

MAX_WAITING: Final = 10_000


class Outbox:
    """`store.outbox`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, events: Sequence[tuple[str, str, bytes]], now: datetime, *, most: int = MAX_WAITING) -> int:
        """Adds events of (cid, type, body), in order; returns how many older ones were dropped for them."""
        if not events:
            return 0
        async with self._database.write() as writing:
            await writing.connection.execute(
                insert(OUTBOX),
                [{"call_cid": c, "type": t, "body": b, "created_at": now, "attempts": 0, "due_at": None} for c, t, b in events],
            )
            waiting = (await writing.connection.execute(select(func.count()).select_from(OUTBOX))).scalar_one()
            if waiting <= most:
                return 0
            oldest = select(OUTBOX.c.seq).order_by(OUTBOX.c.seq).limit(waiting - most)
            await writing.connection.execute(delete(OUTBOX).where(OUTBOX.c.seq.in_(oldest)))
        return int(waiting - most)

    async def first_of_each_call(self, limit: int = 100) -> tuple[Delivery, ...]:
        """The oldest event of each call, since within a call one comes after the other; due or not."""
        oldest = select(func.min(OUTBOX.c.seq)).group_by(OUTBOX.c.call_cid)
        query = select(OUTBOX).where(OUTBOX.c.seq.in_(oldest)).order_by(OUTBOX.c.due_at.asc().nulls_first(), OUTBOX.c.seq)
        async with self._database.read() as connection:
            return tuple(map(rows.delivery, await connection.execute(query.limit(limit))))

    async def waiting(self) -> int:
        async with self._database.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(OUTBOX))).scalar_one())

    async def delivered(self, seq: int) -> None:
        async with self._database.write() as writing:
            await writing.connection.execute(delete(OUTBOX).where(OUTBOX.c.seq == seq))

    async def claim(self, seq: int, now: datetime, until: datetime) -> bool:
        """It is ours to deliver until then, of all that share the store; False: it is another's, or gone."""
        async with self._database.write() as writing:
            free = OUTBOX.c.due_at.is_(None) | (OUTBOX.c.due_at <= now)
            claimed = await writing.connection.execute(update(OUTBOX).where(OUTBOX.c.seq == seq, free).values(due_at=until))
        return bool(claimed.rowcount)

    async def release(self, seq: int) -> None:
        """It may be delivered at once, by anybody."""
        async with self._database.write() as writing:
            await writing.connection.execute(update(OUTBOX).where(OUTBOX.c.seq == seq).values(due_at=None))

    async def postpone(self, seq: int, due_at: datetime) -> None:
        """It was not taken: another attempt at `due_at`."""
        async with self._database.write() as writing:
            later = update(OUTBOX).where(OUTBOX.c.seq == seq)
            await writing.connection.execute(later.values(attempts=OUTBOX.c.attempts + 1, due_at=due_at))
