"""Prometheus metrics: one collector that reads the live objects' plain integers when it is scraped.

The only file that knows prometheus_client. Labels are bounded: protocol, stage, track kind, mode, reason, concern — never a key, id or
address; the number of series depends on the protocols in use, not on the streams. Times are seconds, sizes bytes, as Prometheus'
conventions ask. Delays are shown as quantiles of the last minute, from histograms kept here: their buckets would be a thousand series.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import nan
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.node.host import Certificates, udp_drops
from gateway.sessions.capacity import Capacity
from gateway.sessions.counters import GAP_BOUNDS_S, Gaps, PipelineCounters
from gateway.sessions.diagnostics import Concern, findings
from gateway.sessions.output import CountedDestination
from gateway.sessions.registry import Registry
from gateway.sessions.seat_state import InterruptionCause
from gateway.sessions.stream_figures import FIGURES, spread
from gateway.telemetry.latency import Histogram, Window
from protocols.errors import Reason
from protocols.media import Kind
from protocols.metric import MetricFamily
from protocols.publisher import LinkReading, Listener
from transcode.host.pool import Workers

_FRESH_NS = 1_000_000_000
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_STAGES_HELP = (
    "Time of a frame in one stage, of the last minute, of pictures only: receive = first to last byte read, demux = from there "
    "until the session has the packet, queue = held by the pacer, transcode = into a stage until out of it, packetize = payloads made, "
    "send = until its last packet for the first viewer is with the kernel"
)
_TOTAL_HELP = (
    "From a frame's last byte received to its last packet handed to the kernel for the first viewer, of the last minute"
)
_LAG_HELP = "How late the event loop runs its timers, of the last minute"
_TOLD_HELP = "From an event until it is written to the last socket of those that are told, of the last minute"
_QUANTILES = (0.5, 0.95, 0.99)
# Also before the first, so that a rise from nothing is seen
_ALWAYS_SHOWN = (Reason.UNAUTHORIZED, Reason.OVERLOADED)
_NEVER_INTERRUPTED = {InterruptionCause.SILENT.value: 0, InterruptionCause.CLOSED.value: 0}

Labels = tuple[str, ...]

_COUNTED: tuple[tuple[str, str, Labels, Callable[[PipelineCounters], dict[Labels, float]]], ...] = (
    ("frames", "Access units received", ("kind",), lambda t: {(k.value,): n for k, n in t.packets.items()}),
    ("bytes", "Media bytes received", ("kind",), lambda t: {(k.value,): n for k, n in t.bytes.items()}),
    ("frames_dropped", "Access units that the pacer dropped", ("reason",), lambda t: {(r,): n for r, n in t.dropped.items()}),
    (
        "treatments",
        "Decisions how to treat a track, with the reason",
        ("kind", "mode", "reason"),
        lambda t: {(kind.value, mode, reason): n for (kind, mode, reason), n in t.treatments.items()},
    ),
    ("unreadable", "Messages and parts of them left out since they could not be read", (), lambda t: {(): t.unreadable}),
    ("timeline_rebases", "Jumps of a source's clock that were taken out", (), lambda t: {(): t.rebases}),
    ("worker_restarts", "Workers started anew after a crash or hang", (), lambda t: {(): t.worker_restarts}),
    ("worker_dropped", "Access units that transcoding could not keep up with", (), lambda t: {(): t.worker_dropped}),
    ("layers_lost", "Times that a video which passes went without layers below it", (), lambda t: {(): t.layers_lost}),
    (
        "interruptions",
        "Times that nothing came of a live encoder: silent = its connection gave nothing, closed = it had gone",
        ("cause",),
        lambda t: {(cause,): n for cause, n in (_NEVER_INTERRUPTED | t.interruptions).items()},
    ),
    (
        "input_switches",
        "Times that another encoder of a stream went live than before: silent, closed = the one before was down, returned = a better one "
        "was well again, manual = somebody switched, taken_over = another came in its place",
        ("cause",),
        lambda t: {(cause,): n for cause, n in t.switches.items()},
    ),
    (
        "input_switches_held",
        "Times that encoders took a stream from each other too often, so that one stayed",
        (),
        lambda t: {(): t.held},
    ),
    ("worker_effort_lowered", "Steps down to a cheaper encoding that can keep up", (), lambda t: {(): t.worker_lowered}),
)
"""What is counted by protocol: name, meaning, further labels, and how the totals give it."""


_LINKS: tuple[tuple[str, str, Callable[[Iterable[float]], float], Callable[[LinkReading], float]], ...] = (
    ("latency_seconds", "Longest negotiated latency", max, lambda link: link.latency_ms / 1e3),
    ("receive_buffer_seconds", "Most media in a receive buffer", max, lambda link: link.buffer_ms / 1e3),
    ("capacity_bytes_per_second", "Least estimated capacity of a link", min, lambda link: link.capacity_mbps * 125e3),
)
"""Of protocols that have links: name, meaning, which of the live seats is shown, and its figure."""


class Transport(Protocol):
    """What carries the media of viewers and of WHIP."""

    @property
    def ports(self) -> Sequence[int]:
        """UDP ports that are bound."""

    @property
    def cpu_ns(self) -> int:
        """CPU of processes of its own, since the start."""

    def counters(self) -> Iterable[tuple[str, str, int]]:
        """Name, meaning and value of each total."""


class Audience(Protocol):
    """The viewers over WebRTC."""

    @property
    def viewers(self) -> int: ...

    @property
    def joined(self) -> int: ...

    def refusals(self) -> Mapping[str, int]: ...

    def counters(self) -> Iterable[tuple[str, str, int]]:
        """Name, meaning and value of each total."""


class Counted(Protocol):
    """Who is told what happens, and how late."""

    @property
    def delay(self) -> Histogram: ...

    def counters(self) -> Iterable[MetricFamily]: ...


class HttpCounted(Protocol):
    """Connections to the HTTP port."""

    def counters(self) -> Iterable[MetricFamily]: ...


@dataclass(frozen=True, slots=True)
class Observed:
    """The live objects that are read on scrape."""

    registry: Registry
    workers: Workers
    transport: Transport
    audience: Audience
    protocols: Sequence[str]  # that there are, listened to or not
    listeners: Sequence[Listener]
    outputs: Sequence[CountedDestination]
    loop_lag: Histogram
    max_streams: int
    certificates: Certificates
    capacity: Capacity
    events: Counted
    http: HttpCounted
    api_answers: Counter[int]  # by status


class GatewayCollector(Collector):
    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._windows: dict[Labels, Window] = {}  # by series, without the quantile

    def collect(self) -> Iterator[Metric]:
        totals = list(self._observed.registry.totals())
        yield from self._sessions()
        yield from self._media(totals)
        yield from self._latency(totals)
        yield from self._streams()
        yield from self._viewers()
        yield from self._listeners()
        yield from self._node(totals)
        yield from map(_shown, self._observed.http.counters())
        yield from self._told()
        yield from self._outputs()

    def describe(self) -> Iterable[Metric]:
        return ()

    def _sessions(self) -> Iterator[Metric]:
        registry = self._observed.registry
        live = Counter((seat.protocol, seat.state.value) for seat in registry.seats.values())
        yield _gauge("sessions", "Sessions now, by state", ("protocol", "state"), live.items())
        yield _gauge("sessions_limit", "Sessions that are let in at once", (), [((), self._observed.max_streams)])
        started = (((protocol,), n) for protocol, n in registry.started.items())
        yield _counter("sessions_started", "Sessions authorised", ("protocol",), started)
        yield _counter("refused", "Publishers refused, by reason", ("protocol", "reason"), self._refused().items())
        listeners = self._observed.listeners
        failed = {(each.protocol, reason): n for each in listeners for reason, n in each.failures().items()}
        meaning = "Connections that ended before they could publish"
        yield _counter("connections_failed", meaning, ("protocol", "reason"), failed.items())

    def _refused(self) -> Counter[Labels]:
        """By protocol and reason: by a seat's rules, and by listeners before there is a publisher."""
        listeners = self._observed.listeners
        refused: Counter[Labels] = Counter({(each.protocol, why.label): 0 for each in listeners for why in _ALWAYS_SHOWN})
        refused.update(self._observed.registry.refused)
        for listener in listeners:
            refused.update({(listener.protocol, reason): n for reason, n in listener.refusals().items()})
        return refused

    def _media(self, totals: Sequence[tuple[str, PipelineCounters]]) -> Iterator[Metric]:
        for name, meaning, labels, values in _COUNTED:
            samples = (((protocol, *more), n) for protocol, each in totals for more, n in values(each).items())
            yield _counter(name, meaning, ("protocol", *labels), samples)
        gaps = Gaps()
        for _, each in totals:
            gaps.add(each.gaps)
        meaning = "How long nothing came of live encoders that went on: from their last media to the next"
        bounds = [*map(str, GAP_BOUNDS_S), "+Inf"]
        buckets = list(zip(bounds, accumulate(gaps.counts), strict=True))
        yield HistogramMetricFamily("ingress_interruption_seconds", meaning, buckets=buckets, sum_value=gaps.total_s)

    def _latency(self, totals: Sequence[tuple[str, PipelineCounters]]) -> Iterator[Metric]:
        now = time.monotonic_ns()
        stages = Metric("ingress_stage_latency_seconds", _STAGES_HELP, "summary")
        total = Metric("ingress_latency_seconds", _TOTAL_HELP, "summary")
        for protocol, each in totals:
            for kind, delays in each.delays.items():
                for step, histogram in delays.steps.items():
                    if histogram.count and kind is Kind.VIDEO:
                        labels = {"protocol": protocol, "stage": step.value, "kind": kind.value}
                        self._add_quantiles(stages, labels, histogram, now)
                for mode, histogram in delays.total.items():
                    if histogram.count:
                        labels = {"protocol": protocol, "kind": kind.value, "mode": mode}
                        self._add_quantiles(total, labels, histogram, now)
        yield from (stages, total)
        lag = Metric("ingress_event_loop_delay_seconds", _LAG_HELP, "summary")
        self._add_quantiles(lag, {}, self._observed.loop_lag, now)
        yield lag

    def _add_quantiles(self, summary: Metric, labels: dict[str, str], histogram: Histogram, now: int) -> None:
        recent = self._windows.setdefault((summary.name, *labels.values()), Window()).recent(histogram, now)
        for q in _QUANTILES:
            value = recent.quantile(q)
            summary.add_sample(summary.name, labels | {"quantile": str(q)}, nan if value is None else value / 1e3)

    def _streams(self) -> Iterator[Metric]:
        seats, now = list(self._observed.registry.seats.values()), time.monotonic_ns()
        for figure in FIGURES:
            samples = (((protocol, statistic), value) for protocol, statistic, value in spread(figure, seats))
            yield _gauge(figure.name, figure.meaning, ("protocol", "statistic"), samples)
        concerns = dict.fromkeys(Concern, 0)
        for seat in seats:
            for concern in {finding.concern for finding in findings(seat, now)}:
                concerns[concern] += 1
        meaning = "Streams with a finding that their streamer is shown, by what it is about"
        yield _gauge("findings", meaning, ("concern",), (((concern.value,), n) for concern, n in concerns.items()))
        trips: dict[str, list[int]] = {}
        for seat in seats:
            if seat.publisher is not None and (trip := seat.publisher.stats.network_latency_ns):
                trips.setdefault(seat.protocol, []).append(trip)
        yield _gauge(
            "network_latency_seconds",
            "What the protocol knows of the way to us, the mean of the live sessions; RTMP: round trip of the TCP connection; "
            "SRT: half the round trip and the negotiated latency",
            ("protocol",),
            (((protocol,), sum(values) / len(values) / 1e9) for protocol, values in trips.items()),
        )

    def _viewers(self) -> Iterator[Metric]:
        audience = self._observed.audience
        yield _gauge("viewers", "Viewers connected", (), [((), audience.viewers)])
        yield _counter("viewers_joined", "Viewers that connected", (), [((), audience.joined)])
        refused = {(reason,): n for reason, n in audience.refusals().items()}
        yield _counter("viewers_refused", "Viewers refused, by reason", ("reason",), refused.items())
        yield from _counters("webrtc", self._observed.transport.counters())
        yield from _counters("viewer", audience.counters())

    def _listeners(self) -> Iterator[Metric]:
        listeners = self._observed.listeners
        taken = {each.protocol for each in listeners}
        for protocol in self._observed.protocols:
            meaning = "1: it is taken; 0: switched off, or what it needs of this machine is missing"
            yield _gauge(f"{protocol}_available", meaning, (), [((), protocol in taken)])
        for listener in listeners:
            for family in listener.counters():
                yield _shown(family, f"{listener.protocol}_")
        links: dict[str, list[LinkReading]] = {}
        for seat in self._observed.registry.seats.values():
            link = seat.publisher.stats.link if seat.publisher is not None else None
            if link is not None and link.current:
                links.setdefault(seat.protocol, []).append(link)
        for protocol, current in links.items():
            for name, meaning, extreme, figure in _LINKS:
                samples = [((), extreme(map(figure, current)))]
                yield _gauge(f"{protocol}_{name}", f"{meaning}, of the live sessions", (), samples)

    def _node(self, totals: Sequence[tuple[str, PipelineCounters]]) -> Iterator[Metric]:
        observed = self._observed
        yield _gauge("calls", "Calls that somebody is in", (), [((), len(observed.registry.calls))])
        yield _gauge("workers", "Transcoding workers alive", (), [((), observed.workers.count)])
        cpu = {("passthrough",): time.process_time()}
        cpu |= {("fanout",): observed.transport.cpu_ns / 1e9}
        cpu |= {(kind.value,): sum(each.worker_cpu_ns[kind] for _, each in totals) / 1e9 for kind in Kind}
        meaning = (
            "CPU time by treatment: passthrough = all that the main process does; fanout = processes that serve viewers; "
            "audio = workers of streams whose sound alone is transcoded; video = workers of those whose picture is"
        )
        yield _counter("cpu_seconds", meaning, ("treatment",), cpu.items())
        ports = dict.fromkeys(observed.transport.ports, "webrtc")
        ports |= {port.number: port.name for each in observed.listeners for port in each.ports if port.udp}
        drops = (((port,), n) for port, n in udp_drops(ports).items())
        yield _counter("udp_dropped", "Datagrams that the kernel threw away: our buffer was full", ("port",), drops)
        ends = (((name,), seconds) for name, seconds in observed.certificates.remaining(time.time))
        yield _gauge("certificate_expiry_seconds", "Until the certificate ends; negative: ended", ("certificate",), ends)
        yield from _capacity(observed.capacity)

    def _told(self) -> Iterator[Metric]:
        answers = (((str(status),), n) for status, n in self._observed.api_answers.items())
        yield _counter("api_requests", "Requests of the livestream API, by the status of the answer", ("status",), answers)
        events = self._observed.events
        yield from map(_shown, events.counters())
        delay = Metric("ingress_event_delay_seconds", _TOLD_HELP, "summary")
        self._add_quantiles(delay, {}, events.delay, time.monotonic_ns())
        yield delay

    def _outputs(self) -> Iterator[Metric]:
        for output in self._observed.outputs:
            for family in output.counters():
                yield _shown(family, f"{output.name}_")
            for delays in output.delays():
                delay = Metric(f"ingress_{output.name}_{delays.name}_seconds", delays.meaning, "summary")
                for protocol, histogram in delays.by_protocol.items():
                    self._add_quantiles(delay, {"protocol": protocol}, histogram, time.monotonic_ns())
                yield delay


def _capacity(capacity: Capacity) -> Iterator[Metric]:
    yield _gauge("capacity_cores", "CPU cores that streams may use, the reserve taken off", (), [((), capacity.budget)])
    used = [(("loop",), capacity.loop_used), (("workers",), capacity.workers_used)]
    meaning = "CPU cores that the live streams use: loop = the event loop, which has one; workers = transcoding"
    yield _gauge("capacity_used_cores", meaning, ("part",), used)
    meaning = "Used of what may be used, 0 to 1, above 1 too much: of the loop's core or of all, whichever is fuller"
    yield _gauge("capacity_pressure", meaning, (), [((), capacity.pressure)])
    costs = (((kind,), cost) for kind, cost in capacity.costs())
    yield _gauge(
        "capacity_cost_cores",
        "CPU cores of one stream of a kind, as measured here; video at 30 frames a second",
        ("kind",),
        costs,
    )


def _gauge(name: str, meaning: str, labels: Sequence[str], samples: Iterable[tuple[Labels, float]]) -> Metric:
    family = GaugeMetricFamily(f"ingress_{name}", meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, meaning: str, labels: Sequence[str], samples: Iterable[tuple[Labels, float]]) -> Metric:
    family = CounterMetricFamily(f"ingress_{name}", meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _shown(family: MetricFamily, prefix: str = "") -> Metric:
    make = _counter if family.total else _gauge
    return make(f"{prefix}{family.name}", family.meaning, family.labels, family.samples.items())


def _counters(prefix: str, counters: Iterable[tuple[str, str, int]]) -> Iterator[Metric]:
    for name, meaning, value in counters:
        yield _counter(f"{prefix}_{name}", meaning, (), [((), value)])


class Metrics:
    """The text of `/metrics`, made at most once a second: whoever asks more often gets the same one."""

    def __init__(self, observed: Observed) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(GatewayCollector(observed))
        ProcessCollector(registry=self._registry)
        self._text = b""
        self._fresh_until = 0  # monotonic ns

    def render(self) -> bytes:
        now = time.monotonic_ns()
        if now >= self._fresh_until:
            self._text, self._fresh_until = generate_latest(self._registry), now + _FRESH_NS
        return self._text
