"""A session's life: live, lingering, taken over, refused, broken."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from time import monotonic_ns
from typing import Any

import pytest

from gateway.node.cpu import CpuRoom
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.sessions.capacity import Capacity, Demand, VideoCost, demand
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import OnChange, SeatView
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.registry import Registry
from gateway.sessions.rivals import LIVELY
from gateway.sessions.seat import Seat, SeatPolicy, SeatRoom
from gateway.sessions.seat_state import INTERRUPTED, TRANSITIONS, SeatChange, SeatState
from gateway.sessions.socket_watch import WatchPolicy
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import Codec, Kind, Lack, LeftOut, Track, TracksChanged
from tests.support.memory import H264, OPUS, EnoughRoom, MemoryCall, MemoryPublisher, packet
from transcode.host.pool import Workers
from transcode.plan import Policy, Want, plan


@dataclass
class Running:
    session: Seat
    call: MemoryCall
    task: "asyncio.Task[None]"
    retired: list[PipelineCounters] = field(default_factory=list)
    states: list[SeatState] = field(default_factory=list)
    """After each change that others are told of, from its first media on."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, seat: Seat, change: SeatChange) -> None:
        if change in (SeatChange.STARTED, *INTERRUPTED):
            self.states.append(seat.state)
            self.changed.set()

    async def until(self, *states: SeatState) -> None:
        while self.states != list(states):
            self.changed.clear()
            await self.changed.wait()

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self.task


@asynccontextmanager
async def running(
    publisher: MemoryPublisher,
    *,
    linger_s: float = 10,
    stop_linger_s: float = 0,
    call: MemoryCall | None = None,
    room: SeatRoom | None = None,
    workers: Workers | None = None,
    track_timeout_s: float = 10,
    max_bitrate: int = 0,
    watch: WatchPolicy | None = None,
) -> AsyncIterator[Running]:
    """A seat for this publisher. `workers` only where it transcodes: their process must end with the test."""
    call = call or MemoryCall()
    told: list[Running] = []
    retired: list[PipelineCounters] = []
    policy = SeatPolicy(
        decide=lambda track, want: plan(track, want, Policy()),
        live_edge=LiveEdgePolicy(),
        watch=watch or WatchPolicy(),
        linger_s=linger_s,
        stop_linger_s=stop_linger_s,
        max_bitrate=max_bitrate,
        on_retired=lambda _, totals: retired.append(totals),
        room=room or EnoughRoom(),
        on_change=lambda seat, change: told[0].note(seat, change),
        track_timeout_s=track_timeout_s,
    )
    session = Seat(publisher, "ada", "livestream:demo", [call], workers or Workers(), policy)
    task = asyncio.create_task(session.run())
    told.append(Running(session, call, task, retired))
    try:
        yield told[0]
    finally:
        session.end("the test is over")
        async with asyncio.timeout(10):
            await task


async def test_media_reaches_the_call_on_the_sessions_time_line() -> None:
    publisher = MemoryPublisher()
    async with running(publisher) as it:
        publisher.say(TracksChanged((H264, OPUS)), packet(1, 5000, keyframe=True), packet(2, 5010), packet(1, 5033))
        video = await it.call.sink(Kind.VIDEO)
        await video.until(2)
        assert publisher.accepted.is_set()
        assert it.session.state is SeatState.LIVE
        assert [p.pts for p in video.packets] == [0, 33_000_000]
        assert [p.pts for p in it.call.sinks[Kind.AUDIO].packets] == [10_000_000]


async def test_however_often_an_output_changes_its_mind_a_seat_plans_once_a_second() -> None:
    planned, again = 0, asyncio.Event()

    class Fickle(MemoryCall):
        def wants(self, track: Track) -> Want | None:
            nonlocal planned
            planned += 1
            again.set()
            return super().wants(track)

    publisher, call = MemoryPublisher(), Fickle()
    async with running(publisher, call=call) as it:
        publisher.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        await (await it.call.sink(Kind.VIDEO)).until(1)
        call.changed()
        once = planned
        for _ in range(500):
            call.changed()
        assert planned == once
        it.session.withhold(frozenset({Kind.VIDEO}), frozenset())
        assert planned > once, "what is muted does not wait"
        again.clear()
        async with asyncio.timeout(10):
            await again.wait()


async def test_where_there_is_no_room_to_transcode_for_a_viewer_the_stream_passes_for_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vp8, capacity, publisher = replace(H264, codec=Codec.VP8), Capacity(1.0, 0.1), MemoryPublisher()
    registry = Registry(lambda cid, on_empty: EmbeddedCall(cid, max_participants=1, on_empty=on_empty))
    call = MemoryCall()
    assert call.accepts is not None
    call.carries = call.accepts | {Codec.VP8}
    capacity.admit("another", Demand(video=(VideoCost(1920, 1080, 60.0), VideoCost(640, 360, 30.0))))
    async with running(publisher, call=call, room=CpuRoom(capacity, registry)) as it:
        publisher.say(TracksChanged((vp8,)), packet(1, 0, keyframe=True))
        video = await it.call.sink(Kind.VIDEO)
        await video.until(1)
        assert video.track.codec is Codec.VP8
        assert it.session.state is SeatState.LIVE
    assert registry.refused.total() == 0
    assert caplog.text.count("vp8 passes though a viewer's player does not take it: the gateway is overloaded") == 1


async def test_of_a_publishers_layers_only_what_goes_into_the_call_needs_room() -> None:
    plans: list[Demand] = []
    sizes = {"f": 1280, "h": 640, "q": 320}
    layers = tuple(
        replace(H264, id=number, codec=Codec.VP8, layer=name, width=width, height=width * 9 // 16)
        for number, (name, width) in enumerate(sizes.items(), 1)
    )
    publisher = MemoryPublisher()

    class Noted(EnoughRoom):
        def admit(self, *asked: Any) -> None:
            _, wanted = asked
            plans.extend(map(demand, wanted))

    async with Workers() as workers, running(publisher, room=Noted(), workers=workers) as it:
        publisher.say(TracksChanged(layers), packet(1, 0, keyframe=True))
        await it.call.sink(Kind.VIDEO)
    assert [[(each.width, each.height) for each in plan.video] for plan in plans] == [[(1280, 720)]]


async def test_a_stream_of_which_nothing_is_taken_ends_with_what_was_left_out() -> None:
    publisher = MemoryPublisher()
    async with running(publisher, track_timeout_s=0.05) as it:
        publisher.say(LeftOut(Lack.CODEC, Kind.VIDEO, "The video is VP6: choose H.264."))
        await it.ended()
        assert it.session.why_ended == "no video or audio of a known codec came: The video is VP6: choose H.264."
        assert it.call.joined == 0


async def test_what_was_left_out_of_one_encoders_stream_is_not_said_of_the_next() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with running(first) as it:
        first.say(
            LeftOut(Lack.TRACK, Kind.AUDIO, "Track 1 is left out."), TracksChanged((H264,)), packet(1, 0, keyframe=True), None
        )
        await it.call.sink(Kind.VIDEO)
        async with asyncio.timeout(10):
            await first.closed.wait()
        assert [each.text for each in it.session.left_out] == ["Track 1 is left out."]
        await it.session.take_over(second)
        second.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        await (await it.call.sink(Kind.VIDEO)).until(2)
        assert it.session.left_out == []


async def test_an_encoder_that_ends_and_does_not_come_back_leaves_the_call_after_the_linger_time() -> None:
    publisher = MemoryPublisher()
    async with running(publisher, linger_s=0.05) as it:
        publisher.say(TracksChanged((H264,)), packet(1, 0, keyframe=True), None)
        await it.ended()
        assert it.call.left.is_set()
        assert it.session.state is SeatState.CLOSED
        assert it.session.why_ended == "the connection broke off"
        assert [totals.packets[Kind.VIDEO] for totals in it.retired] == [1]


async def test_an_encoder_that_was_stopped_is_waited_for_only_where_that_is_wished() -> None:
    for wished_s in (0.0, 20.0):
        publisher = MemoryPublisher()
        publisher.stats.stopped = True
        async with running(publisher, linger_s=10, stop_linger_s=wished_s) as it:
            publisher.say(TracksChanged((H264,)), packet(1, 0, keyframe=True), None)
            await it.call.sink(Kind.VIDEO)
            if not wished_s:
                await it.ended()
                assert it.session.why_ended == "the encoder ended the stream"
                continue
            async with asyncio.timeout(10):
                await publisher.closed.wait()
            assert it.session.state is SeatState.SLATE
            assert not it.call.left.is_set()


async def test_a_silent_encoder_stalls_and_what_comes_again_is_counted() -> None:
    publisher = MemoryPublisher()
    async with running(publisher) as it, asyncio.timeout(10):
        publisher.say(TracksChanged((H264,)), packet(1, 0, keyframe=True), packet(1, 40))
        await it.until(SeatState.LIVE, SeatState.STALLED, SeatState.SLATE)
        assert not it.session.rivals.sends(publisher, monotonic_ns(), LIVELY), "another one with the key is let in at once"
        publisher.say(packet(1, 2000, keyframe=True))
        await it.until(SeatState.LIVE, SeatState.STALLED, SeatState.SLATE, SeatState.LIVE)
        assert it.session.pipeline is not None
        totals = it.session.pipeline.gather()
        assert totals.interruptions == {"silent": 1}
        assert sum(totals.gaps.counts) == 1
        assert totals.gaps.total_s > 1.4


async def test_an_encoder_that_comes_back_is_the_same_participant_and_media_time_runs_on() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with running(first) as it:
        first.say(TracksChanged((H264,)), packet(1, 900_000, keyframe=True), ProtocolError("the connection was reset"))
        video = await it.call.sink(Kind.VIDEO)
        async with asyncio.timeout(10):
            await first.closed.wait()
        await it.session.take_over(second)
        second.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        await video.until(2)
        assert it.call.joined == 1
        assert it.session.reconnects == 1
        assert video.packets[1].pts > video.packets[0].pts
        assert not it.call.left.is_set()


async def test_a_second_encoder_with_the_same_right_takes_over_and_the_first_is_told() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with running(first) as it:
        first.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        video = await it.call.sink(Kind.VIDEO)
        await video.until(1)
        await it.session.take_over(second)
        second.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        await video.until(2)
        assert first.why == "another encoder with the same key took over"
        assert not second.closed.is_set()


async def test_of_two_that_want_to_take_over_at_once_the_later_wins_and_the_other_is_told() -> None:
    first, second, third = MemoryPublisher(), MemoryPublisher(), MemoryPublisher()
    async with running(first) as it:
        first.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        video = await it.call.sink(Kind.VIDEO)
        await it.session.take_over(second)
        await it.session.take_over(third)
        third.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        await video.until(2)
        assert second.rejected is not None
        assert second.rejected.reason is Reason.CONFLICT


async def test_a_call_that_refuses_tells_the_encoder_why() -> None:
    publisher = MemoryPublisher()
    full = MemoryCall(refuses=Rejected(Reason.OVERLOADED, "the call is full"))
    async with running(publisher, call=full, linger_s=0.05) as it:
        publisher.say(TracksChanged((H264,)))
        await it.ended()
        assert publisher.why == "the call is full"


async def test_ending_a_session_tells_the_encoder_and_leaves_the_call() -> None:
    publisher = MemoryPublisher()
    async with running(publisher) as it:
        publisher.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        await (await it.call.sink(Kind.VIDEO)).until(1)
        it.session.end("shutting down")
        await it.ended()
        assert publisher.why == "shutting down"
        assert it.call.left.is_set()
        with pytest.raises(Rejected):
            await it.session.take_over(MemoryPublisher())


async def test_an_encoder_that_never_sends_a_track_ends_without_joining() -> None:
    publisher = MemoryPublisher()
    async with running(publisher) as it:
        publisher.say(None)
        await it.ended()
        assert it.call.joined == 0


async def test_a_bug_in_the_call_ends_this_session_and_leaves_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryCall):
        async def join(self, seat: SeatView, on_change: OnChange) -> MemoryCall:
            raise ZeroDivisionError

    publisher = MemoryPublisher()
    async with running(publisher, call=Broken()) as it:
        publisher.say(TracksChanged((H264,)))
        await it.ended()
        assert publisher.closed.is_set()
        assert "ZeroDivisionError" in caplog.text


def test_every_state_is_in_the_table_and_closed_is_the_end() -> None:
    assert set(TRANSITIONS) == set(SeatState)
    assert TRANSITIONS[SeatState.CLOSED] == frozenset()
    assert all(SeatState.CLOSED in to for state, to in TRANSITIONS.items() if state is not SeatState.CLOSED)


async def test_a_session_that_is_ended_before_the_encoder_was_accepted_reads_nothing() -> None:
    publisher = MemoryPublisher()
    async with running(publisher) as it:
        it.session.end("shutting down")
        await it.ended()
        assert publisher.why == "shutting down"
        assert it.call.joined == 0


async def test_media_time_goes_on_behind_a_publisher_that_ran_ahead_of_real_time() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with running(first) as it:
        first.say(TracksChanged((H264,)), *(packet(1, n * 40, keyframe=n == 0) for n in range(40)))  # 1.6 s at once
        video = await it.call.sink(Kind.VIDEO)
        await video.until(20)
        await it.session.take_over(second)
        async with asyncio.timeout(10):
            await first.closed.wait()
        ahead = len(video.packets)
        second.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
        await video.until(ahead + 1)
        free = LiveEdgePolicy().free  # by so much a packet may be ahead of the live edge
        assert video.packets[-1].pts > video.packets[-2].pts - free


async def test_what_comes_over_the_connection_counts_though_no_frame_comes_of_it() -> None:
    publisher = MemoryPublisher()
    watch = WatchPolicy(window=2_000_000_000, every_s=0.01)  # not less, or a busy machine sleeps through it
    async with running(publisher, linger_s=0.05, max_bitrate=1_000_000, watch=watch) as it, asyncio.timeout(60):
        await publisher.accepted.wait()  # and looked at for the first time, in the same step
        publisher.stats.bytes_received = 100_000_000
        await publisher.closed.wait()
        assert "Mbit/s, more than the 2.5 Mbit/s allowed here" in publisher.why
        await it.ended()
