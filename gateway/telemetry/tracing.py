"""Traces of each stream's life, for OpenTelemetry: one span for all of it, and in it one for each step that it goes through.

The only file that knows OpenTelemetry, which is loaded only where `tracing.endpoint` is set (the extra `trace`). Kept true: what is sent
holds no key and no address of a person; what cannot be sent is dropped, and neither media nor the end of the process wait for it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Protocol

from gateway import VERSION
from gateway.config.sources import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

SERVICE = "ingress-gateway"
FLUSH_S = 1.0  # at the end, for what has not been sent yet
QUEUED = 2048  # spans; more are dropped
EXPORT_TIMEOUT_S = 5


class Trace(Protocol):
    """The trace of one stream, from the connection on."""

    def know(self, **facts: str) -> None:
        """What is true of all of it: protocol, session, call, user."""

    def step(self, name: str, **facts: str) -> None:
        """A step begins, and the one before it is over."""

    def end(self, why: str, refused: str = "") -> None:
        """It is over; `refused` is the label of the reason where it never came to anything. Repeated, nothing happens."""


class NoTrace:
    """Where nobody asked for traces."""

    def know(self, **facts: str) -> None: ...

    def step(self, name: str, **facts: str) -> None: ...

    def end(self, why: str, refused: str = "") -> None: ...


NO_TRACE = NoTrace()
Begin = Callable[[], Trace]
"""A new stream's trace."""


def untraced() -> Trace:
    return NO_TRACE


@asynccontextmanager
async def tracing(endpoint: str) -> AsyncIterator[Begin]:
    """What begins a trace; leaving it sends what is left, for a moment. Raises `ConfigError` where the extra is not installed."""
    if not endpoint:
        yield untraced
        return
    if find_spec("opentelemetry") is None:
        raise ConfigError(
            [ConfigProblem("tracing.endpoint", "the configuration", endpoint, "takes: pip install 'ingress-gateway[trace]'")]
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
    provider = TracerProvider(
        resource=Resource.create({"service.name": SERVICE, "service.version": VERSION}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUED))
    tracer = provider.get_tracer(SERVICE)
    try:
        yield lambda: StreamTrace(tracer)
    finally:
        # It blocks for as long as a receiver that is away lets it: after a moment the process ends without that thread.
        flushing = Thread(target=provider.force_flush, daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_S)


class StreamTrace:
    """A `Trace` of OpenTelemetry: the span `stream`, with one below it for each step."""

    def __init__(self, tracer: "Tracer") -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        self._tracer = tracer
        self._whole = tracer.start_span("stream", kind=SpanKind.SERVER)
        self._below = set_span_in_context(self._whole)
        self._step: Span | None = None

    def know(self, **facts: str) -> None:
        for name, value in facts.items():
            self._whole.set_attribute(f"ingress.{name}", value)

    def step(self, name: str, **facts: str) -> None:
        if self._step is not None:
            self._step.end()
        named = {f"ingress.{fact}": value for fact, value in facts.items()}
        self._step = self._tracer.start_span(name, context=self._below, attributes=named)

    def end(self, why: str, refused: str = "") -> None:
        if not self._whole.is_recording():
            return
        spans = [self._whole] if self._step is None else [self._step, self._whole]
        self._whole.set_attribute("ingress.why_ended", why)
        if refused:
            self._whole.set_attribute("ingress.refused", refused)
        for span in spans:
            if refused:
                _fail(span, why)
            span.end()


def _fail(span: "Span", why: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, why))
