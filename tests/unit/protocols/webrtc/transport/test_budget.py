"""A peer's share of the event loop."""

import pytest

from protocols.webrtc.transport.budget import WORK, WorkBudget
from protocols.webrtc.transport.places import Standing

MS, SECOND = 1_000_000, 1_000_000_000


@pytest.mark.parametrize("took", [20_000, 200_000, 4 * MS])
def test_over_any_time_a_peer_takes_its_burst_and_its_share(took: int) -> None:
    budget = WorkBudget(0.02, 100 * MS)
    used = now = 0
    while now < 10 * SECOND:  # as much as it can
        if budget.spent(now):
            now += took
        else:
            budget.charge(now, now + took)
            used += took
            now += took
    assert used <= 100 * MS + 0.02 * now + took
    assert used >= 0.9 * (100 * MS + 0.02 * now)


def test_who_has_used_it_up_is_heard_again_after_a_while() -> None:
    budget = WorkBudget(0.02, 100 * MS)
    while not budget.spent(SECOND):
        budget.charge(SECOND - MS, SECOND)
    assert not budget.spent(SECOND + 100 * MS)


def test_a_pause_of_the_process_is_nobodys_debt() -> None:
    budget = WorkBudget(0.02, 100 * MS)
    budget.charge(0, 30 * SECOND)
    assert not budget.spent(0)


def test_time_that_goes_back_gives_nothing() -> None:
    budget = WorkBudget(0.5, 10 * MS)
    for _ in range(10):
        budget.charge(SECOND - MS, SECOND)
    assert budget.spent(SECOND - MS)
    assert not budget.spent(SECOND + MS)


def test_each_standing_has_its_share() -> None:
    assert set(WORK) == set(Standing)
    assert WORK[Standing.ANONYMOUS][0] <= WORK[Standing.KNOWN][0] < WORK[Standing.PUBLISHER][0] < 1
