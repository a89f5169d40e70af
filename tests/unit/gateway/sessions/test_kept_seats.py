"""Seats over the end of their process: who comes back, as whom, who does not, and what others are told of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic_ns

import pytest

from gateway.model.kept import KeptSeat
from gateway.model.records import Json, Settings
from gateway.sessions.admission import Admission
from gateway.sessions.kept_seats import NOT_BACK, KeptSeats
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat, SeatPolicy
from gateway.sessions.seat_state import SeatChange
from gateway.sessions.socket_watch import WatchPolicy
from gateway.store.database import StoreUnavailable
from gateway.store.seats import Seats
from gateway.store.store import Store
from gateway.telemetry.tracing import untraced
from protocols.media import Kind, TracksChanged
from tests.support.memory import H264, EnoughRoom, MemoryCall, MemoryPublisher, packet
from tests.support.unheard import WayOut, unheard
from tests.unit.gateway.sessions.test_admission import MemoryListener, OpenGate
from transcode.host.pool import Workers
from transcode.plan import Policy, plan

CALL = "livestream:demo"


@dataclass
class Tape:
    """A resumable destination: it keeps how many seats it has had."""

    name: str = "tape"
    events: list[tuple[str, object]] = field(default_factory=list)
    changed: Callable[[], None] = unheard

    def follow(self, on_change: Callable[[], None]) -> None:
        self.changed = on_change

    def kept(self, cid: str, user_id: str) -> Json | None:
        return {"of": user_id}

    def resume(self, seat: KeptSeat, away: int) -> None:
        self.events.append(("resume", seat.outputs.get(self.name)))

    def give_up(self, cid: str, user_id: str) -> None:
        self.events.append(("give up", user_id))

    def hand_over(self) -> None:
        self.events.append(("hand over", None))


@dataclass
class Process:
    """One process of a gateway, as far as its seats are concerned."""

    kept: KeptSeats
    registry: Registry
    listener: MemoryListener
    tape: Tape
    call: MemoryCall
    told: list[tuple[str, str]] = field(default_factory=list)
    """What was told, and of which session."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, what: str, session: str) -> None:
        self.told.append((what, session))
        self.news.set()

    async def until(self, what: str) -> str:
        """The session that this is told of."""
        async with asyncio.timeout(20):
            while True:
                for said, session in self.told:
                    if said == what:
                        return session
                self.news.clear()
                await self.news.wait()

    def changed(self, seat: Seat, change: SeatChange) -> None:
        self.note(change.value, seat.id)

    def awaited(self, seat: KeptSeat) -> None:
        self.note("awaited", seat.session)

    def gave_up(self, seat: KeptSeat, why: str) -> None:
        assert why == NOT_BACK
        self.note("gave up", seat.session)

    async def publish(self, at_ms: int = 0) -> tuple[MemoryPublisher, Seat]:
        """An encoder of ada's; its seat once media of it are in the call."""
        publisher, before = MemoryPublisher("ada"), len(self.told)
        self.listener.publishers.put_nowait(publisher)
        publisher.say(TracksChanged((H264,)), packet(1, at_ms, keyframe=True))
        async with asyncio.timeout(10):
            while ("started", self.seat.id if self.registry.seats else "") not in self.told[before:]:
                self.news.clear()
                await self.news.wait()
        return publisher, self.seat

    @property
    def seat(self) -> Seat:
        return self.registry.seats[CALL, "ada"]


@asynccontextmanager
async def process(seats: Seats, *, node: str = "one", epoch: int = 1, grace_s: float = 10) -> AsyncIterator[Process]:
    """Leaving it is a kill: nothing is said to anybody, and nothing written."""
    call = MemoryCall()
    registry = Registry(lambda cid, on_empty: call)  # type: ignore[arg-type,return-value]
    tape, listener = Tape(), MemoryListener()
    told: list[Process] = []

    class Ears:
        def awaited(self, seat: KeptSeat) -> None:
            told[0].awaited(seat)

        def gave_up(self, seat: KeptSeat, why: str) -> None:
            told[0].gave_up(seat, why)

    kept = KeptSeats(
        registry, seats, [tape], lambda seat, change: told[0].changed(seat, change), Ears(), node=node, epoch=epoch
    )
    policy = SeatPolicy(
        decide=lambda track, want: plan(track, want, Policy()),
        live_edge=LiveEdgePolicy(),
        watch=WatchPolicy(),
        linger_s=grace_s,
        max_bitrate=0,
        on_retired=registry.retire,
        room=EnoughRoom(),
        on_change=kept.changed,
    )
    admission = Admission(
        registry,
        OpenGate(Settings()),
        Workers(),
        (),
        max_sessions=4,
        on_conflict="take_over",
        closing=WayOut(),
        adapt=lambda policy, grant: policy,
        fits=unheard,
        on_refused=unheard,
        trace=untraced,
        awaited=kept,
    )
    told.append(Process(kept, registry, listener, tape, call))
    await kept.restore()
    running = [asyncio.create_task(kept.run()), asyncio.create_task(admission.serve(listener, policy))]
    try:
        yield told[0]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/gateway.db") as opened:
        yield opened


async def written(store: Store, *, there: bool = True) -> KeptSeat | None:
    """ada's row, once it is there, or has gone."""
    async with asyncio.timeout(10):
        while True:
            found = await store.seats.find(CALL, "ada")
            if (found is not None) is there:
                return found


async def test_after_a_crash_the_encoder_goes_on_as_the_same_participant(store: Store) -> None:
    async with process(store.seats) as before:
        _, seat = await before.publish()
        assert await written(store) is not None
        media = seat.media_now(monotonic_ns())
        session, started_at = seat.id, seat.started_at
    async with process(store.seats, epoch=2) as after:
        assert after.told == [("awaited", session)]
        assert after.tape.events == [("resume", {"of": "ada"})]
        publisher, again = await after.publish()
        assert (again.id, again.started_at, again.reconnects) == (session, started_at, 1)
        assert publisher.id != session
        assert again.media_now(monotonic_ns()) >= media
        video = await after.call.sink(Kind.VIDEO)
        await video.until(1)
        assert video.packets[0].dts >= media
        await after.until("resumed")
        assert [what for what, _ in after.told] == ["awaited", "started", "resumed"], "they never left"
        totals = dict(after.registry.totals())["rtmp"]
        assert totals.interruptions == {"restart": 1}
        assert sum(totals.gaps.counts) == 1
        found = await written(store)
        async with asyncio.timeout(10):
            while found is not None and (found.node, found.reconnects) != ("one", 1):
                found = await store.seats.find(CALL, "ada")
        assert found is not None
        assert (found.session, found.reconnects, found.epoch) == (session, 1, 2)


async def test_who_does_not_come_back_within_the_grace_has_left_and_that_is_told_once(store: Store) -> None:
    async with process(store.seats, grace_s=0.5) as before:
        _, seat = await before.publish()
        await written(store)
        session = seat.id
    async with process(store.seats, epoch=2) as one, process(store.seats, node="two") as two:
        await asyncio.wait(
            [asyncio.create_task(each.until("gave up")) for each in (one, two)], return_when=asyncio.FIRST_COMPLETED
        )
        await one.until("awaited")
        await written(store, there=False)
        told = [each for each in (*one.told, *two.told) if each[0] == "gave up"]
        assert told == [("gave up", session)]
        assert ("give up", "ada") in one.tape.events
        _, seat = await one.publish()
        assert (seat.id == session, seat.reconnects) == (False, 0)
        assert ("joined", seat.id) in one.told


async def test_who_was_stopped_does_not_come_back(store: Store) -> None:
    async with process(store.seats) as before:
        _, seat = await before.publish()
        await written(store)
        seat.end("the host has stopped it")
        assert await before.until("left") == seat.id
        await written(store, there=False)
    async with process(store.seats, epoch=2) as after:
        _, again = await after.publish()
        assert (again.id == seat.id, again.reconnects) == (False, 0)
        assert after.told[0] == ("joined", again.id)


async def test_who_is_handed_over_has_not_left_and_goes_on_wherever_they_come(store: Store) -> None:
    async with process(store.seats) as before:
        _, seat = await before.publish()
        await before.kept.hand_over()
        seat.end("the gateway is restarted")
        async with asyncio.timeout(10):
            while before.registry.seats:
                await before.registry.changed.wait()
        assert "left" not in dict(before.told)
        assert ("hand over", None) in before.tape.events
        async with process(store.seats, node="two") as other:
            _, again = await other.publish()
            assert (again.id, again.reconnects) == (seat.id, 1)


async def test_where_no_grace_is_given_the_end_of_the_process_is_the_seats(store: Store) -> None:
    async with process(store.seats, grace_s=0) as before:
        _, seat = await before.publish()
        await written(store)
        await before.kept.hand_over()
        seat.end("the gateway is restarted")
        assert await before.until("left") == seat.id
        assert await store.seats.find(CALL, "ada") is None


async def test_the_seat_of_another_node_is_left_to_it_while_it_is_there(store: Store) -> None:
    async with process(store.seats) as one:
        _, seat = await one.publish()
        await written(store)
        async with process(store.seats, node="two") as two:
            _, other = await two.publish()
            assert other.id != seat.id
            since = datetime.now(UTC)
            while (found := await written(store)) is None or found.written_at < since:
                for each in (two, one):
                    each.tape.changed()
            assert (found.session, found.node) == (seat.id, "one")


async def test_one_that_never_comes_into_its_call_is_awaited_as_before(store: Store) -> None:
    async with process(store.seats) as before:
        _, seat = await before.publish()
        await written(store)
    async with process(store.seats, epoch=2) as after:
        broken = MemoryPublisher("ada")
        after.listener.publishers.put_nowait(broken)
        broken.say(None)
        async with asyncio.timeout(10):
            await broken.closed.wait()
            while after.registry.seats:
                await after.registry.changed.wait()
        _, again = await after.publish()
        assert (again.id, again.reconnects) == (seat.id, 1)
        assert "left" not in dict(after.told)


class Away(Seats):
    """A store that does not answer once the process has begun."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def left_by(self, *_: object) -> tuple[KeptSeat, ...]:
        return ()

    async def find(self, cid: str, user_id: str) -> KeptSeat | None:
        self.asked.set()
        raise StoreUnavailable

    async def keep(self, *_: object) -> None:
        raise StoreUnavailable


async def test_a_store_that_does_not_answer_keeps_nobody_out_and_ends_nothing() -> None:
    away = Away()
    async with process(away) as it:
        _, seat = await it.publish()
        assert away.asked.is_set()
        await it.kept.hand_over()
        seat.end("the gateway is restarted")
        assert await it.until("left") == seat.id, "nothing was handed over"
