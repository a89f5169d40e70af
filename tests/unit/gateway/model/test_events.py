"""The bus: order, numbers, and that nobody's fault is another's."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from gateway.model.events import MAX_COUNTED_CALLS, Bus, Event, EventType

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


async def turn() -> None:
    """All that was to run in the event loop's next turn has run."""
    await asyncio.sleep(0)


async def test_listeners_are_told_everything_in_order_and_after_publish_returned() -> None:
    bus, heard = Bus(), list[Event]()
    with bus.listening(heard.append):
        made = [bus.publish(EventType.CUSTOM, f"livestream:{n % 3}", {"custom": n}) for n in range(20)]
        assert heard == []
        await turn()
    bus.publish(EventType.CALL_ENDED, "livestream:0")
    await turn()
    assert heard == made
    assert bus.published == {EventType.CUSTOM: 20, EventType.CALL_ENDED: 1}


async def test_an_event_as_json() -> None:
    event = Bus(lambda: NOON).publish(
        EventType.REACTION_NEW, "livestream:demo", {"reaction": {"type": "\ud800 ❤"}, "odd": NOON}
    )
    assert json.loads(event.text.encode()) == {
        "id": event.id,
        "type": "call.reaction_new",
        "cid": "livestream:demo",
        "seq": event.seq,
        "created_at": "2026-11-25T12:00:00.000+00:00",
        "payload": {"reaction": {"type": "\ud800 ❤"}, "odd": str(NOON)},
    }


async def test_numbers_rise_by_one_in_each_call_and_go_on_higher_after_a_restart() -> None:
    now = NOON
    bus = Bus(lambda: now)
    first = [bus.publish(EventType.CUSTOM, cid).seq for cid in ("a:1", "b:1", "a:1", "a:1", "b:1")]
    assert [seq - first[0] for seq in first] == [0, 0, 1, 2, 1]
    now += timedelta(milliseconds=2)  # three events were more than the clock has moved on
    assert bus.publish(EventType.CUSTOM, "a:1").seq == first[3] + 1
    now += timedelta(seconds=1)
    assert Bus(lambda: now).publish(EventType.CUSTOM, "a:1").seq > first[3] + 1


async def test_the_number_of_counted_calls_is_bounded() -> None:
    bus = Bus(lambda: NOON)
    for n in range(MAX_COUNTED_CALLS + 5):
        bus.publish(EventType.CALL_CREATED, f"livestream:{n}")
    assert len(bus._seqs) == MAX_COUNTED_CALLS


async def test_a_listener_that_fails_harms_neither_publisher_nor_other_listeners(caplog: pytest.LogCaptureFixture) -> None:
    bus, heard = Bus(), list[Event]()

    def broken(event: Event) -> None:
        raise LookupError("a defect")

    with bus.listening(broken), bus.listening(heard.append), caplog.at_level(logging.ERROR):
        event = bus.publish(EventType.CALL_CREATED, "livestream:demo")
        await turn()
    assert heard == [event]
    assert "a defect" in caplog.text
