"""Sessions and viewers as events."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Any

import pytest

from gateway.events.producers import CallEvents, EventProducers, happened
from gateway.model.events import Bus, Event, EventType
from gateway.model.records import Call
from gateway.sessions.seat import Seat
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import Kind, Lack, LeftOut, TracksChanged
from tests.support.memory import H264, MemoryCall, MemoryPublisher, packet, seat_policy
from tests.support.unheard import unheard
from tests.support.waiting import eventually
from transcode.host.pool import Workers

CALL = "livestream:demo"


class Heard:
    """Keeps events, and lets a test wait for the one of a type."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Condition()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self._task = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, *types: EventType) -> list[dict[str, Any]]:
        """All events, once they are of these types in this order."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: [event.type for event in self.events] == list(types))
        return [json.loads(event.text)["payload"] for event in self.events]


def session_of(publisher: MemoryPublisher, bus: Bus, linger_s: float = 0.05) -> Seat:
    policy = seat_policy(
        linger_s=linger_s,
        on_change=EventProducers(bus, whose=unheard).seat_changed,
    )
    return Seat(publisher, "ada", CALL, [MemoryCall()], Workers(), policy)


def media() -> Iterable[Any]:
    return TracksChanged((H264,)), packet(1, 0, keyframe=True)


async def test_a_stream_from_its_begin_to_its_end() -> None:
    bus, heard, publisher = Bus(), Heard(), MemoryPublisher()
    with bus.listening(heard):
        session = session_of(publisher, bus)
        publisher.say(*media(), None)
        await session.run()
        joined, started, stopped, left = await heard.until(
            EventType.PARTICIPANT_JOINED, EventType.INGRESS_STARTED, EventType.INGRESS_STOPPED, EventType.PARTICIPANT_LEFT
        )
    who = {"user_id": "ada", "protocol": publisher.protocol}
    assert joined == {"participant": who}
    assert started == {**who, "software": publisher.software, "stream": publisher.id}
    assert stopped == {**started, "reason": "the connection broke off"}
    assert left == {"participant": who, "reason": "the connection broke off"}


async def test_a_stream_that_breaks_is_an_error_in_the_streamers_words() -> None:
    bus, heard, publisher = Bus(), Heard(), MemoryPublisher()
    with bus.listening(heard):
        session = session_of(publisher, bus)
        publisher.say(*media(), ProtocolError("a chunk that is none"))
        await session.run()
        told = await heard.until(
            EventType.PARTICIPANT_JOINED,
            EventType.INGRESS_STARTED,
            EventType.INGRESS_ERROR,
            EventType.INGRESS_STOPPED,
            EventType.PARTICIPANT_LEFT,
        )
    assert told[2]["reason"] == told[3]["reason"] == "a chunk that is none"


async def test_what_is_left_out_of_a_stream_is_a_warning_once() -> None:
    bus, heard, publisher = Bus(), Heard(), MemoryPublisher()
    with bus.listening(heard):
        session = session_of(publisher, bus)
        publisher.say(LeftOut(Lack.CODEC, Kind.AUDIO, "The sound is ADPCM: choose AAC."), *media(), None)
        await session.run()
        warning, *_ = await heard.until(
            EventType.INGRESS_WARNING,
            EventType.PARTICIPANT_JOINED,
            EventType.INGRESS_STARTED,
            EventType.INGRESS_STOPPED,
            EventType.PARTICIPANT_LEFT,
        )
    who = {"user_id": "ada", "protocol": publisher.protocol, "software": publisher.software, "stream": publisher.id}
    assert warning == {**who, "reason": "The sound is ADPCM: choose AAC."}


async def test_a_stream_that_is_not_taken_never_started() -> None:
    bus, heard, publisher = Bus(), Heard(), MemoryPublisher()
    with bus.listening(heard):
        session = session_of(publisher, bus)
        publisher.say(ProtocolError("choose another codec"))
        await session.run()
        (error,) = await heard.until(EventType.INGRESS_ERROR)
    assert error["reason"] == "choose another codec"


async def test_a_refusal_is_told_to_the_call_it_was_for() -> None:
    bus, heard, publisher = Bus(), Heard(), MemoryPublisher()
    with bus.listening(heard):
        refusal = Rejected(Reason.CONFLICT, "stop the other one first")
        EventProducers(bus, lambda credential, call: None).refused(publisher, refusal)  # a stranger
        EventProducers(bus, lambda credential, call: ("ada", CALL)).refused(publisher, refusal)
        (error,) = await heard.until(EventType.INGRESS_ERROR)
    assert (error["user_id"], error["reason"], heard.events[0].cid) == ("ada", "stop the other one first", CALL)


async def test_viewers_are_told_as_one_number_however_many_come_at_once() -> None:
    bus, heard, viewers = Bus(), Heard(), list[int]()
    said = EventProducers(bus, whose=unheard, viewers_s=0.02)
    with bus.listening(heard):
        for n in range(100):
            viewers.append(n)
            said.viewers(CALL, lambda: len(viewers))
        assert await heard.until(EventType.VIEWERS_CHANGED) == [{"viewers": 100}]
        viewers.clear()
        said.viewers(CALL, lambda: len(viewers))
        assert await heard.until(*[EventType.VIEWERS_CHANGED] * 2) == [{"viewers": 100}, {"viewers": 0}]


NOW = datetime(2026, 11, 25, tzinfo=UTC)
BACKSTAGE = Call("livestream", "demo", "john", NOW, NOW, backstage=True)
LIVE = replace(BACKSTAGE, backstage=False, live_started_at=NOW)
ENDED = replace(BACKSTAGE, ended_at=NOW)


@pytest.mark.parametrize(
    ("before", "after", "types"),
    [
        (None, None, []),
        (None, BACKSTAGE, [EventType.CALL_CREATED]),
        (LIVE, None, [EventType.CALL_DELETED]),
        (BACKSTAGE, LIVE, [EventType.CALL_LIVE_STARTED]),
        (LIVE, BACKSTAGE, [EventType.CALL_LIVE_ENDED]),
        (LIVE, ENDED, [EventType.CALL_ENDED]),
        (LIVE, replace(LIVE, custom={"a": 1}), [EventType.CALL_UPDATED]),
        (LIVE, LIVE, []),
    ],
)
def test_what_the_difference_of_a_record_means(before: Call | None, after: Call | None, types: list[EventType]) -> None:
    assert list(happened(before, after)) == types


async def test_what_was_done_elsewhere_is_marked_so() -> None:
    bus, heard = Bus(), Heard()
    with bus.listening(heard):
        CallEvents(bus).elsewhere(BACKSTAGE, LIVE)
        (told,) = await heard.until(EventType.CALL_LIVE_STARTED)
    assert told["call"]["live"] is True
    assert heard.events[0].elsewhere


async def test_another_of_a_streams_encoders_is_told_of_and_one_that_takes_its_place() -> None:
    bus, heard = Bus(), Heard()
    first, second, third = MemoryPublisher(), MemoryPublisher(), MemoryPublisher()
    begun = (EventType.PARTICIPANT_JOINED, EventType.INGRESS_STARTED)
    with bus.listening(heard):
        session = session_of(first, bus)
        task = asyncio.create_task(session.run())
        first.say(*media())
        await heard.until(*begun)
        await session.take_over(second, 2)
        second.say(*media())

        async def well() -> bool:
            return any(each.well_since(monotonic_ns()) is not None for each in session.inputs.standing_by)

        await eventually(well, within_s=10, every_s=0.01)
        first.say(None)
        again = (EventType.INGRESS_STOPPED, EventType.INGRESS_STARTED, EventType.INGRESS_SWITCHED)
        *_, switched = await heard.until(*begun, *again)
        await session.take_over(third, 2)
        third.say(*media())
        replaced = (EventType.INGRESS_STOPPED, EventType.INGRESS_STARTED, EventType.INGRESS_TAKEN_OVER)
        *_, taken_over = await heard.until(*begun, *again, *replaced)
        session.end("the test is over")
        await task
    who = {"user_id": "ada", "protocol": second.protocol, "software": second.software, "stream": first.id}
    assert switched == {**who, "from": 1, "to": 2, "cause": "closed"}
    assert taken_over == who
