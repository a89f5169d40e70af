"""API keys and stream keys in the store. Each method is one transaction; no secret is here in clear (see `records`)."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.model.records import MAX_SECRETS, ApiKey, ChangeKind, SealedSecret, StreamKey
from gateway.store import rows
from gateway.store.calls import NoSuchCall
from gateway.store.database import Database
from gateway.store.models import API_KEYS, API_SECRETS, CALLS, STREAM_KEYS
from protocols.errors import Reason, Rejected

MAX_API_KEYS: Final = 1000
MAX_STREAM_KEYS: Final = 200  # of one call, those that can still be used


class ApiKeys:
    """`store.api_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, ApiKey]:
        """By key, revoked ones too."""
        async with self._database.read() as connection:
            return await _api_keys(connection)

    async def add(self, key: ApiKey) -> None:
        async with self._database.write() as writing:
            if (await writing.connection.execute(select(func.count()).select_from(API_KEYS))).scalar_one() >= MAX_API_KEYS:
                raise Rejected(Reason.BAD_REQUEST, f"there are {MAX_API_KEYS} API keys already")
            await writing.connection.execute(
                insert(API_KEYS).values(key=key.key, name=key.name, created_at=key.created_at, revoked_at=key.revoked_at)
            )
            await writing.connection.execute(insert(API_SECRETS), [_secret_row(key.key, secret) for secret in key.secrets])
            writing.changed(ChangeKind.API_KEY, key.key)

    async def rotate(self, key: str, secret: SealedSecret, old_until: datetime) -> ApiKey:
        """`secret` is the newest from now on; the one before it is taken until `old_until`, older ones not any more.

        Raises `Rejected` (NOT_FOUND) for a key that is none or revoked.
        """
        async with self._database.write() as writing:
            present = (await _api_keys(writing.connection)).get(key)
            if present is None or present.revoked_at is not None:
                raise Rejected(
                    Reason.NOT_FOUND, f"there is no API key {key} that could be rotated: list them with gateway apikey list"
                )
            await writing.connection.execute(delete(API_SECRETS).where(API_SECRETS.c.api_key == key))
            older = [SealedSecret(each.sealed, each.created_at, old_until) for each in present.secrets[: MAX_SECRETS - 1]]
            await writing.connection.execute(
                insert(API_SECRETS), [_secret_row(key, each) for each in (*reversed(older), secret)]
            )
            writing.changed(ChangeKind.API_KEY, key)
            return (await _api_keys(writing.connection))[key]

    async def revoke(self, key: str, now: datetime) -> bool:
        """From now on nothing that it signed is taken; its secrets are forgotten. False when there is no such key."""
        async with self._database.write() as writing:
            done = await writing.connection.execute(update(API_KEYS).where(API_KEYS.c.key == key).values(revoked_at=now))
            await writing.connection.execute(delete(API_SECRETS).where(API_SECRETS.c.api_key == key))
            if done.rowcount:
                writing.changed(ChangeKind.API_KEY, key)
        return done.rowcount > 0


class StreamKeys:
    """`store.stream_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> StreamKey | None:
        async with self._database.read() as connection:
            row = (await connection.execute(select(STREAM_KEYS).where(STREAM_KEYS.c.name == name))).one_or_none()
        return rows.stream_key(row) if row is not None else None

    async def usable(self, limit: int) -> tuple[StreamKey, ...]:
        """Those that are not revoked, of calls that have not ended, the oldest first."""
        still_open = select(CALLS.c.cid).where(CALLS.c.ended_at.is_(None))
        query = select(STREAM_KEYS).where(STREAM_KEYS.c.revoked_at.is_(None), STREAM_KEYS.c.call_cid.in_(still_open))
        async with self._database.read() as connection:
            found = await connection.execute(query.order_by(STREAM_KEYS.c.created_at).limit(limit))
            return tuple(map(rows.stream_key, found))

    async def add(self, key: StreamKey) -> None:
        """Raises `Rejected` (NOT_FOUND for its call, BAD_REQUEST for too many)."""
        async with self._database.write() as writing:
            if (await writing.connection.execute(select(CALLS.c.cid).where(CALLS.c.cid == key.call_cid))).first() is None:
                raise NoSuchCall(key.call_cid)
            usable = select(func.count()).where(
                STREAM_KEYS.c.call_cid == key.call_cid,
                STREAM_KEYS.c.revoked_at.is_(None),
                STREAM_KEYS.c.expires_at.is_(None) | (STREAM_KEYS.c.expires_at > key.created_at),
            )
            if (await writing.connection.execute(usable)).scalar_one() >= MAX_STREAM_KEYS:
                raise Rejected(Reason.BAD_REQUEST, f"the call has {MAX_STREAM_KEYS} stream keys already: revoke one first")
            row = {column.name: getattr(key, column.name) for column in STREAM_KEYS.c}
            await writing.connection.execute(insert(STREAM_KEYS).values(row))
            writing.changed(ChangeKind.STREAM_KEY, key.name)

    async def of_call(self, cid: str, user_ids: Collection[str] | None = None, *, limit: int = 500) -> tuple[StreamKey, ...]:
        """Of all users or those of `user_ids`, the newest first, revoked and expired ones too."""
        query = select(STREAM_KEYS).where(STREAM_KEYS.c.call_cid == cid)
        if user_ids is not None:
            query = query.where(STREAM_KEYS.c.user_id.in_(user_ids))
        query = query.order_by(STREAM_KEYS.c.created_at.desc(), STREAM_KEYS.c.name).limit(limit)
        async with self._database.read() as connection:
            return tuple(map(rows.stream_key, await connection.execute(query)))

    async def revoke(self, name: str, now: datetime) -> StreamKey | None:
        """Ends what is live with it, too. None when there is no such key; a second time changes nothing."""
        async with self._database.write() as writing:
            revoked = update(STREAM_KEYS).where(STREAM_KEYS.c.name == name, STREAM_KEYS.c.revoked_at.is_(None))
            done = await writing.connection.execute(revoked.values(revoked_at=now))
            if done.rowcount:
                writing.changed(ChangeKind.STREAM_KEY, name)
            row = (await writing.connection.execute(select(STREAM_KEYS).where(STREAM_KEYS.c.name == name))).one_or_none()
        return rows.stream_key(row) if row is not None else None


async def _api_keys(connection: AsyncConnection) -> dict[str, ApiKey]:
    secrets: dict[str, list[object]] = {}
    for row in await connection.execute(select(API_SECRETS).order_by(API_SECRETS.c.id.desc())):
        secrets.setdefault(row.api_key, []).append(row)
    return {row.key: rows.api_key(row, secrets.get(row.key, ())) for row in await connection.execute(select(API_KEYS))}


def _secret_row(key: str, secret: SealedSecret) -> dict[str, object]:
    return {
        "api_key": key,
        "sealed": secret.sealed,
        "created_at": secret.created_at,
        "expires_at": secret.expires_at,
    }
