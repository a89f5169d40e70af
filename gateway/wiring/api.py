"""Everything that is asked over HTTP, put together: the livestream API, WHEP and WHIP, HLS, metrics, health and the pages."""

from collections import Counter
from collections.abc import Iterator, Sequence

from aiohttp import web

from gateway import VERSION
from gateway.access.credentials import Tokens
from gateway.api.framework.connections import ClientConnections
from gateway.api.framework.dispatch import Api
from gateway.api.framework.encoder_addresses import EncoderAddresses
from gateway.api.framework.quotas import Quotas
from gateway.api.framework.services import Services
from gateway.api.health import Health
from gateway.api.metrics import Metrics, Observed
from gateway.api.pages import Pages
from gateway.api.routes import ROUTES
from gateway.api.scene_switchers import SceneSwitchers
from gateway.api.status import Streams
from gateway.config import Config
from gateway.node.host import Certificates
from gateway.telemetry.latency import Histogram
from gateway.wiring.events import EventServices
from gateway.wiring.protocol import IngressProtocol, Listening
from gateway.wiring.sessions import SessionServices
from gateway.wiring.store import StoreAccess
from gateway.wiring.webrtc import WebrtcServices
from protocols.whep.resource import WhepResource
from transcode.host.pool import Workers


def routes(
    config: Config,
    tokens: Tokens,
    access: StoreAccess,
    seats: SessionServices,
    told: EventServices,
    listening: Sequence[Listening],
    whep: WhepResource,
    observed: Observed,
) -> Iterator[web.RouteDef]:
    """All that the HTTP server has."""
    services = Services(
        store=access.store,
        rights_cache=access.rights_cache,
        authorizer=access.authorizer,
        registry=seats.registry,
        bus=told.bus,
        interactions=told.interactions,
        broadcasts=seats.broadcasts,
        ingress=EncoderAddresses(observed.listeners),
        quotas=Quotas(config.quotas),
        tokens=tokens,
    )
    yield from whep.routes()
    for each in listening:
        yield from each.routes
    for output in seats.outputs:
        yield from output.routes
    yield from Streams(seats.registry, Metrics(observed).render, access.authorizer, services.quotas).routes()
    yield from SceneSwitchers(seats.registry, access.authorizer, services.quotas).routes()
    yield from Health(seats.drain, access.authorizer).routes()
    yield from told.sockets.routes()
    yield from Pages(config).routes()
    yield from Api(services, ROUTES, VERSION, observed.api_answers).routes()


def observed(
    config: Config,
    seats: SessionServices,
    told: EventServices,
    protocols: Sequence[IngressProtocol],
    listening: Sequence[Listening],
    workers: Workers,
    webrtc: WebrtcServices,
    whep: WhepResource,
    loop_lag: Histogram,
    connections: ClientConnections,
) -> Observed:
    """What metrics read."""
    files = {"http": config.http.certificate}
    for each in listening:
        files |= each.certificates
    return Observed(
        registry=seats.registry,
        workers=workers,
        transport=webrtc,
        audience=whep,
        protocols=[each.name for each in protocols],
        listeners=[each.listener for each in listening],
        outputs=[each.destination for each in seats.outputs],
        loop_lag=loop_lag,
        max_streams=config.calls.max_streams,
        certificates=Certificates(files),
        capacity=seats.capacity,
        events=told,
        http=connections,
        api_answers=Counter(),
    )
