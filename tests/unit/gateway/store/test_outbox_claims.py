"""Of several gateways with one store, each event is delivered by the one that claimed it."""

import asyncio
from datetime import UTC, datetime, timedelta

from gateway.store.store import Store

NOW = datetime(2026, 11, 25, 10, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=15)


async def test_of_many_who_claim_an_event_one_gets_it_until_its_time_is_over(store: Store) -> None:
    await store.outbox.add([("livestream:demo", "custom", b"{}")], NOW)
    (event,) = await store.outbox.first_of_each_call()
    assert sorted(await asyncio.gather(*(store.outbox.claim(event.seq, NOW, LATER) for _ in range(8)))) == [False] * 7 + [True]
    (claimed,) = await store.outbox.first_of_each_call()
    assert (claimed.due_at, claimed.attempts) == (LATER, 0)
    assert await store.outbox.claim(event.seq, LATER, LATER + timedelta(seconds=15))
    await store.outbox.release(event.seq)
    assert await store.outbox.claim(event.seq, NOW, LATER)
    await store.outbox.delivered(event.seq)
    assert not await store.outbox.claim(event.seq, LATER, LATER)
