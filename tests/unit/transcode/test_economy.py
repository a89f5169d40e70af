"""When transcoding gets cheaper and dearer again: by how much media waits, in media time."""

import pytest

from transcode.economy import Economy, Effort, effort, levels

MS = 1_000_000
FRAME = 33 * MS


class Clock:
    """A worker that takes a packet in each frame's time, `waiting` ms behind."""

    def __init__(self, economy: Economy) -> None:
        self.economy = economy
        self.now = 0

    def run(self, seconds: float, waiting: int, skipped: bool = False) -> list[tuple[float, int]]:
        """When (s) to which level it changed."""
        changes = []
        for _ in range(round(seconds * 1000 / 33)):
            self.now += FRAME
            if self.economy.observe(waiting * MS, skipped, self.now):
                changes.append((self.now / 1e9, self.economy.level))
        return changes


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ((1280, 720), ["veryfast", "superfast", "ultrafast", "ultrafast 67%", "ultrafast 50%", "ultrafast 50%"]),
        ((1920, 1080), ["superfast", "ultrafast", "ultrafast 67%", "ultrafast 50%", "ultrafast 50%", "ultrafast 50%"]),
    ],
)
def test_each_step_is_a_cheaper_preset_and_then_a_smaller_picture(size: tuple[int, int], names: list[str]) -> None:
    efforts = [effort(level, *size) for level in range(6)]
    assert [e.preset + (f" {e.scale:.0%}" if e.scale < 1 else "") for e in efforts] == names
    assert len(set(names)) == levels(*size) + 1
    assert Effort("ultrafast", 0.5).text == "x264 preset ultrafast, picture reduced to 50%"


def test_a_burst_changes_nothing_and_lasting_delay_does() -> None:
    clock = Clock(Economy(4))
    assert clock.run(0.9, waiting=400) == []
    assert clock.run(5, waiting=200) == []
    ((when, level),) = clock.run(1.5, waiting=400)
    assert (when, level) == (pytest.approx(5.9 + 1, abs=0.1), 1)


def test_a_skip_makes_it_cheaper_at_once_and_the_next_step_waits_for_the_effect_of_the_first() -> None:
    clock = Clock(Economy(2))
    assert clock.economy.observe(0, True, FRAME)
    changes = clock.run(20, waiting=600, skipped=True)
    assert changes == [(pytest.approx(2, abs=0.1), 2)], "and there are no more than two"


def test_it_goes_back_up_slowly_and_more_slowly_after_a_step_up_that_was_too_early() -> None:
    clock = Clock(Economy(2))
    clock.run(4, waiting=600, skipped=True)
    assert clock.economy.level == 2
    start = clock.now / 1e9
    assert clock.run(100, waiting=20) == [(pytest.approx(start + 30, abs=0.2), 1), (pytest.approx(start + 60, abs=0.4), 0)]
    clock.run(0.04, waiting=600, skipped=True)  # within a minute of the step up
    start = clock.now / 1e9
    assert clock.run(70, waiting=20) == [(pytest.approx(start + 60, abs=0.3), 0)]


def test_neither_good_nor_bad_stays_as_it_is() -> None:
    clock = Clock(Economy(2))
    clock.run(0.04, waiting=600, skipped=True)
    assert clock.run(100, waiting=150) == []


def test_a_clock_that_goes_back_is_a_new_beginning() -> None:
    clock = Clock(Economy(2))
    clock.run(50, waiting=600, skipped=True)
    clock.now = 0
    assert clock.run(31, waiting=0) == [(pytest.approx(30, abs=0.2), 1)]
