"""Prometheus metrics: one collector that reads the live objects' plain integers when it is scraped.

The only file that knows prometheus_client. Labels are bounded: protocol, stage, track kind, mode, reason, result — never a key, id or
address. Times are seconds, sizes bytes, as Prometheus' conventions ask.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.latency import BOUNDS_NS, Histogram
from gateway.registry import Registry
from gateway.srt import Srt
from protocols.rtmp.server import RtmpListener
from protocols.srt.statistics import SrtStats
from protocols.webrtc.mux import UdpMux
from protocols.whep.resource import WhepResource
from protocols.whip.resource import WhipListener
from transcode.pool import Workers

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STEPS_HELP = (
    "Time of a frame in one stage: receive = first to last byte read, demux = from there until the session has the packet, queue = held "
    "by the pacer, transcode = into a stage until out of it, packetize = payloads made, send = until its last packet for the first viewer "
    "is with the kernel"
)
_TOTAL_HELP = "From a frame's last byte received to its last packet handed to the kernel for the first viewer"


@dataclass(slots=True)
class Observed:
    """The live objects that are read on scrape."""

    registry: Registry
    workers: Workers
    mux: UdpMux
    whep: WhepResource
    rtmp: RtmpListener | None
    srt: Srt | None
    whip: WhipListener | None
    loop_lag: Histogram


class GatewayCollector(Collector):
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        yield from self._sessions()
        yield from self._media()
        yield from self._latency()
        yield from self._viewers()
        yield from self._srt()
        yield from self._node()

    def describe(self) -> Iterable[Metric]:
        return ()

    def _sessions(self) -> Iterator[Metric]:
        registry = self._observed.registry
        live = GaugeMetricFamily("ingress_sessions", "Sessions now, by state", labels=["protocol", "state"])
        counts: dict[tuple[str, str], int] = {}
        for session in registry.sessions.values():
            key = session.protocol, session.state.value
            counts[key] = counts.get(key, 0) + 1
        for labels, n in counts.items():
            live.add_metric(list(labels), n)
        yield live
        started = CounterMetricFamily("ingress_sessions_started", "Sessions authorised", labels=["protocol"])
        for protocol, n in registry.started.items():
            started.add_metric([protocol], n)
        yield started
        refused = CounterMetricFamily("ingress_refused", "Publishers refused, by reason", labels=["protocol", "reason"])
        for labels, n in self._refused().items():
            refused.add_metric(list(labels), n)
        yield refused
        broken = CounterMetricFamily(
            "ingress_connections_failed", "Connections that ended before they could publish", labels=["protocol", "reason"]
        )
        srt = self._observed.srt
        for protocol, listener in (("rtmp", self._observed.rtmp), ("srt", srt.listener if srt else None)):
            if listener is not None:
                for reason, n in listener.stats.failures().items():
                    broken.add_metric([protocol, reason], n)
        yield broken

    def _refused(self) -> Counter[tuple[str, str]]:
        """By protocol and reason: after the connection, and by SRT's listener before it."""
        refused = self._observed.registry.refused.copy()
        if self._observed.srt is not None:
            refused.update({("srt", reason): n for reason, n in self._observed.srt.listener.stats.refused.copy().items()})
        return refused

    def _media(self) -> Iterator[Metric]:
        frames = CounterMetricFamily("ingress_frames", "Access units received", labels=["protocol", "kind"])
        size = CounterMetricFamily("ingress_bytes", "Media bytes received", labels=["protocol", "kind"])
        dropped = CounterMetricFamily(
            "ingress_frames_dropped", "Access units that the pacer dropped", labels=["protocol", "reason"]
        )
        treatments = CounterMetricFamily(
            "ingress_treatments",
            "Decisions how to treat a track, with the reason",
            labels=["protocol", "kind", "mode", "reason"],
        )
        rebases = CounterMetricFamily(
            "ingress_timeline_rebases", "Jumps of a source's clock that were taken out", labels=["protocol"]
        )
        restarts = CounterMetricFamily(
            "ingress_worker_restarts", "Workers started anew after a crash or hang", labels=["protocol"]
        )
        worker_dropped = CounterMetricFamily(
            "ingress_worker_dropped", "Access units that transcoding could not keep up with", labels=["protocol"]
        )
        lowered = CounterMetricFamily(
            "ingress_worker_effort_lowered", "Steps down to a cheaper encoding that can keep up", labels=["protocol"]
        )
        worker_cpu = CounterMetricFamily("ingress_worker_cpu_seconds", "CPU time of the workers", labels=["protocol"])
        for protocol, totals in self._observed.registry.totals():
            for kind, n in totals.packets.items():
                frames.add_metric([protocol, kind.value], n)
            for kind, n in totals.bytes.items():
                size.add_metric([protocol, kind.value], n)
            for reason, n in totals.dropped.items():
                dropped.add_metric([protocol, reason], n)
            for (kind, mode, reason), n in totals.treatments.items():
                treatments.add_metric([protocol, kind.value, mode, reason], n)
            rebases.add_metric([protocol], totals.rebases)
            restarts.add_metric([protocol], totals.worker_restarts)
            worker_dropped.add_metric([protocol], totals.worker_dropped)
            lowered.add_metric([protocol], totals.worker_lowered)
            worker_cpu.add_metric([protocol], totals.worker_cpu_ns / 1e9)
        yield from (frames, size, dropped, treatments, rebases, restarts, worker_dropped, lowered, worker_cpu)

    def _latency(self) -> Iterator[Metric]:
        steps = HistogramMetricFamily("ingress_stage_latency_seconds", _STEPS_HELP, labels=["protocol", "stage", "kind"])
        total = HistogramMetricFamily("ingress_latency_seconds", _TOTAL_HELP, labels=["protocol", "kind", "mode"])
        for protocol, totals in self._observed.registry.totals():
            for kind, delays in totals.delays.items():
                for step, histogram in delays.steps.items():
                    _add(steps, [protocol, step.value, kind.value], histogram)
                for mode, histogram in delays.total.items():
                    _add(total, [protocol, kind.value, mode], histogram)
        yield from (steps, total)
        network = GaugeMetricFamily(
            "ingress_network_latency_seconds",
            "What the protocol knows of the way to us, the mean of the live sessions; RTMP: round trip of the TCP connection; "
            "SRT: half the round trip and the negotiated latency",
            labels=["protocol"],
        )
        trips: dict[str, list[int]] = {}
        for session in self._observed.registry.sessions.values():
            if session.publisher is not None and (trip := session.publisher.stats.network_latency_ns):
                trips.setdefault(session.protocol, []).append(trip)
        for protocol, values in trips.items():
            network.add_metric([protocol], sum(values) / len(values) / 1e9)
        yield network

    def _viewers(self) -> Iterator[Metric]:
        whep, mux = self._observed.whep, self._observed.mux
        yield GaugeMetricFamily("ingress_viewers", "Viewers connected", value=whep.viewers)
        yield CounterMetricFamily("ingress_viewers_joined", "Viewers that connected", value=whep.joined)
        for name, help_text, value in mux.counters():
            yield CounterMetricFamily(f"ingress_webrtc_{name}", help_text, value=value)
        for name, help_text, value in whep.counters():
            yield CounterMetricFamily(f"ingress_viewer_{name}", help_text, value=value)

        if self._observed.whip is not None:
            for name, help_text, value in self._observed.whip.counters():
                yield CounterMetricFamily(f"ingress_whip_{name}", help_text, value=value)

    def _srt(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ingress_srt_available", "1: SRT is taken; 0: switched off or no libsrt", value=self._observed.srt is not None
        )
        if self._observed.srt is None:
            return
        for name, help_text, value in self._observed.srt.receiver.totals.counters():
            yield CounterMetricFamily(f"ingress_srt_{name}", help_text, value=value)
        live = [s.publisher.stats for s in self._observed.registry.sessions.values() if s.publisher is not None]
        links = [stats for stats in live if isinstance(stats, SrtStats) and not stats.absent and stats.latency_ms]
        if not links:
            return
        worst: dict[str, tuple[str, float]] = {
            "round_trip_seconds": ("Longest round trip", max(stats.round_trip_ns for stats in links) / 1e9),
            "latency_seconds": ("Longest negotiated latency", max(stats.latency_ms for stats in links) / 1e3),
            "receive_buffer_seconds": ("Most media in a receive buffer", max(stats.buffer_ms for stats in links) / 1e3),
            "capacity_bytes_per_second": (
                "Least estimated capacity of a link",
                min(stats.capacity_mbps for stats in links) * 125e3,
            ),
        }
        for name, (help_text, extreme) in worst.items():
            yield GaugeMetricFamily(f"ingress_srt_{name}", f"{help_text}, of the live sessions", value=extreme)

    def _node(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("ingress_calls", "Calls that somebody is in", value=len(self._observed.registry.calls))
        yield GaugeMetricFamily("ingress_workers", "Transcoding workers alive", value=self._observed.workers.count)
        lag = HistogramMetricFamily("ingress_event_loop_delay_seconds", "How late the event loop runs its timers", labels=[])
        _add(lag, [], self._observed.loop_lag)
        yield lag


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    below, buckets = 0, []
    for bound, n in zip(BOUNDS_NS, histogram.counts, strict=False):
        below += n
        buckets.append((repr(bound / 1e9), below))
    buckets.append(("+Inf", histogram.count))
    family.add_metric(labels, buckets, sum_value=histogram.total / 1e9)


class Metrics:
    """The text of `/metrics`."""

    def __init__(self, observed: Observed) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(GatewayCollector(observed))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self) -> bytes:
        return generate_latest(self._registry)
