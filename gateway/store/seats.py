"""The live seats of all nodes, for who goes on with them after a node has gone. Each method is one transaction.

Kept true: a seat's row is one node's, by its name and the run of it that wrote. Another one writes over it only to go on with that very
seat, and only once that node has shown for `LEASE` no more that it is there, or has given it up. What is kept here is told to nobody (no
`Change`): it is the node's own note.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, and_, delete, literal, or_, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.model.kept import KeptSeat
from gateway.store import rows
from gateway.store.database import Database
from gateway.store.models import SEATS

LEASE: Final = timedelta(seconds=6)
"""A node that has written nothing for so long is taken to be gone."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KEY: Final = ("call_cid", "user_id")


class Seats:
    """`store.seats`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, seats: Sequence[KeptSeat], gone: Mapping[tuple[str, str], str], node: str, now: datetime) -> None:
        """These are the seats of `node` as they are now; those of `gone` (call and user, session) have ended. A seat that another node
        has stays that node's, and one that nobody has what it is until it expires."""
        async with self._database.write() as writing:
            for (cid, user_id), session in gone.items():
                own = (SEATS.c.call_cid == cid, SEATS.c.user_id == user_id, _writable(node, literal(session), now))
                await writing.connection.execute(delete(SEATS).where(*own))
            if not seats:
                return
            insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[writing.connection.dialect.name](SEATS)
            others = {each.name: insert.excluded[each.name] for each in SEATS.c if each.name not in _KEY}
            newer = or_(SEATS.c.node != node, SEATS.c.epoch <= insert.excluded.epoch)
            mine = and_(_writable(node, insert.excluded.session, now), newer)
            statement = insert.on_conflict_do_update(index_elements=_KEY, set_=others, where=mine)
            await writing.connection.execute(statement, [rows.seat_row(seat) for seat in seats])

    async def find(self, cid: str, user_id: str) -> KeptSeat | None:
        """Whoever has it."""
        async with self._database.read() as connection:
            query = select(SEATS).where(SEATS.c.call_cid == cid, SEATS.c.user_id == user_id)
            found = (await connection.execute(query)).one_or_none()
        return None if found is None else rows.seat(found)

    async def left_by(self, node: str, now: datetime) -> tuple[KeptSeat, ...]:
        """What a former run of this node left, and what nobody has. They are nobody's from here on, and their grace begins now."""
        async with self._database.write() as writing:
            freed = update(SEATS).where(SEATS.c.node.in_([node, ""])).values(node="", since=now).returning(SEATS)
            found = (await writing.connection.execute(freed)).all()
        return tuple(map(rows.seat, found))

    async def take_expired(self, now: datetime, *, of_nodes: bool) -> tuple[KeptSeat, ...]:
        """Those whose grace is over, which are deleted: each is given to one who asks, and no other. `of_nodes`: also those of nodes
        that have gone without a word."""
        over = type_coerce(SEATS.c.since, BigInteger) + SEATS.c.grace_ms * 1000 < (now - _EPOCH) // timedelta(microseconds=1)
        whose = or_(SEATS.c.node == "", SEATS.c.since < now - LEASE) if of_nodes else SEATS.c.node == ""
        async with self._database.read() as connection:  # nearly always there are none, and writing makes others wait
            if (await connection.execute(select(SEATS.c.call_cid).where(over, whose).limit(1))).first() is None:
                return ()
        async with self._database.write() as writing:
            found = (await writing.connection.execute(delete(SEATS).where(over, whose).returning(SEATS))).all()
        return tuple(map(rows.seat, found))


def orphaned(seat: KeptSeat, node: str, now: datetime) -> bool:
    """Whether `node` may go on with it: nobody has it, or another node that has gone."""
    return not seat.node or (seat.node != node and seat.written_at < now - LEASE)


def _writable(node: str, session: ColumnElement[str], now: datetime) -> ColumnElement[bool]:
    free = or_(SEATS.c.node == "", SEATS.c.written_at < now - LEASE)
    return or_(SEATS.c.node == node, and_(free, SEATS.c.session == session))
