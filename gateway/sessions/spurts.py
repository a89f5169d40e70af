"""Packets that come together: what counts of a spurt is its last packet, which came at once. Sans-IO.

The others say how the encoder sends (a second's sound in one PES), not how its clock runs.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

TOGETHER = 10_000_000  # ns between packets of a spurt
LONGEST = 100_000_000  # ns


class Spurts(Generic[T]):
    """Of one track: what was seen at each packet, and comes out where it counts. After a spurt, and at the start, the next one is waited
    for, which shows what was the last; else each counts at once."""

    def __init__(self) -> None:
        self._begun = self._latest = 0  # arrival
        self._count = 2
        self._several = True  # packets were in the last one
        self._waiting: T | None = None

    def counting(self, arrival: int, seen: T) -> Sequence[T]:
        """`seen` is that of a packet that came at `arrival` (ns)."""
        before: T | None = None
        if arrival - self._latest > TOGETHER or arrival - self._begun > LONGEST:
            before = self._waiting
            self._begun, self._several, self._count = arrival, self._count > 1, 0
        self._latest = arrival
        self._count += 1
        self._waiting = seen if self._several else None
        at_once = () if self._several else (seen,)
        return at_once if before is None else (before, *at_once)
