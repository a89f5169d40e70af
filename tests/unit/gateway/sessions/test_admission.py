"""Who is let in while somebody is there already."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from time import monotonic_ns

import pytest

from gateway.access.credentials import Grant, Identity
from gateway.model.records import MAX_PARTICIPANTS, CallLimits, OnConflict, Settings
from gateway.sessions.admission import MOST_INPUTS, STREAMS_AT_ONCE, STREAMS_PER_S, Admission
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat, SeatPolicy
from gateway.sessions.seat_state import SeatState
from gateway.sessions.socket_watch import WatchPolicy
from gateway.telemetry.tracing import untraced
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import Codec, Kind, TracksChanged
from protocols.metric import MetricFamily
from protocols.publisher import Applicant, BoundPort, Credential, Publisher, ReachedBy
from protocols.rate_limit import SECOND, RateLimit
from tests.support.memory import H264, OPUS, EnoughRoom, MemoryCall, MemoryPublisher, packet
from tests.support.unheard import WayOut, unheard
from tests.support.waiting import eventually
from tests.unit.transcode.media import tone
from transcode.host.pool import Workers
from transcode.plan import Policy, plan

NO_LIMITS = CallLimits()


class MemoryListener:
    protocol = "rtmp"
    ports: Sequence[BoundPort] = ()

    def __init__(self) -> None:
        self.publishers: asyncio.Queue[Publisher] = asyncio.Queue()
        self.authorise: Callable[[Applicant], Awaitable[None]]

    async def __aenter__(self) -> "MemoryListener":
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def __aiter__(self) -> AsyncIterator[Publisher]:
        while True:
            yield await self.publishers.get()

    def failures(self) -> Mapping[str, int]:
        return {}

    def refusals(self) -> Mapping[str, int]:
        return {}

    def counters(self) -> Iterable[MetricFamily]:
        return ()

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]:
        return {}


class OpenGate:
    """Lets in whoever comes, as the user that the key names, with the rank behind a `#`, into one call of these settings, which `exists` or
    is made once `may_make`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.exists = True
        self.on_conflict: OnConflict | None = None  # as each key says
        self.making, self.may_make = asyncio.Event(), asyncio.Event()

    async def prepare(self, credential: Credential, call: str | None) -> None: ...

    def examine(self, credential: Credential, call: str | None, address: str) -> Grant:
        muted = frozenset({Kind.VIDEO} if credential.key == "muted" else ())
        user, _, rank = credential.key.partition("#")
        identity = Identity(user, rank=int(rank or 1), on_conflict=self.on_conflict)
        return Grant(user, "livestream:demo", 0, identity, self.settings, muted=muted, exists=self.exists)

    async def settle(self, grant: Grant) -> Grant:
        self.making.set()
        await self.may_make.wait()
        return grant


@asynccontextmanager
async def receiving(
    *,
    on_conflict: OnConflict,
    workers: Workers | None = None,
    limits: CallLimits = NO_LIMITS,
    max_sessions: int = 4,
    gate: OpenGate | None = None,
) -> AsyncIterator[tuple[MemoryListener, Registry, MemoryCall]]:
    call = MemoryCall()
    registry = Registry(lambda cid, on_empty: call)  # type: ignore[arg-type,return-value]
    policy = SeatPolicy(
        decide=lambda track, want: plan(track, want, Policy()),
        live_edge=LiveEdgePolicy(),
        watch=WatchPolicy(),
        linger_s=10,
        max_bitrate=0,
        on_retired=registry.retire,
        room=EnoughRoom(),
        on_change=lambda seat, change: None,
    )
    admission = Admission(
        registry,
        gate or OpenGate(Settings(limits=limits)),
        workers or Workers(),
        (),
        max_sessions=max_sessions,
        on_conflict=on_conflict,
        closing=WayOut(),
        adapt=lambda policy, grant: policy,
        fits=unheard,
        on_refused=unheard,
        trace=untraced,
    )
    listener = MemoryListener()
    listener.authorise = admission.authorise
    serving = asyncio.create_task(admission.serve(listener, policy))
    try:
        yield listener, registry, call
    finally:
        for session in registry.seats.values():
            session.end("the test is over")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def live(listener: MemoryListener, call: MemoryCall, at_ms: int = 0, user: str = "host") -> MemoryPublisher:
    publisher = MemoryPublisher(user)
    listener.publishers.put_nowait(publisher)
    publisher.say(TracksChanged((H264,)), packet(1, at_ms, keyframe=True))
    return publisher


async def test_a_busy_stream_is_refused_where_the_operator_says_so_but_not_while_it_waits_for_its_encoder() -> None:
    async with receiving(on_conflict="refuse") as (listener, registry, call), asyncio.timeout(10):
        first = await live(listener, call)
        video = await call.sink(Kind.VIDEO)
        await video.until(1)
        second = await live(listener, call)
        await second.closed.wait()
        assert second.rejected is not None
        assert second.rejected.reason is Reason.CONFLICT
        assert registry.refused == {("rtmp", "conflict"): 1}
        assert not first.closed.is_set()
        first.say(None)
        await first.closed.wait()
        third = await live(listener, call)
        await third.accepted.wait()
        assert third.rejected is None
        assert call.joined == 1


async def test_who_asks_before_there_is_a_publisher_hears_the_same_and_counts_once() -> None:
    async with receiving(on_conflict="refuse") as (listener, registry, call), asyncio.timeout(10):
        await listener.authorise(MemoryPublisher("host"))
        await live(listener, call)
        await (await call.sink(Kind.VIDEO)).until(1)
        applicant = MemoryPublisher("host")
        with pytest.raises(Rejected) as refused:
            await listener.authorise(applicant)
        assert refused.value.reason is Reason.CONFLICT
        assert registry.refused == {("rtmp", "conflict"): 1}
        assert applicant.rejected is None  # it is the listener that answers


async def test_who_begins_one_stream_after_the_other_is_slowed_and_nobody_else() -> None:
    async with receiving(on_conflict="take_over") as (listener, registry, _):

        async def begin_until_refused() -> tuple[int, Rejected]:
            for begun in range(10 * STREAMS_AT_ONCE):
                try:
                    await listener.authorise(MemoryPublisher("host"))
                except Rejected as refusal:
                    return begun, refusal
            raise AssertionError("nothing was refused")

        begun, refusal = await begin_until_refused()
        assert begun >= STREAMS_AT_ONCE
        assert (refusal.reason, refusal.wait_s) == (Reason.TOO_MANY_REQUESTS, 1)
        assert "wait 1 s" in refusal.detail
        assert registry.refused == {("rtmp", "too_many_requests"): 1}
        await listener.authorise(MemoryPublisher("guest"))


def test_an_encoder_that_reconnects_every_second_is_never_slowed() -> None:
    begun = RateLimit(STREAMS_PER_S, STREAMS_AT_ONCE)
    assert all(begun.take("it", second * SECOND) for second in range(24 * 3600))


async def test_who_was_replaced_is_known_to_one_that_waited_for_its_call_to_be_made() -> None:
    gate = OpenGate(Settings(limits=NO_LIMITS))
    async with receiving(on_conflict="take_over", gate=gate) as (listener, _, call), asyncio.timeout(10):
        gate.exists = False
        waiting = await live(listener, call)
        await gate.making.wait()
        gate.exists = True
        replaced, present = await live(listener, call), MemoryPublisher("host")
        await (await call.sink(Kind.VIDEO)).until(1)
        replaced.stats.bytes_received, present.remote = 1000, "192.0.2.8:4711"
        listener.publishers.put_nowait(present)
        await present.accepted.wait()
        present.stats.bytes_received = 1000
        gate.may_make.set()
        await waiting.closed.wait()
        assert waiting.rejected is not None
        assert "has just replaced this one" in waiting.rejected.detail


async def test_otherwise_the_second_encoder_takes_over() -> None:
    async with receiving(on_conflict="take_over") as (listener, registry, call), asyncio.timeout(10):
        first = await live(listener, call)
        await (await call.sink(Kind.VIDEO)).until(1)
        second = await live(listener, call)
        await second.accepted.wait()
        assert first.why == "another encoder with the same key took over"
        (session,) = registry.seats.values()
        assert session.state is not SeatState.CLOSED


@pytest.mark.parametrize(("limits", "most"), [(CallLimits(max_participants=2), 2), (CallLimits(), MAX_PARTICIPANTS)])
async def test_a_call_takes_as_many_participants_as_it_is_set_and_its_own_stay(limits: CallLimits, most: int) -> None:
    async with (
        receiving(on_conflict="take_over", limits=limits, max_sessions=100) as (listener, registry, call),
        asyncio.timeout(10),
    ):
        for n in range(most):
            await (await live(listener, call, user=f"user{n}")).accepted.wait()
        beyond = await live(listener, call, user="one more")
        await beyond.closed.wait()
        assert beyond.rejected is not None
        assert beyond.rejected.detail == f"the call has its {most} participants already"
        assert registry.refused == {("rtmp", "overloaded"): 1}
        await (await live(listener, call, user="user0")).accepted.wait()  # another encoder of the same
        assert len(registry.seats) == most


async def test_who_is_muted_is_so_from_the_first_packet_on_and_with_the_next_encoder() -> None:
    async with receiving(on_conflict="take_over") as (listener, registry, call), asyncio.timeout(10):
        for number in range(2):
            publisher = MemoryPublisher("muted")
            listener.publishers.put_nowait(publisher)
            publisher.say(
                TracksChanged((H264, OPUS)), packet(1, 0, keyframe=True), packet(2, 5), packet(1, 33), packet(2, 25), None
            )
            await publisher.closed.wait()
            assert len(call.sinks[Kind.AUDIO].packets) == 2 * (number + 1)
        assert Kind.VIDEO not in call.sinks
        (session,) = registry.seats.values()
        assert session.muted == {Kind.VIDEO}


async def test_who_is_muted_of_all_that_they_send_is_let_in_all_the_same() -> None:
    async with receiving(on_conflict="take_over") as (listener, registry, call), asyncio.timeout(10):
        publisher = await live(listener, call, user="muted")
        publisher.say(packet(1, 33), None)
        await publisher.closed.wait()
        (session,) = registry.seats.values()
        assert (publisher.rejected, session.why_ended) == (None, "the connection broke off")
        assert (session.joined, call.sinks) == (True, {})


async def test_a_defect_met_with_one_publisher_loses_that_one_alone() -> None:
    class Broken(MemoryPublisher):
        async def reject(self, refusal: Rejected) -> None:
            raise ZeroDivisionError

    async with receiving(on_conflict="refuse") as (listener, _, call), asyncio.timeout(10):
        first = await live(listener, call)
        video = await call.sink(Kind.VIDEO)
        await video.until(1)
        listener.publishers.put_nowait(Broken("host"))  # refused, since the first is live
        first.say(packet(1, 33))
        await video.until(2)
        first.say(None)
        await first.closed.wait()
        await (await live(listener, call)).accepted.wait()


async def test_what_a_publisher_did_is_counted_at_every_moment_of_its_end() -> None:
    track, (first, *_) = tone(Codec.AAC, seconds=0.1)
    async with Workers() as workers, receiving(on_conflict="take_over", workers=workers) as (listener, registry, call):
        publisher = MemoryPublisher("host")
        listener.publishers.put_nowait(publisher)
        publisher.say(TracksChanged((track,)), first)
        await call.sink(Kind.AUDIO)
        publisher.say(None)  # the worker takes a while to end
        counted = []
        async with asyncio.timeout(10):
            while not publisher.closed.is_set():
                counted.append(sum(totals.packets[Kind.AUDIO] for _, totals in registry.totals()))
                await asyncio.sleep(0)
        assert counted == sorted(counted), "a total went back"
        assert sum(totals.packets[Kind.AUDIO] for _, totals in registry.totals()) == 1


@pytest.mark.parametrize("on_conflict", ["take_over", "refuse", "priority"])
async def test_who_breaks_off_and_is_back_at_once_is_no_rival_however_often(on_conflict: OnConflict) -> None:
    """Some of what they gave is still being made, in a worker that takes a while to end."""
    track, (first, *_) = tone(Codec.AAC, seconds=0.1)
    async with Workers() as workers, receiving(on_conflict=on_conflict, workers=workers) as (listener, registry, _):
        for time in range(4):
            publisher = MemoryPublisher("host")
            listener.publishers.put_nowait(publisher)
            publisher.say(TracksChanged((track,)), first._replace(pts=time * SECOND, dts=time * SECOND))
            await publisher.accepted.wait()
            publisher.stats.bytes_received = 1000
            (seat,) = registry.seats.values()

            async def has_gone(seat: Seat = seat) -> bool:
                return seat.inputs.live.ended

            publisher.say(ProtocolError("the connection broke"))
            await eventually(has_gone, within_s=10, every_s=0)
            await listener.authorise(MemoryPublisher("host"))
        assert seat.rivals.advice(monotonic_ns()) == ""


async def sending(listener: MemoryListener, call: MemoryCall, user: str) -> MemoryPublisher:
    """Live or standing by, with bytes that have just come."""
    publisher = await live(listener, call, user=user)
    await publisher.accepted.wait()
    publisher.stats.bytes_received = 1000
    return publisher


async def refusal_of(listener: MemoryListener, user: str) -> Rejected:
    with pytest.raises(Rejected) as refused:
        await listener.authorise(MemoryPublisher(user))
    return refused.value


@pytest.mark.parametrize("on_conflict", ["take_over", "refuse"])
async def test_keys_of_other_ranks_are_in_nobodys_way_and_each_has_one_place(on_conflict: OnConflict) -> None:
    async with receiving(on_conflict=on_conflict) as (listener, registry, call), asyncio.timeout(10):
        first = await sending(listener, call, "host")
        await (await call.sink(Kind.VIDEO)).until(1)
        second = await sending(listener, call, "host#2")
        (seat,) = registry.seats.values()
        assert [each.rank for each in seat.inputs.connected] == [1, 2]
        assert seat.publisher is first
        if on_conflict == "refuse":
            assert (await refusal_of(listener, "host#2")).reason is Reason.CONFLICT
        else:
            third = await live(listener, call, user="host#2")
            await third.accepted.wait()
            assert second.why == "another encoder with the same key took over"
        assert not first.closed.is_set()


async def test_a_stream_has_so_many_encoders_and_each_counts() -> None:
    async with (
        receiving(on_conflict="take_over", max_sessions=MOST_INPUTS + 1) as (listener, registry, call),
        asyncio.timeout(10),
    ):
        for rank in range(1, MOST_INPUTS + 1):
            await sending(listener, call, f"host#{rank}")
        refused = await refusal_of(listener, "host#99")
        assert (refused.reason, refused.detail) == (
            Reason.OVERLOADED,
            f"the stream has its {MOST_INPUTS} encoders already: stop one of them",
        )
        assert registry.encoders == MOST_INPUTS
        await sending(listener, call, "guest")
        assert (await refusal_of(listener, "another")).detail.startswith("the gateway has no room for another stream")
        await listener.authorise(MemoryPublisher("guest"))  # in place of its own
        assert (await refusal_of(listener, "guest#2")).detail.startswith("the gateway has no room for another stream")


async def test_by_priority_the_better_rank_replaces_and_the_worse_one_is_refused_while_that_sends() -> None:
    async with receiving(on_conflict="priority") as (listener, registry, call), asyncio.timeout(10):
        worse = await sending(listener, call, "host#2")
        await (await call.sink(Kind.VIDEO)).until(1)
        better = await sending(listener, call, "host#1")
        assert worse.why == "an encoder with a key of a better rank took over"
        refused = await refusal_of(listener, "host#2")
        assert refused.reason is Reason.CONFLICT
        assert refused.detail == "an encoder is live with a key of rank 1, before this one's 2: wait until it is gone"
        newer = MemoryPublisher("host#1")  # of the same rank the newer one counts
        newer.remote = "192.0.2.8:4711"
        listener.publishers.put_nowait(newer)
        await newer.accepted.wait()
        assert better.why == "another encoder with the same key took over"
        (seat,) = registry.seats.values()
        assert [each.rank for each in seat.inputs.connected] == [1]


async def test_a_key_has_its_own_say_in_what_becomes_of_who_is_there() -> None:
    gate = OpenGate(Settings(on_conflict="refuse"))
    async with receiving(on_conflict="take_over", gate=gate) as (listener, _, call), asyncio.timeout(10):
        await sending(listener, call, "host")
        await (await call.sink(Kind.VIDEO)).until(1)
        assert (await refusal_of(listener, "host")).detail.startswith("another encoder is live with this key: stop that one")
        gate.on_conflict = "take_over"
        await listener.authorise(MemoryPublisher("host"))
