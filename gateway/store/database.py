"""The database: connections, transactions and the list of changes, on SQLite and PostgreSQL alike.

Kept true: what a `write` has committed is on disk (SQLite: WAL with synchronous=FULL); writers, of all processes, come one after another;
each change gets a number in that order, so that whoever follows the numbers misses none. A server that does not answer is a refusal in
words (`StoreUnavailable`), never a hang.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import event, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.engine.url import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.model.records import Change, ChangeKind
from gateway.store.migrate import upgrade
from gateway.store.models import CHANGES, CLOCK
from protocols.errors import Reason, Rejected

DRIVERS: Final = ("sqlite+aiosqlite", "postgresql+asyncpg")
_TIMEOUT_S: Final = 10.0
_CONNECTIONS: Final = 4
_MIGRATIONS: Final = 0x6761_7465  # the name of PostgreSQL's lock that nodes starting at the same moment take
_WAL: Final = "PRAGMA journal_mode=WAL"
_PRAGMAS: Final = (
    f"PRAGMA busy_timeout={int(_TIMEOUT_S * 1000)}",  # first: the others wait, too
    _WAL,
    "PRAGMA synchronous=FULL",  # a commit that was acknowledged survives the loss of power
    "PRAGMA foreign_keys=ON",
)

OnWritten = Callable[[Sequence[Change]], Awaitable[None]]


class StoreUnavailable(Rejected):
    """The database does not answer, or refuses its work."""

    def __init__(self) -> None:
        super().__init__(Reason.OVERLOADED, "the gateway's store does not answer: try again in a moment")


class Writing:
    """One transaction that writes; `changed` notes what it is about."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self.changes: list[tuple[ChangeKind, str]] = []

    def changed(self, kind: ChangeKind, key: str) -> None:
        if (kind, key) not in self.changes:
            self.changes.append((kind, key))


class Database:
    """An open database with the newest tables. Use `Database.open`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = asyncio.Lock()  # waiting here is cheaper than in SQLite's busy handler
        self._on_written: OnWritten | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Raises `ValueError` for an address that is none, `StoreUnavailable` when the server cannot be reached."""
        engine = _engine(parsed(url))
        try:
            database = cls(engine)
            async with _words(), database._transaction(writing=True) as connection:
                if engine.dialect.name == "postgresql":
                    await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATIONS})")
                await connection.run_sync(upgrade)
            yield database
        finally:
            await engine.dispose()

    def follow(self, on_written: OnWritten) -> None:
        """`on_written` is awaited with the changes of each `write` of this process, after its commit and before its caller goes on."""
        self._on_written = on_written

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads."""
        async with _words(), self._transaction(writing=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Writing]:
        """One transaction that no other writer runs beside; it is committed when the block ends without an exception."""
        changes: list[Change] = []
        async with _words(), self._writer, self._transaction(writing=True) as connection:
            seq = (await connection.execute(select(CLOCK.c.seq).with_for_update())).scalar_one()
            writing = Writing(connection)
            yield writing
            changes = [Change(seq + n, kind, key) for n, (kind, key) in enumerate(writing.changes, 1)]
            if changes:
                await connection.execute(update(CLOCK).values(seq=changes[-1].seq))
                await connection.execute(insert(CHANGES), [{"seq": c.seq, "kind": c.kind, "key": c.key} for c in changes])
        if changes and self._on_written is not None:
            await self._on_written(changes)

    @asynccontextmanager
    async def _transaction(self, writing: bool) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            await connection.execution_options(gateway_writing=writing)
            async with asyncio.timeout(_TIMEOUT_S), connection.begin():
                yield connection


@asynccontextmanager
async def _words() -> AsyncIterator[None]:
    """A server that is gone or stuck, in words; a row that breaks a rule stays what it is."""
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeout, TimeoutError, OSError) as error:
        raise StoreUnavailable from error


def sqlite(file: Path) -> str:
    """The address of a SQLite file, whatever characters are in its name."""
    return URL.create("sqlite+aiosqlite", database=str(file)).render_as_string()


def parsed(url: str) -> URL:
    """Raises `ValueError`, without the password, for what is no address of a database that is taken here."""
    try:
        parts = make_url(url)
    except ArgumentError:
        raise ValueError(
            "is no database address: write sqlite+aiosqlite:///file or postgresql+asyncpg://user@host/name"
        ) from None
    if parts.drivername not in DRIVERS:
        raise ValueError(f"begins with {parts.drivername}: write {' or '.join(DRIVERS)}")
    return parts


def _engine(url: URL) -> AsyncEngine:
    bounds: dict[str, Any] = {"pool_size": _CONNECTIONS, "max_overflow": 0, "pool_timeout": _TIMEOUT_S}
    if url.drivername.startswith("postgresql"):
        times = {"timeout": _TIMEOUT_S, "command_timeout": _TIMEOUT_S}
        return create_async_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=times, **bounds)
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _prepare(Path(url.database))
        engine = create_async_engine(url, hide_parameters=True, **bounds)
    else:
        engine = create_async_engine(url, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
    event.listen(engine.sync_engine, "invalidate", _let_go)
    return engine


def _prepare(file: Path) -> None:
    """The file is there, its owner's alone, and in WAL mode: to change that takes the file for oneself, and SQLite does not always wait for
    others who are about to do the same. So nodes that start at once do it one after another, by a lock on the folder (one on the file
    would be lost: POSIX drops a process's locks when it closes any descriptor of it)."""
    folder = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        file.touch(mode=0o600)  # SQLite gives its journal the mode of the file
        with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=_TIMEOUT_S)) as connection:
            connection.execute(_WAL)  # what fails here fails again, in words, when the engine connects
    finally:
        os.close(folder)


def _configure(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions too late and of the wrong kind: `_begin` does
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _let_go(connection: Any, record: object, error: object) -> None:
    """Before a connection is given up, its transaction is: SQLite keeps a closed connection's locks as long as a statement of it is alive,
    and whoever was cancelled in the middle of one keeps it alive by the traceback."""
    with suppress(asyncio.CancelledError, sqlite3.Error, ValueError):
        connection.run_async(lambda driver: asyncio.shield(driver.rollback()))


def _begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("gateway_writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
