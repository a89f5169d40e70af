"""RTMP and RTMPS as the configuration wants them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.config import Config
from gateway.ingress.rtmp import rtmp_way
from gateway.node.selftest import Preconditions, WantedPort, certificate
from gateway.wiring.protocol import IngressProtocol, ListenerNeeds, Listening
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.listener import RtmpListener
from protocols.rtmp.tls import TlsFiles


def _preconditions(config: Config) -> Preconditions:
    rtmp = config.rtmp
    wanted = [WantedPort("rtmp.port", rtmp.host, rtmp.port)] if rtmp.enabled else []
    if wanted and rtmp.certificate and rtmp.tls_port:
        wanted.append(WantedPort("rtmp.tls_port", rtmp.host, rtmp.tls_port))
    return Preconditions(
        wanted,
        certificate("rtmp", rtmp.certificate, rtmp.key),
        files={"rtmp.certificate": rtmp.certificate, "rtmp.key": rtmp.key},
        descriptors=rtmp.max_connections if rtmp.enabled else 0,
    )


@asynccontextmanager
async def _listening(needs: ListenerNeeds) -> AsyncIterator[Sequence[Listening]]:
    rtmp = needs.config.rtmp
    if not rtmp.enabled:
        yield []
        return
    listener = RtmpListener(
        rtmp.host,
        rtmp.port,
        tls=TlsFiles(rtmp.certificate, rtmp.key) if rtmp.certificate else None,
        tls_port=rtmp.tls_port,
        limits=RtmpLimits(connections=rtmp.max_connections, connections_per_address=rtmp.max_connections_per_address),
        passwords=needs.authorizer.authenticator.password,
        auth_app=rtmp.auth_app,
        opened=needs.inherited.take,
    )
    async with listener:
        yield [Listening(listener, certificates={"rtmps": rtmp.certificate}, stop_accepting=listener.stop_accepting)]


RTMP = IngressProtocol("rtmp", _preconditions, _listening, rtmp_way)
