"""What has happened to media, as plain totals: of one pipeline while it lives, and added up by protocol for the metrics."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from gateway.sessions.seat_state import Interruption, SeatChange, SeatState
from gateway.telemetry.latency import Histogram, Step
from protocols.media import Kind


@dataclass(slots=True)
class Delays:
    """Where a track's time goes: one histogram per step, and the total to the first viewer by treatment."""

    steps: dict[Step, Histogram] = field(default_factory=lambda: {step: Histogram() for step in Step})
    total: dict[str, Histogram] = field(default_factory=lambda: {"passthrough": Histogram(), "transcode": Histogram()})

    def add(self, other: "Delays") -> None:
        for step, histogram in other.steps.items():
            self.steps[step].add(histogram)
        for mode, histogram in other.total.items():
            self.total[mode].add(histogram)


GAP_BOUNDS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(slots=True)
class Gaps:
    """How long interruptions lasted: counts by `GAP_BOUNDS_S` (upper bounds, inclusive) and one more for what is beyond."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(GAP_BOUNDS_S) + 1))
    total_s: float = 0.0

    def observe(self, gap: int) -> None:
        """`gap` in ns."""
        self.counts[bisect_left(GAP_BOUNDS_S, gap / 1e9)] += 1
        self.total_s += gap / 1e9

    def add(self, other: "Gaps") -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total_s += other.total_s


@dataclass(slots=True)
class PipelineCounters:
    """What one pipeline did, as plain totals; ended ones are added up for the metrics."""

    packets: Counter[Kind] = field(default_factory=Counter)
    bytes: Counter[Kind] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # by the pacer's reasons
    treatments: Counter[tuple[Kind, str, str]] = field(default_factory=Counter)  # kind, mode, reason label
    unreadable: int = 0  # messages, and parts of them, that were left out
    rebases: int = 0
    worker_restarts: int = 0
    worker_dropped: int = 0  # packets, before the worker or in it
    worker_lowered: int = 0  # steps down to cheaper encoding
    layers_lost: int = 0  # times that a video which passes had to do without layers below it
    worker_cpu_ns: Counter[Kind] = field(default_factory=Counter)  # by what the workers made
    interruptions: Counter[str] = field(default_factory=Counter)  # times that nothing came of the encoder, by cause
    switches: Counter[str] = field(default_factory=Counter)  # times that another input was forwarded than before, by cause
    held: int = 0  # times that there were too many changes of inputs
    gaps: Gaps = field(default_factory=Gaps)  # how long those were that are over
    delays: dict[Kind, Delays] = field(default_factory=lambda: {kind: Delays() for kind in Kind})

    def interrupted(self, interruption: Interruption, change: SeatChange, before: SeatState) -> None:
        """Count what has become of it, once at its beginning and once at its end; `before`: the seat's state until then."""
        if change is SeatChange.RESUMED:
            self.gaps.observe(interruption.gap)
        elif before is not SeatState.STALLED:
            self.interruptions[interruption.cause.value] += 1

    def switched(self, cause: str) -> None:
        self.switches[cause] += 1

    def hold(self) -> None:
        self.held += 1

    def add(self, other: "PipelineCounters") -> None:
        self.packets.update(other.packets)
        self.bytes.update(other.bytes)
        self.dropped.update(other.dropped)
        self.treatments.update(other.treatments)
        self.unreadable += other.unreadable
        self.rebases += other.rebases
        self.worker_restarts += other.worker_restarts
        self.worker_dropped += other.worker_dropped
        self.worker_lowered += other.worker_lowered
        self.layers_lost += other.layers_lost
        self.worker_cpu_ns.update(other.worker_cpu_ns)
        self.interruptions.update(other.interruptions)
        self.switches.update(other.switches)
        self.held += other.held
        self.gaps.add(other.gaps)
        for kind, delays in other.delays.items():
            self.delays[kind].add(delays)
