"""What has happened to media, as plain totals: of one pipeline while it lives, and added up by protocol for the metrics."""

from collections import Counter
from dataclasses import dataclass, field

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
    delays: dict[Kind, Delays] = field(default_factory=lambda: {kind: Delays() for kind in Kind})

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
        for kind, delays in other.delays.items():
            self.delays[kind].add(delays)
