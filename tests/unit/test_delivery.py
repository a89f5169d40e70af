"""The measure of the media tests: what the machine dropped is excused, a stream of which most is lost is not."""

import pytest

from tests.support.delivery import DROPS, assert_delivered, assert_shown, total


@pytest.mark.parametrize(("got", "dropped"), [(100, 0), (98, 0), (90, 8), (50, 1000), (50, 48)])
def test_enough_came(got: int, dropped: int) -> None:
    assert_delivered(100, got, dropped)


@pytest.mark.parametrize(("got", "dropped"), [(97, 0), (90, 7), (49, 1000), (0, 100)])
def test_too_little_came(got: int, dropped: int) -> None:
    with pytest.raises(AssertionError, match=f"{got} of 100"):
        assert_delivered(100, got, dropped)


def test_a_test_may_set_its_floor_higher() -> None:
    assert_delivered(100, 90, 1000, floor=0.9)
    with pytest.raises(AssertionError):
        assert_delivered(100, 89, 1000, floor=0.9)


@pytest.mark.parametrize("numbers", [[0, 2, 1, 3], [0, 1, 1, 2, 3], [0, 1]])
def test_pictures_that_are_out_of_order_shown_twice_or_missing(numbers: list[int]) -> None:
    with pytest.raises(AssertionError):
        assert_shown(numbers, 0, 3, 0)


def test_all_series_of_what_is_dropped_are_counted_and_nothing_else() -> None:
    text = """# TYPE ingress_frames_dropped_total counter
ingress_frames_dropped_total{protocol="rtmp",reason="late"} 3.0
ingress_frames_dropped_total{protocol="srt",reason="overflow"} 4.0
ingress_viewer_dropped_total 5.0
ingress_frames_total{kind="video"} 600.0
"""
    assert total(text, DROPS) == 12
