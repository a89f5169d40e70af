"""The CPU of this node, as seats are given it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from gateway.sessions.capacity import Demand
from transcode.plan import Decision

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class RoomFor(Protocol[S_contra]):
    """For seats of this kind. Each raises `Rejected` where it does not suffice."""

    def admit(self, seat: S_contra, plans: Sequence[Sequence[Decision]]) -> None:
        """Lets a seat in whose tracks are known by the first of these plans that fits, or a live one go on by another plan."""

    def admit_optional(self, seat: S_contra, wanted: Demand) -> None:
        """For all that its stream can do without."""


@dataclass(frozen=True, slots=True)
class RoomOf(Generic[S]):
    """`replanner.Room` of one seat."""

    seat: S
    room: RoomFor[S]

    def admit(self, plans: Sequence[Sequence[Decision]]) -> None:
        self.room.admit(self.seat, plans)

    def admit_optional(self, wanted: Demand) -> None:
        self.room.admit_optional(self.seat, wanted)
