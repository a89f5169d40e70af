"""Who is here: the live seats and calls, and the totals of those that have gone. Everything that shows or counts asks here."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from gateway.sessions.counters import PipelineCounters
from gateway.sessions.output import Destination
from gateway.sessions.seat import Seat
from protocols.whep.fanout import CallViewer
from protocols.whep.viewer import ViewerAdmission


class HostedCall(Destination, ViewerAdmission, Protocol):
    """A call that lives in this process: seats join it, and viewers are let in."""

    @property
    def viewers(self) -> Collection[CallViewer]: ...

    @property
    def empty(self) -> bool:
        """Nobody is in it."""


MakeCall = Callable[[str, Callable[[str], None]], HostedCall]
"""(cid, whom to tell that it is empty) -> the call."""


class Registry:
    """Seats by (call, user), calls by their cid; both bounded by what admission and the viewers' limits let in."""

    def __init__(self, make_call: MakeCall) -> None:
        self.seats: dict[tuple[str, str], Seat] = {}
        self.calls: dict[str, HostedCall] = {}
        self.started: Counter[str] = Counter()  # seats by protocol
        self.refused: Counter[tuple[str, str]] = Counter()  # protocol, reason label
        self.changed = asyncio.Event()  # set, and at once cleared again, whenever a seat goes
        self._past: defaultdict[str, PipelineCounters] = defaultdict(PipelineCounters)
        self._make_call = make_call

    def call(self, cid: str) -> HostedCall:
        """The call with this cid, made now if it is not there."""
        call = self.calls.get(cid)
        if call is None:
            call = self.calls[cid] = self._make_call(cid, self.release_call)
        return call

    def release_call(self, cid: str) -> None:
        """Forget a call that nobody is in."""
        call = self.calls.get(cid)
        if call is not None and call.empty and not any(key[0] == cid for key in self.seats):
            del self.calls[cid]

    def viewers(self, cid: str) -> int:
        """How many watch this call."""
        call = self.calls.get(cid)
        return len(call.viewers) if call is not None else 0

    @property
    def encoders(self) -> int:
        """How many there are or are waited for, those included that stand by."""
        return sum(max(1, len(seat.inputs.connected)) for seat in self.seats.values())

    def add(self, seat: Seat) -> None:
        self.seats[seat.call_cid, seat.user_id] = seat
        self.started[seat.protocol] += 1

    def remove(self, seat: Seat) -> None:
        del self.seats[seat.call_cid, seat.user_id]
        self.changed.set()
        self.changed.clear()
        self.release_call(seat.call_cid)

    def retire(self, protocol: str, totals: PipelineCounters) -> None:
        """A publisher has ended: what it did stays counted."""
        self._past[protocol].add(totals)

    def totals(self) -> Iterator[tuple[str, PipelineCounters]]:
        """By protocol: everything since the start, live seats included."""
        sums: defaultdict[str, PipelineCounters] = defaultdict(PipelineCounters)
        for protocol, past in self._past.items():
            sums[protocol].add(past)
        for seat in self.seats.values():
            if seat.pipeline is not None:
                sums[seat.protocol].add(seat.pipeline.gather())
        yield from sums.items()
