"""What is counted or measured, as plain data for whoever shows it: a metric family as OpenMetrics has it, without its text. Sans-IO."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric. Labels are bounded: never a key, an id or an address."""

    name: str  # without the prefix of whoever shows it, and without `_total`
    meaning: str
    samples: Mapping[tuple[str, ...], float]  # by the labels' values
    labels: tuple[str, ...] = ()
    total: bool = True  # counted since the start; False: what is now
