"""What the Grafana dashboards show: three tables of panels, each a title, its queries and their unit. `build.py` makes the JSON of them.

Each query is written without the node that is looked at: `build.py` puts `{instance=~"$instance"}` into every selector.
"""

from dataclasses import dataclass
from typing import Any

Query = tuple[str, str]
"""PromQL, and the legend: `{{label}}` stands for a label's value."""


@dataclass(frozen=True)
class Panel:
    """`kind` is Grafana's panel type; `width` counts columns of 24."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    explains: str = ""
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    warn: float | None = None  # from here on yellow
    bad: float | None = None  # and red


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    explains: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]


def stat(title: str, query: str, unit: str = "short", **more: Any) -> Panel:
    return Panel(title, ((query, ""),), unit, width=4, kind="stat", **more)


def quantiles(metric: str, by: str) -> tuple[Query, ...]:
    """p50, p95 and p99 of a delay of the last minute; `by` are the labels that are kept, of all nodes the worst is shown."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    start = metric if "{" in metric else metric + "{"
    return tuple(
        (f'max by ({by}) ({start.rstrip("}")}{", " if "{" in metric else ""}quantile="{q}"}})', f"{legend} p{q[2:]:0<2}")
        for q in ("0.5", "0.95", "0.99")
    )


def stage(q: str) -> Panel:
    query = f'max by (protocol, stage) (ingress_stage_latency_seconds{{kind="video", quantile="{q}"}})'
    return Panel(
        f"Where a picture's time goes: p{q[2:]:0<2} by stage",
        ((query, "{{protocol}} {{stage}}"),),
        "s",
        "Of the last minute. receive is the uplink's: from a frame's first to its last byte. The rest is ours.",
    )


def spread(metric: str) -> tuple[Query, ...]:
    """A figure of the live streams, by protocol."""
    return ((f"max by (protocol, statistic) ({metric})", "{{protocol}} {{statistic}}"),)


def rates(**queries: str) -> tuple[Query, ...]:
    """Legend to counter."""
    return tuple((f"sum(rate({metric}[$__rate_interval]))", legend.replace("_", " ")) for legend, metric in queries.items())


OVERVIEW = Dashboard(
    "ingress-overview",
    "Ingress: overview",
    "What is live, how late it is, what it costs, and who is turned away",
    (
        (
            "Now",
            (
                stat("Streams", 'sum(ingress_sessions{state="live"})'),
                stat("Viewers", "sum(ingress_viewers)"),
                stat("Calls", "sum(ingress_calls)"),
                stat(
                    "Delay of pictures, p95",
                    'max(ingress_latency_seconds{kind="video", quantile="0.95"})',
                    "s",
                    warn=0.1,
                    bad=0.5,
                ),
                stat("Findings", "sum(ingress_findings)", warn=1),
                stat("Refused in the last hour", "round(sum(increase(ingress_refused_total[1h])))", warn=1),
            ),
        ),
        (
            "Streams and viewers",
            (
                Panel(
                    "Streams by protocol",
                    (('sum by (protocol) (ingress_sessions{state="live"})', "{{protocol}}"),),
                    stacked=True,
                ),
                Panel("Viewers watching", (("sum(ingress_viewers)", "viewers"),)),
                Panel(
                    "Media received",
                    (("8 * sum by (protocol) (rate(ingress_bytes_total[$__rate_interval]))", "{{protocol}}"),),
                    "bps",
                    stacked=True,
                ),
            ),
        ),
        (
            "Delay",
            (
                Panel(
                    "Delay of pictures that pass through",
                    quantiles('ingress_latency_seconds{kind="video", mode="passthrough"}', "protocol"),
                    "s",
                    "From a frame's last byte received to its last packet handed to the kernel for the first viewer.",
                    12,
                    warn=0.1,
                ),
                Panel(
                    "Delay of what is transcoded",
                    quantiles('ingress_latency_seconds{mode="transcode"}', "protocol, kind"),
                    "s",
                    "The same clock; sound waits until 20 ms of it are there.",
                    12,
                    warn=0.5,
                ),
                stage("0.5"),
                stage("0.95"),
                stage("0.99"),
            ),
        ),
        (
            "Cost and refusals",
            (
                Panel(
                    "CPU by treatment",
                    (("sum by (treatment) (rate(ingress_cpu_seconds_total[$__rate_interval]))", "{{treatment}}"),),
                    "short",
                    "Cores. passthrough is all that the main process does; audio and video are the workers.",
                    stacked=True,
                ),
                Panel(
                    "Refused, by reason",
                    (
                        (
                            "sum by (protocol, reason) (increase(ingress_refused_total[$__rate_interval]))",
                            "{{protocol}} {{reason}}",
                        ),
                        (
                            "sum by (protocol, reason) (increase(ingress_connections_failed_total[$__rate_interval]))",
                            "{{protocol}} {{reason}} (before publishing)",
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    "How tracks are treated, and why",
                    (("sum by (kind, mode, reason) (ingress_treatments_total)", "{{kind}} {{mode}}: {{reason}}"),),
                    explains="Decisions since the start.",
                    kind="bargauge",
                ),
            ),
        ),
    ),
)

STREAMS = Dashboard(
    "ingress-streams",
    "Ingress: stream health",
    "What streamers' encoders and networks do; which stream it is, the page at / and /api/streams say",
    (
        (
            "What streamers are told",
            (
                Panel(
                    "Streams with findings",
                    (("sum by (concern) (ingress_findings)", "{{concern}}"),),
                    explains="The page at / shows the words that each streamer is told.",
                    width=12,
                    stacked=True,
                ),
                Panel(
                    "Frames dropped",
                    (
                        (
                            "sum by (protocol, reason) (rate(ingress_frames_dropped_total[$__rate_interval]))",
                            "{{protocol}} {{reason}}",
                        ),
                        (
                            "sum by (protocol) (rate(ingress_worker_dropped_total[$__rate_interval]))",
                            "{{protocol}} transcoding too slow",
                        ),
                        *rates(
                            viewer_too_slow="ingress_viewer_dropped_total", session_too_slow="ingress_srt_units_dropped_total"
                        ),
                    ),
                    "ops",
                    "Late is worse than lost: what is too late is dropped up to the next key frame.",
                    12,
                ),
            ),
        ),
        (
            "Loss",
            (
                Panel(
                    "SRT: packets lost and repaired",
                    rates(
                        lost="ingress_srt_packets_lost_total",
                        sent_again="ingress_srt_packets_retransmitted_total",
                        given_up="ingress_srt_packets_dropped_total",
                        not_decrypted="ingress_srt_packets_undecryptable_total",
                        continuity_errors="ingress_srt_continuity_errors_total",
                    ),
                    "pps",
                    "What is given up is missing in the picture: a longer latency helps.",
                ),
                Panel(
                    "WHIP: packets lost and repaired",
                    rates(
                        asked_again="ingress_whip_nacks_total",
                        repaired="ingress_whip_repaired_total",
                        given_up="ingress_whip_lost_total",
                        key_frames_asked_for="ingress_whip_plis_total",
                        frames_broken="ingress_whip_broken_total",
                    ),
                    "pps",
                ),
                Panel(
                    "Viewers: packets missed and sent again",
                    rates(
                        missed="ingress_viewer_nacks_total",
                        sent_again="ingress_viewer_retransmitted_total",
                        key_frames_asked_for="ingress_viewer_plis_total",
                        groups_sent_again="ingress_viewer_replays_total",
                    ),
                    "pps",
                ),
            ),
        ),
        (
            "The way to us",
            (
                Panel(
                    "Round trip", spread("ingress_round_trip_seconds"), "s", "The median of the live streams, and the longest."
                ),
                Panel(
                    "What the network adds",
                    (("max by (protocol) (ingress_network_latency_seconds)", "{{protocol}}"),),
                    "s",
                    "As far as each protocol knows. SRT: half the round trip and the negotiated latency.",
                ),
                Panel("Jitter of frames", spread("ingress_frame_jitter_seconds"), "s", "How unevenly whole pictures come in."),
            ),
        ),
        (
            "The encoders",
            (
                Panel("Frame rate", spread("ingress_frame_rate"), "short", "The median of the live streams, and the lowest."),
                Panel(
                    "Group of pictures",
                    spread("ingress_keyframe_interval_seconds"),
                    "s",
                    "From key frame to key frame: 2 s is good, more makes viewers wait.",
                    warn=4.5,
                ),
                Panel(
                    "Clocks and buffers",
                    (
                        (
                            "sum by (protocol) (increase(ingress_timeline_rebases_total[$__rate_interval]))",
                            "{{protocol}} jumps of the clock",
                        ),
                        ("max(ingress_srt_receive_buffer_seconds)", "SRT: fullest receive buffer, s"),
                        ("max(ingress_srt_latency_seconds)", "SRT: longest latency, s"),
                    ),
                ),
            ),
        ),
    ),
)

NODE = Dashboard(
    "ingress-node",
    "Ingress: node",
    "Room for more, the workers, the event loop, the ports",
    (
        (
            "Now",
            (
                stat("CPU in use, of what may be", "max(ingress_capacity_pressure)", "percentunit", warn=0.8, bad=0.95),
                stat(
                    "Streams, of the limit",
                    "max(sum by (instance) (ingress_sessions) / on (instance) ingress_sessions_limit)",
                    "percentunit",
                    warn=0.9,
                ),
                stat("Workers", "sum(ingress_workers)"),
                stat("Worker restarts in an hour", "round(sum(increase(ingress_worker_restarts_total[1h])))", warn=1, bad=5),
                stat("Memory", "max(process_resident_memory_bytes)", "bytes"),
                stat("Certificate ends in", "min(ingress_certificate_expiry_seconds)", "s"),
            ),
        ),
        (
            "Room",
            (
                Panel(
                    "CPU: used, and what may be used",
                    (
                        ("sum by (instance) (ingress_capacity_used_cores)", "{{instance}} used"),
                        ("sum by (instance) (ingress_capacity_cores)", "{{instance}} may be used"),
                    ),
                    explains="In cores, by this gateway's own reckoning: what else runs on the machine is not in it.",
                ),
                Panel(
                    "What a stream of each kind costs here",
                    (("max by (kind) (ingress_capacity_cost_cores)", "{{kind}}"),),
                    explains="In cores, learned from the streams that were live.",
                    kind="bargauge",
                ),
                Panel(
                    "CPU of the processes",
                    (
                        ("sum by (treatment) (rate(ingress_cpu_seconds_total[$__rate_interval]))", "{{treatment}}"),
                        ("sum(rate(process_cpu_seconds_total[$__rate_interval]))", "main process"),
                    ),
                ),
            ),
        ),
        (
            "Workers",
            (
                Panel("Workers alive", (("sum by (instance) (ingress_workers)", "{{instance}}"),)),
                Panel(
                    "Crashes and hangs",
                    (("sum by (protocol) (increase(ingress_worker_restarts_total[$__rate_interval]))", "{{protocol}}"),),
                ),
                Panel(
                    "Transcoding that cannot keep up",
                    (
                        (
                            "sum by (protocol) (increase(ingress_worker_effort_lowered_total[$__rate_interval]))",
                            "{{protocol}} cheaper",
                        ),
                        (
                            "sum by (protocol) (rate(ingress_worker_dropped_total[$__rate_interval]))",
                            "{{protocol}} frames dropped/s",
                        ),
                    ),
                ),
            ),
        ),
        (
            "Event loop and ports",
            (
                Panel(
                    "Event loop delay",
                    quantiles("ingress_event_loop_delay_seconds", "instance"),
                    "s",
                    "How late timers run. All media of this process is as late.",
                    warn=0.05,
                ),
                Panel(
                    "UDP: datagrams lost on this machine",
                    (
                        ("sum by (port) (rate(ingress_udp_dropped_total[$__rate_interval]))", "{{port}}: receive buffer full"),
                        *rates(
                            send_buffer_full="ingress_webrtc_packets_dropped_total",
                            not_to_be_sent="ingress_webrtc_packets_unsendable_total",
                        ),
                    ),
                    "pps",
                    "A larger net.core.rmem_max helps against the first.",
                ),
                Panel(
                    "WebRTC: what does not belong",
                    rates(
                        never_connected="ingress_webrtc_never_connected_total",
                        handshakes_failed="ingress_webrtc_handshakes_failed_total",
                        fell_silent="ingress_webrtc_consent_lost_total",
                        junk="ingress_webrtc_junk_total",
                        forged="ingress_webrtc_forged_total",
                        unknown_source="ingress_webrtc_unknown_source_total",
                    ),
                    "ops",
                ),
                Panel("Memory of the main process", (("process_resident_memory_bytes", "{{instance}}"),), "bytes"),
                Panel(
                    "Open files",
                    (("process_open_fds", "{{instance}} open"), ("process_max_fds", "{{instance}} limit")),
                ),
                Panel(
                    "Until certificates end",
                    (("min by (instance, certificate) (ingress_certificate_expiry_seconds)", "{{instance}} {{certificate}}"),),
                    "s",
                ),
            ),
        ),
    ),
)

DASHBOARDS = (OVERVIEW, STREAMS, NODE)
