"""Events to many outlets: order, audiences, bounds, and room for others in between."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from gateway.events.fanout import EVERY_CALL, MAX_PENDING, PORTION, EventFanout, text_frame
from gateway.model.events import Bus, EventAudience, EventType

CALL = "livestream:demo"


class Recorder:
    """An outlet that keeps what it is told; `becomes` is its audience when it is asked again."""

    def __init__(self, becomes: EventAudience | None = EventAudience.PRESENT) -> None:
        self.becomes = becomes
        self.told: list[tuple[str, object]] = []
        self.writes = 0

    def write(self, frames: bytes) -> None:
        self.writes += 1
        while frames:
            size, start = (frames[1], 2) if frames[1] < 126 else (int.from_bytes(frames[2:4]), 4)
            event = json.loads(frames[start : start + size])
            self.told.append((event["type"], event["payload"].get("n")))
            frames = frames[start + size :]

    def reconsider(self, cid: str) -> EventAudience | None:
        return self.becomes


@asynccontextmanager
async def broadcasting() -> AsyncIterator[tuple[Bus, EventFanout]]:
    bus, broadcast = Bus(), EventFanout()
    with bus.listening(broadcast.hear):
        async with broadcast.running():
            yield bus, broadcast


async def settled(broadcast: EventFanout) -> None:
    """Until everything published is written. A round takes a bounded number of turns."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_each_outlet_is_told_of_its_calls_in_order() -> None:
    one, other, all_calls = Recorder(), Recorder(), Recorder()
    async with broadcasting() as (bus, broadcast):
        broadcast.add(one, CALL, EventAudience.PRESENT)
        broadcast.add(other, "livestream:other", EventAudience.PRESENT)
        broadcast.add(all_calls, EVERY_CALL, EventAudience.HOSTS)
        for n in range(3):
            bus.publish(EventType.CUSTOM, CALL, {"n": n})
        bus.publish(EventType.CUSTOM, "livestream:other", {"n": 7})
        await settled(broadcast)
        broadcast.remove(one, CALL)
        broadcast.remove(one, CALL)
        bus.publish(EventType.CUSTOM, CALL, {"n": 3})
        await settled(broadcast)
    assert one.told == [("custom", 0), ("custom", 1), ("custom", 2)]
    assert one.writes == 1, "what is published together is written together"
    assert other.told == [("custom", 7)]
    assert all_calls.told == [("custom", 0), ("custom", 1), ("custom", 2), ("custom", 7), ("custom", 3)]
    assert broadcast.written == 9
    assert broadcast.delay.count == 5


async def test_audiences_are_told_what_is_theirs() -> None:
    outlets = {audience: Recorder() for audience in EventAudience}
    async with broadcasting() as (bus, broadcast):
        for audience, outlet in outlets.items():
            broadcast.add(outlet, CALL, audience)
        for kind in (EventType.CALL_LIVE_STARTED, EventType.REACTION_NEW, EventType.INGRESS_ERROR):
            bus.publish(kind, CALL)
        await settled(broadcast)
    types = ["call.live_started", "call.reaction_new", "ingress.error"]
    assert [[kind for kind, _ in outlets[audience].told] for audience in EventAudience] == [types[:1], types[:2], types]


async def test_who_loses_the_right_hears_nothing_that_follows() -> None:
    blocked, viewer, promoted = Recorder(None), Recorder(EventAudience.READERS), Recorder(EventAudience.HOSTS)
    async with broadcasting() as (bus, broadcast):
        for outlet in (blocked, viewer, promoted):
            broadcast.add(outlet, CALL, EventAudience.PRESENT)
        bus.publish(EventType.CUSTOM, CALL, {"n": 1})
        await asyncio.sleep(0)  # it is told; the change that follows is written between it and the next
        broadcast.reconsider(CALL)
        broadcast.reconsider(CALL)
        broadcast.reconsider("livestream:nobody-listens")
        for kind in (EventType.CALL_LIVE_ENDED, EventType.CUSTOM, EventType.INGRESS_STOPPED):
            bus.publish(kind, CALL)
        await settled(broadcast)
        promoted.becomes = None
        broadcast.reconsider(EVERY_CALL)
        bus.publish(EventType.CALL_ENDED, CALL)
        await settled(broadcast)
    assert blocked.told == [("custom", 1)]
    assert [kind for kind, _ in viewer.told] == ["custom", "call.live_ended", "call.ended"]
    assert [kind for kind, _ in promoted.told] == ["custom", "call.live_ended", "custom", "ingress.stopped"]


async def test_what_waits_is_bounded_and_the_newest_stays() -> None:
    outlet = Recorder()
    async with broadcasting() as (bus, broadcast):
        broadcast.add(outlet, CALL, EventAudience.PRESENT)
        for n in range(MAX_PENDING + 10):
            bus.publish(EventType.CUSTOM, CALL, {"n": n})
        await settled(broadcast)
    assert broadcast.dropped == 10
    assert [n for _, n in outlet.told] == list(range(10, MAX_PENDING + 10))


async def test_others_have_their_turn_while_many_are_told() -> None:
    outlets = [Recorder() for _ in range(10 * PORTION)]
    async with broadcasting() as (bus, broadcast):
        for outlet in outlets:
            broadcast.add(outlet, CALL, EventAudience.PRESENT)
        bus.publish(EventType.CUSTOM, CALL)
        told = []
        for _ in range(20):
            await asyncio.sleep(0)
            told.append(sum(outlet.writes for outlet in outlets))
    assert told[-1] == len(outlets)
    assert max(after - before for before, after in pairwise(told)) == PORTION


async def test_events_that_nobody_listens_to_are_not_kept() -> None:
    async with broadcasting() as (bus, broadcast):
        bus.publish(EventType.CUSTOM, CALL)
        await settled(broadcast)
        assert (broadcast.delay.count, broadcast._pending) == (0, {})


@pytest.mark.parametrize(
    ("size", "head"), [(0, "8100"), (125, "817d"), (126, "817e007e"), (65535, "817effff"), (65536, "817f0000000000010000")]
)
def test_frames_as_rfc_6455_5_2_has_them(size: int, head: str) -> None:
    frame = text_frame("x" * size)
    assert frame == bytes.fromhex(head) + b"x" * size
