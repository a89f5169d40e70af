"""The store and those who answer from it, put together: opened at the start, with the calls that the configuration wants."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.access.authenticator import Authenticator
from gateway.access.authorizer import Authorizer, Rules
from gateway.access.credentials import Tokens
from gateway.access.rights_cache import OPERATOR, RightsCache
from gateway.config import Config
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.model import lifecycle
from gateway.model.records import Call
from gateway.store.database import StoreUnavailable, sqlite
from gateway.store.store import Store


@dataclass(frozen=True, slots=True)
class StoreAccess:
    store: Store
    rights_cache: RightsCache
    authenticator: Authenticator
    authorizer: Authorizer


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Store]:
    """The configured store. Raises `ConfigError` where it cannot be opened."""
    try:
        opening = Store.open(database_url(config))
        store = await opening.__aenter__()
    except StoreUnavailable as unavailable:
        why = f"does not answer, or refuses: {type(unavailable.__cause__).__name__}"
        raise ConfigError([ConfigProblem("database.url", "the configuration", "", why)]) from unavailable
    except ValueError as error:
        raise ConfigError([ConfigProblem("database.url", "the configuration", "", str(error))]) from None
    try:
        yield store
    finally:
        await opening.__aexit__(None, None, None)


@asynccontextmanager
async def open_store_access(
    config: Config, tokens: Tokens, on_created: Callable[[None, Call], None]
) -> AsyncIterator[StoreAccess]:
    """`on_created` is told of each call that is made by publishing into it. Raises `ConfigError`."""
    async with opened(config) as store:
        now = datetime.now(UTC)
        await store.call_types.ensure_built_in(now, development=config.calls.development)
        await _ensure_public(config, store, now)
        rights_cache = RightsCache(store)
        auth = config.auth
        authenticator = Authenticator(tokens, rights_cache, auth.max_failures_per_minute, longest_s=auth.max_user_token_s)
        rules = Rules(frozenset(config.calls.public), config.calls.create_on_publish)
        yield StoreAccess(store, rights_cache, authenticator, Authorizer(authenticator, rights_cache, store, rules, on_created))


def database_url(config: Config) -> str:
    """The configured address, else that of the SQLite file in the state directory."""
    if url := config.database.url.get_secret_value():
        return url
    return sqlite(Path(config.state.directory, "gateway.db").absolute())


async def _ensure_public(config: Config, store: Store, now: datetime) -> None:
    """The public calls are there and live; one that is there stays as it is."""
    kinds = await store.call_types.all()
    for cid in config.calls.public:
        name, _, call_id = cid.partition(":")
        if name not in kinds:
            why = f"there is no call type {name}: choose from {', '.join(sorted(kinds))}"
            raise ConfigError([ConfigProblem("calls.public", "the configuration", cid, why)])
        await store.calls.get_or_create(lifecycle.gone_live(lifecycle.created(kinds[name], call_id, OPERATOR, now), now))
