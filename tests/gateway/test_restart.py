"""A gateway that is killed, or restarted on purpose: its encoders and viewers go on where they were."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.gateway_process import ROOT, GatewayProcess, running_gateway
from tests.support.hls_checker import Follower, Playlist
from tests.support.publishing import PROTOCOLS, Pasted, publishing
from tests.support.viewer import watching
from tests.support.waiting import eventually

SECRET = "restart!" * 4
SIZE, RATE = (320, 240), 15
BACK_S = 5.0  # after the gateway listens again,
SRT_NOTICES_S = 5.0  # and after its encoders have noticed that it was gone: libsrt's SRTO_PEERIDLETIMEO


def call(protocol: str) -> str:
    return f"livestream:{protocol}"


def free_ports() -> dict[str, int]:
    with ExitStack() as stack:

        def free(kind: socket.SocketKind) -> int:
            bound = stack.enter_context(socket.socket(socket.AF_INET, kind))
            bound.bind(("127.0.0.1", 0))
            return int(bound.getsockname()[1])

        tcp = {name: free(socket.SOCK_STREAM) for name in ("http", "rtmp")}
        return tcp | {name: free(socket.SOCK_DGRAM) for name in ("srt", "webrtc")}


def settings(folder: Path, ports: dict[str, int]) -> tuple[str, ...]:
    public = "calls.public=" + ",".join(map(call, PROTOCOLS))
    fixed = (f"state.directory={folder}", public, "hls.auto=true", "hls.segment_s=1")
    return (*fixed, *(f"{name}.port={port}" for name, port in ports.items()))


async def encode_for_ever(protocol: str, pasted: Pasted) -> None:
    """As encoders do that reconnect: half a second after each end."""
    while True:
        async with publishing(protocol, pasted, size=SIZE, rate=RATE) as encoder:
            await encoder.wait()
        await asyncio.sleep(0.5)


@asynccontextmanager
async def in_the_background(*work: Any) -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Player:
    """Of one media playlist, which it asks for again and again, whether the gateway answers or not."""

    address: str
    follower: Follower = field(default_factory=Follower)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self) -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                try:
                    async with http.get(self.address) as answer:
                        text = await answer.text()
                except aiohttp.ClientError:
                    self.follower.goes_on_from = max(self.follower.seen) + 1
                else:
                    assert answer.status in (200, 503), text
                    if answer.status == 200:
                        self.follower.take(text)
                        self.news.set()
                await asyncio.sleep(0.1)

    async def until(self, fits: Callable[[Playlist], bool], within_s: float = 30) -> Playlist:
        async with asyncio.timeout(within_s):
            while (last := self.follower.last) is None or not fits(last):
                self.news.clear()
                await self.news.wait()
        return last


async def player(gateway: GatewayProcess, cid: str) -> Player:
    """Of the picture's playlist."""
    base = gateway.url(f"/hls/{cid}/open/")
    async with aiohttp.ClientSession() as http, http.get(f"{base}index.m3u8") as answer:
        text = await answer.text()
        assert answer.status == 200, text
    (address,) = (line for line in text.splitlines() if line.endswith("video/index.m3u8") and not line.startswith("#"))
    return Player(base + address)


async def viewers_back(gateway: GatewayProcess, stack: AsyncExitStack) -> None:
    """As pages do that ask again."""
    for protocol in PROTOCOLS:
        viewer = await stack.enter_async_context(watching(gateway.url(f"/whep/{call(protocol)}")))
        await viewer.until(frames=10, audio=10)


async def test_after_a_kill_the_same_seats_go_on_in_calls_and_in_hls(tmp_path: Path) -> None:
    fixed = settings(tmp_path, free_ports())
    async with AsyncExitStack() as stack:
        async with running_gateway(*fixed, secret=SECRET, expect_exit=-signal.SIGKILL) as gateway:
            pasted = {protocol: Pasted.of_gateway(gateway, call(protocol)) for protocol in PROTOCOLS}
            encoders = [encode_for_ever(protocol, each) for protocol, each in pasted.items()]
            await stack.enter_async_context(in_the_background(*encoders))
            before = await streams(gateway)
            hls = await player(gateway, call("rtmp"))
            (playing,) = await stack.enter_async_context(in_the_background(hls.play()))
            await hls.until(lambda playlist: playlist.segments[-1].number >= 3)
            async with AsyncExitStack() as first:
                await viewers_back(gateway, first)
            listed = hls.follower.last
            gateway.process.kill()
            killed = asyncio.get_running_loop().time()
            await gateway.process.wait()
        async with running_gateway(*fixed, secret=SECRET) as again:
            ready = asyncio.get_running_loop().time()
            back: dict[str, float] = {}
            after = await streams(again, back)
            assert_in_time(back, killed, ready)
            for protocol, stream in after.items():
                assert stream["id"] == before[protocol]["id"], protocol
                assert stream["started_at"] == before[protocol]["started_at"], protocol
                assert stream["reconnects"] == before[protocol]["reconnects"] + 1, protocol
                counted = f'ingress_interruptions_total{{cause="restart",protocol="{protocol}"}}'
                assert await again.metric(counted) == 1
            async with AsyncExitStack() as second:
                await viewers_back(again, second)
            last = max(hls.follower.seen) if listed is None else max(listed.segments[-1].number, 0)
            now = await hls.until(lambda playlist: playlist.segments[-1].number > last)
            assert not playing.done(), playing.exception()
            new = next(each for number, each in sorted(hls.follower.seen.items()) if each.discontinuity)
            assert new.number - 1 in hls.follower.seen, "the numbers go on without a gap"
            assert now.first > 0
            assert not [entry for entry in again.log if entry["message"] == "session failed"]


def assert_in_time(back: dict[str, float], killed: float, ready: float) -> None:
    """Since when each protocol's stream is live, since when the gateway was gone, and listens again."""
    assert max(back["rtmp"], back["whip"]) < ready + BACK_S
    assert back["srt"] < max(ready, killed + SRT_NOTICES_S) + BACK_S


async def streams(
    gateway: GatewayProcess, since: dict[str, float] | None = None, of: Collection[str] = PROTOCOLS
) -> dict[str, dict[str, Any]]:
    """By protocol, once all are live; `since` gets when each of them was, in the loop's time."""

    noted = {} if since is None else since

    async def live() -> dict[str, dict[str, Any]] | None:
        shown = (await gateway.json("/api/streams"))["streams"]
        found = {each["protocol"]: each for each in shown if each["state"] == "live" and len(each["tracks"]) == 2}
        for protocol in found:
            noted.setdefault(protocol, asyncio.get_running_loop().time())
        return found if len(found) == len(of) else None

    return await eventually(live, within_s=60, every_s=0.05)


async def test_who_does_not_come_back_after_a_kill_has_left(tmp_path: Path) -> None:
    fixed = (*settings(tmp_path, free_ports()), "calls.linger_s=2")
    async with running_gateway(*fixed, secret=SECRET, expect_exit=-signal.SIGKILL) as gateway:
        async with publishing("rtmp", Pasted.of_gateway(gateway, call("rtmp")), size=SIZE, rate=RATE):
            session = (await gateway.stream(tracks=2))["id"]
            hls = await player(gateway, call("rtmp"))
            gateway.process.kill()
            await gateway.process.wait()
    async with running_gateway(*fixed, secret=SECRET) as again:
        ended = await again.logged("the encoder did not come back in time")
        assert ended["session"] == session
        async with aiohttp.ClientSession() as http, http.get(hls.address) as answer:
            assert "#EXT-X-ENDLIST" in await answer.text()
        async with publishing("rtmp", Pasted.of_gateway(again, call("rtmp")), size=SIZE, rate=RATE):
            stream = await again.stream(tracks=2)
            assert (stream["id"] == session, stream["reconnects"]) == (False, 0)


# A planned restart: somebody else keeps the listening sockets open

CONNECTS = 1000
TOLD = (
    "rtmp",
    "srt",
)  # over WHIP ffmpeg goes on sending after the gateway's goodbye; browsers do not (tests/browser/test_host.py)
GET = b"GET /livez HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"


class Socketed:
    """As systemd with `gateway.socket`: opens the sockets, and starts the gateway with them, again and again."""

    def __init__(self, folder: Path, ports: dict[str, int], stack: ExitStack) -> None:
        self.log: list[bytes] = []
        self._news = asyncio.Event()
        self._reading: set[asyncio.Task[None]] = set()
        self._fixed = settings(folder, ports)
        self._sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", ports[name]), backlog=4096)) for name in ("http", "rtmp")
        ]

    async def start(self) -> asyncio.subprocess.Process:
        """Once it says that it is ready."""
        sets = ("log.format=json", "http.host=127.0.0.1", "rtmp.tls_port=0", *self._fixed)
        arguments = [part for each in sets for part in ("--set", each)]
        moves = " ".join(f"{3 + number}<&{each.fileno()}" for number, each in enumerate(self._sockets))
        command = f'exec {moves}; LISTEN_PID=$$ LISTEN_FDS={len(self._sockets)} exec "$0" "$@"'
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", command, sys.executable, "-m", "gateway", "run", *arguments),
            pass_fds=[each.fileno() for each in self._sockets],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "GATEWAY_AUTH__SECRET": SECRET},
            stderr=asyncio.subprocess.PIPE,
        )
        reading = asyncio.create_task(self._read(process.stderr))
        self._reading.add(reading)
        async with asyncio.timeout(60):
            while b'"message": "ready"' not in b"".join(self.log[-1:]):
                assert not reading.done(), self.log
                await self._news.wait()
        return process

    async def _read(self, stderr: asyncio.StreamReader | None) -> None:
        assert stderr is not None
        async for line in stderr:
            self.log.append(line)
            self._news.set()
            self._news.clear()


async def asked(port: int, words: bytes, answer: int) -> str:
    """What becomes of one who connects and says this: empty once as much has been answered."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return f"connect: {error}"
    try:
        writer.write(words)
        async with asyncio.timeout(60):
            await reader.readexactly(answer)
        return ""
    except (OSError, EOFError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        writer.close()


async def test_a_planned_restart_refuses_no_connection_and_encoders_go_on_in_their_seats(tmp_path: Path) -> None:
    ports = free_ports()
    with ExitStack() as stack:
        systemd = Socketed(tmp_path, ports, stack)
        process = await systemd.start()
        try:
            gateway = GatewayProcess(process, tokens(), ports, str(tmp_path))
            encoders = [encode_for_ever(each, Pasted.of_gateway(gateway, call(each))) for each in TOLD]
            async with in_the_background(*encoders):
                before = await streams(gateway, of=TOLD)
                hls = await player(gateway, call("rtmp"))
                outcomes: list[str] = []
                hello = b"\x03" + bytes(1536)  # C0 and C1; S0, S1 and S2 answer it

                async def connect(number: int) -> None:
                    rtmp = number % 2
                    port, words, answer = (ports["rtmp"], hello, 1 + 2 * 1536) if rtmp else (ports["http"], GET, 12)
                    outcomes.append(await asked(port, words, answer))

                async with asyncio.TaskGroup() as group:
                    restart = group.create_task(restarted(systemd, process, hls))
                    for number in range(CONNECTS):
                        group.create_task(connect(number))
                        await asyncio.sleep(0.004)
                process = restart.result()
                assert {each for each in outcomes if each} == set()
                gateway.process = process
                after = await streams(gateway, of=TOLD)
                for protocol, stream in after.items():
                    assert (stream["id"], stream["reconnects"]) == (before[protocol]["id"], before[protocol]["reconnects"] + 1)
                async with in_the_background(hls.play()) as (playing,):
                    now = await hls.until(lambda playlist: playlist.segments[-1].number >= hls.follower.goes_on_from)
                    assert not playing.done(), playing.exception()
                assert now.segments[0].discontinuity
        finally:
            process.terminate()
            await process.wait()


def tokens() -> Any:
    from gateway.access.credentials import Secret, Tokens

    return Tokens(Secret(SECRET.encode()))


async def restarted(systemd: Socketed, process: asyncio.subprocess.Process, hls: Player) -> asyncio.subprocess.Process:
    async with in_the_background(hls.play()):
        await hls.until(lambda playlist: playlist.segments[-1].number >= 2)
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    hls.follower.goes_on_from = max(hls.follower.seen) + 1
    return await systemd.start()
