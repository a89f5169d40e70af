"""How much of the event loop's time one peer may take for what it sends. Sans-IO.

What is kept true: over any time t a peer takes at most `burst + share * t` of it and one more datagram; beyond that what it sends is not
looked at, and whoever else the loop serves does not notice.
"""

from collections.abc import Mapping
from types import MappingProxyType

from protocols.rate_limit import SECOND, TokenBucket
from protocols.webrtc.transport.places import Standing

WORK: Mapping[Standing, tuple[float, int]] = MappingProxyType(
    {
        Standing.ANONYMOUS: (0.02, 100_000_000),  # a browser that watches needs a tenth of it
        Standing.KNOWN: (0.02, 100_000_000),
        Standing.PUBLISHER: (0.4, 1_000_000_000),
    }
)
"""Of the event loop's time what a peer of each standing may take: which share for good, and how much at once (ns)."""

_LONGEST_NS = 5_000_000
"""What one datagram is charged with at most (ns): longer than any takes, so that a pause of the whole process is nobody's debt."""
_SETTLED_NS = 1_000_000
"""So much is summed up before the bucket is reckoned anew: a datagram takes a hundredth of it."""


class WorkBudget(TokenBucket):
    """Of one peer: nanoseconds, of which it gets `share` of the loop's time for good and has `burst` at once. Times are monotonic ns."""

    __slots__ = ("_unsettled",)

    def __init__(self, share: float, burst: int) -> None:
        super().__init__(share * SECOND, burst)
        self._unsettled = 0

    def spent(self, now: int) -> bool:
        """Whether there is nothing left."""
        return self._left <= self._unsettled and self._level(now) <= self._unsettled

    def charge(self, begun: int, now: int) -> None:
        """A datagram took from `begun` until `now`."""
        took = now - begun
        self._unsettled += took if took < _LONGEST_NS else _LONGEST_NS
        if self._unsettled > _SETTLED_NS:
            self.spend(self._unsettled, now)
            self._unsettled = 0
