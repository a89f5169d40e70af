"""Slows who shows wrong credentials: an address may fail so and so often; then it is told to wait until that has worn off. Sans-IO.

Kept true: one forgotten encoder that tries again and again with an old key does not lock out its neighbours behind the same address; the
table is bounded, and who pushes others out of it by using many addresses gains nothing but those addresses' own allowance.
"""

from typing import Final

from protocols.addresses import client_network
from protocols.rate_limit import RateLimit

_MAX_ADDRESSES: Final = 8192


class Throttle:
    """`per_minute` failures at once and in each minute; 0: any number. Times are monotonic nanoseconds."""

    def __init__(self, per_minute: int) -> None:
        self.refused = 0
        self._failures = RateLimit(per_minute / 60, per_minute, _MAX_ADDRESSES) if per_minute else None

    def wait_s(self, address: str, now: int) -> int:
        """Whole seconds until the address may fail again; 0: at once. A positive answer is counted as a refusal."""
        wait_s = self._failures.wait_s(client_network(address), now) if self._failures is not None else 0.0
        if wait_s <= 0:
            return 0
        self.refused += 1
        return max(1, round(wait_s))

    def failed(self, address: str, now: int) -> None:
        """It showed a credential that is none."""
        if self._failures is not None:
            self._failures.take(client_network(address), now)
