"""When transcoding gets cheaper and dearer again: by how much media waits, in media time."""

from typing import Any

import pytest

from transcode.adaptation import Adaptation, Effort, preset, steps

MS = 1_000_000
FRAME = 33 * MS


class Clock:
    """A worker that takes a packet in each frame's time, `waiting` ms behind."""

    def __init__(self, adaptation: Adaptation) -> None:
        self.adaptation = adaptation
        self.now = 0

    def run(self, seconds: float, waiting: int, skipped: bool = False) -> list[tuple[float, int]]:
        """When (s) to which level it changed."""
        changes = []
        for _ in range(round(seconds * 1000 / 33)):
            self.now += FRAME
            if self.adaptation.observe(waiting * MS, skipped, self.now):
                changes.append((self.now / 1e9, self.adaptation.level))
        return changes


def about(when: float, within: float) -> Any:
    """Equal to any time (s) that is no further away."""
    return pytest.approx(when, abs=within)


LADDER = [(1920, 1080), (960, 540), (480, 270)]


@pytest.mark.parametrize(
    ("sizes", "passed", "found"),
    [
        ([(1280, 720)], False, ["veryfast", "superfast", "ultrafast", "ultrafast 67%", "ultrafast 50%"]),
        ([(1920, 1080)], False, ["superfast", "ultrafast", "ultrafast 67%", "ultrafast 50%"]),
        (LADDER, False, ["superfast", "ultrafast", "ultrafast -1", "ultrafast -2"]),
        (LADDER[1:], True, ["veryfast", "superfast", "ultrafast", "ultrafast -1", "ultrafast -2"]),
        (LADDER[2:], True, ["veryfast", "superfast", "ultrafast", "ultrafast -1"]),
    ],
    ids=["720p", "1080p", "three layers", "two below one that passes", "one below one that passes"],
)
def test_each_step_is_a_cheaper_preset_and_then_a_layer_less_or_a_smaller_picture(
    sizes: list[tuple[int, int]], passed: bool, found: list[str]
) -> None:
    def name(effort: Effort) -> str:
        return (
            effort.preset + (f" -{effort.shed}" if effort.shed else "") + (f" {effort.scale:.0%}" if effort.scale < 1 else "")
        )

    assert [name(step) for step in steps(sizes, passed)] == found


def test_a_step_in_words() -> None:
    assert Effort("ultrafast", 2, scale=0.5).text == "encoder effort ultrafast, picture reduced to 50%"
    assert Effort("ultrafast", 1, shed=1).text == "encoder effort ultrafast, the top encoded layer left out"
    assert Effort("ultrafast", 1, shed=2).text == "encoder effort ultrafast, the top 2 encoded layers left out"


def test_smaller_layers_keep_a_better_preset_for_longer() -> None:
    assert [[preset(*size, lower) for size in LADDER] for lower in range(3)] == [
        ["superfast", "veryfast", "veryfast"],
        ["ultrafast", "superfast", "superfast"],
        ["ultrafast", "ultrafast", "ultrafast"],
    ]


def test_relief_for_others_goes_down_at_once_and_back_up_as_slowly_as_any() -> None:
    clock = Clock(Adaptation(3))
    clock.run(10, waiting=0)
    assert clock.adaptation.relieve(2)
    assert not clock.adaptation.relieve(2)
    assert not clock.adaptation.relieve(4), "there are no more than three"
    assert clock.adaptation.level == 2
    assert clock.run(100, waiting=0)[0] == (about(40, 0.2), 1)


def test_a_burst_changes_nothing_and_lasting_delay_does() -> None:
    clock = Clock(Adaptation(4))
    assert clock.run(0.9, waiting=400) == []
    assert clock.run(5, waiting=200) == []
    ((when, level),) = clock.run(1.5, waiting=400)
    assert (when, level) == (about(5.9 + 1, 0.1), 1)


def test_a_skip_makes_it_cheaper_at_once_and_the_next_step_waits_for_the_effect_of_the_first() -> None:
    clock = Clock(Adaptation(2))
    assert clock.adaptation.observe(0, True, FRAME)
    changes = clock.run(20, waiting=600, skipped=True)
    assert changes == [(about(2, 0.1), 2)], "and there are no more than two"


def test_it_goes_back_up_slowly_and_more_slowly_after_a_step_up_that_was_too_early() -> None:
    clock = Clock(Adaptation(2))
    clock.run(4, waiting=600, skipped=True)
    assert clock.adaptation.level == 2
    start = clock.now / 1e9
    assert clock.run(100, waiting=20) == [(about(start + 30, 0.2), 1), (about(start + 60, 0.4), 0)]
    clock.run(0.04, waiting=600, skipped=True)  # within a minute of the step up
    start = clock.now / 1e9
    assert clock.run(70, waiting=20) == [(about(start + 60, 0.3), 0)]


def test_neither_good_nor_bad_stays_as_it_is() -> None:
    clock = Clock(Adaptation(2))
    clock.run(0.04, waiting=600, skipped=True)
    assert clock.run(100, waiting=150) == []


def test_a_clock_that_goes_back_is_a_new_beginning() -> None:
    clock = Clock(Adaptation(2))
    clock.run(50, waiting=600, skipped=True)
    clock.now = 0
    assert clock.run(31, waiting=0) == [(about(30, 0.2), 1)]
