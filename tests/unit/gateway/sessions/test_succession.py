"""Which of a seat's inputs is forwarded."""

from dataclasses import dataclass

import pytest

from gateway.sessions.succession import CHANGES, HELD, WITHIN, Return, Succession, SwitchCause

S = 1_000_000_000
AFTER = 10 * S


@dataclass
class Standing:
    rank: int
    since: int | None = 0

    def well_since(self, now: int) -> int | None:
        return self.since


def policy(returns: Return = Return.REVERT_AFTER) -> Succession:
    return Succession(returns, AFTER)


def test_the_best_that_is_up_goes_on_for_one_that_is_down() -> None:
    second, third, silent = Standing(2), Standing(3), Standing(1, None)
    assert policy().in_place_of_down(1, [third, second], S) is second
    assert policy().in_place_of_down(2, [silent, third], S) is third
    assert policy().in_place_of_down(2, [silent], S) is None


def test_a_better_one_has_its_place_back_after_ten_seconds_without_a_pause() -> None:
    it, better = policy(), Standing(1, 5 * S)
    assert it.again(2, [better, Standing(3)], 6 * S) == 15 * S
    assert it.in_place_of_worse(2, [better, Standing(3)], 15 * S - 1) is None
    assert it.in_place_of_worse(2, [better, Standing(3)], 15 * S) is better
    better.since = 14 * S  # there was a pause
    assert it.in_place_of_worse(2, [better], 15 * S) is None
    assert it.again(2, [better], 15 * S) == 24 * S
    better.since = None
    assert it.again(2, [better], 15 * S) is None


def test_of_two_better_ones_the_best_that_is_well_for_long_enough_has_it() -> None:
    it, first, second = policy(), Standing(1, 12 * S), Standing(2, 0)
    assert it.in_place_of_worse(3, [first, second], 15 * S) is second
    assert it.in_place_of_worse(3, [first, second], 22 * S) is first


@pytest.mark.parametrize("returns", [Return.STICKY, Return.MANUAL])
def test_otherwise_it_waits_until_the_other_one_is_down_or_for_a_hand(returns: Return) -> None:
    it, better = policy(returns), Standing(1)
    assert it.in_place_of_worse(2, [better], 3600 * S) is None
    assert it.again(2, [better], 3600 * S) is None
    assert it.in_place_of_down(2, [better], 3600 * S) is (better if returns is Return.STICKY else None)
    assert it.in_place_of_down(2, [better, Standing(3)], 3600 * S) is not None
    assert it.in_place_of_down(None, [better], 3600 * S) is better, "it is better than nobody"


def test_who_was_chosen_by_hand_stays_while_it_is_up() -> None:
    it, better = policy(), Standing(1)
    it.switched(SwitchCause.MANUAL, 20 * S)
    assert it.in_place_of_worse(2, [better], 3600 * S) is None
    assert it.in_place_of_down(2, [better], 3600 * S) is better
    it.switched(SwitchCause.CLOSED, 3600 * S)
    assert it.in_place_of_worse(2, [better], 3601 * S) is better


def test_after_more_than_three_changes_in_half_a_minute_the_newest_stays_for_a_minute_unless_it_is_down() -> None:
    it, better, end = policy(), Standing(1), 3 * (WITHIN // CHANGES)
    held = [it.switched(SwitchCause.CLOSED, n * WITHIN // CHANGES) for n in range(CHANGES)]
    assert held == [False, False, False, True]
    assert it.again(2, [better], end) == end + HELD
    assert it.in_place_of_worse(2, [better], end + HELD - 1) is None
    assert it.in_place_of_worse(2, [better], end + HELD) is better
    assert it.in_place_of_down(2, [better], end + 1) is better


def test_changes_that_are_further_apart_hold_nothing() -> None:
    it = policy()
    assert not any(it.switched(SwitchCause.RETURNED, n * 11 * S) for n in range(20))
