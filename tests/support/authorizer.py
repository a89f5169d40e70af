"""The real authority over a real store in memory, with a clock that the test sets."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.access.authenticator import Authenticator
from gateway.access.authorizer import Authorizer, Rules
from gateway.access.credentials import Grant, Secret, Tokens
from gateway.access.rights_cache import RightsCache
from gateway.model import lifecycle
from gateway.model.records import Call, Member
from gateway.store.store import Store
from protocols.publisher import Credential
from tests.support.unheard import unheard

SECRET = Secret(b"0123456789abcdef" * 4)
NOW = 1_795_000_000


@dataclass
class Ruling:
    """`now` is in Unix seconds; `monotonic` in ns, for what is slowed."""

    store: Store
    rights_cache: RightsCache
    authorizer: Authorizer
    tokens: Tokens
    now: float = NOW
    monotonic: int = 0

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    def publish(self, key: str, call: str | None = None, *, user: str | None = None) -> Grant:
        return self.authorizer.examine(Credential(key, user), call)

    async def call(self, cid: str, by: str = "john", *, live: bool = False, **roles: str) -> Call:
        """Creates it, with members by their role: `ann="host"`."""
        kind, _, name = cid.partition(":")
        call = lifecycle.created(self.rights_cache.call_types[kind], name, by, self.time)
        if live:
            call = lifecycle.gone_live(call, self.time)
        members = [Member(cid, user, self.time, self.time, role) for user, role in roles.items()]
        return (await self.store.calls.get_or_create(call, members))[0]


@asynccontextmanager
async def ruling(
    url: str = "sqlite+aiosqlite:///:memory:",
    *,
    secret: Secret = SECRET,
    public: Collection[str] = (),
    create_on_publish: bool = True,
    failures_per_minute: int = 0,
) -> AsyncIterator[Ruling]:
    async with Store.open(url) as store:
        await store.call_types.ensure_built_in(datetime.fromtimestamp(NOW, UTC))
        rights_cache = RightsCache(store)
        tokens = Tokens(secret, now=lambda: it.now)
        authenticator = Authenticator(tokens, rights_cache, failures_per_minute, monotonic=lambda: it.monotonic)
        authorizer = Authorizer(authenticator, rights_cache, store, Rules(frozenset(public), create_on_publish), unheard)
        it = Ruling(store, rights_cache, authorizer, tokens)
        await rights_cache.start()
        store.follow(rights_cache.apply)
        yield it
