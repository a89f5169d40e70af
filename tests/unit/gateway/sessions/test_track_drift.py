"""Clocks that drift apart: what was captured together is shown together, an hour long; and what does not drift is not moved."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sessions.arrival_clock import ClockFault, StampPace
from gateway.sessions.timeline import Timeline
from protocols.media import Kind
from tests.support.arriving import AUDIO, MS, SECOND, VIDEO, Arriving

HOUR = 3600 * SECOND
IN_STEP = 60 * MS
SETTLED = 20  # s
SPURT = 340 * MS  # of sound, as ffmpeg puts into a PES


def offsets(arriving: Arriving, duration: int) -> tuple[dict[int, int], list[ClockFault]]:
    """By second of capture, how many ns sound is shown before the picture that was captured with it; and what was found."""
    faults: list[ClockFault] = []
    timeline = Timeline(faults.append)
    ahead: dict[int, dict[int, list[int]]] = {VIDEO: defaultdict(list), AUDIO: defaultdict(list)}
    for captured, packet in arriving.packets(duration):
        ahead[packet.track][captured // SECOND].append(timeline.map(packet).dts - captured)
    mean = {
        track: {second: sum(all_of) // len(all_of) for second, all_of in seconds.items()} for track, seconds in ahead.items()
    }
    return {second: mean[AUDIO][second] - mean[VIDEO][second] for second in mean[VIDEO] if second in mean[AUDIO]}, faults


@pytest.mark.parametrize("spurt", [0, SPURT])
@pytest.mark.parametrize(("rate", "pace"), [(0.998, StampPace.DRIFTING), (0.97, None), (0.9999, StampPace.DRIFTING)])
def test_an_hour_stays_in_step(rate: float, pace: StampPace | None, spurt: int) -> None:
    ahead, faults = offsets(Arriving({VIDEO: 1, AUDIO: rate}, spurt), HOUR)
    assert max(abs(each) for second, each in ahead.items() if second >= SETTLED) <= IN_STEP
    assert [fault.track for fault in faults] == [AUDIO]
    assert pace is None or faults[0].pace is pace
    assert faults[0].rate == pytest.approx(rate, abs=0.1 * abs(1 - rate))


@settings(max_examples=15, deadline=None)
@given(
    drifts=st.sampled_from([VIDEO, AUDIO]),
    drift=st.floats(0.0005, 0.02),
    fast=st.booleans(),
    jitter=st.integers(0, 60),
    seed=st.integers(0, 10**6),
)
def test_either_track_is_brought_back_through_jitter(drifts: int, drift: float, fast: bool, jitter: int, seed: int) -> None:
    rates = {VIDEO: 1.0, AUDIO: 1.0} | {drifts: 1 + drift if fast else 1 - drift}
    ahead, faults = offsets(Arriving(rates, jitter=jitter * MS, seed=seed), 150 * SECOND)
    assert max(abs(each) for second, each in ahead.items() if second >= SETTLED) <= IN_STEP
    assert faults


@settings(max_examples=15, deadline=None)
@given(
    both=st.floats(-0.0003, 0.0003),
    spurt=st.sampled_from([0, 0, 180 * MS, SPURT]),
    jitter=st.integers(0, 30),
    seed=st.integers(0, 10**6),
)
def test_a_clock_of_both_and_jitter_and_spurts_are_no_drift(both: float, spurt: int, jitter: int, seed: int) -> None:
    rates = {VIDEO: 1 + both, AUDIO: 1 + both}
    timeline_offsets, faults = offsets(Arriving(rates, spurt, jitter * MS, seed), 150 * SECOND)
    assert faults == []
    assert max(map(abs, timeline_offsets.values())) <= MS, "nothing is moved"


def test_sound_that_comes_later_from_some_time_on_stays_where_its_stamps_are() -> None:
    """A step is no drift."""
    faults: list[ClockFault] = []
    timeline = Timeline(faults.append)
    early = list(Arriving().packets(60 * SECOND))
    for _, packet in early:
        assert timeline.map(packet).dts == packet.dts
    for captured, packet in Arriving(late={VIDEO: 0, AUDIO: 200 * MS}).packets(180 * SECOND):
        if captured >= 60 * SECOND:
            assert timeline.map(packet).dts == packet.dts
    assert faults == []


def test_the_words_name_whose_clock_it_is_and_by_how_much() -> None:
    sound = ClockFault(AUDIO, StampPace.DRIFTING, 0.998).text(Kind.AUDIO)
    assert sound.startswith("The sound's clock runs 0.2 % slow against the picture's")
    assert (
        ClockFault(VIDEO, StampPace.DRIFTING, 1.001)
        .text(Kind.VIDEO)
        .startswith("The picture's clock runs 0.1 % fast against the sound's")
    )
