"""The histogram: buckets, quantiles, sums."""

import pytest

from gateway.telemetry.latency import BOUNDS_NS, Histogram

MS = 1_000_000


def test_a_duration_on_a_bound_belongs_to_its_bucket_and_one_beyond_all_is_kept() -> None:
    histogram = Histogram()
    histogram.observe(BOUNDS_NS[0])
    histogram.observe(BOUNDS_NS[-1] + 1)
    assert histogram.counts[0] == 1
    assert histogram.counts[-1] == 1
    assert histogram.count == 2


def test_quantiles_interpolate_within_the_bucket() -> None:
    histogram = Histogram()
    for _ in range(100):
        histogram.observe(int(1.5 * MS))  # bucket (1, 2] ms
    assert histogram.quantile(0.5) == pytest.approx(1.5)
    assert histogram.quantile(1.0) == pytest.approx(2.0)


def test_an_empty_histogram_has_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None


def test_a_negative_duration_counts_as_zero() -> None:
    histogram = Histogram()
    histogram.observe(-5)
    assert (histogram.counts[0], histogram.total) == (1, 0)


def test_adding_two_histograms_adds_counts_and_totals() -> None:
    one, two = Histogram(), Histogram()
    one.observe(3 * MS)
    two.observe(3 * MS)
    two.observe(400 * MS)
    one.add(two)
    assert (one.count, one.total) == (3, 406 * MS)
