"""When media that come are as good as none."""

import pytest

from gateway.model.records import ContinuitySettings
from gateway.sessions.seat_state import InterruptionCause
from gateway.sessions.triggers import SECOND, Triggers, TriggerWatch
from protocols.media import Kind
from transcode.look_messages import Look

ALL = Triggers(black_s=3, frozen_s=4, silent_s=5, low_bitrate=100_000, low_bitrate_s=3)
BLACK, FROZEN = InterruptionCause.BLACK, InterruptionCause.FROZEN
NO_SOUND, LOW = InterruptionCause.NO_SOUND, InterruptionCause.LOW_BITRATE
BAD = {BLACK: Look(dark=1.0), FROZEN: Look(changed=0.0), NO_SOUND: Look(level_dbfs=-80.0)}
GOOD = {BLACK: Look(dark=0.5), FROZEN: Look(changed=0.2), NO_SOUND: Look(level_dbfs=-30.0)}


def causes(watch: TriggerWatch, *looks: Look) -> list[InterruptionCause | None]:
    """After each of these, which come once a second from 0 on."""
    said = list[InterruptionCause | None]()
    for number, look in enumerate(looks):
        watch.looked(look, number * SECOND)
        said.append(watch.cause((number + 1) * SECOND))
    return said


@pytest.mark.parametrize(("cause", "after"), [(BLACK, 3), (FROZEN, 4), (NO_SOUND, 5)])
def test_a_cause_has_to_hold_for_its_time_and_is_over_at_once(cause: InterruptionCause, after: int) -> None:
    bad, good = BAD[cause], GOOD[cause]
    assert causes(TriggerWatch(ALL), *[bad] * 6, good) == [None] * (after - 1) + [cause] * (7 - after) + [None]
    once_better = [bad] * (after - 1) + [good] + [bad] * (after - 1)
    assert set(causes(TriggerWatch(ALL), *once_better)) == {None}


@pytest.mark.parametrize("cause", [BLACK, FROZEN, NO_SOUND])
def test_what_is_not_known_changes_nothing(cause: InterruptionCause) -> None:
    watch = TriggerWatch(ALL)
    assert causes(watch, BAD[cause], *[Look()] * 5)[-1] is cause


@pytest.mark.parametrize("cause", [BLACK, FROZEN, NO_SOUND])
def test_nothing_holds_unless_it_is_asked_for(cause: InterruptionCause) -> None:
    assert set(causes(TriggerWatch(Triggers()), *[BAD[cause]] * 100)) == {None}
    assert not Triggers().any
    assert not Triggers(low_bitrate=1).looks
    assert Triggers(silent_s=1).looks


def test_a_bit_rate_has_to_be_low_for_its_time() -> None:
    watch = TriggerWatch(ALL)
    said = list[InterruptionCause | None]()
    for second, rate in enumerate([99_000] * 5 + [100_000, 0]):
        watch.rate(rate, second * SECOND)
        said.append(watch.cause(second * SECOND))
    assert said == [None, None, None, LOW, LOW, None, None]


def test_sound_that_stops_is_silent_and_one_that_there_is_none_of_is_not() -> None:
    watch = TriggerWatch(ALL)
    watch.no_sound(0)
    assert watch.cause(5 * SECOND) is NO_SOUND
    watch.expect({Kind.VIDEO})
    assert watch.cause(6 * SECOND) is None


def test_a_call_says_otherwise_than_the_gateway() -> None:
    wanted = ContinuitySettings(black_seconds=0, frozen_seconds=7, low_bitrate=5)
    assert ALL.narrowed(wanted) == Triggers(0, 7, 5, -60.0, 5, 3)
    assert ALL.narrowed(ContinuitySettings()) == ALL
