"""WHIP as the configuration wants it: on the HTTP server, its media on WebRTC's port."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.config import Config
from gateway.ingress.whip import whip_way
from gateway.node.selftest import Preconditions
from gateway.wiring.protocol import IngressProtocol, ListenerNeeds, Listening
from protocols.webrtc.transport.ice_servers import IceServer
from protocols.whip.listener import WhipListener


def _preconditions(config: Config) -> Preconditions:
    """It has no port of its own."""
    return Preconditions()


@asynccontextmanager
async def _listening(needs: ListenerNeeds) -> AsyncIterator[Sequence[Listening]]:
    config = needs.config
    if not config.whip.enabled:
        yield []
        return
    secret = config.webrtc.turn_secret.get_secret_value()
    servers = [IceServer(address, secret) for address in config.webrtc.ice_servers]
    async with WhipListener(
        needs.mux, authorise=needs.admission.authorise, cors_origins=config.http.cors_origins, ice_servers=servers
    ) as listener:
        yield [Listening(listener, listener.routes())]


WHIP = IngressProtocol("whip", _preconditions, _listening, whip_way)
