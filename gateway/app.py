"""The whole gateway, put together: the only file that names concrete listeners and calls.

Kept true: what is started is stopped in the opposite order, each with a time limit; on SIGTERM no new stream is taken, those that are live
may go on for `shutdown.drain_s`, then encoders and viewers are told, and the process is gone within five seconds. A second signal ends the
drain.
"""

import asyncio
import gc
import logging
import signal
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace

from aiohttp import web

from gateway import VERSION
from gateway.access.authenticator import Authenticator
from gateway.access.credentials import Secret, Tokens
from gateway.access.viewers import Viewers
from gateway.api.framework.broadcasts import NoBroadcasts, in_step, resume
from gateway.api.framework.dispatch import Api
from gateway.api.framework.encoder_addresses import Ingress
from gateway.api.framework.middleware import cors, errors, security_headers
from gateway.api.framework.services import Services
from gateway.api.health import Health
from gateway.api.metrics import Metrics, Observed
from gateway.api.pages import Pages
from gateway.api.proxies import forwarded
from gateway.api.routes import ROUTES
from gateway.api.status import Streams
from gateway.config import Config
from gateway.enforcement.change_feed import ChangeFeed
from gateway.enforcement.enforcement import Enforcement
from gateway.ingress.addresses import origin
from gateway.model.permissions import Capability
from gateway.model.records import MAX_PARTICIPANTS
from gateway.node.cpu import CpuRoom, available_cores, measure
from gateway.node.drain import Drain
from gateway.node.host import Certificates
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.outputs.hls.routes import HlsRoutes
from gateway.sessions.admission import Admission
from gateway.sessions.capacity import Capacity
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.registry import Registry
from gateway.sessions.seat import SeatPolicy
from gateway.sessions.transcode_policy import adapted, configured
from gateway.telemetry.latency import Histogram
from gateway.telemetry.log import event
from gateway.telemetry.tracing import tracing
from gateway.wiring.events import event_services
from gateway.wiring.hls import hls_broadcasts
from gateway.wiring.srt import listening_for_srt
from gateway.wiring.store import open_store_access
from protocols.publisher import Listener
from protocols.rtmp.listener import RtmpLimits, RtmpListener, TlsFiles
from protocols.rtmp.tls import ServerTls
from protocols.webrtc.transport.ice_servers import IceServer
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.resource import WhepResource
from protocols.whip.listener import WhipListener
from transcode.host.pool import Workers
from transcode.host.probe import choose
from transcode.limits import WorkerLimits
from transcode.plan import plan

log = logging.getLogger(__name__)

SHUTDOWN_S = 2.0
LAG_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class BoundPorts:
    """The ports that are really bound (a configured port 0 is any free one); 0 = not listening."""

    http: int
    rtmp: int
    rtmps: int
    srt: int
    webrtc: int


async def run(config: Config, ready: Callable[[BoundPorts], None] | None = None) -> None:
    """Run until SIGTERM or SIGINT. `ready` is told the bound ports once everything listens.

    Raises:
        ConfigError: the secret file cannot be used.
        OSError: a port is taken, with the address in its text.
    """
    loop = asyncio.get_running_loop()
    stop, at_once = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (at_once if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    async with gateway(config) as (addresses, drain):
        gc.collect()
        gc.freeze()  # what stands now stays: collections that walk it (80,000 objects) stall all media for tens of ms
        if ready is not None:
            ready(addresses)
        event(log, logging.INFO, "ready", **asdict(addresses))
        await stop.wait()
        if config.shutdown.drain_s:
            drain.begin("the process was told to end")
            await _first(drain.finished(config.shutdown.drain_s), at_once.wait())
        event(log, logging.INFO, "shutting down: encoders and viewers are told")


async def _first(*waiting: Coroutine[object, object, object]) -> None:
    """Returns as soon as one of them does; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def gateway(config: Config) -> AsyncIterator[tuple[BoundPorts, Drain]]:
    """Everything running; leaving it says goodbye to encoders and viewers and closes all."""
    tokens = Tokens(Secret.load(config))
    async with AsyncExitStack() as stack:
        store_access = await stack.enter_async_context(open_store_access(config, tokens))
        authorizer = store_access.authorizer
        told = await stack.enter_async_context(event_services(config, authorizer, store_access.store))
        workers = await stack.enter_async_context(Workers(_worker_limits(config)))
        mux = await stack.enter_async_context(_mux(config))
        registry = Registry(
            lambda cid: EmbeddedCall(
                cid,
                max_participants=MAX_PARTICIPANTS,
                on_empty=lambda name: registry.release_call(name),
                patience_s=config.transcode.pass_again_s,
            )
        )
        limits = config.capacity
        capacity = Capacity(available_cores(limits.cores), limits.reserve, limits.enabled)
        treatment = configured(config.transcode, await _encoder(config, workers), workers.encoders)
        hls = hls_broadcasts(config, tokens.secret.value, capacity, authorizer)
        policy = SeatPolicy(
            decide=lambda track, want: plan(track, want, treatment),
            live_edge=_live_edge(config),
            linger_s=config.calls.linger_s,
            max_bitrate=config.calls.max_bitrate_bps,
            on_retired=registry.retire,
            room=CpuRoom(capacity, registry),
            on_change=told.producers.session,
        )
        admission = Admission(
            registry,
            authorizer,
            workers,
            [hls] if hls is not None else [],
            max_sessions=config.calls.max_streams,
            take_over=config.calls.on_conflict == "take_over",
            fits=capacity.admit_any,
            refused=told.producers.refused,
            trace=await stack.enter_async_context(tracing(config.tracing.endpoint)),
            adapt=adapted(treatment),
        )
        viewers_admitted = Viewers(
            registry.call,
            authorizer.watch,
            lambda who, cid: authorizer.judge(who, cid, Capability.JOIN_CALL),
            joined=lambda cid, who: told.producers.viewers(cid, lambda: registry.viewers(cid)),
            gone=lambda cid, who: told.producers.viewers(cid, lambda: registry.viewers(cid)),
        )
        authorizer.made = told.producers.written
        broadcasts = hls or NoBroadcasts()
        enforcement = Enforcement(
            registry,
            admission.rights,
            viewers_admitted,
            store_access.rights_cache,
            authorizer,
            store_access.store,
            on_changed=told.fanout.reconsider,
            on_ended=in_step(broadcasts, told.producers.written),
            on_muted=told.producers.muted,
        )
        change_feed = ChangeFeed(
            store_access.store,
            store_access.rights_cache,
            authorizer,
            enforcement,
            on_elsewhere=in_step(broadcasts, told.producers.elsewhere),
        )
        await change_feed.start()
        await resume(broadcasts, store_access.store)
        whep = WhepResource(mux, viewers_admitted, cors_origins=config.http.cors_origins)
        rtmp = await stack.enter_async_context(_rtmp(config, store_access.authenticator)) if config.rtmp.enabled else None
        whip = await stack.enter_async_context(_whip(config, mux)) if config.whip.enabled else None
        srt = await stack.enter_async_context(listening_for_srt(config, tokens, authorizer, admission, change_feed.want))
        lag, answers = Histogram(), Counter[int]()
        certificates = Certificates({"http": config.http.certificate, "rtmps": config.rtmp.certificate})
        metrics = Metrics(
            Observed(
                registry,
                workers,
                mux,
                whep,
                rtmp,
                srt,
                whip,
                lag,
                config.calls.max_streams,
                certificates,
                capacity,
                told,
                answers,
                hls,
            )
        )
        drain = Drain(admission, registry)
        services = Services(
            store=store_access.store,
            rights_cache=store_access.rights_cache,
            authorizer=authorizer,
            registry=registry,
            bus=told.bus,
            interactions=told.interactions,
            broadcasts=broadcasts,
            ingress=Ingress(
                rtmp=rtmp.port if rtmp is not None else 0,
                rtmps=rtmp.tls_port if rtmp is not None else 0,
                srt=srt.listener.port if srt is not None else 0,
                whip=whip is not None,
            ),
            stream_key_secret=tokens.secret.value,
        )
        routes = [*whep.routes(), *(whip.routes() if whip else ()), *Streams(registry, metrics, authorizer).routes()]
        routes += [*Health(drain, authorizer).routes(), *told.sockets.routes(), *Pages(config).routes()]
        routes += Api(services, ROUTES, VERSION, answers).routes()
        if hls is not None:
            routes += HlsRoutes(hls, authorizer.watch, config.http.cors_origins).routes()
        runner = await stack.enter_async_context(_http(config, routes))
        background = await stack.enter_async_context(asyncio.TaskGroup())
        served: list[tuple[Listener, SeatPolicy]] = [(each, policy) for each in (rtmp, whip) if each is not None]
        if srt is not None:
            served += [(srt.listener, policy), (srt.sources, replace(policy, track_timeout_s=None))]
        tasks = [background.create_task(admission.serve(*each), name="reception") for each in served]
        tasks.append(background.create_task(change_feed.run(), name="following the store"))
        tasks.append(background.create_task(_measure_lag(lag), name="event loop delay"))
        tasks.append(background.create_task(measure(capacity, registry, lambda: whep.viewers), name="capacity"))
        if hls is not None:
            hls.base_url = config.hls.base_url.rstrip("/") or origin(config, "", _bound_port(runner))
            if hls.archive is not None:
                tasks.append(background.create_task(hls.archive.run(), name="HLS archive"))
        try:
            addresses = BoundPorts(
                http=_bound_port(runner),
                rtmp=rtmp.port if rtmp is not None else 0,
                rtmps=rtmp.tls_port if rtmp is not None else 0,
                srt=srt.listener.port if srt is not None else 0,
                webrtc=mux.port,
            )
            yield addresses, drain
        finally:
            admission.draining = True
            if srt is not None:
                srt.sources.stop()
            for session in list(registry.sessions.values()):
                session.end("the gateway is shutting down: connect again in a moment")
            try:
                async with asyncio.timeout(SHUTDOWN_S):
                    await whep.aclose()
                    while registry.sessions:
                        await registry.changed.wait()
            except TimeoutError:
                event(log, logging.WARNING, "some sessions did not end in time", sessions=len(registry.sessions))
            told.sockets.close()
            for task in tasks:
                task.cancel()


async def _encoder(config: Config, workers: Workers) -> str:
    """The H.264 encoder to use, and in the log why it is not the one that was asked for."""
    choice = await choose(workers, config.transcode.encoder)
    for encoder, why_not in choice.refused.items():
        event(log, logging.WARNING, f"{encoder} does not work here: {why_not}")
    event(log, logging.INFO, f"video is encoded by {choice.encoder}")
    return choice.encoder


def _worker_limits(config: Config) -> WorkerLimits:
    return WorkerLimits(
        workers=config.transcode.workers_max, memory=config.transcode.memory_mib << 20, niceness=config.transcode.nice
    )


def _mux(config: Config) -> UdpMux:
    return UdpMux(
        config.webrtc.host,
        config.webrtc.port,
        external_addresses=[str(address) for address in config.webrtc.external_addresses],
        limits=Limits(peers=config.webrtc.max_viewers, connect=config.webrtc.connect_timeout_s),
    )


def _rtmp(config: Config, authenticator: Authenticator) -> RtmpListener:
    rtmp = config.rtmp
    return RtmpListener(
        rtmp.host,
        rtmp.port,
        tls=TlsFiles(rtmp.certificate, rtmp.key) if rtmp.certificate else None,
        tls_port=rtmp.tls_port,
        limits=RtmpLimits(connections=rtmp.max_connections, connections_per_address=rtmp.max_connections_per_address),
        passwords=authenticator.password,
        auth_app=rtmp.auth_app,
    )


def _whip(config: Config, mux: UdpMux) -> WhipListener:
    secret = config.webrtc.turn_secret.get_secret_value()
    servers = [IceServer(address, secret) for address in config.webrtc.ice_servers]
    return WhipListener(mux, cors_origins=config.http.cors_origins, ice_servers=servers)


def _live_edge(config: Config) -> LiveEdgePolicy:
    edge = config.live_edge
    return LiveEdgePolicy(free=edge.ahead_ms * 1_000_000, hold=edge.hold_ms * 1_000_000, late=edge.late_ms * 1_000_000)


@asynccontextmanager
async def _http(config: Config, routes: list[web.RouteDef]) -> AsyncIterator[web.AppRunner]:
    application = web.Application(
        middlewares=[forwarded(config.http.trusted_proxies), security_headers, cors(config.http.cors_origins), errors],
        client_max_size=64 * 1024,
    )
    application.add_routes(routes)
    context = _renewed(TlsFiles(config.http.certificate, config.http.key)) if config.http.certificate else None
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.http.host or None, config.http.port, ssl_context=context).start()
        yield runner
    finally:
        await runner.cleanup()


def _renewed(files: TlsFiles) -> ssl.SSLContext:
    """For HTTPS: each connection gets the certificate that the files hold by then."""
    tls = ServerTls(files, log.warning)

    def chosen(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = tls.context()

    first = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    first.load_cert_chain(files.certificate, files.key)
    first.sni_callback = chosen  # called for each handshake, with or without a name
    return first


def _bound_port(runner: web.AppRunner) -> int:
    return int(runner.addresses[0][1])


async def _measure_lag(lag: Histogram) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        lag.observe(int((loop.time() - due) * 1e9))
