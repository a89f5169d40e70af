"""The session's clock: from 0, one offset for all tracks, strictly rising dts, and jumps that tear nothing apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sessions.timeline import JOIN_BEHIND, STEP, Timeline
from protocols.media import EncodedPacket
from tests.support.unheard import unheard

MS = 1_000_000
SECOND = 1000 * MS
VIDEO, AUDIO = 1, 2
FRAME, AAC = 40 * MS, 20 * MS


@dataclass(frozen=True)
class At:
    """A packet by its track, the publisher's dts and pts, and when it came."""

    track: int
    dts: int
    arrival: int
    delay: int = 0  # pts - dts


def run(timeline: Timeline, packets: Iterable[At]) -> list[EncodedPacket]:
    return [timeline.map(EncodedPacket(p.track, p.dts + p.delay, p.dts, False, b"", p.arrival, p.arrival)) for p in packets]


def stream(start: int, arrival: int, duration: int, skew: int = 0) -> list[At]:
    """Both tracks in the order of their dts, sent in real time; audio is `skew` after video on the publisher's clock."""
    video = [At(VIDEO, start + t, arrival + t) for t in range(0, duration, FRAME)]
    audio = [At(AUDIO, start + t + skew, arrival + t) for t in range(0, duration, AAC)]
    return sorted(video + audio, key=lambda p: p.arrival)


def of(track: int, packets: list[EncodedPacket]) -> list[int]:
    return [p.dts for p in packets if p.track == track]


def rises(packets: list[EncodedPacket]) -> bool:
    tracks = {p.track for p in packets}
    return all(a < b for track in tracks for a, b in pairwise(of(track, packets)))


@given(st.integers(-(10**18), 10**18), st.integers(0, 10**18), st.integers(0, 400 * MS))
def test_any_origin_becomes_zero_and_alignment_stays_exact(start: int, arrival: int, skew: int) -> None:
    timeline = Timeline(unheard)
    out = run(timeline, stream(start, arrival, 2 * SECOND, skew))
    assert of(VIDEO, out) == list(range(0, 2 * SECOND, FRAME))
    assert of(AUDIO, out) == [t + skew for t in range(0, 2 * SECOND, AAC)]
    assert timeline.rebases == 0


def test_composition_times_and_arrivals_are_kept() -> None:
    (out,) = run(Timeline(unheard), [At(VIDEO, 7 * SECOND, 123, delay=80 * MS)])
    assert (out.dts, out.pts, out.arrival) == (0, 80 * MS, 123)


@given(st.integers(-(10**15), 80 * SECOND) | st.integers(100 * SECOND, 10**15), st.integers(-200 * MS, 200 * MS))
def test_encoder_restart_moves_both_tracks_by_one_offset(restart: int, skew: int) -> None:
    timeline = Timeline(unheard)
    before = run(timeline, stream(90 * SECOND, 0, 3 * SECOND))
    after = run(timeline, stream(restart, 3 * SECOND, 3 * SECOND, skew))
    assert timeline.rebases == 1
    assert rises(before + after)
    settled = 20  # frames, by when what was nudged at the seam has passed
    video, audio = of(VIDEO, after)[settled:], of(AUDIO, after)[2 * settled :]
    assert abs(video[0] - (3 * SECOND + settled * FRAME)) <= 250 * MS  # goes on where the arrival says
    assert audio[0] - video[0] == skew


@pytest.mark.parametrize("lag", [0, 100 * MS, 700 * MS])
def test_old_packets_of_the_other_track_after_a_restart_stay_on_the_old_clock(lag: int) -> None:
    """Audio is interleaved `lag` later than video: its last old packets come after video has restarted."""
    packets = stream(50 * SECOND, 0, 3 * SECOND) + stream(0, 3 * SECOND, 3 * SECOND)
    late = sorted(packets, key=lambda p: p.arrival + (lag if p.track == AUDIO else 0))
    packets = [At(p.track, p.dts, p.arrival + (lag if p.track == AUDIO else 0)) for p in late]
    timeline = Timeline(unheard)
    out = run(timeline, packets)
    assert timeline.rebases == 1
    assert rises(out)
    audio = of(AUDIO, out)
    steps = {b - a for a, b in pairwise(audio)}
    assert all(step == AAC for step in sorted(steps)[:-1])  # but for the one at the restart
    assert max(steps) <= AAC + FRAME
    assert audio[-1] - of(VIDEO, out)[-1] == FRAME - AAC  # aligned as the encoder sent them


@pytest.mark.parametrize("lag", [0, 700 * MS])
def test_a_restart_in_a_file_faster_than_real_time_goes_on_after_the_newest(lag: int) -> None:
    packets = stream(50 * SECOND, 0, 3 * SECOND) + stream(0, 3 * SECOND, 3 * SECOND)
    packets.sort(key=lambda p: p.arrival + (lag if p.track == AUDIO else 0))
    out = run(timeline := Timeline(unheard), [At(p.track, p.dts, p.arrival // 10) for p in packets])
    assert timeline.rebases == 1
    for track, step in ((VIDEO, FRAME), (AUDIO, AAC)):
        seams = [b - a for a, b in pairwise(of(track, out)) if b - a != step]
        assert len(seams) <= 1
        assert all(step < seam <= 2 * FRAME for seam in seams)
    video, audio = of(VIDEO, out), of(AUDIO, out)
    assert audio[-1] - video[-1] == FRAME - AAC


def test_a_session_goes_on_from_the_origin_of_a_returning_encoder() -> None:
    timeline = Timeline(unheard, origin=70 * SECOND)
    out = run(
        timeline, [At(VIDEO, 5 * SECOND, 0), At(AUDIO, 5 * SECOND - 60 * MS, 0), *stream(5 * SECOND + FRAME, FRAME, SECOND)]
    )
    assert (out[0].dts, out[1].dts) == (70 * SECOND, 70 * SECOND)
    assert out[2].dts == 70 * SECOND + FRAME
    assert timeline.rebases == 0


@pytest.mark.parametrize("later", [400 * MS, 0, -400 * MS])
def test_what_comes_of_a_returning_encoder_is_where_the_sessions_clock_is_when_it_arrives(later: int) -> None:
    timeline = Timeline(unheard, origin=70 * SECOND, since=5 * SECOND)
    out = run(timeline, stream(3 * SECOND, 5 * SECOND + later, SECOND))
    assert all(packet.dts == 70 * SECOND + packet.arrival - 5 * SECOND for packet in out)


def test_pictures_out_of_order_keep_their_times_in_a_burst() -> None:
    timeline = Timeline(unheard, origin=70 * SECOND, since=0)
    shown = [3, 1, 2, 6, 4, 5, 9, 7, 8]
    out = run(timeline, [At(VIDEO, n * FRAME, 0, delay=(2 + at - n) * FRAME) for n, at in enumerate(shown)])
    assert [(packet.pts - out[0].pts) // FRAME for packet in out] == [at - 3 for at in shown]


def test_what_a_returning_encoder_sends_in_a_burst_is_of_the_past_and_both_tracks_stay_together() -> None:
    timeline = Timeline(unheard, origin=70 * SECOND, since=0)
    backlog = 400 * MS
    packets = [At(p.track, p.dts, max(p.arrival, backlog)) for p in stream(3 * SECOND, 0, 2 * SECOND, skew=5 * MS)]
    out = run(timeline, packets)
    assert rises(out)
    assert out[0].dts == 70 * SECOND + backlog
    live = [packet for packet in out if packet.arrival > backlog + 2 * FRAME]
    assert {packet.dts - 70 * SECOND - packet.arrival for packet in live if packet.track == VIDEO} == {-5 * MS}
    assert {packet.dts - 70 * SECOND - packet.arrival for packet in live if packet.track == AUDIO} == {0}


@pytest.mark.parametrize("jump", [-30 * SECOND, -SECOND, 5 * SECOND, 3600 * SECOND])
def test_a_jump_of_one_track_moves_that_track_only(jump: int) -> None:
    packets = [
        At(p.track, p.dts + (jump if p.track == AUDIO and p.arrival >= 3 * SECOND else 0), p.arrival)
        for p in stream(100 * SECOND, 0, 6 * SECOND)
    ]
    timeline = Timeline(unheard)
    out = run(timeline, packets)
    assert timeline.rebases == 1
    assert of(VIDEO, out) == list(range(0, 6 * SECOND, FRAME))
    assert all(abs(p.dts - p.arrival) <= FRAME for p in out)
    assert rises(out)


def test_a_track_that_jumps_back_again_finds_its_old_alignment() -> None:
    packets = [
        At(p.track, p.dts + (9 * SECOND if p.track == AUDIO and 2 * SECOND <= p.arrival < 4 * SECOND else 0), p.arrival)
        for p in stream(0, 0, 6 * SECOND)
    ]
    timeline = Timeline(unheard)
    out = run(timeline, packets)
    assert timeline.rebases == 1
    assert of(AUDIO, out)[-1] == 6 * SECOND - AAC


@pytest.mark.parametrize("bits_ms", [31, 32])
def test_a_wrapping_clock_goes_on(bits_ms: int) -> None:
    modulus = (1 << bits_ms) * MS
    packets = [At(p.track, p.dts % modulus, p.arrival) for p in stream(modulus - SECOND, 0, 3 * SECOND)]
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 1
    assert rises(out)
    assert all(abs(p.dts - p.arrival) <= FRAME for p in out)


def test_a_pause_of_the_encoder_is_no_jump() -> None:
    packets = stream(0, 0, SECOND) + stream(61 * SECOND, 61 * SECOND, SECOND)
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 0
    assert out[-1].dts == packets[-1].dts


def test_frames_dropped_by_the_encoder_in_a_stall_are_no_jump() -> None:
    """3 s without a packet; then what was on the way, and 2.5 s of the encoder's queue are missing."""
    packets = stream(0, 0, SECOND)
    packets += [At(p.track, p.dts, 4 * SECOND) for p in stream(SECOND, 0, 300 * MS)]
    packets += [At(p.track, p.dts, max(p.arrival, 4 * SECOND)) for p in stream(3800 * MS, 3800 * MS, SECOND)]
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 0
    assert [p.dts for p in out] == [p.dts for p in packets]


def test_a_stall_delays_nothing_in_session_time() -> None:
    packets = [
        At(p.track, p.dts, max(p.arrival, 5 * SECOND) if p.arrival >= 2 * SECOND else p.arrival)
        for p in stream(0, 0, 8 * SECOND)
    ]
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 0
    assert out[-1].dts == packets[-1].dts


def test_a_file_faster_than_real_time_is_no_jump() -> None:
    packets = [At(p.track, p.dts, p.arrival // 10) for p in stream(0, 0, 60 * SECOND)]
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 0
    assert out[-1].dts == packets[-1].dts


def test_a_leap_is_measured_against_recent_arrivals_only() -> None:
    """A publisher whose clock loses 1 % against ours for ten minutes: a leap of 4 s is still seen."""
    slow = [At(p.track, p.dts, p.arrival * 101 // 100) for p in stream(0, 0, 600 * SECOND)]
    after = [At(p.track, p.dts, p.arrival + 6 * SECOND) for p in stream(604 * SECOND, 600 * SECOND, SECOND)]
    timeline = Timeline(unheard)
    run(timeline, slow)
    assert timeline.rebases == 0
    run(timeline, after)
    assert timeline.rebases == 1


def test_a_late_track_joins_on_the_common_clock() -> None:
    packets = [p for p in stream(7 * SECOND, 0, 20 * SECOND, skew=5 * MS) if p.track == VIDEO or p.arrival >= 10 * SECOND]
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 0
    assert of(AUDIO, out)[0] == 10 * SECOND + 5 * MS


@pytest.mark.parametrize("origin", [-JOIN_BEHIND - 5 * SECOND, 1000 * SECOND])
def test_a_track_with_another_origin_starts_where_the_session_is(origin: int) -> None:
    packets = [At(p.track, p.dts + (origin if p.track == AUDIO else 0), p.arrival) for p in stream(0, 0, 4 * SECOND)]
    out = run(Timeline(unheard), [p for p in packets if p.track == VIDEO or p.arrival >= SECOND])
    assert of(VIDEO, out) == list(range(0, 4 * SECOND, FRAME))
    assert abs(of(AUDIO, out)[0] - SECOND) <= FRAME


def test_earlier_packets_of_a_second_track_are_lifted_to_zero_and_then_aligned() -> None:
    packets = [At(VIDEO, 0, 0), *(At(AUDIO, -60 * MS + i * AAC, 0) for i in range(8))]
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 0
    assert of(AUDIO, out) == [0, STEP, 2 * STEP, 3 * STEP, AAC, 2 * AAC, 3 * AAC, 4 * AAC]


def test_repeated_timestamps_are_nudged_and_the_nudge_is_bounded() -> None:
    packets = [At(VIDEO, 5, i * FRAME) for i in range(1000)]
    out = run(Timeline(unheard), packets)
    assert rises(out)
    assert of(VIDEO, out)[1] == STEP
    assert abs(out[-1].dts - packets[-1].arrival) < 15 * SECOND  # it goes on with arrivals, in steps


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-(2**63), 2**63), st.integers(-SECOND, SECOND), st.integers(0, 3 * SECOND)),
        max_size=60,
    )
)
def test_whatever_comes_dts_rises_from_zero_and_pts_is_not_below(items: list[tuple[int, int, int, int]]) -> None:
    arrival = 0
    packets = []
    for track, dts, delay, waited in items:
        arrival += waited
        packets.append(At(track, dts, arrival, delay))
    out = run(Timeline(unheard), packets)
    assert rises(out)
    assert all(p.pts >= p.dts >= 0 for p in out)


@given(st.lists(st.integers(0, 300 * MS), min_size=225, max_size=225))
def test_jitter_on_the_way_changes_nothing(jitter: list[int]) -> None:
    packets = []
    arrival = 0
    for packet, wait in zip(stream(3 * SECOND, 0, 3 * SECOND), jitter, strict=True):
        arrival = max(arrival, packet.arrival + wait)
        packets.append(At(packet.track, packet.dts, arrival))
    out = run(timeline := Timeline(unheard), packets)
    assert timeline.rebases == 0
    assert [p.dts for p in out] == [p.dts - 3 * SECOND for p in packets]
