"""What has to be made of a publisher's tracks so that each output gets the form that it wants: tracks × wants × policy × room. Sans-IO.

Kept true:

* Each output is planned for by itself; outputs that take the same form of a track share one stage, and what nobody takes is not made.
* An essential output (the call) comes first: the others take what is made for it where that will do. They get what there is room for, and
  never cost it anything; where there is none they are refused, and tried again after a while.
* Where a call's viewers miss a codec and there is no room to make another, the stream passes as before: a stream never ends because of a
  viewer.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import NamedTuple, Protocol

from gateway.sessions.capacity import Demand, demand
from gateway.sessions.output import Output
from gateway.sessions.track_selection import Selected, select
from protocols.errors import Reason, Rejected
from protocols.media import Kind, Track
from transcode.plan import Decision, Passthrough, Refuse, Transcode, VideoTarget, Want

NO_ROOM_NS = 10_000_000_000  # until an essential output's wish for which there was no room is tried again
OPTIONAL_NO_ROOM_NS = 60_000_000_000  # the same for others

Decide = Callable[[Track, Want], Decision]
"""The policy: what to do with a track for whoever wants it so."""

Form = tuple[int, str]
"""Names a stage among those of a publisher: its track's id, and the codec that is made; `passthrough`, `refuse`."""


class Room(Protocol):
    """The CPU for what is to be made. Each raises `Rejected`, with the figures, where it does not fit."""

    def admit(self, plans: Sequence[Sequence[Decision]]) -> None:
        """For the essential outputs: the first plan that fits."""

    def admit_optional(self, wanted: Demand) -> None:
        """For all others together."""


class Taker(NamedTuple):
    """Who takes of a stage: at most so many layers from the top, and perhaps only those that are smaller than the track itself."""

    output: str
    layers: int
    smaller: bool = False


_ALL_LAYERS = 1000


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One form of one track, and who takes it. A decision to refuse stands for what its takers do not get, with the reason."""

    track: Track
    decision: Decision
    takers: tuple[Taker, ...]
    essential: bool
    idle: bool = False
    """None of its takers has anybody for whom it need be made just now."""

    @property
    def form(self) -> Form:
        return self.track.id, self.decision.codec.value if isinstance(self.decision, Transcode) else self.mode

    @property
    def mode(self) -> str:
        """`passthrough`, `transcode` or `refuse`: what is shown and counted."""
        return type(self.decision).__name__.lower()

    def taken_too(self, taker: Taker, idle: bool) -> "PlannedStage":
        """The same for one taker more, who is `idle` or is not."""
        return replace(self, takers=(*self.takers, taker), idle=self.idle and idle)


Stages = dict[Form, PlannedStage]


@dataclass(frozen=True, slots=True)
class Plan:
    """`refused` are outputs for which there is no room, with the words for it; `kept` says why viewers miss a codec, where they do."""

    stages: Mapping[Form, PlannedStage]
    optional: Demand
    """What the outputs that a stream can go without cost."""
    refused: Mapping[str, Rejected] = field(default_factory=dict)
    kept: str = ""
    for_viewers: bool = False
    """Something essential is made only because of viewers: without room for it the stream passes."""
    again: int | None = None
    """Monotonic ns at which to plan again if nothing else changes: what there was no room for may fit then."""

    @property
    def transcodes(self) -> frozenset[Kind]:
        """The kinds of which something is made that the stream cannot go without."""
        made = (stage for stage in self.stages.values() if isinstance(stage.decision, Transcode))
        return frozenset(stage.track.kind for stage in made if stage.essential and not stage.idle)


class Replanner:
    """Plans for one publisher; asked again whenever a fact changes: a track, what an output wants, the room."""

    def __init__(self, decide: Decide, room: Room) -> None:
        self._decide = decide
        self._room = room
        self._admitted: Sequence[Decision] = ()  # for viewers' sake
        self._optional: dict[str, Demand] = {}  # what there is room for, by output
        self._full_until = 0  # monotonic ns; 0: there was room
        self._full_why = ""
        self._optional_full_until: dict[str, int] = {}

    def admit(self, tracks: Sequence[Track], outputs: Sequence[Output]) -> None:
        """Before a publisher begins: raises `Rejected` where there is no room for it, not even with a codec that some viewers miss."""
        plans: list[list[Decision]] = []
        for carried in (False, True):
            selected = [each for output in outputs if output.essential for each in self._selected(tracks, output, (), carried)]
            if (decisions := [decision for _, decision in selected]) not in plans:
                plans.append(decisions)
        self._room.admit(plans)

    def replan(
        self, tracks: Sequence[Track], outputs: Sequence[Output], now: int, silent: Collection[int] = frozenset()
    ) -> Plan:
        """`now` in monotonic ns; `silent` as for `select`."""
        essential = [output for output in outputs if output.essential]
        stages, kept, for_viewers = self._essential(tracks, essential, now, silent)
        refused: dict[str, Rejected] = {}
        for output in outputs:
            if output.essential or now < self._optional_full_until.get(output.name, 0):
                continue
            with_it = self._beside(stages, tracks, output, silent)
            added = _added(with_it, stages, output)
            try:
                self._admit_optional(output.name, added)
            except Rejected as refusal:
                refused[output.name] = refusal
                self.no_room_for(output.name, now)
            else:
                stages = with_it
        waits = [until for until in (self._full_until, *self._optional_full_until.values()) if until > now]
        return Plan(stages, _sum(self._optional.values()), refused, kept, for_viewers, min(waits, default=None))

    def cost_of(self, output: Output, tracks: Sequence[Track], outputs: Sequence[Output]) -> Demand:
        """What `output` costs beside the essential ones, by what it wants now, whether there is room or not."""
        stages: Stages = {}
        for other in outputs:
            if other.essential:
                stages = self._beside(stages, tracks, other, ())
        return _added(self._beside(stages, tracks, output, ()), stages, output)

    def no_room(self, refusal: Rejected, now: int) -> None:
        """No worker is to be had for what viewers miss: the stream passes until after a while."""
        self._full_until, self._full_why = now + NO_ROOM_NS, refusal.detail
        self._admitted = ()

    def no_room_for(self, output: str, now: int, wait: int = OPTIONAL_NO_ROOM_NS) -> None:
        """This optional output gets nothing until after a while, in ns."""
        self._optional_full_until[output] = now + wait
        self._optional.pop(output, None)

    def _essential(
        self, tracks: Sequence[Track], outputs: Sequence[Output], now: int, silent: Collection[int]
    ) -> tuple[Stages, str, bool]:
        """The stages of these outputs; why viewers miss a codec, empty where they do not; and whether something is made for their sake."""
        wished = [(output, each) for output in outputs for each in self._selected(tracks, output, silent)]
        missed = [each for output, each in wished if self._only_for_viewers(output, *each)]
        kept = self._no_room_for_viewers(missed[0], [decision for _, (_, decision) in wished], now) if missed else ""
        stages: Stages = {}
        for output in outputs:
            stages = self._beside(stages, tracks, output, silent, carried=bool(kept))
        return stages, kept, bool(missed) and not kept

    def _beside(
        self, stages: Stages, tracks: Sequence[Track], output: Output, silent: Collection[int], carried: bool = False
    ) -> Stages:
        """These stages, and what `output` needs beside them."""
        stages = dict(stages)
        for track, decision in self._selected(tracks, output, silent, carried):
            _take(stages, track, decision, output)
        return stages

    def _selected(
        self, tracks: Sequence[Track], output: Output, silent: Collection[int], carried: bool = False
    ) -> list[Selected]:
        return select(tracks, partial(self._decided, output, carried), silent)

    def _decided(self, output: Output, carried: bool, track: Track) -> Decision | None:
        want = output.wants(track)
        if want is None:
            return None
        return self._decide(track, replace(want, codecs=want.carries) if carried and want.carries else want)

    def _only_for_viewers(self, output: Output, track: Track, decision: Decision) -> bool:
        return not isinstance(decision, Passthrough) and isinstance(self._decided(output, True, track), Passthrough)

    def _no_room_for_viewers(self, missed: Selected, wished: Sequence[Decision], now: int) -> str:
        """Why there is no room for what has to be made only because viewers do not take the codec; empty where there is."""
        track, decision = missed
        if now >= self._full_until:
            try:
                if isinstance(decision, Refuse):  # nothing is transcoded here
                    raise Rejected(Reason.UNSUPPORTED_MEDIA, decision.why.text)
                if wished != self._admitted:
                    self._room.admit([wished])
                    self._admitted = wished
                self._full_until = 0
                return ""
            except Rejected as refusal:
                self.no_room(refusal, now)
        return f"{track.codec.value} passes though a viewer's player does not take it: {self._full_why}"

    def _admit_optional(self, output: str, wanted: Demand) -> None:
        if wanted == Demand():
            self._optional.pop(output, None)
        if wanted == self._optional.get(output, Demand()):
            return
        beside = [each for name, each in self._optional.items() if name != output]
        self._room.admit_optional(_sum([*beside, wanted]))
        self._optional[output] = wanted


def _take(stages: Stages, track: Track, decision: Decision, output: Output) -> None:
    """Puts `output` to the stage of this form, or to one that is there and does as well."""
    want = output.wants(track)
    assert want is not None
    taker = Taker(output.name, _ALL_LAYERS if want.smaller else want.layers)
    made = [each for each in stages.values() if each.track.id == track.id and _makes(each.decision, want)]
    if isinstance(decision, Transcode) and made:
        stages[made[0].form] = made[0].taken_too(taker, want.idle)
        return
    new = PlannedStage(track, decision, (taker,), output.essential, want.idle)
    there = stages.get(new.form)
    if there is not None:
        below = _below(there.decision) or _below(decision)
        merged = replace(there.decision, below=below) if isinstance(there.decision, Passthrough) else there.decision
        new = replace(there.taken_too(taker, want.idle), decision=merged)
    stages[new.form] = new
    if want.smaller and isinstance(decision, Passthrough):
        for each in made:
            stages[each.form] = each.taken_too(taker._replace(smaller=True), idle=each.idle)


def _below(decision: Decision) -> VideoTarget | None:
    return decision.below if isinstance(decision, Passthrough) else None


def _makes(decision: Decision, want: Want) -> bool:
    return isinstance(decision, Transcode) and decision.codec in want.makes


def _added(with_it: Stages, before: Stages, output: Output) -> Demand:
    """What the stages that are new cost, and the output itself where it takes anything."""
    takes = any(
        output.name in (taker.output for taker in stage.takers) and not isinstance(stage.decision, Refuse)
        for stage in with_it.values()
    )
    new = [stage.decision for form, stage in with_it.items() if form not in before]
    return _sum([demand(new), output.overhead]) if takes else Demand()


def _sum(demands: Iterable[Demand]) -> Demand:
    return reduce(Demand.plus, demands, Demand())
