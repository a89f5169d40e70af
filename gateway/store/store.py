"""The store: what the gateway keeps, by subject. One transaction per method; a method that returns has written to disk.

What every method may raise: `Rejected`, in words for who asked; `database.StoreUnavailable` is one. `calls.change` takes a pure
function, so that of two who change a call at once neither undoes the other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from gateway.store.calls import Calls
from gateway.store.changes import Changes
from gateway.store.database import Database, OnWritten
from gateway.store.keys import ApiKeys, StreamKeys
from gateway.store.outbox import Outbox
from gateway.store.people import CallTypes, Users
from gateway.store.seats import Seats


class Store:
    """Use `async with Store.open(url) as store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.calls = Calls(database)
        self.users = Users(database)
        self.call_types = CallTypes(database)
        self.api_keys = ApiKeys(database)
        self.stream_keys = StreamKeys(database)
        self.outbox = Outbox(database)
        self.changes = Changes(database)
        self.seats = Seats(database)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """`url` as SQLAlchemy has it: `sqlite+aiosqlite:///file` or `postgresql+asyncpg://…`. Its tables are brought up to date.

        Raises:
            ValueError: it is no such address.
            StoreUnavailable: the server cannot be reached, or refuses.
        """
        async with Database.open(url) as database:
            yield cls(database)

    def follow(self, on_written: OnWritten) -> None:
        """`on_written` is awaited with the changes of each write of this process, before the write returns to its caller."""
        self._database.follow(on_written)
