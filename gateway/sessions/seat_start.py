"""How a seat begins: anew, or as one that an earlier process had, whose participant, media time and count of reconnects go on.

Kept true: media time never goes back. What passed between the last note of the seat and its return is a gap in it, by the wall clock.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from gateway.model.kept import KeptSeat
from gateway.sessions.counters import PipelineCounters
from gateway.sessions.seat_state import Interruption, InterruptionCause


@dataclass(frozen=True, slots=True)
class SeatStart:
    """`media` is its media time in ns at monotonic ns `at`; both 0 for one that begins anew, whose time begins with its first packet."""

    id: str
    started_at: datetime
    reconnects: int = 0
    media: int = 0
    at: int = 0
    interruption: Interruption | None = None
    """What is over when its media come."""

    @classmethod
    def anew(cls, publisher_id: str) -> Self:
        return cls(publisher_id, datetime.now(UTC))

    @classmethod
    def of(cls, kept: KeptSeat, now: int) -> Self:
        """At monotonic `now`."""
        at = now - away(kept)
        since = Interruption(InterruptionCause.RESTART, at)
        return cls(kept.session, kept.started_at, kept.reconnects + 1, kept.media, at, since)

    def media_now(self, now: int) -> int:
        """In ns at monotonic `now`, before there is a publisher whose media say it."""
        return self.media + now - self.at if self.at else 0


def away(kept: KeptSeat) -> int:
    """For how long nobody has had it, in ns; 0 where the wall clock was set back."""
    return max(0, round((datetime.now(UTC) - kept.written_at).total_seconds() * 1e9))


def counted() -> PipelineCounters:
    """The interruption of a seat that goes on after its gateway had gone."""
    return PipelineCounters(interruptions=Counter({InterruptionCause.RESTART.value: 1}))
