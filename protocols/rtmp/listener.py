"""The RTMP and RTMPS listener: sockets in, publishers out.

Every connection has one task with its whole life in it: handshake, publish, decision, media, end. Connections are counted in all and by
address before anything is done for them, TLS included; each step has its time. What ends before it publishes is counted in `stats`.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Self

from protocols.accepting import accept
from protocols.addresses import client_network, unmapped
from protocols.metric import MetricFamily
from protocols.publisher import BoundPort, ReachedBy
from protocols.rtmp.address import server
from protocols.rtmp.authmod import AdobeAuthenticator, Passwords
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.publisher import RtmpConnection, RtmpPublisher
from protocols.rtmp.statistics import RtmpListenerStats
from protocols.rtmp.tls import ServerTls, TlsFiles

_log = logging.getLogger(__name__)

_BACKLOG = 4096  # who comes while the gateway is restarted waits, where its sockets stay open
_GOING_DOWN = "The server is going down."


class _Failed(Exception):
    """A connection that never published; `label` is a field of the stats, None if it did nothing wrong (a probe, a challenge)."""

    def __init__(self, label: str | None, why: str) -> None:
        super().__init__(why)
        self.label = label


class RtmpListener:
    """A `protocols.publisher.Listener` on `port`, and with `tls` also on `tls_port`; port 0 takes a free one.

    `host` empty: every address, IPv4 and IPv6. `passwords` turns on Adobe's challenge for the app `auth_app`. `opened` gives the
    sockets that somebody else has opened for a port already; where there are none they are opened here.
    """

    protocol = "rtmp"

    def __init__(
        self,
        host: str = "",
        port: int = 1935,
        *,
        tls: TlsFiles | None = None,
        tls_port: int = 1936,
        limits: RtmpLimits | None = None,
        passwords: Passwords | None = None,
        auth_app: str = "auth",
        opened: Callable[[int], list[socket.socket]] | None = None,
    ) -> None:
        self.stats = RtmpListenerStats()
        self.port = port
        self.tls_port = tls_port if tls else 0
        self._host = host
        self._tls_files = tls
        self._tls: ServerTls | None = None
        self._opened = opened
        self._limits = limits or RtmpLimits()
        self._authenticator = AdobeAuthenticator(auth_app, passwords) if passwords else None
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._lives: dict[RtmpConnection, asyncio.Task[None]] = {}
        self._open = 0
        self._by_address: Counter[str] = Counter()
        self._publishers: asyncio.Queue[RtmpPublisher | None] = asyncio.Queue(self._limits.connections + 1)
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Binds. Raises `OSError` if an address is taken or the certificate cannot be loaded."""
        self._tls = ServerTls(self._tls_files, _log.warning) if self._tls_files else None
        try:
            plain = await self._bind(self.port)
            secure = await self._bind(self.tls_port) if self._tls else []
        except OSError:
            self._close_sockets()
            raise
        self.port = plain[0].getsockname()[1]
        self.tls_port = secure[0].getsockname()[1] if secure else 0
        await self._tasks.__aenter__()
        for listening in plain:
            self._accepting.append(self._tasks.create_task(self._accept(listening, None)))
        for listening in secure:
            self._accepting.append(self._tasks.create_task(self._accept(listening, self._tls)))
        return self

    def stop_accepting(self) -> None:
        """Who comes from here on waits for whoever has the sockets next."""
        for task in self._accepting:
            task.cancel()

    async def __aexit__(self, *exc: object) -> None:
        self.stop_accepting()
        self._publishers.put_nowait(None)
        for connection, life in self._lives.items():
            if connection.request is None:
                life.cancel()
            else:
                self._tasks.create_task(connection.close("NetStream.Unpublish", _GOING_DOWN))
        await self._tasks.__aexit__(None, None, None)
        self._close_sockets()

    async def __aiter__(self) -> AsyncIterator[RtmpPublisher]:
        while (publisher := await self._publishers.get()) is not None:
            yield publisher

    @property
    def ports(self) -> Sequence[BoundPort]:
        return [BoundPort("rtmp", self.port), *([BoundPort("rtmps", self.tls_port)] if self.tls_port else [])]

    def failures(self) -> Mapping[str, int]:
        return self.stats.failures()

    def refusals(self) -> Mapping[str, int]:
        """None: what is refused is a publisher already."""
        return {}

    def counters(self) -> Iterable[MetricFamily]:
        return ()

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]:
        return {port.name: server(by.host, port.number, secure=port.name == "rtmps", call=call) for port in self.ports}

    async def _bind(self, port: int) -> list[socket.socket]:
        if self._opened is not None and (there := self._opened(port)):
            self._sockets += there
            return there
        bound: list[socket.socket] = []
        if not self._host and socket.has_dualstack_ipv6():
            bound.append(socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG))
        else:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(self._host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in found:
                at = (address[0], bound[0].getsockname()[1] if bound else port)
                bound.append(socket.create_server(at, family=family, backlog=_BACKLOG))
        self._sockets += bound
        for listening in bound:
            listening.setblocking(False)
        return bound

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()

    async def _accept(self, listening: socket.socket, tls: ServerTls | None) -> None:
        while True:
            accepted, numeric, port = await accept(listening, "RTMP")
            host = str(unmapped(numeric))
            counted = client_network(host)
            self.stats.connections += 1
            if self._open >= self._limits.connections or self._by_address[counted] >= self._limits.connections_per_address:
                self.stats.too_many_connections += 1
                accepted.close()
                continue
            remote = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            connection = RtmpConnection(self._limits, counted, self._authenticator)
            self._open += 1
            self._by_address[counted] += 1
            life = self._tasks.create_task(self._live(connection, accepted, remote, tls))
            self._lives[connection] = life
            life.add_done_callback(partial(self._forget, connection, accepted, counted))

    def _forget(self, connection: RtmpConnection, accepted: socket.socket, counted: str, life: asyncio.Task[None]) -> None:
        if not connection.connected:  # else the socket is the transport's
            accepted.close()
        del self._lives[connection]
        self._open -= 1
        self._by_address[counted] -= 1
        if not self._by_address[counted]:
            del self._by_address[counted]

    async def _live(self, connection: RtmpConnection, accepted: socket.socket, remote: str, tls: ServerTls | None) -> None:
        protocol = "rtmps" if tls else "rtmp"
        try:
            await self._open_up(connection, accepted, tls)
            assert connection.request is not None
            publisher = RtmpPublisher(connection, connection.request, protocol, remote)
            if self._publishers.qsize() >= self._limits.connections:  # the last place is for the end
                raise _Failed("too_many_connections", "nobody takes the publishers")
            self._publishers.put_nowait(publisher)
            await publisher.watch(self._limits)
        except _Failed as failure:
            if failure.label:
                setattr(self.stats, failure.label, getattr(self.stats, failure.label) + 1)
            _log.debug("%s %s ended before it published: %s", protocol, remote, failure)
        finally:
            connection.abort()

    async def _open_up(self, connection: RtmpConnection, accepted: socket.socket, tls: ServerTls | None) -> None:
        """From the accepted socket to the wish to publish. Raises `_Failed`."""
        limits = self._limits
        try:
            async with asyncio.timeout(limits.handshake_s):
                await self._connect(connection, accepted, tls)
                await connection.greeted.wait()
        except TimeoutError:
            raise _Failed("handshake_timeout", "no handshake in time") from None
        except OSError as error:
            raise _Failed("bad_handshake", f"TLS: {type(error).__name__}") from None
        if not connection.shaken:
            broken = connection.error or connection.session.bytes_received
            raise _Failed("bad_handshake" if broken else None, str(connection.error or "closed in the handshake"))
        try:
            async with asyncio.timeout(limits.publish_s):
                await connection.opened.wait()
        except TimeoutError:
            raise _Failed("publish_timeout", "no publish in time") from None
        if connection.dismissal is not None:
            await connection.gone(connection.dismissal.delay / 1e9)
            await connection.close()
            raise _Failed("auth_failed" if connection.dismissal.failed else None, "the user has not proved a password")
        if connection.request is None:
            raise _Failed("protocol_error" if connection.error else None, str(connection.error or "closed before publish"))

    async def _connect(self, connection: RtmpConnection, accepted: socket.socket, tls: ServerTls | None) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        if tls is None:
            await loop.connect_accepted_socket(lambda: connection, accepted)
        else:
            await loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=tls.context(),
                ssl_handshake_timeout=limits.handshake_s,
                ssl_shutdown_timeout=limits.close_s,
            )
