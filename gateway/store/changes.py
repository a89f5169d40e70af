"""What was written, by any process: followed by the number of the last change seen. Old ones are forgotten; who was away for longer
than the list is long reads everything anew.
"""

from typing import Final

from sqlalchemy import delete, func, select

from gateway.model.records import Change, ChangeKind
from gateway.store.database import Database
from gateway.store.models import CHANGES, CLOCK

KEPT: Final = 10_000
_MOST: Final = 1000


class Changes:
    """`store.changes`."""

    def __init__(self, database: Database, *, kept: int = KEPT) -> None:
        """`kept`: so many changes `forget` leaves."""
        self._database = database
        self._kept = kept

    async def last(self) -> int:
        """The number of the last change."""
        async with self._database.read() as connection:
            return int((await connection.execute(select(CLOCK.c.seq))).scalar_one())

    async def since(self, seq: int) -> tuple[Change, ...] | None:
        """The changes after `seq`, the first 1000 of them; None when some of them are forgotten."""
        async with self._database.read() as connection:
            now = (await connection.execute(select(CLOCK.c.seq))).scalar_one()
            if now == seq:
                return ()
            query = select(CHANGES).where(CHANGES.c.seq > seq).order_by(CHANGES.c.seq).limit(_MOST)
            found = (await connection.execute(query)).all()
        if not found or found[0].seq != seq + 1:
            return None
        return tuple(Change(row.seq, ChangeKind(row.kind), row.key) for row in found)

    async def forget(self) -> None:
        """All but the newest."""
        async with self._database.write() as writing:
            last = (await writing.connection.execute(select(func.max(CHANGES.c.seq)))).scalar_one()
            if last is not None:
                await writing.connection.execute(delete(CHANGES).where(CHANGES.c.seq <= last - self._kept))
