"""The HTTP server over real sockets: how long a connection may take, who is told what where there is no room, and what is no HTTP."""

import asyncio
import gzip
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import process_time

import pytest
from aiohttp import web

from gateway.api.framework.connections import KEPT, ClientConnections, ConnectionLimits
from gateway.api.framework.middleware import errors
from gateway.api.framework.server import HttpServer, bounded
from tests.support.waiting import eventually

LIMITS = ConnectionLimits(places=4, places_per_address=100, header_s=5.0, idle_s=5.0, unread_s=5.0)
SOON_S = 0.2
GET = b"GET %s HTTP/1.1\r\nHost: here\r\n\r\n"


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> bytes:
        """The head of the answer; the body is read away."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await self.reader.readexactly(int(length.partition(b":")[2]))
        return head

    async def over(self) -> bytes:
        """What comes until the connection ends."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


@dataclass
class Served:
    connections: ClientConnections
    port: int
    holding: asyncio.Semaphore  # released by each request that is held
    release: asyncio.Event
    stack: AsyncExitStack

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.stack.callback(writer.close)
        return Client(reader, writer)


Serve = Callable[[ConnectionLimits], Awaitable[Served]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(limits: ConnectionLimits) -> Served:
            return await stack.enter_async_context(served(limits))

        yield start


@asynccontextmanager
async def served(limits: ConnectionLimits) -> AsyncIterator[Served]:
    holding, release = asyncio.Semaphore(0), asyncio.Event()

    async def live(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def hold(request: web.Request) -> web.Response:
        holding.release()
        await release.wait()
        return web.Response(text="at last")

    async def read(request: web.Request) -> web.Response:
        holding.release()
        return web.Response(text=str(len(await request.read())))

    async def much(request: web.Request) -> web.Response:
        return web.Response(body=bytes(64 << 20))

    connections = ClientConnections(limits)
    application = web.Application(middlewares=[bounded(connections), errors])
    application.add_routes([web.get("/livez", live), web.get("/hold", hold), web.post("/read", read), web.get("/much", much)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with AsyncExitStack() as clients, HttpServer(application, connections, [listening]):
            yield Served(connections, listening.getsockname()[1], holding, release, clients)


def nobody_in(server: Served) -> Callable[[], Awaitable[bool]]:
    async def empty() -> bool:
        return not server.connections.open

    return empty


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: he", b"GET /livez HTTP/1.1\r\nX: " + b"x" * 5000])
async def test_a_connection_has_so_long_for_its_first_header(serve: Serve, sent: bytes) -> None:
    server = await serve(replace(LIMITS, header_s=SOON_S))
    client = await server.client()
    client.writer.write(sent)
    assert await client.over() == b""
    assert server.connections.ended["no_header"] == 1
    assert server.connections.open == 0


async def test_a_connection_that_has_been_answered_has_so_long_for_the_next_header(serve: Serve) -> None:
    server = await serve(replace(LIMITS, header_s=SOON_S, idle_s=2 * SOON_S))
    client = await server.client()
    assert b"200 OK" in await client.ask(GET % b"/livez")
    client.writer.write(b"GET /livez HTTP")
    assert await client.over() == b""
    assert server.connections.ended["no_header"] == 0


async def test_an_answer_that_nobody_takes_is_thrown_away(serve: Serve) -> None:
    server = await serve(replace(LIMITS, unread_s=SOON_S))
    client = await server.client()
    client.writer.write(GET % b"/much")
    await client.reader.readuntil(b"\r\n\r\n")
    await eventually(nobody_in(server))  # the client reads nothing: its buffer is full
    assert server.connections.ended["unread"] == 1


async def test_who_takes_an_answer_slowly_gets_it_whole(serve: Serve) -> None:
    server = await serve(replace(LIMITS, unread_s=SOON_S))
    client = await server.client()
    client.writer.write(GET % b"/much" + GET % b"/livez")
    taken = 0
    await client.reader.readuntil(b"\r\n\r\n")
    for _ in range(64):
        taken += len(await client.reader.readexactly(1 << 20))
    assert taken == 64 << 20
    assert b"200 OK" in await client.reader.readuntil(b"\r\n\r\n")


async def test_who_is_taking_an_answer_is_not_cut_off(serve: Serve) -> None:
    server = await serve(LIMITS)
    client = await server.client()
    client.writer.write(GET % b"/much")
    await client.reader.readuntil(b"\r\n\r\n")
    for _ in range(3 * LIMITS.places):
        await server.client()
    probe = await server.client()
    assert b"200 OK" in await probe.ask(GET % b"/livez"), "those before it have come in, and made room for each other"
    await client.reader.readexactly(64 << 20)
    assert server.connections.ended["evicted"] > 0


async def test_those_who_only_hold_connections_keep_nobody_out(serve: Serve) -> None:
    server = await serve(LIMITS)
    holding = [await server.client() for _ in range(3 * LIMITS.places)]
    late = await server.client()
    assert b"200 OK" in await late.ask(GET % b"/livez")
    assert await holding[0].over() == b""
    assert server.connections.open <= LIMITS.places


async def test_where_everybody_is_being_answered_health_still_is_told_and_nothing_else(serve: Serve) -> None:
    server = await serve(LIMITS)
    held = [await server.client() for _ in range(LIMITS.places)]
    for each in held:
        each.writer.write(GET % b"/hold")
        await server.holding.acquire()
    probe = await server.client()
    assert b"200 OK" in await probe.ask(GET % b"/livez")
    head = await probe.ask(GET % b"/hold")
    assert b" 503 " in head
    assert b"Retry-After" in head
    assert await probe.over() == b""
    more = [await server.client() for _ in range(2 * KEPT)]
    assert b"200 OK" in await more[-1].ask(GET % b"/livez"), "those before it have asked nothing"
    server.release.set()
    for each in held:
        assert b"200 OK" in await each.reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: here\r\nX: \xed\xa0\x80\r\n\r\n",
        b"POST /read HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n",
        b"POST /read HTTP/1.1\r\nHost: here\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nxxxx",
        b"POST /read HTTP/1.1\r\nHost: here\r\nContent-Encoding: deflate\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff",
    ],
)
async def test_what_is_no_http_is_told_so_and_counted_and_not_logged(
    serve: Serve, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(LIMITS)
    client = await server.client()
    with caplog.at_level(logging.INFO):
        client.writer.write(junk)
        answer = await client.over()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"problem+json" in answer
    assert b"server:" not in answer.lower()
    assert server.connections.malformed >= 1
    assert not caplog.records


@pytest.mark.parametrize("path", [b"/read", b"/nothing"])
async def test_a_body_is_not_unpacked(serve: Serve, path: bytes) -> None:
    packed = gzip.compress(bytes(64 << 20), 9)
    server = await serve(LIMITS)
    client = await server.client()
    before = process_time()
    client.writer.write(
        b"POST %b HTTP/1.1\r\nHost: here\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (path, len(packed))
    )
    client.writer.write(packed)
    answer = await client.over()
    assert process_time() - before < 0.1, "unpacking 64 MB takes more"
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b"without Content-Encoding" in answer


async def test_a_client_that_goes_in_the_middle_of_its_body_is_no_line_of_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    server = await serve(LIMITS)
    client = await server.client()
    with caplog.at_level(logging.INFO):
        client.writer.write(b"POST /read HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nhalf")
        await server.holding.acquire()
        client.writer.transport.abort()
        await eventually(nobody_in(server))
    assert not caplog.records


@pytest.mark.parametrize("path", [b"/livez", b"/nothing", b"/livez?%FF", b"/%FF"])
async def test_nobody_is_told_what_serves_them(serve: Serve, path: bytes) -> None:
    server = await serve(LIMITS)
    assert b"server:" not in (await (await server.client()).ask(GET % path)).lower()
