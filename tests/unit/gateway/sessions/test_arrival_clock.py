"""Clocks that are not live's: what keeps coming is shown as it comes, both tracks in step; and what is right stays as it is."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.sessions.arrival_clock import ClockFault, StampPace
from gateway.sessions.pacer import LiveEdgePolicy, Pacer
from gateway.sessions.timeline import Timeline
from protocols.media import EncodedPacket, Kind
from tests.support.unheard import unheard

MS = 1_000_000
SECOND = 1000 * MS
VIDEO, AUDIO = 1, 2
KINDS = {VIDEO: Kind.VIDEO, AUDIO: Kind.AUDIO}
STEPS = {VIDEO: 40 * MS, AUDIO: 21_333_333}
ORIGIN = 10**15  # local time of the first packet
SETTLED = 10 * SECOND
SHOWN = 0.98
IN_STEP = 60 * MS
LIVE = 700 * MS

Clock = Callable[[float], float]
"""The publisher's time at a real one, both in ns from 0."""


def at_rate(rate: float) -> Clock:
    return lambda t: t * rate


def wandering(swing: float, period: float) -> Clock:
    """Its rate swings about 1 by `swing`, once in `period` seconds."""
    turn = 2 * math.pi / (period * SECOND)
    return lambda t: t + swing / turn * (1 - math.cos(turn * t))


def wrong_between(begins: float, ends: float, rate: float) -> Clock:
    """Right but for these seconds, in which it runs at `rate`."""
    return lambda t: t + (rate - 1) * (min(max(t, begins * SECOND), ends * SECOND) - begins * SECOND)


@dataclass
class Shown:
    """What a timeline and a pacer make of it: each packet with the local time at which it went out, from 0."""

    came: int = 0
    sent: list[tuple[int, EncodedPacket]] = field(default_factory=list)
    mapped: list[EncodedPacket] = field(default_factory=list)
    faults: list[ClockFault] = field(default_factory=list)
    rebases: int = 0

    @property
    def share(self) -> float:
        return len(self.sent) / self.came

    def behind(self, track: int, after: int = SETTLED) -> list[tuple[int, int]]:
        """(arrival, by how much the time given is behind it), from 0."""
        return [
            (p.arrival - ORIGIN, p.arrival - ORIGIN - p.dts)
            for p in self.mapped
            if p.track == track and p.arrival >= ORIGIN + after
        ]

    def offset(self, after: int = SETTLED) -> int:
        """By how much the tracks are out of step at most, once settled: in the means of each second, by arrival."""
        means = []
        for track in (VIDEO, AUDIO):
            seconds: dict[int, list[int]] = {}
            for arrival, behind in self.behind(track, after):
                seconds.setdefault(arrival // SECOND, []).append(behind)
            means.append({second: sum(all_of) // len(all_of) for second, all_of in seconds.items()})
        video, audio = means
        return max(abs(video[second] - audio[second]) for second in video.keys() & audio.keys())


def show(clocks: dict[int, Clock], duration: int, delay: Callable[[int], int] = lambda t: 0) -> Shown:
    """Tracks by these clocks, stamped in ms, each packet under way for `delay` but never before the one before it, as over TCP."""
    pacer, shown = Pacer(LiveEdgePolicy()), Shown()
    timeline = Timeline(shown.faults.append)
    due = sorted((t, track) for track in clocks for t in range(0, duration, STEPS[track]))
    arrival = 0
    for t, track in due:
        arrival = max(arrival, t + delay(t))
        _release(pacer, shown, arrival)
        stamp = int(clocks[track](t)) // MS * MS
        keyframe = track == AUDIO or t % SECOND == 0
        packet = timeline.map(EncodedPacket(track, stamp, stamp, keyframe, b"", ORIGIN + arrival, ORIGIN + arrival))
        shown.came += 1
        shown.mapped.append(packet)
        pacer.push(packet, KINDS[track], ORIGIN + arrival, settling=timeline.settling(track))
        shown.sent += [(arrival, each) for each in pacer.pop(ORIGIN + arrival)]
    _release(pacer, shown, arrival + 2 * SECOND)
    shown.rebases = timeline.rebases
    return shown


def _release(pacer: Pacer, shown: Shown, until: int) -> None:
    while (release := pacer.next_release) is not None and release <= ORIGIN + until:
        shown.sent += [(release - ORIGIN, each) for each in pacer.pop(release)]


def assert_live_and_in_step(shown: Shown, after: int = SETTLED) -> None:
    assert shown.share >= SHOWN
    assert shown.offset(after) <= IN_STEP
    assert all(at - (packet.arrival - ORIGIN) <= LIVE for at, packet in shown.sent if packet.arrival >= ORIGIN + after)
    for track in (VIDEO, AUDIO):
        assert all(a < b for a, b in pairwise(p.dts for p in shown.mapped if p.track == track))
        assert all(a < b for a, b in pairwise(p.dts for _, p in shown.sent if p.track == track))


RIGHT = at_rate(1)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 0.9))
def test_an_encoder_slower_than_real_time_is_shown_as_it_comes(rate: float) -> None:
    shown = show({VIDEO: at_rate(rate), AUDIO: at_rate(rate)}, 30 * SECOND)
    assert_live_and_in_step(shown)
    assert [(fault.track, fault.pace) for fault in shown.faults] == [(None, StampPace.SLOW)]
    assert shown.faults[0].rate == pytest.approx(rate, abs=0.05)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([VIDEO, AUDIO]), st.floats(0.3, 0.95) | st.floats(1.05, 3))
def test_one_track_by_a_wrong_clock_is_shown_beside_the_right_one(wrong: int, rate: float) -> None:
    right = VIDEO + AUDIO - wrong
    shown = show({wrong: at_rate(rate), right: RIGHT}, 30 * SECOND)
    assert_live_and_in_step(shown)
    assert [(fault.track, fault.pace) for fault in shown.faults] == [(wrong, StampPace.SLOW if rate < 1 else StampPace.FAST)]
    assert all(abs(behind) <= MS for _, behind in shown.behind(right, 0)), "the right track is not touched"


@settings(max_examples=30, deadline=None)
@example(0.5, 0.96875)
@example(0.5, 1.015625)
@example(0.6, 1.04)
@example(0.8868, 1.00924)
@given(st.floats(0.3, 0.9), st.floats(0.3, 3))
def test_each_track_by_a_wrong_clock_of_its_own(video: float, audio: float) -> None:
    assert_live_and_in_step(show({VIDEO: at_rate(video), AUDIO: at_rate(audio)}, 30 * SECOND))


@pytest.mark.parametrize("standing", [(VIDEO,), (AUDIO,), (VIDEO, AUDIO)])
def test_stamps_that_stand_still(standing: tuple[int, ...]) -> None:
    shown = show({track: at_rate(0) if track in standing else RIGHT for track in KINDS}, 40 * SECOND)
    assert_live_and_in_step(shown)
    whose = None if len(standing) == 2 else standing[0]
    assert [(fault.track, fault.pace) for fault in shown.faults] == [(whose, StampPace.STANDING)]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([(VIDEO,), (AUDIO,), (VIDEO, AUDIO)]), st.floats(0.1, 0.6), st.floats(8, 40))
def test_clocks_that_wander(wrong: tuple[int, ...], swing: float, period: float) -> None:
    shown = show({track: wandering(-swing, period) if track in wrong else RIGHT for track in KINDS}, 60 * SECOND)
    assert_live_and_in_step(shown)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.8, 1.6])
def test_a_clock_that_is_right_again_is_believed_again(rate: float) -> None:
    """What jitters on the way is no longer taken for the clock."""
    jitter = random.Random(1)
    shown = show(
        {VIDEO: wrong_between(5, 15, rate), AUDIO: RIGHT},
        60 * SECOND,
        lambda t: jitter.randrange(90 * MS) if t > 40 * SECOND else 0,
    )
    assert_live_and_in_step(shown, 16 * SECOND)
    late = [p.dts for p in shown.mapped if p.track == VIDEO and p.arrival > ORIGIN + 41 * SECOND]
    assert {b - a for a, b in pairwise(late)} == {40 * MS}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300))
def test_jitter_of_the_network_is_not_the_clock(seed: int, most: int) -> None:
    jitter = random.Random(seed)
    shown = show({VIDEO: RIGHT, AUDIO: RIGHT}, 60 * SECOND, lambda t: jitter.randrange(most * MS))
    assert shown.faults == []
    assert all(p.dts == q for p, q in zip(shown.mapped, _stamps(60 * SECOND), strict=True))


@settings(max_examples=20, deadline=None)
@given(st.floats(5, 20), st.floats(0.4, 6), st.floats(1.3, 20))
def test_a_stall_and_its_backlog_are_not_the_clock(begins: float, lasts: float, speed: float) -> None:
    """All that was held up comes after it at `speed` of real time."""
    start, end = int(begins * SECOND), int((begins + lasts) * SECOND)
    shown = show(
        {VIDEO: RIGHT, AUDIO: RIGHT}, 60 * SECOND, lambda t: max(0, end + int((t - start) / speed) - t) if t >= start else 0
    )
    assert shown.faults == []
    assert all(p.dts == q for p, q in zip(shown.mapped, _stamps(60 * SECOND), strict=True))


def test_sound_in_spurts_of_a_second_is_not_the_clock() -> None:
    faults: list[ClockFault] = []
    timeline, spurt = Timeline(faults.append), SECOND
    stamps = sorted(
        [(t, VIDEO, t) for t in range(0, 60 * SECOND, 40 * MS)]
        + [((t // spurt + 1) * spurt, AUDIO, t) for t in range(0, 60 * SECOND, 20 * MS)]
    )
    for arrival, track, t in stamps:
        assert timeline.map(EncodedPacket(track, t, t, True, b"", arrival, arrival)).dts == t
    assert faults == []


@pytest.mark.parametrize("frame", [16_666_667, 33_333_333, 40 * MS, 100 * MS])
@pytest.mark.parametrize("speed", [1.2, 1.7, 2, 2.2, 3, 5, 17, 20.3, 23.3])
def test_a_file_faster_than_real_time_that_is_made_to_wait_is_not_the_clock(speed: float, frame: int) -> None:
    """Its frames come so close together that those of one track make spurts, which count late, and those of the other do not."""
    pacer, faults = Pacer(LiveEdgePolicy()), list[ClockFault]()
    timeline = Timeline(faults.append)
    now, before = ORIGIN, 0
    for t, track in sorted(
        (t, track) for track, step in ((VIDEO, frame), (AUDIO, 21_333_333)) for t in range(0, 60 * SECOND, step)
    ):
        now, before = now + round((t - before) / speed), t
        while (release := pacer.next_release) is not None and (pacer.paused or release <= now):
            now = max(now, release)
            pacer.pop(release)
        packet = timeline.map(EncodedPacket(track, t, t, True, b"", now, now))
        assert packet.dts == t
        pacer.push(packet, KINDS[track], now, settling=timeline.settling(track))
        pacer.pop(now)
    assert faults == []
    assert not any(pacer.dropped.values())


def test_arrivals_that_are_not_in_order_add_up_to_nothing() -> None:
    timeline = Timeline(unheard)
    for number in range(2000):
        t = number * 40 * MS
        arrival = t + (120 * MS if number % 3 == 1 else 0)
        assert timeline.map(EncodedPacket(VIDEO, t, t, True, b"", arrival, arrival)).dts == t


def test_a_slow_clock_keeps_going_through_a_stall() -> None:
    shown = show(
        {VIDEO: at_rate(0.5), AUDIO: at_rate(0.5)}, 40 * SECOND, lambda t: max(0, 23 * SECOND - t) if t > 20 * SECOND else 0
    )
    assert_live_and_in_step(shown, 25 * SECOND)


@settings(max_examples=40, deadline=None)
@example((VIDEO, AUDIO), 0.0, 0.1)
@example((VIDEO,), 0.0, 0.3)
@example((AUDIO,), 0.5, 0.9)
@given(st.sampled_from([(VIDEO,), (AUDIO,), (VIDEO, AUDIO)]), st.sampled_from([0.0, 0.3, 0.5]), st.floats(0.05, 15))
def test_a_stop_of_the_gateway_costs_a_wrong_clock_no_more_than_a_right_one(
    wrong: tuple[int, ...], rate: float, begins: float
) -> None:
    """However early: what came meanwhile comes at once after it, and shows that the stamps have not moved on as arrival has."""
    start, end = int(begins * SECOND), int((begins + 0.6) * SECOND)
    shown = show(
        {track: at_rate(rate) if track in wrong else RIGHT for track in KINDS},
        30 * SECOND,
        lambda t: max(0, end - t) if t >= start else 0,
    )
    assert shown.share == 1
    assert_live_and_in_step(shown, max(SETTLED, end + 5 * SECOND))


def test_what_a_stop_has_held_up_of_a_right_clock_is_late_once_its_clock_is_known() -> None:
    def dropped(begins: int) -> int:
        shown = show({VIDEO: RIGHT, AUDIO: RIGHT}, 20 * SECOND, lambda t: max(0, begins + 2 * SECOND - t) if t >= begins else 0)
        assert shown.faults == []
        return shown.came - len(shown.sent)

    assert dropped(SECOND) == 0
    assert dropped(5 * SECOND) > 30


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        (ClockFault(None, StampPace.SLOW, 0.8), None, "The encoder is slower than real time (0.80 of it)"),
        (
            ClockFault(VIDEO, StampPace.SLOW, 0.6),
            Kind.VIDEO,
            "The picture's time stamps run slower than real time (0.60 of it)",
        ),
        (ClockFault(AUDIO, StampPace.FAST, 1.5), Kind.AUDIO, "The sound's time stamps run faster than real time (1.50 of it)"),
        (ClockFault(None, StampPace.STANDING, 0.0), None, "The time stamps stand still, so that"),
    ],
)
def test_the_words_name_what_is_wrong(fault: ClockFault, kind: Kind | None, text: str) -> None:
    assert fault.text(kind).startswith(text)


def _stamps(duration: int) -> list[int]:
    return [t // MS * MS for t, _ in sorted((t, track) for track in KINDS for t in range(0, duration, STEPS[track]))]
