"""SRT put together, where libsrt is there: the listener for encoders that call, and the sources that are called."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from gateway.access.credentials import Tokens
from gateway.access.srt_authorizer import SrtAuthorizer
from gateway.config import Config, SourceConfig
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.ingress.srt import srt_way
from gateway.node.selftest import CheckResult, Mark, Preconditions, WantedPort
from gateway.sessions.pulled_sources import PulledPublisher, PulledSources
from gateway.telemetry.log import event
from gateway.wiring.protocol import IngressProtocol, ListenerNeeds, Listening
from protocols.errors import Rejected
from protocols.publisher import Credential
from protocols.srt.caller import SrtSource
from protocols.srt.libsrt import Libsrt, LibsrtMissing, load
from protocols.srt.listener import SrtListener
from protocols.srt.receiver import SrtReceiver
from protocols.srt.source_url import parse_source

log = logging.getLogger(__name__)

SOURCE_GRANT_S = 60  # a source is authorised once, at its start
_PER_SOCKET = 4  # descriptors: libsrt's own


def _preconditions(config: Config) -> Preconditions:
    srt = config.srt
    if srt.enabled == "false":
        return Preconditions(findings=[CheckResult(Mark.NOTE, "SRT", "switched off (srt.enabled)")])
    wanted = [WantedPort("srt.port", srt.host, srt.port, udp=True)]
    wanted += [WantedPort("srt.ports", srt.host, port, udp=True) for port in srt.ports]
    sockets = len(srt.sources) + len(wanted)
    return Preconditions(wanted, _library(config), descriptors=_PER_SOCKET * sockets)


def _library(config: Config) -> Iterator[CheckResult]:
    try:
        yield CheckResult(Mark.GOOD, "SRT", f"libsrt {load(config.srt.library).version}")
    except LibsrtMissing as missing:
        yield CheckResult(Mark.BAD if config.srt.enabled == "true" else Mark.WARNING, "SRT", "not taken", str(missing))


@asynccontextmanager
async def _listening(needs: ListenerNeeds) -> AsyncIterator[Sequence[Listening]]:
    """The listener and the sources share one receiver. Nothing where SRT is switched off, or libsrt is missing and not insisted
    on; where it is, `ConfigError` says how to install it."""
    config, admission = needs.config, needs.admission
    library = _libsrt(config)
    if library is None:
        yield []
        return

    def log_refusal(refusal: Rejected, host: str) -> None:
        admission.log_refusal(refusal, protocol="srt", remote=host)

    srt, authorizer = config.srt, needs.authorizer
    async with SrtReceiver(library) as receiver:
        listener = SrtListener(
            srt.host,
            srt.port,
            authorise=SrtAuthorizer(authorizer.authenticator.password, authorizer.prepare, admission.examine, log_refusal),
            latency_ms=srt.latency_ms,
            ports={port: key.get_secret_value() for port, key in srt.ports.items()},
            receiver=receiver,
        )
        made = {name: partial(_source, source, config, needs.tokens, receiver) for name, source in srt.sources.items()}
        sources = PulledSources("srt", made, needs.closing)
        async with listener, sources:
            event(log, logging.INFO, "SRT", libsrt=library.version, library=library.name, sources=len(srt.sources))
            yield [Listening(listener), Listening(sources, media_may_wait=True)]


def _libsrt(config: Config) -> Libsrt | None:
    if config.srt.enabled == "false":
        return None
    try:
        return load(config.srt.library)
    except LibsrtMissing as missing:
        if config.srt.enabled == "true":
            raise ConfigError([ConfigProblem("srt.enabled", "the configuration", "true", str(missing))]) from None
        event(log, logging.WARNING, f"without SRT: {missing}")
        return None


def _source(source: SourceConfig, config: Config, tokens: Tokens, receiver: SrtReceiver) -> PulledPublisher:
    return SrtSource(
        receiver,
        parse_source(source.url.get_secret_value()),
        credential=Credential(tokens.issue(source.user, [source.call], SOURCE_GRANT_S)),  # the configuration is its right
        latency_ms=config.srt.latency_ms,
        allow_private=source.allow_private,
    )


SRT = IngressProtocol("srt", _preconditions, _listening, srt_way)
