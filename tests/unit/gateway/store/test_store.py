"""The store on both databases: what was written is there, no change is lost, lists come in pages, and nothing secret lies in clear."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Insert, insert, inspect, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from gateway.access.sealing import Sealing
from gateway.enforcement.retention import forget_now
from gateway.model import lifecycle
from gateway.model.permissions import BUILT_IN, DEVELOPMENT, Capability
from gateway.model.records import (
    EVERYTHING,
    MAX_BLOCKED,
    MAX_MEMBERS,
    MAX_MUTED,
    AllOf,
    AnyOf,
    ApiKey,
    Backstage,
    Call,
    CallLimits,
    CallType,
    Change,
    ChangeKind,
    Condition,
    Filter,
    GivenRole,
    Member,
    SealedSecret,
    Settings,
    Sort,
    StreamKey,
    User,
    merged,
)
from gateway.store import rows
from gateway.store.calls import blocked, muted, unmuted
from gateway.store.changes import Changes
from gateway.store.database import Database, StoreUnavailable
from gateway.store.migrate import NEWEST, settings
from gateway.store.models import CALL_TYPES, CALLS, MEMBERS, METADATA, OUTBOX, STREAM_KEYS
from gateway.store.people import CallTypes
from gateway.store.store import Store
from protocols.errors import Reason, Rejected
from protocols.media import Kind

NOW = datetime(2026, 11, 25, 12, 0, 0, 123456, UTC)
MINUTE = timedelta(minutes=1)


def call(name: str, minutes: int = 0, **more: Any) -> Call:
    return replace(Call("livestream", name, "john", NOW + minutes * MINUTE, NOW), **more)


def member(user: str, role: str = "host") -> Member:
    return Member("", user, NOW, NOW, role, {"seat": 1})


async def test_a_call_comes_back_as_it_was_written(store: Store) -> None:
    written = call(
        "full",
        backstage=True,
        starts_at=NOW + MINUTE,
        live_started_at=NOW,
        live_ended_at=NOW + MINUTE,
        ended_at=NOW + 2 * MINUTE,
        broadcasting=True,
        settings_override={"backstage": {"join_ahead_time_seconds": 300}},
        custom={"title": "Grüße \N{PARTY POPPER}", "n": [1, 2.5, None]},
        blocked_user_ids=("eve",),
        muted_users={"amy": frozenset(Kind), "bob": frozenset({Kind.AUDIO})},
    )
    assert await store.calls.get_or_create(written, [member("john")]) == (written, True)
    assert await store.calls.get(written.cid) == written
    assert await store.calls.members(written.cid) == (replace(member("john"), call_cid=written.cid),)
    assert await store.calls.get_or_create(call("full")) == (written, False)
    assert await store.calls.delete(written.cid)
    assert await store.calls.get(written.cid) is None
    assert await store.calls.members(written.cid) == ()
    assert not await store.calls.delete(written.cid)


async def test_of_many_who_create_a_call_at_once_one_does(store: Store, url: str) -> None:
    async with Store.open(url) as other:  # as another node has it
        made = await asyncio.gather(*(each.calls.get_or_create(call("one")) for each in [store, other] * 10))
    assert sum(new for _, new in made) == 1


async def test_of_two_who_change_a_call_at_once_neither_undoes_the_other(store: Store, url: str) -> None:
    await store.calls.get_or_create(call("one"))

    def block(n: int) -> Callable[[Call], Call]:
        return lambda present: blocked(present, f"user{n}")

    async with Store.open(url) as other:
        stores = [store, other] * 10
        await asyncio.gather(*(each.calls.change("livestream:one", block(n), now=NOW) for n, each in enumerate(stores)))
    changed = await store.calls.get("livestream:one")
    assert changed is not None
    assert set(changed.blocked_user_ids) == {f"user{n}" for n in range(20)}


async def test_a_change_that_is_refused_changes_nothing(store: Store) -> None:
    over = call("over", ended_at=NOW)
    await store.calls.get_or_create(over)
    with pytest.raises(Rejected) as caught:
        await store.calls.change(over.cid, lambda present: lifecycle.gone_live(present, NOW), now=NOW)
    assert caught.value.reason is Reason.CONFLICT
    assert await store.calls.get(over.cid) == over
    with pytest.raises(Rejected) as caught:
        await store.calls.change("livestream:none", lambda present: present, now=NOW)
    assert caught.value.reason is Reason.NOT_FOUND


async def filled(store: Store) -> None:
    for n in range(7):
        await store.calls.get_or_create(call(f"c{n}", n // 2, starts_at=None if n % 3 else NOW + n * MINUTE))
    await store.calls.change("livestream:c1", lambda present: lifecycle.gone_live(present, NOW), now=NOW + MINUTE)
    await store.calls.change("livestream:c2", lambda present: lifecycle.ended(present, NOW), now=NOW)
    await store.calls.update_members("livestream:c3", [member("ann"), member("bob", "viewer")])
    await store.calls.update_members("livestream:c4", [member("bob")])


FILTERS: list[tuple[Filter, str]] = [
    (EVERYTHING, "0123456"),
    (AnyOf(()), ""),
    (Condition("id", "eq", "c3"), "3"),
    (Condition("cid", "in", ("livestream:c1", "livestream:c5", "x:y")), "15"),
    (Condition("created_at", "gte", NOW + MINUTE), "23456"),
    (Condition("created_at", "gt", NOW + MINUTE), "456"),
    (Condition("created_at", "lt", NOW + MINUTE), "01"),
    (Condition("created_at", "lte", NOW + MINUTE), "0123"),
    (Condition("starts_at", "exists", True), "036"),
    (Condition("starts_at", "eq", None), "1245"),
    (Condition("live", "eq", True), "1"),
    (Condition("backstage", "eq", True), "2"),
    (Condition("ended_at", "exists", False), "013456"),
    (Condition("members", "eq", "bob"), "34"),
    (Condition("members", "in", ("ann", "zoe")), "3"),
    (AllOf((Condition("members", "eq", "bob"), Condition("id", "eq", "c4"))), "4"),
    (AnyOf((Condition("id", "eq", "c0"), AllOf((Condition("id", "eq", "c6"), EVERYTHING)))), "06"),
]


async def test_calls_are_found(store: Store) -> None:
    await filled(store)
    for wanted, found in FILTERS:
        page = await store.calls.query(wanted, [Sort("id")])
        assert "".join(each.id[1:] for each in page.items) == found, wanted


SORTS: list[list[Sort]] = [
    [],
    [Sort("created_at")],
    [Sort("created_at", descending=True), Sort("id")],
    [Sort("starts_at")],
    [Sort("starts_at", descending=True), Sort("created_at")],
    [Sort("type"), Sort("cid", descending=True)],
]


async def test_pages_forwards_and_backwards_have_every_call_once(store: Store) -> None:
    await filled(store)
    for sort in SORTS:
        whole = [each.cid for each in (await store.calls.query(sort=sort)).items]
        assert len(set(whole)) == 7
        page = await store.calls.query(sort=sort, limit=3)
        pages = [page]
        while page.next is not None:
            page = await store.calls.query(sort=sort, limit=3, cursor=page.next)
            pages.append(page)
        assert [each.cid for page in pages for each in page.items] == whole
        assert pages[0].previous is None
        back = []
        while page.previous is not None:
            page = await store.calls.query(sort=sort, limit=3, cursor=page.previous)
            back.append(page.items)
        assert back == [pages[1].items, pages[0].items]


NO_QUERIES: list[dict[str, Any]] = [
    {"wanted": Condition("secret", "eq", "x")},
    {"wanted": Condition("created_at", "gt", "yesterday")},
    {"wanted": Condition("id", "eq", 7)},
    {"wanted": Condition("backstage", "eq", "yes")},
    {"wanted": Condition("starts_at", "exists", "no")},
    {"wanted": Condition("members", "gt", "ann")},
    {"wanted": AllOf(tuple(Condition("id", "eq", "x") for _ in range(60)))},
    {"sort": [Sort("custom")]},
    {"cursor": "nonsense"},
    {"cursor": "A" * 2000},
    {"cursor": "W10"},  # []
    {"cursor": "W2ZhbHNlLFsiLWNyZWF0ZWRfYXQiLCJjaWQiXSxbWyJ0IiwieCJdLFsicyIsMV1dXQ"},
]


async def test_a_query_that_is_none_is_refused_in_words(store: Store) -> None:
    for query in NO_QUERIES:
        with pytest.raises(Rejected) as caught:
            await store.calls.query(**query)
        assert caught.value.reason is Reason.BAD_REQUEST, query


async def test_a_cursor_belongs_to_its_order(store: Store) -> None:
    await filled(store)
    page = await store.calls.query(limit=2)
    with pytest.raises(Rejected, match="another sort order"):
        await store.calls.query(sort=[Sort("id")], cursor=page.next)


async def test_members_are_replaced_removed_and_bounded(store: Store) -> None:
    await store.calls.get_or_create(call("one"), [member("john")])
    await store.calls.update_members("livestream:one", [member("john", "viewer"), member("ann")], ["nobody"])
    assert {each.user_id: each.role for each in await store.calls.members("livestream:one")} == {
        "ann": "host",
        "john": "viewer",
    }
    page = await store.calls.query_members("livestream:one", Condition("role", "eq", "host"))
    assert [each.user_id for each in page.items] == ["ann"]
    await store.calls.update_members("livestream:one", remove=["john"])
    assert (await store.calls.roles("livestream:one")) == {"livestream:one": {"ann": GivenRole("host")}}
    for cid, members in (("livestream:one", [member(f"u{n}") for n in range(MAX_MEMBERS)]), ("livestream:none", [])):
        with pytest.raises(Rejected):
            await store.calls.update_members(cid, members)
    assert len(await store.calls.members("livestream:one")) == 1


async def test_users_are_made_by_being_named_and_keep_what_they_have(store: Store) -> None:
    ann = User("ann", NOW, NOW, "admin", "Ann", "https://example.org/ann.png", {"x": 1})
    await store.users.put([ann])
    await store.users.ensure(["ann", "bob"], NOW + MINUTE)
    found = await store.users.get(["ann", "bob", "zoe"])
    assert found == {"ann": ann, "bob": User("bob", NOW + MINUTE, NOW + MINUTE)}
    (again,) = await store.users.put([replace(ann, role="guest", created_at=NOW + MINUTE)])
    assert again.created_at == NOW
    page = await store.users.query(Condition("role", "eq", "guest"), [Sort("name")])
    assert page.items == (again,)
    assert await store.users.special(10) == {"ann": GivenRole("guest")}


async def test_call_types(store: Store, url: str) -> None:
    await store.call_types.ensure_built_in(NOW)
    await store.call_types.ensure_built_in(NOW + MINUTE)
    kinds = await store.call_types.all()
    everywhere = {name: grants for name, grants in BUILT_IN.items() if name != DEVELOPMENT}
    assert {name: kind.grants for name, kind in kinds.items()} == everywhere
    assert kinds["livestream"].settings.backstage.enabled
    assert kinds["livestream"].created_at == NOW
    settings = Settings(backstage=Backstage(True, 60), on_conflict="refuse", limits=CallLimits(3, 600))
    own = CallType("town-hall", {"host": frozenset({Capability.GO_LIVE})}, settings, NOW, NOW)
    assert await store.call_types.put(own) == own
    assert (await store.call_types.all())["town-hall"] == own
    changed = await store.call_types.put(replace(kinds["default"], settings=settings, built_in=False))
    assert changed.built_in
    await store.call_types.ensure_built_in(NOW)
    assert (await store.call_types.all())["default"].settings == settings
    await store.calls.get_or_create(replace(call("x"), type="town-hall"))
    for name in ("livestream", "town-hall"):
        with pytest.raises(Rejected) as caught:
            await store.call_types.delete(name)
        assert caught.value.reason is Reason.CONFLICT
    await store.calls.delete("town-hall:x")
    assert await store.call_types.delete("town-hall")
    assert not await store.call_types.delete("town-hall")
    async with Database.open(url) as database:
        with pytest.raises(Rejected):
            await CallTypes(database, max_types=3).put(replace(own, name="one-too-many"))


async def test_api_keys_rotate_with_overlap_and_their_secrets_lie_sealed(store: Store, tmp_path: Path) -> None:
    sealing = Sealing(b"k" * 32)
    old, new, newest = (secrets.token_urlsafe(24) for _ in range(3))

    def sealed(secret: str) -> SealedSecret:
        return SealedSecret(sealing.seal(secret.encode(), "app"), NOW)

    await store.api_keys.add(ApiKey("app", "The app", (sealed(old),), NOW))
    await store.api_keys.rotate("app", sealed(new), NOW + MINUTE)
    rotated = await store.api_keys.rotate("app", sealed(newest), NOW + 2 * MINUTE)
    values = [(sealing.unseal(each.sealed, "app"), each.expires_at) for each in rotated.secrets]
    assert values == [(newest.encode(), None), (new.encode(), NOW + 2 * MINUTE)]
    for file in tmp_path.iterdir():  # noqa: ASYNC240
        assert not any(secret.encode() in file.read_bytes() for secret in (old, new, newest)), file
    assert await store.api_keys.revoke("app", NOW)
    gone = (await store.api_keys.all())["app"]
    assert (gone.secrets, gone.revoked_at) == ((), NOW)
    for key in ("app", "none"):
        with pytest.raises(Rejected):
            await store.api_keys.rotate(key, sealed(old), NOW)
    assert not await store.api_keys.revoke("none", NOW)


async def test_stream_keys(store: Store) -> None:
    await store.calls.get_or_create(call("one"))
    first = StreamKey("skaaaaaaaaaaaaa", "livestream:one", "ann", "john", NOW)
    second = StreamKey(
        "skbbbbbbbbbbbbb", "livestream:one", "bob", "john", NOW + MINUTE, NOW + 2 * MINUTE, rank=2, on_conflict="refuse"
    )
    for key in (first, second):
        await store.stream_keys.add(key)
    assert await store.stream_keys.of_call("livestream:one") == (second, first)
    assert await store.stream_keys.of_call("livestream:one", ["ann"]) == (first,)
    revoked = replace(first, revoked_at=NOW)
    assert await store.stream_keys.revoke(first.name, NOW) == revoked
    assert await store.stream_keys.revoke(first.name, NOW + MINUTE) == revoked
    assert await store.stream_keys.get(first.name) == revoked
    assert await store.stream_keys.usable(10) == (second,)
    assert await store.stream_keys.revoke("none", NOW) is None
    with pytest.raises(Rejected):
        await store.stream_keys.add(replace(first, name="x", call_cid="livestream:none"))
    await store.calls.delete("livestream:one")
    assert await store.stream_keys.get(second.name) is None


async def test_the_outbox_gives_the_oldest_of_each_call_and_is_bounded(store: Store) -> None:
    events = [(f"livestream:{name}", "call.updated", body) for name, body in (("a", b"1"), ("b", b"2"), ("a", b"3"))]
    assert await store.outbox.add(events, NOW) == 0
    first, second = await store.outbox.first_of_each_call()
    assert (first.body, second.body) == (b"1", b"2")
    await store.outbox.postpone(first.seq, NOW + MINUTE)
    assert [each.body for each in await store.outbox.first_of_each_call()] == [b"2", b"1"]
    await store.outbox.delivered(first.seq)
    assert [each.body for each in await store.outbox.first_of_each_call()] == [b"2", b"3"]
    assert await store.outbox.add(events, NOW, most=4) == 1
    assert [each.body for each in await store.outbox.first_of_each_call()] == [b"3", b"2"]
    assert await store.outbox.waiting() == 4


async def test_changes_come_in_order_without_a_gap_whoever_writes(store: Store, url: str) -> None:
    seen: list[Change] = []

    async def follow(changes: Any) -> None:
        seen.extend(changes)

    async with Store.open(url) as other:
        for each in (store, other):
            each.follow(follow)
        start = await store.changes.last()
        await asyncio.gather(*(each.calls.get_or_create(call(f"c{n}")) for n, each in enumerate([store, other] * 10)))
        await store.calls.kick("livestream:c1", "eve", block=True, now=NOW)
        changes = await other.changes.since(start)
    assert changes is not None
    assert [each.seq for each in changes] == list(range(start + 1, start + 23))
    assert sorted(seen, key=lambda each: each.seq) == list(changes)
    assert [(each.kind, each.key) for each in changes[-2:]] == [
        (ChangeKind.CALL, "livestream:c1"),
        (ChangeKind.KICK, "livestream:c1 eve"),
    ]
    assert await store.changes.since(changes[-1].seq) == ()


async def test_who_was_away_for_too_long_is_told(store: Store, url: str) -> None:
    for n in range(5):
        await store.calls.get_or_create(call(f"c{n}"))
    async with Database.open(url) as database:
        await Changes(database, kept=2).forget()
    last = await store.changes.last()
    assert await store.changes.since(last - 4) is None
    assert len(await store.changes.since(last - 2) or ()) == 2


async def test_too_much_is_refused(store: Store) -> None:
    await store.calls.get_or_create(call("one"))
    for custom in ({"x": "y" * 6000}, {"x": float("nan")}):
        with pytest.raises(Rejected) as caught:
            await store.calls.get_or_create(call("two", custom=custom))
        assert caught.value.reason is Reason.BAD_REQUEST
    everybody = replace(call("one"), blocked_user_ids=tuple(f"u{n}" for n in range(MAX_BLOCKED)))
    await store.calls.change("livestream:one", lambda present: everybody, now=NOW)
    with pytest.raises(Rejected):
        await store.calls.kick("livestream:one", "one-too-many", block=True, now=NOW)


async def test_who_is_muted_stays_so_until_unmuted_or_the_calls_end(store: Store) -> None:
    cid, sound, picture = "livestream:one", frozenset({Kind.AUDIO}), frozenset({Kind.VIDEO})

    async def now_muted(change: Callable[[Call], Call]) -> dict[str, frozenset[Kind]]:
        await store.calls.change(cid, change, now=NOW)
        present = await store.calls.get(cid)
        assert present is not None
        return dict(present.muted_users)

    await store.calls.get_or_create(call("one"), [member("amy")])
    assert await now_muted(lambda present: muted(present, ["amy", "bob"], sound)) == {"amy": sound, "bob": sound}
    assert await now_muted(lambda present: muted(present, ["amy"], picture)) == {"amy": sound | picture, "bob": sound}
    assert await now_muted(lambda present: muted(present, ["zoe"], frozenset())) == {"amy": sound | picture, "bob": sound}
    await store.calls.update_members(cid, remove=["amy"])  # coming back as a member is no way round it
    assert await now_muted(lambda present: unmuted(present, ["amy", "bob", "zoe"], sound)) == {"amy": picture}
    start = await store.changes.last()
    await store.calls.mute_all(cid, ["zoe"], sound | picture, now=NOW)
    changes = await store.changes.since(start)
    assert [(each.kind, each.key) for each in changes or ()] == [
        (ChangeKind.CALL, cid),
        (ChangeKind.MUTE_ALL, f"{cid} audio video"),
    ]
    assert await now_muted(lambda present: lifecycle.ended(present, NOW)) == {}
    assert await now_muted(lambda present: muted(present, ["amy"], sound)) == {}


async def test_a_call_has_a_bounded_number_of_muted_users(store: Store) -> None:
    sound = frozenset({Kind.AUDIO})
    await store.calls.get_or_create(call("one"))
    everybody = [f"u{n}" for n in range(MAX_MUTED)]
    await store.calls.change("livestream:one", lambda present: muted(present, everybody, sound), now=NOW)
    await store.calls.change("livestream:one", lambda present: muted(present, ["u1"], frozenset(Kind)), now=NOW)
    with pytest.raises(Rejected, match="unmute some first") as caught:
        await store.calls.mute_all("livestream:one", ["one-too-many"], sound, now=NOW)
    assert caught.value.reason is Reason.BAD_REQUEST


async def test_a_store_of_before_keeps_its_calls_and_takes_those_of_a_gateway_of_before(url: str) -> None:
    since = ("muted_users", "api_key")
    without = {name: value for name, value in rows.call_row(call("old")).items() if name not in since}
    async with AsyncExitStack() as stack:
        engine = create_async_engine(url)
        stack.push_async_callback(engine.dispose)
        async with engine.begin() as connection:
            await connection.run_sync(lambda opened: command.upgrade(settings(opened), "0001"))
            await connection.execute(insert(CALLS).values(without))
        store = await stack.enter_async_context(Store.open(url))
        async with engine.begin() as connection:  # it is still running, beside a new one
            await connection.execute(insert(CALLS).values(without | {"cid": "livestream:new", "id": "new"}))
        assert [await store.calls.get(f"livestream:{name}") for name in ("old", "new")] == [call("old"), call("new")]


async def test_development_is_there_only_where_it_is_wanted(store: Store) -> None:
    for wanted in (False, True, True, False):
        await store.call_types.ensure_built_in(NOW, development=wanted)
        assert (DEVELOPMENT in await store.call_types.all()) is wanted
    own = CallType(DEVELOPMENT, {}, Settings(), NOW, NOW)
    await store.call_types.put(own)
    await store.call_types.ensure_built_in(NOW)
    assert (await store.call_types.all())[DEVELOPMENT] == own, "one that the application made under this name is its own"


async def test_what_rights_were_given_before_goes_on(url: str) -> None:
    """Keys that others made for somebody made them publish; `livestream` as it came admitted everybody."""
    former = {"user": ["read-call"], "anonymous": ["join-call", "list-streams", "read-call"]}
    times = {"created_at": NOW, "updated_at": NOW}

    def key(name: str, user: str, by: str, *, revoked: bool = False) -> Insert:
        when = {"created_at": NOW, "revoked_at": NOW if revoked else None}
        return insert(STREAM_KEYS).values(name=name, call_cid="livestream:one", user_id=user, created_by_id=by, **when)

    def kind(name: str) -> Insert:
        return insert(CALL_TYPES).values(name=name, grants=former, settings={}, built_in=True, **times)

    made = {name: value for name, value in rows.call_row(call("one")).items() if name != "api_key"}
    ann = {"call_cid": "livestream:one", "user_id": "ann", "role": "viewer", "custom": {}}
    statements = [
        insert(CALLS).values(made),
        insert(MEMBERS).values(**ann, **times),
        *(key("a", "zoe", ""), key("b", "zoe", "john"), key("c", "ann", "john"), key("d", "gone", "gone")),
        *(key("e", "bob", "john", revoked=True), key("f", "john", "")),
        *(kind("livestream"), kind("audio_room")),
    ]
    async with AsyncExitStack() as stack:
        engine = create_async_engine(url)
        stack.push_async_callback(engine.dispose)
        async with engine.begin() as connection:
            await connection.run_sync(lambda opened: command.upgrade(settings(opened), "0002"))
            for statement in statements:
                await connection.execute(statement)
        store = await stack.enter_async_context(Store.open(url))
        assert await store.calls.roles() == {"livestream:one": {"zoe": GivenRole("cohost"), "ann": GivenRole("viewer")}}
        assert {each.name: each.api_key for each in await store.stream_keys.of_call("livestream:one")} == dict.fromkeys(
            "abcdef", ""
        )
        kinds = await store.call_types.all()
        assert [Capability.JOIN_CALL in kinds[name].grants["anonymous"] for name in ("livestream", "audio_room")] == [
            False,
            True,
        ]


async def test_the_migrations_make_the_tables_that_the_models_name(url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA))

    async with by_the_steps(url) as connection:
        assert await connection.run_sync(differences) == []
        assert (await connection.run_sync(lambda opened: ScriptDirectory.from_config(settings(opened)))).get_heads() == [NEWEST]


async def test_a_new_store_is_what_the_migrations_make(url: str) -> None:
    async with by_the_steps(url) as connection:
        made = await connection.run_sync(everything_of)
        await connection.run_sync(METADATA.drop_all)
        await connection.exec_driver_sql("DROP TABLE alembic_version")
    async with Database.open(url) as database, database.read() as connection:
        assert await connection.run_sync(everything_of) == made
    async with Database.open(url) as database, database.read() as connection:  # a second start changes nothing
        assert await connection.run_sync(everything_of) == made
        assert (await connection.execute(select(OUTBOX))).all() == []


@asynccontextmanager
async def by_the_steps(url: str) -> AsyncIterator[AsyncConnection]:
    """A database that Alembic has brought to the newest tables from nothing."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(lambda opened: command.upgrade(settings(opened), "head"))
            yield connection
    finally:
        await engine.dispose()


def everything_of(connection: Connection) -> dict[str, list[str]]:
    """Of each table its columns, keys, constraints, indices, and the rows: as text, without an order."""
    tables = inspect(connection)
    asked = (
        *(tables.get_columns, tables.get_foreign_keys, tables.get_unique_constraints, tables.get_check_constraints),
        *(tables.get_indexes, lambda name: [tables.get_pk_constraint(name)], lambda name: rows_of(connection, name)),
    )
    return {
        name: sorted(repr(sorted((key, str(value)) for key, value in each.items())) for ask in asked for each in ask(name))
        for name in tables.get_table_names()
    }


def rows_of(connection: Connection, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()]


async def test_several_nodes_may_start_at_once(url: str) -> None:
    async def start() -> int:
        async with Store.open(url) as opened:
            await opened.call_types.ensure_built_in(NOW)
            return len(await opened.call_types.all())

    assert await asyncio.gather(*(start() for _ in range(4))) == [3] * 4


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "is no database address"),
        ("mysql://root:hunter2@localhost/x", "begins with mysql"),
        ("sqlite:///x.db", "begins with sqlite"),
    ],
)
async def test_an_address_that_is_none_is_told_without_its_password(address: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        async with Store.open(address):
            pass
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_is_not_there_is_a_refusal_and_no_hang(tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable) as caught:
            async with Store.open(f"postgresql+asyncpg://gateway:hunter2@/x?host={tmp_path}"):
                pass
    assert "hunter2" not in str(caught.value)


async def test_callers_who_are_cancelled_at_any_moment_hold_up_nobody_else(store: Store) -> None:
    await store.calls.get_or_create(call("one"))

    def numbered(n: int) -> Callable[[Call], Call]:
        return lambda present: replace(present, custom={"n": n})

    for rounds in range(120):
        working: list[asyncio.Task[Any]] = [
            asyncio.create_task(store.calls.change("livestream:one", numbered(n), now=NOW)) for n in (1, 2)
        ]
        working.append(asyncio.create_task(store.calls.query()))
        for _ in range(rounds % 30):  # the first moments by steps of the loop, the others by time
            await asyncio.sleep(0)
        await asyncio.wait(working, timeout=rounds // 30 * 0.003)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        async with asyncio.timeout(8):  # SQLite's own waiting for a lock is longer
            changed = await store.calls.change("livestream:one", numbered(-rounds), now=NOW)
    assert await store.calls.get("livestream:one") == changed


def test_settings_of_a_newer_gateway_are_passed_over() -> None:
    override = {"backstage": {"enabled": True, "curtain": "red"}, "holograms": {}, "limits": 7, "on_conflict": "duel"}
    kind = CallType("livestream", {}, Settings(on_conflict="refuse"), NOW, NOW)
    assert call("x", settings_override=override).settings(kind) == Settings(backstage=Backstage(True), on_conflict="refuse")
    for one in override:
        with pytest.raises(ValueError, match=f"settings_override.{one}"):
            merged(Settings(), {one: override[one]})


async def test_calls_that_ended_long_ago_are_deleted_with_what_was_in_them(store: Store) -> None:
    for number in range(5):
        ended = replace(call(f"ended-{number}"), ended_at=NOW + number * MINUTE)
        await store.calls.get_or_create(ended, [member("ann")])
    await store.calls.get_or_create(call("open"), [member("ann")])
    written: list[str] = []

    async def follow(changes: Sequence[Change]) -> None:
        written.extend(change.key for change in changes)

    store.follow(follow)
    assert await forget_now(store, NOW + 3 * MINUTE) == 3
    assert written == [f"livestream:ended-{number}" for number in range(3)]
    assert {each.id for each in (await store.calls.query()).items} == {"ended-3", "ended-4", "open"}
    assert await store.calls.members("livestream:ended-0") == ()
    assert await forget_now(store, NOW + 3 * MINUTE) == 0


async def test_a_user_has_so_many_calls_that_have_not_ended(store: Store) -> None:
    for name in ("one", "two"):
        await store.calls.get_or_create(call(name), most_open=2)
    with pytest.raises(Rejected, match="2 calls that have not ended"):
        await store.calls.get_or_create(call("three"), most_open=2)
    assert (await store.calls.get_or_create(call("two"), most_open=2))[1] is False
    await store.calls.change("livestream:one", lambda it: replace(it, ended_at=NOW), now=NOW)
    assert (await store.calls.get_or_create(call("three"), most_open=2))[1] is True
    assert set(await store.calls.memberships("ann", ["livestream:one"])) == set()
