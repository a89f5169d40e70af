"""What is written, here or elsewhere, is known here: in order, none lost whatever fails meanwhile; calls that last too long are ended."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.access import stream_keys
from gateway.access.credentials import Identity
from gateway.access.rights_cache import Memory, RightsCache
from gateway.access.sealing import Sealing
from gateway.access.viewers import Viewers
from gateway.enforcement.change_feed import ChangeFeed
from gateway.enforcement.enforcement import Enforcement
from gateway.model import lifecycle
from gateway.model.permissions import Role
from gateway.model.records import MAX_MUTED, ApiKey, Change, Member, SealedSecret, StreamKey, User
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.sessions.admission import Rights
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat
from gateway.store.calls import muted, unmuted
from gateway.store.database import StoreUnavailable
from gateway.store.store import Store
from protocols.media import Kind
from protocols.publisher import Credential
from tests.support.authorizer import SECRET, Ruling, ruling
from tests.support.memory import seated
from tests.support.unheard import unheard

X = "livestream:x"


class Followed:
    """A gateway's following without the rest of it; `concerned` has the calls that it was told of."""

    def __init__(self, it: Ruling, rights_cache: RightsCache) -> None:
        self.rights_cache = rights_cache
        self.concerned: list[str] = []
        self.ended: list[str] = []
        self.elsewhere: list[str] = []
        self.news = asyncio.Event()
        self.registry = Registry(lambda cid, on_empty: EmbeddedCall(cid, max_participants=1, on_empty=on_empty))
        viewers_admitted = Viewers(self.registry.call, self._nobody, unheard, unheard)
        self.rights: Rights = {}
        self.muted: list[tuple[str, str, frozenset[Kind]]] = []
        self.enforcement = Enforcement(
            self.registry,
            self.rights,
            viewers_admitted,
            rights_cache,
            it.authorizer,
            it.store,
            on_changed=self._on_changed,
            on_ended=lambda before, after: self.ended.append(after.cid),
            on_muted=self._on_muted,
        )
        self.following = ChangeFeed(
            it.store,
            rights_cache,
            self.enforcement,
            on_elsewhere=lambda before, after: self.elsewhere.append(after.cid if after is not None else ""),
        )

    async def _nobody(self, call: str, token: str | None, address: str) -> Identity:
        return Identity()

    def _on_changed(self, cid: str) -> None:
        self.concerned.append(cid)
        self.news.set()

    def seat(self, user_id: str) -> Seat:
        return seated(self.registry, self.rights, X, user_id)

    def _on_muted(self, cid: str, user_id: str, kinds: frozenset[Kind]) -> None:
        self.muted.append((cid, user_id, kinds))
        self.news.set()

    async def until_muted(self) -> None:
        async with asyncio.timeout(20):
            while not self.muted:
                self.news.clear()
                await self.news.wait()

    async def until(self, cid: str) -> None:
        async with asyncio.timeout(20):
            while cid not in self.concerned:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def following(it: Ruling, rights_cache: RightsCache | None = None) -> AsyncIterator[Followed]:
    followed = Followed(it, rights_cache or it.rights_cache)
    await followed.following.start()
    running = asyncio.create_task(followed.following.run())
    try:
        yield followed
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_another_process_writes_is_known_here(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    async with ruling(url) as it, Store.open(url) as elsewhere, following(it) as followed:
        await elsewhere.calls.get_or_create(lifecycle.created(it.rights_cache.call_types["livestream"], "x", "john", it.time))
        await followed.until(X)
        known = followed.rights_cache.call(X)
        assert known is not None
        assert known.call.created_by_id == "john"
        await it.call("livestream:own")
        assert followed.concerned.count("livestream:own") == 1  # before the write returned, and not again
        await elsewhere.calls.change(X, lambda call: lifecycle.gone_live(call, it.time), now=it.time)
        followed.concerned.clear()
        await followed.until(X)
        assert "livestream:own" not in followed.concerned


async def test_a_stream_key_made_elsewhere_just_now_is_looked_up_and_not_taken_for_revoked(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    async with ruling(url) as it, Store.open(url) as elsewhere:  # nothing follows the store here
        await it.call(X)
        await elsewhere.stream_keys.add(StreamKey("cam", X, "john", "john", it.time))
        assert it.rights_cache.stream_key("cam") is None
        await it.rights_cache.look_up(stream_key="cam")
        assert it.rights_cache.stream_key("cam") is not None


async def _member(store: Store, now: datetime, cam: StreamKey) -> None:
    await store.calls.update_members(X, [Member(X, "cam", now, now, Role.HOST)])


async def _another_role(store: Store, now: datetime, cam: StreamKey) -> None:
    await store.calls.update_members(X, [Member(X, "ann", now, now, Role.HOST)])


async def _call_of_its_own(store: Store, now: datetime, cam: StreamKey) -> None:
    kind = (await store.call_types.all())["livestream"]
    await store.calls.get_or_create(lifecycle.created(kind, cam.call_cid.partition(":")[2], "cam", now))


async def _type_and_call_of_its_own(store: Store, now: datetime, cam: StreamKey) -> None:
    kind = replace((await store.call_types.all())["livestream"], name=cam.call_cid.partition(":")[0])
    await store.call_types.put(kind)
    await store.calls.get_or_create(lifecycle.created(kind, cam.call_cid.partition(":")[2], "cam", now))


async def _role_in_the_application(store: Store, now: datetime, cam: StreamKey) -> None:
    await store.users.put([User("cam", now, now, Role.ADMIN)])


async def _by_a_new_api_key(store: Store, now: datetime, cam: StreamKey) -> None:
    secret = SealedSecret(Sealing(SECRET.value).seal(b"s" * 43, "app"), now)
    await store.api_keys.add(ApiKey("app", "", (secret,), now))
    await store.calls.update_members(X, [Member(X, "cam", now, now, Role.HOST, api_key="app")])


@pytest.mark.parametrize(
    ("make", "cid", "api_key"),
    [
        (_member, X, ""),
        (_another_role, X, ""),
        (_call_of_its_own, "livestream:own", ""),
        (_type_and_call_of_its_own, "studio:own", ""),
        (_role_in_the_application, X, ""),
        (_by_a_new_api_key, X, ""),
        (_by_a_new_api_key, X, "app"),
    ],
)
async def test_what_a_stream_key_made_elsewhere_just_now_rests_on_is_looked_up_with_it(
    tmp_path: Path, make: Callable[[Store, datetime, StreamKey], Awaitable[None]], cid: str, api_key: str
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    async with ruling(url) as it, Store.open(url) as elsewhere:  # nothing follows the store here
        await it.call(X, ann="viewer")
        user = "ann" if make is _another_role else "cam"
        key = StreamKey(stream_keys.new_name(SECRET.value), cid, user, "john", it.time, api_key=api_key)
        await elsewhere.users.ensure([user, "john"], it.time)
        await make(elsewhere, it.time, key)
        await elsewhere.stream_keys.add(key)
        credential = Credential(stream_keys.whole(SECRET.value, key.name))
        await it.authorizer.prepare(credential, None)
        grant = it.authorizer.examine(credential, None)
        assert (grant.user_id, grant.call_cid, grant.exists) == (user, cid, True)


async def test_a_stream_key_is_known_no_sooner_than_what_it_rests_on(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    async with ruling(url) as it, Store.open(url) as elsewhere:  # nothing follows the store here
        await it.call(X)
        seen = await elsewhere.changes.last()
        await elsewhere.users.ensure(["cam"], it.time)
        await elsewhere.stream_keys.add(StreamKey("other", X, "john", "john", it.time))
        await _member(elsewhere, it.time, StreamKey("cam", X, "cam", "john", it.time))
        await elsewhere.stream_keys.add(StreamKey("cam", X, "cam", "john", it.time))
        changes = await elsewhere.changes.since(seen)
        assert changes is not None
        applying = asyncio.create_task(it.rights_cache.apply(changes))
        while not applying.done():
            known = it.rights_cache.call(X)
            assert known is not None
            assert it.rights_cache.stream_key("cam") is None or "cam" in known.roles
            await asyncio.sleep(0)
        await applying
        assert it.rights_cache.stream_key("cam") is not None


class FailingOnce(RightsCache):
    """A directory whose store is away when the first change is applied."""

    failing = True

    async def apply(self, changes: Sequence[Change]) -> None:
        if self.failing:
            self.failing = False
            raise StoreUnavailable
        await super().apply(changes)


class Slow(RightsCache):
    """A directory that does not come back from its first change."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.applying = asyncio.Event()

    async def apply(self, changes: Sequence[Change]) -> None:
        if not self.applying.is_set():
            self.applying.set()
            await asyncio.Event().wait()
        await super().apply(changes)


async def test_a_change_that_could_not_be_applied_comes_later() -> None:
    async with ruling() as it, following(it, FailingOnce(it.store)) as followed:
        await it.call(X)  # it is written all the same
        await followed.until(X)
        assert followed.rights_cache.call(X) is not None


async def test_a_writer_that_is_cancelled_after_its_commit_loses_no_change() -> None:
    async with ruling() as it:
        slow = Slow(it.store)
        async with following(it, slow) as followed:
            writing = asyncio.create_task(it.call(X))
            await slow.applying.wait()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await followed.until(X)
            assert slow.call(X) is not None


async def test_of_two_reads_at_once_the_one_that_began_last_has_the_last_word() -> None:
    memory: Memory[str, str] = Memory(10)
    first_may_go, began = asyncio.Event(), asyncio.Event()

    async def old(key: str) -> str:
        began.set()
        await first_may_go.wait()
        return "old"

    async def new(key: str) -> str:
        return "new"

    first = asyncio.create_task(memory.fetch("x", old))
    await began.wait()
    await memory.fetch("x", new)
    first_may_go.set()
    await first
    assert memory.get("x") == "new"


async def test_calls_in_use_that_last_longer_than_they_may_are_ended() -> None:
    async with ruling() as it:
        await it.call(X, live=True)
        limited = {"limits": {"max_duration_seconds": 60}}
        await it.store.calls.change(X, lambda call: replace(call, settings_override=limited), now=it.time)
        followed = Followed(it, it.rights_cache)
        followed.registry.call(X)
        await followed.enforcement.end_overdue(it.time + timedelta(seconds=59))
        known = it.rights_cache.call(X)
        assert known is not None
        assert known.call.live
        await followed.enforcement.end_overdue(it.time + timedelta(seconds=60))
        known = it.rights_cache.call(X)
        assert known is not None
        assert known.call.ended_at == it.time + timedelta(seconds=60)


async def test_who_is_muted_on_any_node_is_muted_where_they_are_live(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    sound = frozenset({Kind.AUDIO})
    async with ruling(url) as it, Store.open(url) as elsewhere, following(it) as followed:
        await it.call(X, live=True)
        ann, bob = followed.seat("ann"), followed.seat("bob")
        await it.store.calls.change(X, lambda call: muted(call, ["ann"], frozenset(Kind)), now=it.time)
        assert (ann.muted, bob.muted) == (frozenset(Kind), frozenset()), "before the write returned"
        followed.concerned.clear()
        await elsewhere.calls.change(X, lambda call: unmuted(call, ["ann"], sound), now=it.time)
        await followed.until(X)
        assert (ann.muted, bob.muted) == (frozenset({Kind.VIDEO}), frozenset())
        assert followed.muted == [], "who mutes somebody by name tells of it"


async def test_when_another_node_mutes_everybody_those_who_are_live_here_are_muted_too(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    sound = frozenset({Kind.AUDIO})
    async with ruling(url) as it, Store.open(url) as elsewhere, following(it) as followed:
        await it.call(X, live=True)
        ann = followed.seat("ann")
        await elsewhere.calls.mute_all(X, ["zoe"], sound, now=it.time)
        await followed.until_muted()
        assert ann.muted == sound
        assert followed.muted == [(X, "ann", sound)]
        written = await it.store.calls.get(X)
        assert written is not None
        assert written.muted_users == {"ann": sound, "zoe": sound}


async def test_where_no_more_users_can_be_muted_the_log_says_so_and_everything_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    sound, others = frozenset({Kind.AUDIO}), [f"u{n}" for n in range(MAX_MUTED)]
    async with ruling(url) as it, Store.open(url) as elsewhere, following(it) as followed:
        await it.call(X, live=True)
        ann = followed.seat("ann")
        await elsewhere.calls.mute_all(X, others, sound, now=it.time)
        await followed.until("*")
        followed.concerned.clear()
        await elsewhere.calls.change(X, lambda call: replace(call, custom={"later": True}), now=it.time)
        await followed.until(X)
        assert ann.muted == frozenset()
        assert caplog.text.count(f"not everybody is muted: a call has at most {MAX_MUTED} muted users") == 1
        await elsewhere.calls.change(X, lambda call: unmuted(call, others, sound), now=it.time)
        await it.store.calls.change(X, lambda call: muted(call, ["ann"], sound), now=it.time)
        assert ann.muted == sound
