"""The rate of a connection, from its count of bytes."""

import pytest

from gateway.sessions.socket_watch import SocketRate

SECOND = 1_000_000_000


def test_a_rate_is_told_once_the_window_is_nearly_full() -> None:
    rate = SocketRate()
    assert [rate.note(second * 125_000, second * SECOND) for second in range(8)] == [0] * 4 + [1_000_000] * 4


@pytest.mark.parametrize("every", [SECOND, SECOND // 3, 3 * SECOND])
def test_a_burst_after_a_stall_is_no_high_rate(every: int) -> None:
    rate = SocketRate()
    rates = []
    for now in range(0, 60 * SECOND, every):
        arrived = now if not 20 * SECOND <= now < 22 * SECOND else 20 * SECOND  # two seconds are held back
        rates.append(rate.note(arrived // 8000, now))
    assert max(rates) <= 1_700_000


def test_what_is_more_for_good_is_seen_in_five_seconds_and_what_is_over_forgotten() -> None:
    rate, total, rates = SocketRate(), 0, []
    for second in range(40):
        total += 1_250_000 if 10 <= second < 20 else 125_000
        rates.append(rate.note(total, second * SECOND))
    assert max(rates[:10]) == 1_000_000
    assert rates[14] > 9_000_000
    assert rates[26] < 1_100_000
    assert len(rate._seen) < 10
