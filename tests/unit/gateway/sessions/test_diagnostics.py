"""What a streamer is told of a stream, and what is not worth telling."""

import asyncio
from time import monotonic_ns

import pytest

from gateway.sessions.diagnostics import NOTED, Concern, findings
from gateway.sessions.pacer import LATE, OVERFLOW
from gateway.sessions.seat_state import Interruption, InterruptionCause, SeatChange
from protocols.media import Kind, TracksChanged
from protocols.publisher import PublisherStats
from tests.support.memory import H264, MemoryPublisher, packet
from tests.unit.gateway.sessions.test_seat import Running, running

S = 1_000_000_000


def concerns(it: Running, after_s: int = 0) -> set[Concern]:
    return {finding.concern for finding in findings(it.session, monotonic_ns() + after_s * S)}


async def live(publisher: MemoryPublisher, it: Running) -> None:
    publisher.say(TracksChanged((H264,)), packet(1, 0, keyframe=True))
    await (await it.call.sink(Kind.VIDEO)).until(1)


@pytest.mark.parametrize("on_demand", [False, True])
async def test_who_makes_key_frames_on_demand_gets_no_advice_about_them(on_demand: bool) -> None:
    publisher = MemoryPublisher()
    publisher.stats = PublisherStats(keyframes_on_demand=on_demand)
    async with running(publisher) as it:
        await live(publisher, it)
        assert it.session.pipeline is not None
        (track,) = it.session.pipeline.track_pipelines.values()
        track.meter.keyframe_interval = 10 * S
        assert (Concern.KEYFRAME_INTERVAL in concerns(it)) is not on_demand


@pytest.mark.parametrize(("reason", "concern"), [(LATE, Concern.LATE), (OVERFLOW, Concern.TOO_FAST)])
async def test_a_frame_or_two_that_were_dropped_are_no_finding(reason: str, concern: Concern) -> None:
    publisher = MemoryPublisher()
    async with running(publisher) as it:
        await live(publisher, it)
        assert it.session.pipeline is not None
        for dropped in range(NOTED + 1):
            it.session.pipeline._pacer.dropped[reason] = dropped
            assert (concern in concerns(it)) is (dropped >= NOTED)


@pytest.mark.parametrize(
    ("cause", "setting"),
    [
        (InterruptionCause.BLACK, "slate.black_s"),
        (InterruptionCause.FROZEN, "slate.frozen_s"),
        (InterruptionCause.NO_SOUND, "slate.silent_s"),
        (InterruptionCause.LOW_BITRATE, "slate.low_bitrate_bps"),
    ],
)
async def test_who_is_not_shown_is_told_why_and_by_which_setting(cause: InterruptionCause, setting: str) -> None:
    publisher = MemoryPublisher()
    async with running(publisher) as it:
        await live(publisher, it)
        assert Concern.NOT_SHOWN not in concerns(it)
        it.session.interrupted(Interruption(cause, monotonic_ns()), SeatChange.SLATE)
        it.session._continuity.interruption = Interruption(cause, monotonic_ns())
        (text,) = (each.text for each in findings(it.session, monotonic_ns()) if each.concern is Concern.NOT_SHOWN)
        assert setting in text


async def test_both_encoders_with_one_key_are_told_of_each_other() -> None:
    first, second = MemoryPublisher(), MemoryPublisher()
    async with running(first) as it, asyncio.timeout(10):
        first.stats.bytes_received = 1000
        await live(first, it)
        assert Concern.TWO_ENCODERS not in concerns(it)
        await it.session.take_over(second)
        await second.accepted.wait()
        assert Concern.TWO_ENCODERS in concerns(it)
        assert Concern.TWO_ENCODERS not in concerns(it, after_s=120)
