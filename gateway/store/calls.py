"""Calls and their members in the store. Each method is one transaction; a change of a call is a function of the call as it is."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.model.records import (
    EVERYTHING,
    MAX_BLOCKED,
    MAX_MEMBERS,
    MAX_MUTED,
    Call,
    ChangeKind,
    Filter,
    GivenRole,
    Member,
    Page,
    Sort,
)
from gateway.store import queries, rows
from gateway.store.database import Database, Writing
from gateway.store.models import CALLS, MEMBERS
from protocols.errors import Reason, Rejected
from protocols.media import Kind

_NEWEST_FIRST: Final = (Sort("created_at", descending=True),)
_OLDEST_FIRST: Final = (Sort("created_at"),)


class NoSuchCall(Rejected):
    """It was never made, or was deleted."""

    def __init__(self, cid: str) -> None:
        super().__init__(Reason.NOT_FOUND, f"there is no call {cid}: create it first")


class Calls:
    """`store.calls`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, cid: str) -> Call | None:
        async with self._database.read() as connection:
            return await _get(connection, cid)

    async def open_ones(self, limit: int) -> tuple[list[Call], bool]:
        """The newest calls that have not ended, the newest first, and whether these are all."""
        query = select(CALLS).where(CALLS.c.ended_at.is_(None)).order_by(CALLS.c.created_at.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            found = list(map(rows.call, await connection.execute(query)))
        return found[:limit], len(found) <= limit

    async def roles(self, cid: str | None = None) -> dict[str, dict[str, GivenRole]]:
        """User id -> role, by cid, of the members of one call or of all that have not ended."""
        which = (
            MEMBERS.c.call_cid == cid if cid else MEMBERS.c.call_cid.in_(select(CALLS.c.cid).where(CALLS.c.ended_at.is_(None)))
        )
        found: dict[str, dict[str, GivenRole]] = {}
        members = select(MEMBERS.c.call_cid, MEMBERS.c.user_id, MEMBERS.c.role, MEMBERS.c.api_key).where(which)
        async with self._database.read() as connection:
            for row in await connection.execute(members):
                found.setdefault(row.call_cid, {})[row.user_id] = GivenRole(row.role, row.api_key)
        return found

    async def get_or_create(self, call: Call, members: Iterable[Member] = (), *, most_open: int = 0) -> tuple[Call, bool]:
        """The call with this cid, and whether it was made just now, with its members; one that was there stays as it is.

        Raises `Rejected` (TOO_MANY_REQUESTS) where its creator has `most_open` calls that have not ended (0: any number)."""
        async with self._database.write() as writing:
            if (present := await _get(writing.connection, call.cid)) is not None:
                return present, False
            if most_open and await _open_calls(writing.connection, call.created_by_id) >= most_open:
                words = f"you have {most_open} calls that have not ended: end or delete one first"
                raise Rejected(Reason.TOO_MANY_REQUESTS, words)
            await writing.connection.execute(insert(CALLS).values(rows.call_row(call)))
            await _put_members(writing, call.cid, list(members))
            writing.changed(ChangeKind.CALL, call.cid)
        return call, True

    async def change(self, cid: str, change: Callable[[Call], Call], *, now: datetime) -> Call:
        """The call after `change`, which gets it as it is and may refuse by raising. Raises `Rejected` (NOT_FOUND)."""
        async with self._database.write() as writing:
            call = await _get(writing.connection, cid)
            if call is None:
                raise NoSuchCall(cid)
            changed = change(call)
            if changed == call:
                return call
            changed = replace(changed, updated_at=now)
            await writing.connection.execute(update(CALLS).where(CALLS.c.cid == cid).values(rows.call_row(changed)))
            writing.changed(ChangeKind.CALL, cid)
        return changed

    async def delete(self, cid: str) -> bool:
        """With its members and stream keys. False when it was not there."""
        async with self._database.write() as writing:
            gone = await writing.connection.execute(delete(CALLS).where(CALLS.c.cid == cid))
            if gone.rowcount:
                writing.changed(ChangeKind.CALL, cid)
        return gone.rowcount > 0

    async def forget_ended(self, before: datetime, *, limit: int) -> list[str]:
        """Deletes up to `limit` calls that ended before this, the oldest first, with their members and stream keys: their cids."""
        old = select(CALLS.c.cid).where(CALLS.c.ended_at < before).order_by(CALLS.c.ended_at).limit(limit)
        async with self._database.write() as writing:
            cids = [row.cid for row in await writing.connection.execute(old)]
            await writing.connection.execute(delete(CALLS).where(CALLS.c.cid.in_(cids)))
            for cid in cids:
                writing.changed(ChangeKind.CALL, cid)
        return cids

    async def query(
        self, wanted: Filter = EVERYTHING, sort: Sequence[Sort] = _NEWEST_FIRST, *, limit: int = 25, cursor: str | None = None
    ) -> Page[Call]:
        """Filtered by `queries.CALL_FIELDS`, sorted by `queries.CALL_SORTS`. Raises `Rejected` (BAD_REQUEST)."""
        where = queries.where(queries.CALL_LISTING, wanted)
        async with self._database.read() as connection:
            page = await queries.page(connection, queries.CALL_LISTING, where, sort, limit, cursor)
        return replace(page, items=tuple(map(rows.call, page.items)))

    async def members(self, cid: str, user_ids: Collection[str] | None = None) -> tuple[Member, ...]:
        """All members, or those of `user_ids`, the first first."""
        query = select(MEMBERS).where(MEMBERS.c.call_cid == cid).order_by(MEMBERS.c.created_at, MEMBERS.c.user_id)
        if user_ids is not None:
            query = query.where(MEMBERS.c.user_id.in_(user_ids))
        async with self._database.read() as connection:
            return tuple(map(rows.member, await connection.execute(query.limit(MAX_MEMBERS))))

    async def memberships(self, user_id: str, cids: Collection[str]) -> dict[str, Member]:
        """What the user is in those of these calls of which they are a member, by cid."""
        query = select(MEMBERS).where(MEMBERS.c.user_id == user_id, MEMBERS.c.call_cid.in_(cids))
        async with self._database.read() as connection:
            return {row.call_cid: rows.member(row) for row in await connection.execute(query)}

    async def query_members(
        self,
        cid: str,
        wanted: Filter = EVERYTHING,
        sort: Sequence[Sort] = _OLDEST_FIRST,
        *,
        limit: int = 25,
        cursor: str | None = None,
    ) -> Page[Member]:
        """Filtered by `queries.MEMBER_FIELDS`, sorted by `queries.MEMBER_SORTS`. Raises `Rejected` (BAD_REQUEST)."""
        where = queries.where(queries.MEMBER_LISTING, wanted) & (MEMBERS.c.call_cid == cid)
        async with self._database.read() as connection:
            page = await queries.page(connection, queries.MEMBER_LISTING, where, sort, limit, cursor)
        return replace(page, items=tuple(map(rows.member, page.items)))

    async def update_members(self, cid: str, put: Sequence[Member] = (), remove: Collection[str] = ()) -> None:
        """Adds or replaces members and removes others. Raises `Rejected` (NOT_FOUND, BAD_REQUEST for too many)."""
        async with self._database.write() as writing:
            if await _get(writing.connection, cid) is None:
                raise NoSuchCall(cid)
            await _remove_members(writing, cid, [*remove, *(member.user_id for member in put)])
            await _put_members(writing, cid, put)
            writing.changed(ChangeKind.CALL, cid)

    async def kick(self, cid: str, user_id: str, *, block: bool = False, now: datetime) -> Call:
        """Takes the user out of the call on every node; with `block` they do not come back. Raises `Rejected` (NOT_FOUND, BAD_REQUEST)."""
        return await self._note(cid, ChangeKind.KICK, user_id, lambda call: blocked(call, user_id) if block else call, now)

    async def end_stream(self, cid: str, user_id: str, *, now: datetime) -> Call:
        """Ends the user's stream, on whatever node it is; the encoder may come back. Raises `Rejected` (NOT_FOUND)."""
        return await self._note(cid, ChangeKind.END_STREAM, user_id, lambda call: call, now)

    async def mute_all(self, cid: str, here: Collection[str], kinds: frozenset[Kind], *, now: datetime) -> Call:
        """Mutes whoever is in the call now: the users who are known to be `here`, and on other nodes, by these, those whom they have.
        Raises `Rejected` (NOT_FOUND, BAD_REQUEST for too many)."""
        return await self._note(cid, ChangeKind.MUTE_ALL, " ".join(sorted(kinds)), lambda call: muted(call, here, kinds), now)

    async def _note(self, cid: str, kind: ChangeKind, about: str, change: Callable[[Call], Call], now: datetime) -> Call:
        """Changes the call, and beside it notes something of this kind that is to happen in it on every node."""
        async with self._database.write() as writing:
            call = await _get(writing.connection, cid)
            if call is None:
                raise NoSuchCall(cid)
            changed = change(call)
            if changed != call:
                changed = replace(changed, updated_at=now)
                await writing.connection.execute(update(CALLS).where(CALLS.c.cid == cid).values(rows.call_row(changed)))
                writing.changed(ChangeKind.CALL, cid)
            writing.changed(kind, f"{cid} {about}")
        return changed


def blocked(call: Call, user_id: str) -> Call:
    """Raises `Rejected` (BAD_REQUEST) for one too many."""
    if user_id in call.blocked_user_ids:
        return call
    if len(call.blocked_user_ids) >= MAX_BLOCKED:
        raise Rejected(Reason.BAD_REQUEST, f"{MAX_BLOCKED} users are blocked in this call already: unblock one first")
    return replace(call, blocked_user_ids=(*call.blocked_user_ids, user_id))


def unblocked(call: Call, user_id: str) -> Call:
    return replace(call, blocked_user_ids=tuple(each for each in call.blocked_user_ids if each != user_id))


def muted(call: Call, user_ids: Iterable[str], kinds: frozenset[Kind]) -> Call:
    """Of these users nobody is given these kinds, beside what they are muted of already; in a call that has ended nothing changes.
    Raises `Rejected` (BAD_REQUEST) for too many."""
    if call.ended_at is not None:
        return call
    users = dict(call.muted_users)
    for user_id in user_ids if kinds else ():
        users[user_id] = users.get(user_id, frozenset()) | kinds
    if len(users) > MAX_MUTED:
        raise Rejected(Reason.BAD_REQUEST, f"a call has at most {MAX_MUTED} muted users: unmute some first")
    return replace(call, muted_users=users)


def unmuted(call: Call, user_ids: Iterable[str], kinds: frozenset[Kind]) -> Call:
    left = {**call.muted_users, **{each: call.muted_users[each] - kinds for each in user_ids if each in call.muted_users}}
    return replace(call, muted_users={user_id: still for user_id, still in left.items() if still})


async def _get(connection: AsyncConnection, cid: str) -> Call | None:
    row = (await connection.execute(select(CALLS).where(CALLS.c.cid == cid))).one_or_none()
    return rows.call(row) if row is not None else None


async def _open_calls(connection: AsyncConnection, user_id: str) -> int:
    theirs = select(func.count()).where(CALLS.c.created_by_id == user_id, CALLS.c.ended_at.is_(None))
    return int((await connection.execute(theirs)).scalar_one())


async def _remove_members(writing: Writing, cid: str, user_ids: Collection[str]) -> None:
    if user_ids:
        await writing.connection.execute(delete(MEMBERS).where(MEMBERS.c.call_cid == cid, MEMBERS.c.user_id.in_(user_ids)))


async def _put_members(writing: Writing, cid: str, members: Sequence[Member]) -> None:
    if not members:
        return
    present = (await writing.connection.execute(select(func.count()).where(MEMBERS.c.call_cid == cid))).scalar_one()
    if present + len(members) > MAX_MEMBERS:
        raise Rejected(Reason.BAD_REQUEST, f"a call has at most {MAX_MEMBERS} members; viewers need not be members")
    await writing.connection.execute(insert(MEMBERS), [rows.member_row(replace(each, call_cid=cid)) for each in members])
