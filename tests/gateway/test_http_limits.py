"""A gateway whose HTTP port is held by many: encoders and probes get in, and the log stays short."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import product

import aiohttp
import psutil

from gateway.api.framework.connections import KEPT
from gateway.config import Config
from gateway.node.descriptors import for_http
from gateway.wiring.listeners import PROTOCOLS
from tests.support.gateway_process import GatewayProcess, running_gateway

PLACES = 64
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(gateway: GatewayProcess, number: int, sent: bytes = b"") -> AsyncIterator[list[Streams]]:
    """So many connections to the HTTP port, each of which has sent this."""
    async with AsyncExitStack() as stack:
        there = []
        for _ in range(number):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["http"])
            stack.callback(writer.close)
            with suppress(ConnectionError):
                writer.write(sent)
            there.append((reader, writer))
        yield there


async def test_who_holds_the_http_port_keeps_out_neither_probes_nor_encoders() -> None:
    async with running_gateway(f"http.max_connections={PLACES}") as gateway:
        process = psutil.Process(gateway.pid)
        before = process.num_fds()
        async with connected(gateway, 10 * PLACES, b"GET /livez HTTP/1.1\r\nHo"):
            assert await gateway.text("/livez") == "ok\n"
            assert await gateway.metric("ingress_http_connections") <= PLACES
            assert await gateway.metric('ingress_http_connections_ended_total{reason="evicted"}') >= 9 * PLACES
            assert process.num_fds() - before <= PLACES + KEPT
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["rtmp"])
            writer.write(b"\x03" + bytes(1536))
            assert (await reader.readexactly(1537))[0] == 3
            writer.close()


async def test_a_flood_of_what_is_no_http_is_a_counter_and_not_a_log() -> None:
    async with running_gateway() as gateway:
        lines = len(gateway.log)
        async with connected(gateway, 200, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") as junk:
            answers = await asyncio.gather(*(reader.read() for reader, _ in junk))
        assert all(answer.startswith(b"HTTP/1.1 400 ") for answer in answers)
        assert await gateway.metric("ingress_http_malformed_total") == 200
        assert len(gateway.log) - lines < 5


OCTETS = (b"\xff\xfe", b"\xc3\xa4", b"a\xed\xa0\x80", b"\xe6\x97\xa5\xe6\x9c\xac")
UPGRADE = b"Upgrade: websocket\r\nConnection: upgrade, close\r\nSec-WebSocket-Version: 13\r\n"
HEADERS = (
    *(b"Authorization: Bearer ", b"X-Api-Key: ", b"Origin: ", b"X-Forwarded-For: ", b"stream-auth-type: ", b"Host: "),
    *(UPGRADE + b"Sec-WebSocket-Key: ", b"If-None-Match: ", b"Accept-Encoding: "),
)
PATHS = (
    *(
        b"/",
        b"/api/v2/video/call/livestream/demo",
        b"/api/streams",
        b"/api/v2/video/connect",
        b"/hls/livestream:demo",
        b"/drain",
    ),
    *(b"/whep/livestream:demo/x", b"/web/%b", b"/hls/livestream:demo/%b/index.m3u8", b"/hls/%b/6b49d200.A/index.m3u8", b"/?%b"),
)


async def test_what_is_in_a_header_or_a_path_is_never_an_error_of_ours() -> None:
    async with running_gateway() as gateway:
        for path, header, octets in product(PATHS, HEADERS, OCTETS):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.ports["http"])
            asked = path.replace(b"%b", octets)
            writer.write(b"GET " + asked + b" HTTP/1.1\r\nConnection: close\r\n" + header + octets + b"\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 "), (asked, header, answer)
            assert not answer.startswith(b"HTTP/1.1 500"), (asked, header, answer)
            writer.close()
    assert not [entry for entry in gateway.log if entry["level"] == "error"]


async def test_no_answer_says_what_serves_it() -> None:
    async with running_gateway() as gateway, aiohttp.ClientSession() as http:
        for path in ("/", "/livez", "/nothing", "/api/streams", "/whep/livestream:demo"):
            async with http.get(gateway.url(path)) as answer:
                assert "Server" not in answer.headers, path


async def test_figures_are_made_once_a_second_however_often_they_are_asked_for() -> None:
    async with running_gateway() as gateway, aiohttp.ClientSession() as http:

        async def scraped() -> str:
            async with http.get(gateway.url("/metrics")) as response:
                return await response.text()

        began = asyncio.get_running_loop().time()
        texts = {await scraped() for _ in range(200)}
        assert len(texts) <= 2 + (asyncio.get_running_loop().time() - began)


async def test_the_soft_limit_on_open_files_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        async with running_gateway() as gateway:
            raised, _ = psutil.Process(gateway.pid).rlimit(psutil.RLIMIT_NOFILE)
            assert raised == min(hard, 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_are_kept_for_encoders_workers_and_the_database() -> None:
    config = Config()
    encoders = sum(each.preconditions(config).descriptors for each in PROTOCOLS)
    left = for_http(4096, encoders=encoders, workers=config.transcode.workers_max)
    assert 4096 - left > config.rtmp.max_connections + config.transcode.workers_max
    assert for_http(256, encoders=encoders, workers=config.transcode.workers_max) == 64, "a quarter, where there is hardly any"
