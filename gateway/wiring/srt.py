"""SRT put together, where libsrt is there: the listener for encoders that call, and the sources that are called."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Tokens
from gateway.access.srt_authorizer import SrtAuthorizer
from gateway.config import Config, SourceConfig
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.sessions.admission import Admission
from gateway.sessions.pulled_sources import Closing, PulledPublisher, PulledSources
from gateway.telemetry.log import event
from protocols.errors import Rejected
from protocols.publisher import Credential
from protocols.srt.caller import SrtSource
from protocols.srt.libsrt import Libsrt, LibsrtMissing, load
from protocols.srt.listener import SrtListener
from protocols.srt.receiver import SrtReceiver
from protocols.srt.source_url import parse_source

log = logging.getLogger(__name__)

LookUp = Callable[[Credential, str | None], None]
"""Told of what is not in memory: it should be there when the caller comes again."""

SOURCE_GRANT_S = 60  # a source is authorised once, at its start


@dataclass(frozen=True, slots=True)
class SrtIngest:
    """All that there is of it; listener and sources share one receiving thread."""

    receiver: SrtReceiver
    listener: SrtListener
    sources: PulledSources


@asynccontextmanager
async def listening_for_srt(
    config: Config, tokens: Tokens, authorizer: Authorizer, admission: Admission, closing: Closing, look_up: LookUp
) -> AsyncIterator[SrtIngest | None]:
    """None where SRT is switched off, or libsrt is missing and not insisted on.

    Raises:
        ConfigError: libsrt is missing, with how to install it.
        OSError: a port is taken.
    """
    library = _libsrt(config)
    if library is None:
        yield None
        return
    loop = asyncio.get_running_loop()

    def tell(refusal: Rejected, host: str) -> None:  # from libsrt's thread, which is not to wait for the log
        loop.call_soon_threadsafe(partial(admission.log_refusal, refusal, protocol="srt", remote=host))

    def missing(credential: Credential, call: str | None) -> None:
        loop.call_soon_threadsafe(look_up, credential, call)

    srt = config.srt
    async with SrtReceiver(library) as receiver:
        listener = SrtListener(
            srt.host,
            srt.port,
            authorise=SrtAuthorizer(authorizer.authenticator.password, admission.examine, tell, missing),
            latency_ms=srt.latency_ms,
            ports={port: key.get_secret_value() for port, key in srt.ports.items()},
            receiver=receiver,
        )
        made = {name: partial(_source, source, config, tokens, receiver) for name, source in srt.sources.items()}
        sources = PulledSources("srt", made, closing)
        async with listener, sources:
            event(log, logging.INFO, "SRT", libsrt=library.version, library=library.name, sources=len(srt.sources))
            yield SrtIngest(receiver, listener, sources)


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
