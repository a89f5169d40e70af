"""Waits between attempts."""

import pytest

from protocols.back_off import BackOff


@pytest.mark.parametrize(("failures", "most"), [(1, 1), (2, 2), (5, 16), (6, 30), (1000, 30)])
def test_waits_double_up_to_the_longest(failures: int, most: float) -> None:
    waits = [BackOff(1, 30).wait_s(failures) for _ in range(200)]
    assert all(0.75 * most <= wait <= most for wait in waits)
    assert len(set(waits)) > 1, "those who failed together do not come back together"
