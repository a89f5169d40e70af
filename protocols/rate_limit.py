"""How often something may happen: token buckets, one alone or one for each key, as for each client (`protocols.addresses`). Sans-IO.

Kept true: over any time t at most `burst + rate * t` are taken; what is refused costs nothing; the memory for keys is bounded, and a key
that was forgotten for others begins anew with its whole burst.
"""

from collections.abc import Hashable

from protocols.bounded_map import BoundedMap

SECOND = 1_000_000_000


class TokenBucket:
    """Holds up to `burst` (at least 1), full at first, and gets `rate` a second. Times are monotonic ns."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = 0  # when so much was left

    def wait_s(self, now: int) -> float:
        """Seconds until one can be taken; 0: at once."""
        return max(0.0, 1 - self._level(now)) / self._rate

    def take(self, now: int) -> bool:
        """Whether one more is within the rate; it is then counted."""
        level = self._level(now)
        if level < 1:
            return False
        self._left, self._at = level - 1, now
        return True

    def spend(self, count: float, now: int) -> bool:
        """Counts what has been done already, within the rate or not: until that is made up for nothing can be taken. Below 0: so much is
        earned beside the rate. Whether one can be taken."""
        left = min(self._burst, self._left + (now - self._at) / SECOND * self._rate) - count
        self._left, self._at = left, now
        return left >= 1

    def _level(self, now: int) -> float:
        return min(self._burst, self._left + (now - self._at) / SECOND * self._rate)


class RateLimit:
    """A bucket for each of the `most` keys that took something last."""

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: BoundedMap[Hashable, TokenBucket] = BoundedMap(most)

    def wait_s(self, key: Hashable, now: int) -> float:
        """Seconds until one can be taken for this key; 0: at once."""
        bucket = self._buckets.get(key)
        return bucket.wait_s(now) if bucket is not None else 0.0

    def take(self, key: Hashable, now: int) -> bool:
        """Whether one more for this key is within the rate; it is then counted."""
        bucket = self._buckets.get(key) or TokenBucket(self._rate, self._burst)
        self._buckets[key] = bucket
        return bucket.take(now)
