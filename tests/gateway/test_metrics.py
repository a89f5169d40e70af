"""What an operator sees: every series of the design with a stream on it, well formed, and nothing secret in any of it."""

import asyncio
import re
import shutil

from prometheus_client.parser import text_string_to_metric_families

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.viewer import watching

ALLOWED_LABELS = {
    "protocol",
    "stage",
    "kind",
    "codec",
    "mode",
    "reason",
    "concern",
    "cause",
    "statistic",
    "type",
    "treatment",
    "part",
    "port",
    "certificate",
    "result",
    "layer",
    "state",
    "le",
    "quantile",
}
COUNTED = {
    'ingress_sessions{protocol="rtmp",state="live"}',
    'ingress_sessions_started_total{protocol="rtmp"}',
    'ingress_frames_total{kind="video",protocol="rtmp"}',
    'ingress_frames_total{kind="audio",protocol="rtmp"}',
    'ingress_bytes_total{kind="video",protocol="rtmp"}',
    'ingress_treatments_total{kind="video",mode="passthrough",protocol="rtmp",reason="same_codec"}',
    'ingress_treatments_total{kind="audio",mode="transcode",protocol="rtmp",reason="codec"}',
    'ingress_stage_latency_seconds{kind="video",protocol="rtmp",quantile="0.5",stage="receive"}',
    'ingress_stage_latency_seconds{kind="video",protocol="rtmp",quantile="0.5",stage="demux"}',
    'ingress_stage_latency_seconds{kind="video",protocol="rtmp",quantile="0.5",stage="queue"}',
    'ingress_stage_latency_seconds{kind="video",protocol="rtmp",quantile="0.5",stage="packetize"}',
    'ingress_stage_latency_seconds{kind="video",protocol="rtmp",quantile="0.5",stage="send"}',
    'ingress_latency_seconds{kind="video",mode="passthrough",protocol="rtmp",quantile="0.5"}',
    'ingress_latency_seconds{kind="audio",mode="transcode",protocol="rtmp",quantile="0.5"}',
    'ingress_network_latency_seconds{protocol="rtmp"}',
    'ingress_frame_rate{protocol="rtmp",statistic="median"}',
    'ingress_keyframe_interval_seconds{protocol="rtmp",statistic="highest"}',
    'ingress_frame_jitter_seconds{protocol="rtmp",statistic="highest"}',
    'ingress_round_trip_seconds{protocol="rtmp",statistic="highest"}',
    'ingress_cpu_seconds_total{treatment="passthrough"}',
    'ingress_cpu_seconds_total{treatment="audio"}',
    "ingress_sessions_limit",
    "ingress_viewers",
    "ingress_viewers_joined_total",
    "ingress_webrtc_packets_sent_total",
    "ingress_viewer_packets_total",
    "ingress_workers",
    'ingress_event_loop_delay_seconds{quantile="0.99"}',
    "process_cpu_seconds_total",
}
ZERO = {
    'ingress_cpu_seconds_total{treatment="video"}',
    'ingress_findings{concern="stalled"}',
    'ingress_refused_total{protocol="rtmp",reason="overloaded"}',
    'ingress_udp_dropped_total{port="webrtc"}',
    'ingress_frames_dropped_total{protocol="rtmp",reason="late"}',
    'ingress_worker_restarts_total{protocol="rtmp"}',
    'ingress_connections_failed_total{protocol="rtmp",reason="protocol_error"}',
    "ingress_viewer_retransmitted_total",
}


async def test_every_series_is_there_and_well_formed_and_tells_no_secret() -> None:
    async with running_gateway() as gateway, watching(gateway.url("/whep/livestream:demo")) as viewer:
        async with ffmpeg(*programme(), *X264_LIVE, "-c:a", "aac", "-f", "flv", gateway.rtmp()):
            await viewer.until(frames=60, audio=60)
            stream = await gateway.stream(tracks=2)
            text = await gateway.text("/metrics")
            assert await gateway.text("/healthz") == "ok\n"
            assert await gateway.text("/readyz") == "ready\n"
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for series in COUNTED:
        assert float(values[series]) > 0, series
    for series in ZERO:
        assert float(values[series]) == 0, series
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            assert set(sample.labels) <= ALLOWED_LABELS, sample
    assert not re.search(r"eyJ|livestream:|127\.0\.0\.1", text)
    assert stream["id"] not in text
    promtool = await asyncio.create_subprocess_exec(
        shutil.which("promtool") or "promtool",
        "check",
        "metrics",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await promtool.communicate(text.encode())
    ours = [line for line in said.decode().splitlines() if "ingress_" in line]
    assert not ours, ours
