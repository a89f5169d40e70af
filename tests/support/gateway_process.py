"""A real gateway in its own process, on ports of its own, with a secret that the tests know."""

import asyncio
import json
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import psutil

from gateway.access.credentials import Secret, Tokens
from tests.support import gateway_forks
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PORTS = ("http.host=127.0.0.1", "http.port=0", "rtmp.port=0", "rtmp.tls_port=0", "webrtc.port=0", "srt.port=0")


async def fresh_metrics(url: str, *, verify: bool = True) -> str:
    """Made after this was asked: the gateway makes them once a second, and CPU seconds stand in them. `verify` its certificate."""
    async with aiohttp.ClientSession() as http:

        async def read() -> str:
            async with http.get(url, ssl=verify) as response:
                return await response.text()

        former = await read()

        async def changed() -> str | None:
            text = await read()
            return text if text != former else None

        return await eventually(changed, every_s=0.05)


class Process(Protocol):
    """As `asyncio.subprocess.Process`."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class GatewayProcess:
    """`state` is its state directory, `log` every line that it has logged, parsed; `key()` makes stream keys that it takes."""

    process: Process
    tokens: Tokens
    ports: dict[str, int]
    state: str
    log: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)  # another line

    @property
    def pid(self) -> int:
        return self.process.pid

    def workers(self) -> set[int]:
        """The processes below the gateway's fork server."""
        own = psutil.Process(self.pid)
        return {each.pid for each in own.children(recursive=True)} - {each.pid for each in own.children()}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.ports['http']}{path}"

    def key(self, call: str = "livestream:demo", user: str = "host") -> str:
        return self.tokens.issue(user, [call], 3600)

    def rtmp(self, call: str = "livestream:demo", user: str = "host") -> str:
        return f"rtmp://127.0.0.1:{self.ports['rtmp']}/live/{self.key(call, user)}"

    async def json(self, path: str, token: str = "") -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession() as http, http.get(self.url(path), headers=headers) as response:
            return await response.json()

    async def text(self, path: str) -> str:
        if path == "/metrics":
            return await fresh_metrics(self.url(path))
        async with aiohttp.ClientSession() as http, http.get(self.url(path)) as response:
            return await response.text()

    async def logged(self, words: str, timeout: float = 60, *, session: str = "", user: str = "") -> dict[str, Any]:
        """The first line of the log (of this session, of this user's stream) with these words in any of its fields."""
        async with asyncio.timeout(timeout):
            while True:
                for entry in self.log:
                    named = session in ("", entry.get("session")) and user in ("", entry.get("user"))
                    if named and words in str(entry):
                        return entry
                self.news.clear()
                await self.news.wait()

    async def stream(
        self,
        user: str = "host",
        *,
        tracks: int = 1,
        timeout: float = 60,
        wanted: Callable[[dict[str, Any]], bool] | None = None,
        token: str = "",
        states: Collection[str] = ("live",),
    ) -> dict[str, Any]:
        """The user's stream as `/api/streams` shows it (who has `token`), once it is in one of these states, with that many tracks and as
        `wanted`."""

        async def shown() -> dict[str, Any] | None:
            for stream in (await self.json("/api/streams", token))["streams"]:
                there = stream["user"] == user and stream["state"] in states and len(stream["tracks"]) >= tracks
                if there and (wanted is None or wanted(stream)):
                    return dict(stream)
            return None

        return await eventually(shown, within_s=timeout, every_s=0.05)

    async def metric(self, series: str) -> float:
        """The value of one series, named as in the exposition format; 0 where it does not exist."""
        return self.value(await self.text("/metrics"), series)

    @staticmethod
    def value(exposition: str, series: str) -> float:
        """As `metric`, in a text of the exposition format."""
        for line in exposition.splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


def state_of(settings: Sequence[str]) -> str:
    """The state directory that is set last; empty: none."""
    return next((each.partition("=")[2] for each in reversed(settings) if each.startswith("state.directory=")), "")


@asynccontextmanager
async def running_gateway(*settings: str, expect_exit: int | None = 0, secret: str = "") -> AsyncIterator[GatewayProcess]:
    """`settings` are `key=value` as for `gateway run --set`. At the end the gateway must stop by itself with `expect_exit`."""
    secret = secret or secrets.token_hex(32)
    with tempfile.TemporaryDirectory() as directory:
        fixed = ("log.format=json", f"state.directory={directory}")
        arguments = [part for setting in (*PORTS, *fixed, *settings) for part in ("--set", setting)]
        process = await gateway_forks.start("run", *arguments, environment={"GATEWAY_AUTH__SECRET": secret})
        gateway = GatewayProcess(process, Tokens(Secret(secret.encode())), {}, state_of(settings) or directory)
        ready = asyncio.Event()

        async def read_log() -> None:
            async for line in process.stderr:
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = {"message": line.decode(errors="replace").rstrip(), "level": "raw"}
                gateway.log.append(entry)
                gateway.news.set()
                if entry["message"] == "ready":
                    gateway.ports.update({name: entry[name] for name in ("http", "rtmp", "rtmps", "srt", "webrtc")})
                    ready.set()
            ready.set()

        reader = asyncio.create_task(read_log())
        try:
            async with asyncio.timeout(60):  # a machine with much else to do takes its time
                await ready.wait()
            assert gateway.ports, f"the gateway did not start: {gateway.log}"
            yield gateway
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(6):
                    await process.wait()
            except TimeoutError:
                process.kill()
            await reader
        if expect_exit is not None:
            code = await process.wait()
            assert code == expect_exit, f"exit {code}: {gateway.log[-20:]}"
