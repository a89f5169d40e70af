"""Which of a seat's inputs is forwarded: the one of the best rank, 1, or one that stands by for it while it is down. Sans-IO.

Kept true: one that is down gives way at once to any that is up, and never because a better one has only just come: that is to be well for a
while first, and goes back to it only as the policy says. Who was chosen by hand stays for as long as it is up. Where the inputs change too
often, the one that is forwarded stays (`Latch`), unless it is down.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from gateway.sessions.rivals import Latch

_SECOND: Final = 1_000_000_000
CHANGES: Final = 4
WITHIN: Final = 30 * _SECOND
HELD: Final = 60 * _SECOND


class Return(StrEnum):
    """How a better input that is up again gets its place back from a worse one that is up."""

    REVERT_AFTER = "revert_after"  # once it has been well for some time
    STICKY = "sticky"  # when the worse one is down
    MANUAL = "manual"  # by hand alone, for as long as the place of the worse one is kept


class SwitchCause(StrEnum):
    """Why another input is forwarded: a bounded label."""

    SILENT = "silent"  # the one before is connected and gives nothing
    CLOSED = "closed"  # its connection has ended
    RETURNED = "returned"  # a better one is well again
    MANUAL = "manual"  # by hand
    TAKEN_OVER = "taken_over"  # another encoder came and took the place of the one that was there


class Contender(Protocol):
    """An input that could be forwarded."""

    @property
    def rank(self) -> int:
        """1 is the best."""

    def well_since(self, now: int) -> int | None:
        """Since when its media have come without a pause, in monotonic ns; None: nothing comes."""


C = TypeVar("C", bound=Contender)


class Succession:
    """Of one seat. All times in monotonic ns."""

    def __init__(self, policy: Return, revert_after: int) -> None:
        self._policy = policy
        self._revert_after = revert_after
        self._by_hand = False
        self._latch = Latch(CHANGES, WITHIN, HELD)

    def in_place_of_down(self, rank: int | None, others: Iterable[C], now: int) -> C | None:
        """Who goes on for the one with this `rank`, which is down; None: nobody. `rank` is None once its place is not kept any more."""
        up = [each for each in others if each.well_since(now) is not None]
        if self._policy is Return.MANUAL and rank is not None:
            up = [each for each in up if each.rank >= rank]
        return min(up, key=lambda each: each.rank, default=None)

    def in_place_of_worse(self, rank: int, others: Iterable[C], now: int) -> C | None:
        """Who is to have its place back from the one with this `rank`, which is up; None: nobody, yet."""
        when = self.again(rank, others, now)
        if when is None or now < when:
            return None
        return min((each for each in others if self._well(each, rank, now)), key=lambda each: each.rank)

    def again(self, rank: int, others: Iterable[C], now: int) -> int | None:
        """When to ask that again, if all goes on as it does; None: never."""
        if self._policy is not Return.REVERT_AFTER or self._by_hand:
            return None
        since = [since for each in others if each.rank < rank and (since := each.well_since(now)) is not None]
        return max(min(since) + self._revert_after, self._latch.until) if since else None

    def switched(self, cause: SwitchCause, now: int) -> bool:
        """Another one is forwarded. True: with this the one that is forwarded stays, since there were too many changes."""
        self._by_hand = cause is SwitchCause.MANUAL
        return not self._by_hand and self._latch.note(now)

    def holds(self, now: int) -> bool:
        """There were too many changes."""
        return self._latch.holds(now)

    def _well(self, contender: Contender, rank: int, now: int) -> bool:
        since = contender.well_since(now)
        return contender.rank < rank and since is not None and since + self._revert_after <= now
