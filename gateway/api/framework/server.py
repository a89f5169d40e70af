"""The HTTP server: sockets in, requests of the application out.

Kept true: connections are counted before anything is done for them, TLS included (`connections`); each step has its time: the first header,
the next one after an answer, taking what is answered. What is no HTTP is told so, counted, and never logged.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware, RawHeaders

from gateway.api.framework.connections import HEALTH, ClientConnections
from protocols.accepting import accept
from protocols.webrtc.http import problem

_BACKLOG: Final = 4096  # who comes while the gateway is restarted waits, where its sockets stay open
_TLS_CLOSE_S: Final = 2.0
_LEAST_TAKEN: Final = 1024  # bytes a second that a client takes of what waits for it
_NO_HTTP: Final = b'{"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "this is not HTTP/1.1"}'
_MALFORMED: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_NO_HTTP), _NO_HTTP)
)


class _ClientTold(ConnectionError):
    """The client has been told what is wrong, and its connection ends; of all errors aiohttp logs those of connections alone not."""


class HttpConnection(web.RequestHandler):
    """aiohttp's connection, with our bounds on its time, and without its log lines about what is no HTTP."""

    __slots__ = ("_connections", "_deadline", "_late", "_unread", "_waiting", "client", "opening")

    def __init__(self, server: web.Server, connections: ClientConnections, host: str, deadline: float, **options: Any) -> None:
        """`deadline` of the first header, in the loop's time. Raises `ConnectionRefusedError` where there is no place for this `host`."""
        super().__init__(server, **options)
        client = connections.enter(host, self.abort)
        if client is None:
            raise ConnectionRefusedError
        self.client = client
        self.opening: asyncio.Task[None] | None = None
        self._connections = connections
        self._deadline = deadline
        self._late: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._waiting = 0  # bytes to be taken, when we looked last

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._late = asyncio.get_running_loop().call_at(self._deadline, self._end, "no_header")

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()
        self._connections.leave(self.client)
        super().connection_lost(exc)

    def begun(self) -> None:
        """The header of a request has come."""
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def abort(self) -> None:
        """End it at once: what waits to be taken is thrown away."""
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Whoever is still taking an answer is being answered."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._connections.answered(self.client)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What aiohttp could not read, and what the application did not catch."""
        if isinstance(exc, HttpProcessingError):
            self._connections.malformed += 1
            if self.transport is not None:
                self.transport.write(_MALFORMED)
            raise _ClientTold
        if isinstance(exc, ConnectionError):
            raise exc
        return super().handle_error(request, status, exc, message)

    def log_exception(self, *args: Any, **more: Any) -> None:
        """aiohttp's word of a body that is none: it has been answered and counted."""
        if not isinstance(more.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **more)

    def _look_again(self) -> None:
        assert self.transport is not None
        wait_s = self._connections.limits.unread_s
        self._waiting = self.transport.get_write_buffer_size()
        self._unread = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _look(self) -> None:
        if self.transport is None:
            return
        taken = self._waiting - self.transport.get_write_buffer_size()
        if taken < _LEAST_TAKEN * self._connections.limits.unread_s:
            self._end("unread")
        else:
            self._look_again()

    def _end(self, why: str) -> None:
        self._connections.ended[why] += 1
        self.abort()


class HttpServer:
    """Serves an application on bound sockets while it is entered."""

    def __init__(
        self,
        application: web.Application,
        connections: ClientConnections,
        sockets: Sequence[socket.socket],
        context: ssl.SSLContext | None = None,
    ) -> None:
        application.on_response_prepare.append(_anonymous)
        self._runner = web.AppRunner(application, shutdown_timeout=1.0, handler_cancellation=True)
        self._connections = connections
        self._sockets = sockets
        self._context = context
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Listens. Raises `OSError`."""
        await self._runner.setup()
        await self._tasks.__aenter__()
        for each in self._sockets:
            each.listen(_BACKLOG)
            each.setblocking(False)
            self._running.append(self._tasks.create_task(self._accept(each)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_accepting()
        await self._tasks.__aexit__(None, None, None)
        await self._runner.cleanup()

    def stop_accepting(self) -> None:
        """Who comes from here on waits for whoever has the sockets next."""
        for task in self._running:
            task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            accepted, host, _ = await accept(listening, "HTTP")
            try:
                connection = self._connection(loop, host)
            except ConnectionRefusedError:
                accepted.close()
            else:
                connection.opening = self._tasks.create_task(self._open(loop, connection, accepted))

    def _connection(self, loop: asyncio.AbstractEventLoop, host: str) -> HttpConnection:
        server, limits = self._runner.server, self._connections.limits
        assert server is not None
        deadline = loop.time() + limits.header_s
        waits = {"keepalive_timeout": limits.idle_s, "lingering_time": limits.header_s}
        # What a body unpacks to is what it claims and not what was sent: it is not unpacked, and `bounded` says so.
        plain = {"access_log": None, "auto_decompress": False}
        return HttpConnection(server, self._connections, host, deadline, loop=loop, **plain, **waits)

    async def _open(self, loop: asyncio.AbstractEventLoop, connection: HttpConnection, accepted: socket.socket) -> None:
        wait_s, opened = self._connections.limits.header_s, False
        tls = {"ssl_handshake_timeout": wait_s, "ssl_shutdown_timeout": _TLS_CLOSE_S} if self._context else {}
        try:
            await loop.connect_accepted_socket(lambda: connection, accepted, ssl=self._context, **tls)
            opened = True
        except OSError:  # of TLS, its time among them
            self._connections.ended["no_tls"] += 1
        finally:
            if not opened:  # else the socket is the transport's
                accepted.close()
                self._connections.leave(connection.client)


def bounded(connections: ClientConnections) -> Middleware:
    """Comes first: knows who is being answered, tells those in the places that are kept of health alone, what is no HTTP so, and who
    packs a body that it is not unpacked."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, HttpConnection)
        connection.begun()
        connections.began(connection.client)
        try:
            if not _is_text(request.raw_headers):
                connections.malformed += 1
                return _closing(problem(HTTPStatus.BAD_REQUEST, "a header is not text: write ASCII, or UTF-8"))
            if connection.client.kept and request.path not in HEALTH:
                return _closing(
                    problem(HTTPStatus.SERVICE_UNAVAILABLE, "the gateway has no room for another connection: try again later")
                )
            if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() not in ("", "identity"):
                connections.malformed += 1
                words = "the body is packed: send it as it is, without Content-Encoding"
                return _closing(problem(HTTPStatus.BAD_REQUEST, words, {hdrs.ACCEPT_ENCODING: "identity"}))
            return await handler(request)
        except web.RequestPayloadError:
            connections.malformed += 1
            return _closing(
                problem(HTTPStatus.BAD_REQUEST, "the body is not as HTTP/1.1 has it: its chunks, its length or its coding")
            )

    return middleware


def _is_text(headers: RawHeaders) -> bool:
    """Octets beyond ASCII mean nothing in a header (RFC 9110 §5.5). What is UTF-8 can be a name; anything else would come to us as half
    characters that cannot be written or hashed."""
    try:
        for _, value in headers:
            value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response


async def _anonymous(request: web.Request, response: web.StreamResponse) -> None:
    """Nobody is told what runs here, and of which version."""
    response.headers.popall("Server", None)
