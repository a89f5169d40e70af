"""Users and call types in the store. Each method is one transaction."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, insert, select

from gateway.model.permissions import DEVELOPMENT, Role
from gateway.model.records import EVERYTHING, CallType, ChangeKind, Filter, GivenRole, Page, Sort, User, built_in_types
from gateway.store import queries, rows
from gateway.store.database import Database
from gateway.store.models import CALL_TYPES, CALLS, USERS
from protocols.errors import Reason, Rejected

MAX_CALL_TYPES: Final = 100
_NEWEST_FIRST: Final = (Sort("created_at", descending=True),)


class Users:
    """`store.users`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, ids: Collection[str]) -> dict[str, User]:
        """Those of `ids` (at most 1000) that there are."""
        async with self._database.read() as connection:
            found = await connection.execute(select(USERS).where(USERS.c.id.in_(ids)))
            return {row.id: rows.user(row) for row in found}

    async def special(self, limit: int) -> dict[str, GivenRole]:
        """Id -> role of those who are not plain users."""
        columns = (USERS.c.id, USERS.c.role, USERS.c.api_key)
        query = select(*columns).where(USERS.c.role != Role.USER).order_by(USERS.c.updated_at).limit(limit)
        async with self._database.read() as connection:
            return {row.id: GivenRole(row.role, row.api_key) for row in await connection.execute(query)}

    async def put(self, users: Sequence[User]) -> tuple[User, ...]:
        """Adds users or replaces them; those that were there keep the time they were made."""
        async with self._database.write() as writing:
            ids = [user.id for user in users]
            made = await writing.connection.execute(select(USERS.c.id, USERS.c.created_at).where(USERS.c.id.in_(ids)))
            since = {row.id: row.created_at for row in made}
            kept = {user.id: replace(user, created_at=since.get(user.id, user.created_at)) for user in users}
            await writing.connection.execute(delete(USERS).where(USERS.c.id.in_(ids)))
            if kept:
                await writing.connection.execute(insert(USERS), [rows.user_row(user) for user in kept.values()])
            for user_id in kept:
                writing.changed(ChangeKind.USER, user_id)
        return tuple(kept.values())

    async def ensure(self, ids: Collection[str], now: datetime) -> None:
        """Makes those of `ids` that there are not yet: users named in a request or in a token exist by being named."""
        wanted = set(ids)
        if missing := wanted - (await self.get(wanted)).keys():
            async with self._database.write() as writing:
                present = set((await writing.connection.execute(select(USERS.c.id).where(USERS.c.id.in_(missing)))).scalars())
                new = [rows.user_row(User(each, now, now)) for each in sorted(missing - present)]
                if new:
                    await writing.connection.execute(insert(USERS), new)
                for row in new:
                    writing.changed(ChangeKind.USER, row["id"])

    async def query(
        self,
        wanted: Filter = EVERYTHING,
        sort: Sequence[Sort] = _NEWEST_FIRST,
        *,
        limit: int = 25,
        cursor: str | None = None,
    ) -> Page[User]:
        """Filtered by `queries.USER_FIELDS`, sorted by `queries.USER_SORTS`. Raises `Rejected` (BAD_REQUEST)."""
        where = queries.where(queries.USER_LISTING, wanted)
        async with self._database.read() as connection:
            page = await queries.page(connection, queries.USER_LISTING, where, sort, limit, cursor)
        return replace(page, items=tuple(map(rows.user, page.items)))


class CallTypes:
    """`store.call_types`."""

    def __init__(self, database: Database, *, max_types: int = MAX_CALL_TYPES) -> None:
        """`max_types`: so many call types there may be, the built-in ones among them."""
        self._database = database
        self._max_types = max_types

    async def all(self) -> dict[str, CallType]:
        """By name."""
        async with self._database.read() as connection:
            return {row.name: rows.call_type(row) for row in await connection.execute(select(CALL_TYPES))}

    async def put(self, kind: CallType) -> CallType:
        """Adds a call type or replaces it; one that was there keeps the time it was made and whether it is built in.

        Raises `Rejected` (BAD_REQUEST) when there are too many.
        """
        async with self._database.write() as writing:
            present = (await writing.connection.execute(select(CALL_TYPES).where(CALL_TYPES.c.name == kind.name))).one_or_none()
            if present is not None:
                kind = replace(kind, created_at=present.created_at, built_in=present.built_in)
                await writing.connection.execute(delete(CALL_TYPES).where(CALL_TYPES.c.name == kind.name))
            else:
                number = (await writing.connection.execute(select(func.count()).select_from(CALL_TYPES))).scalar_one()
                if number >= self._max_types:
                    raise Rejected(Reason.BAD_REQUEST, f"there are {self._max_types} call types already: delete one first")
            await writing.connection.execute(insert(CALL_TYPES).values(rows.call_type_row(kind)))
            writing.changed(ChangeKind.CALL_TYPE, kind.name)
        return kind

    async def delete(self, name: str) -> bool:
        """False when it was not there. Raises `Rejected` (CONFLICT) for a built-in one and one that calls have."""
        async with self._database.write() as writing:
            row = (await writing.connection.execute(select(CALL_TYPES).where(CALL_TYPES.c.name == name))).one_or_none()
            if row is None:
                return False
            if row.built_in:
                raise Rejected(Reason.CONFLICT, f"the call type {name} is built in: it can be changed, not deleted")
            if (await writing.connection.execute(select(CALLS.c.cid).where(CALLS.c.type == name).limit(1))).first():
                raise Rejected(Reason.CONFLICT, f"there are calls of the type {name}: delete them first")
            await writing.connection.execute(delete(CALL_TYPES).where(CALL_TYPES.c.name == name))
            writing.changed(ChangeKind.CALL_TYPE, name)
        return True

    async def ensure_built_in(self, now: datetime, *, development: bool = False) -> None:
        """Every store has the built-in types; what was changed of them stays. `development` is there where it is wanted, and else not."""
        wanted = {name: kind for name, kind in built_in_types(now).items() if development or name != DEVELOPMENT}
        present = await self.all()
        unwanted = DEVELOPMENT in present and present[DEVELOPMENT].built_in and not development
        if not wanted.keys() - present.keys() and not unwanted:
            return
        async with self._database.write() as writing:
            stored = set((await writing.connection.execute(select(CALL_TYPES.c.name))).scalars())
            for name in sorted(wanted.keys() - stored):
                await writing.connection.execute(insert(CALL_TYPES).values(rows.call_type_row(wanted[name])))
                writing.changed(ChangeKind.CALL_TYPE, name)
            if unwanted:
                await writing.connection.execute(
                    delete(CALL_TYPES).where(CALL_TYPES.c.name == DEVELOPMENT, CALL_TYPES.c.built_in)
                )
                writing.changed(ChangeKind.CALL_TYPE, DEVELOPMENT)
