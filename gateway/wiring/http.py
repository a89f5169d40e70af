"""The HTTP server: its sockets are bound first, so that whoever tells its address knows the port, and listen last, when all is there."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager

from aiohttp import web

from gateway.api.framework.connections import KEPT, ClientConnections, ConnectionLimits
from gateway.api.framework.middleware import cors, errors, security_headers
from gateway.api.framework.server import HttpServer, bounded
from gateway.api.health import begin_drain
from gateway.api.proxies import forwarded
from gateway.config import Config
from gateway.node.descriptors import for_http
from gateway.node.drain import Drain
from gateway.node.inherited_sockets import NO_SOCKETS, InheritedSockets
from gateway.node.operator_socket import listening, socket_file
from gateway.telemetry.log import event
from gateway.wiring.protocol import IngressProtocol
from protocols.rtmp.tls import ServerTls, TlsFiles

log = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024  # of a request


@asynccontextmanager
async def http_sockets(config: Config, inherited: InheritedSockets = NO_SOCKETS) -> AsyncIterator[Sequence[socket.socket]]:
    """Bound, and all to one port; an empty host is every address, IPv4 and IPv6. Those that were `inherited` are what there is. Raises
    `OSError` with the address in its text."""
    host, port = config.http.host, config.http.port
    if there := inherited.take(port):
        with ExitStack() as stack:
            yield [stack.enter_context(each) for each in there]
        return
    found = await asyncio.get_running_loop().getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with ExitStack() as stack:
        bound: list[socket.socket] = []
        for family, kind, number, _, address in dict.fromkeys(found):
            if family == socket.AF_INET6 and not host and not socket.has_dualstack_ipv6():
                continue  # a machine without IPv6
            listening = stack.enter_context(socket.socket(family, kind, number))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            at = (address[0], port_of(bound) if bound else port, *address[2:])
            try:
                listening.bind(at)
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {at[0]} port {at[1]}: {error.strerror}") from None
            bound.append(listening)
        yield bound


def port_of(sockets: Sequence[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])


def http_connections(config: Config, protocols: Sequence[IngressProtocol], descriptors: int) -> ClientConnections:
    """As many as are wanted, and as the process's `descriptors` leave beside all else."""
    encoders = sum(protocol.preconditions(config).descriptors for protocol in protocols)
    left = for_http(descriptors, encoders=encoders, workers=config.transcode.workers_max) - KEPT
    wanted = config.http.max_connections
    if left < wanted:
        event(
            log, logging.WARNING, "fewer HTTP connections than http.max_connections: raise the limit on open files", places=left
        )
    return ClientConnections(
        ConnectionLimits(min(wanted, left), config.http.max_connections_per_address), config.http.trusted_proxies
    )


def http_server(
    config: Config, sockets: Sequence[socket.socket], connections: ClientConnections, routes: Iterable[web.RouteDef]
) -> HttpServer:
    """Serves `routes` on `sockets` while it is entered."""
    application = web.Application(
        middlewares=[
            bounded(connections),
            forwarded(config.http.trusted_proxies),
            security_headers,
            cors(config.http.cors_origins),
            errors,
        ],
        client_max_size=_MOST_BYTES,
    )
    application.add_routes(routes)
    context = _renewed(TlsFiles(config.http.certificate, config.http.key)) if config.http.certificate else None
    return HttpServer(application, connections, sockets, context)


@asynccontextmanager
async def operator_socket(config: Config, drain: Drain) -> AsyncIterator[None]:
    """What the command line of this machine asks: `gateway drain`. Without the socket that takes a server's token."""
    with ExitStack() as stack:
        try:
            bound = stack.enter_context(listening(config))
        except OSError as error:
            words = f"no operator's socket: gateway drain will not work: {error.strerror}"
            event(log, logging.WARNING, words, file=str(socket_file(config)))
            yield
            return

        async def begin(request: web.Request) -> web.Response:
            return await begin_drain(drain, request, "asked for on this machine")

        application = web.Application(middlewares=[errors])
        application.add_routes([web.post("/drain", begin)])
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await runner.setup()
        assert runner.server is not None
        server = await asyncio.get_running_loop().create_unix_server(runner.server, sock=bound)
        try:
            yield
        finally:
            server.close()
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
