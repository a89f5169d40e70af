"""What is kept of live seats, on both databases: who may write it, who may go on with it, and when it goes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.model.kept import KeptSeat
from gateway.store.seats import LEASE, orphaned
from gateway.store.store import Store

NOW = datetime(2026, 11, 29, 18, 0, 0, 123456, UTC)
SECOND = timedelta(seconds=1)
ADA = ("livestream:demo", "ada")


def seat(user: str = "ada", node: str = "one", at: datetime = NOW, **more: Any) -> KeptSeat:
    kept = KeptSeat("livestream:demo", user, f"{user}'s", "rtmp", NOW - 60 * SECOND, 7, 1, 30.5, at, at, node, 1)
    return replace(kept, **more)


async def test_a_seat_comes_back_as_it_was_written_and_again_as_it_is(store: Store) -> None:
    written = seat(outputs={"hls": {"id": "s", "renditions": {"video": {"segment": 2**40}}}}, media=2**60)
    await store.seats.keep([written, seat("bob")], {}, "one", NOW)
    assert await store.seats.find(*ADA) == written
    later = replace(written, media=written.media + 1, written_at=NOW + SECOND, since=NOW + SECOND)
    await store.seats.keep([later], {}, "one", NOW + SECOND)
    assert await store.seats.find(*ADA) == later
    assert await store.seats.find("livestream:demo", "nobody") is None


async def test_what_has_ended_goes_and_what_comes_in_its_place_at_once_stays(store: Store) -> None:
    await store.seats.keep([seat(), seat("bob")], {}, "one", NOW)
    await store.seats.keep([seat(session="another")], {ADA: "ada's", ("livestream:demo", "bob"): "bob's"}, "one", NOW)
    found = await store.seats.find(*ADA)
    assert found is not None
    assert found.session == "another"
    assert await store.seats.find("livestream:demo", "bob") is None


async def test_nobody_writes_over_the_seat_of_a_node_that_is_there(store: Store) -> None:
    await store.seats.keep([seat()], {}, "one", NOW)
    await store.seats.keep([seat(node="two", at=NOW + SECOND)], {}, "two", NOW + SECOND)
    await store.seats.keep([], {ADA: "ada's"}, "two", NOW + SECOND)
    assert await store.seats.find(*ADA) == seat()
    late = NOW + LEASE + SECOND
    await store.seats.keep([seat(node="two", at=late, session="another")], {ADA: "another"}, "two", late)
    assert await store.seats.find(*ADA) == seat(), "what nobody goes on with is told of when it expires"
    await store.seats.keep([seat(node="two", at=late)], {}, "two", late)
    found = await store.seats.find(*ADA)
    assert found is not None
    assert found.node == "two"
    await store.seats.keep([seat(at=late)], {ADA: "ada's"}, "one", late)  # it was not gone after all
    assert await store.seats.find(*ADA) == seat(node="two", at=late)


async def test_an_earlier_run_of_the_same_node_writes_no_more(store: Store) -> None:
    await store.seats.keep([seat(epoch=2)], {}, "one", NOW)
    await store.seats.keep([seat(epoch=1, media=1)], {}, "one", NOW)
    assert await store.seats.find(*ADA) == seat(epoch=2)


async def test_a_node_that_is_back_frees_what_it_had_and_its_grace_begins_anew(store: Store) -> None:
    await store.seats.keep([seat()], {}, "one", NOW)
    await store.seats.keep([seat("bob", "two")], {}, "two", NOW)
    await store.seats.keep([seat("eve", "")], {}, "three", NOW)
    back = NOW + 100 * SECOND
    left = await store.seats.left_by("one", back)
    assert sorted((each.user_id, each.node, each.written_at, each.since) for each in left) == [
        ("ada", "", NOW, back),
        ("eve", "", NOW, back),
    ]
    assert await store.seats.take_expired(back + 30 * SECOND, of_nodes=False) == ()
    taken = await store.seats.take_expired(back + 31 * SECOND, of_nodes=False)
    assert sorted(each.user_id for each in taken) == ["ada", "eve"]
    assert await store.seats.take_expired(back + 31 * SECOND, of_nodes=False) == (), "each is given once"
    assert await store.seats.find("livestream:demo", "bob") is not None


@pytest.mark.parametrize(("grace_s", "kept_s"), [(30.5, 30.5), (0, LEASE.total_seconds())])
async def test_the_seats_of_a_lost_node_expire_after_their_grace_and_its_lease(
    store: Store, grace_s: float, kept_s: float
) -> None:
    await store.seats.keep([seat(grace_s=grace_s)], {}, "one", NOW)
    over = NOW + timedelta(seconds=kept_s)
    assert await store.seats.take_expired(over, of_nodes=True) == ()
    assert await store.seats.take_expired(over + SECOND, of_nodes=False) == ()
    assert [each.session for each in await store.seats.take_expired(over + SECOND, of_nodes=True)] == ["ada's"]


def test_who_may_go_on_with_a_seat() -> None:
    assert orphaned(seat(node=""), "two", NOW)
    assert not orphaned(seat(), "one", NOW + 100 * SECOND), "its own, which it has itself"
    assert not orphaned(seat(), "two", NOW + LEASE)
    assert orphaned(seat(), "two", NOW + LEASE + SECOND)
