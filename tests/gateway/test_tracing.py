"""A stream's life arrives as OpenTelemetry spans at a receiver of OTLP, and nothing of OpenTelemetry is loaded where nobody asked."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import ROOT, running_gateway

LIFE = ["authorise", "accept", "probe", "join", "live", "linger", "end"]
STREAM = (*programme(320, 240), *X264_LIVE, "-c:a", "aac", "-f", "flv")


@dataclass
class Receiver:
    """An OTLP/HTTP receiver (https://opentelemetry.io/docs/specs/otlp/#otlphttp) on a port of its own."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert names["service.name"] == "ingress-gateway"
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def facts(span: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application()
    application.add_routes([web.post("/v1/traces", receiver.take)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def test_each_step_of_a_stream_and_of_a_refusal_is_a_span() -> None:
    async with receiving() as receiver:
        async with running_gateway(f"tracing.endpoint={receiver.url}", "calls.stop_linger_s=1") as gateway:
            async with ffmpeg(*STREAM, gateway.rtmp()):
                session = (await gateway.stream(tracks=2))["id"]
            await gateway.logged("'message': 'ended'")
            async with ffmpeg(*STREAM, gateway.rtmp()[:-12]) as encoding:
                await encoding.wait()
        whole, refused = sorted(receiver.named("stream"), key=lambda span: int(span.start_time_unix_nano))
        steps = [span for span in receiver.spans if span.parent_span_id == whole.span_id]
        steps.sort(key=lambda span: int(span.start_time_unix_nano))
        assert [span.name for span in steps] == LIFE
        assert all(span.trace_id == whole.trace_id for span in steps)
        assert all(a.end_time_unix_nano <= b.start_time_unix_nano for a, b in itertools.pairwise(steps))
        known = facts(whole)
        assert (known["ingress.session"], known["ingress.protocol"], known["ingress.call"], known["ingress.user"]) == (
            session,
            "rtmp",
            "livestream:demo",
            "host",
        )
        assert known["ingress.why_ended"] == "the encoder ended the stream"
        assert facts(refused)["ingress.refused"] == "unauthorized"
        assert refused.status.code == refused.status.STATUS_CODE_ERROR
        assert "stream key" in refused.status.message
        (authorise,) = (span for span in receiver.spans if span.parent_span_id == refused.span_id)
        assert authorise.name == "authorise"
        assert gateway.key()[:20] not in str(receiver.spans)
        assert gateway.rtmp()[-40:-12] not in str(receiver.spans)


async def test_a_receiver_that_is_away_holds_up_neither_streams_nor_the_end() -> None:
    async with running_gateway("tracing.endpoint=http://127.0.0.1:9/v1/traces", "calls.linger_s=0") as gateway:
        async with ffmpeg(*STREAM, gateway.rtmp()):
            await gateway.stream(tracks=2)
        await gateway.logged("'message': 'ended'")
        os.kill(gateway.pid, signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await gateway.process.wait() == 0


def test_without_it_nothing_of_opentelemetry_is_loaded() -> None:
    code = "import sys, gateway.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
