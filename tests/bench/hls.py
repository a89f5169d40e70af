"""What HLS costs: `python -m tests.bench.hls [cost] [load] [--sessions N] [--seconds S]`.

First N sessions of 720p30 at 2.5 Mbit/s that pass through, without HLS and with it: CPU of the gateway and all its processes, and the share
that HLS adds for each. Then requests: low-latency players that follow their playlists by blocking reloads and fetch each part, as many as
make 500 requests a second, in a process of their own. Prints figures and always ends well: a figure is no test.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from yarl import URL

from tests.bench import programme
from tests.bench.delay import quantile
from tests.bench.sessions import child
from tests.support.gateway_process import GatewayProcess, running_gateway

SETTLE_S = 6
REQUESTS = 500  # a second
_FRAMES, _RATE = 'ingress_frames_total{kind="video",protocol="rtmp"}', 30
_RENDITIONS, _PARTS_A_SECOND = 2, 3
PLAYERS = REQUESTS // (2 * _RENDITIONS * _PARTS_A_SECOND) + 2  # a playlist and a part each time


@asynccontextmanager
async def published(file: Path, sessions: int, hls: bool) -> AsyncIterator[tuple[GatewayProcess, list[str]]]:
    calls = [f"livestream:bench-{number}" for number in range(sessions)]
    async with running_gateway(f"calls.public={','.join(calls)}", f"hls.auto={str(hls).lower()}") as gateway:
        addresses = [gateway.rtmp(call, f"host-{number}") for number, call in enumerate(calls)]
        async with child("publishers", {"file": str(file), "addresses": addresses, "spread_ms": 2033 / sessions}) as sources:
            await sources.line()
            await asyncio.sleep(SETTLE_S)
            yield gateway, calls


async def cpu(gateway: GatewayProcess, seconds: float) -> tuple[float, float]:
    """Cores that a second of one session's media took over the next `seconds`: all processes, and the main one. By the frames that came,
    since publishers on a busy machine are late."""
    root = psutil.Process(gateway.pid)
    processes = [root, *root.children(recursive=True)]

    def spent() -> list[float]:
        return [sum(process.cpu_times()[:2]) for process in processes]

    frames, before = await gateway.metric(_FRAMES), spent()
    await asyncio.sleep(seconds)
    after, media = spent(), (await gateway.metric(_FRAMES) - frames) / _RATE
    shares = [(late - early) / max(media, 1e-9) for early, late in zip(before, after, strict=True)]
    return sum(shares), shares[0]


async def cost(file: Path, sessions: int, seconds: float) -> None:
    shares = []
    for hls in (False, True):
        async with published(file, sessions, hls) as (gateway, _):
            shares.append(await cpu(gateway, seconds))
    (without, without_main), (with_hls, with_main) = shares
    print(
        f"a session without HLS: {without * 100:.2f} % of a core, with HLS: {with_hls * 100:.2f} % ({sessions} sessions at once)"
    )
    added, main = (with_hls - without) * 100, (with_main - without_main) * 100
    print(f"HLS adds {added:.2f} % of a core a session (goal 3.00), {main:.2f} % of it in the main process")


async def load(file: Path, seconds: float) -> None:
    async with published(file, 1, True) as (gateway, (call,)):
        idle = await cpu(gateway, 5)
        job = json.dumps({"url": gateway.url(f"/hls/{call}/open/index.m3u8"), "players": PLAYERS, "seconds": seconds})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.hls", "--play", job, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        await process.stdout.readline()
        busy = await cpu(gateway, seconds - 2)
        seen = json.loads(await process.stdout.readline())
        await process.wait()
    print(
        f"{seen['requests'] / seen['seconds']:.0f} requests a second of {PLAYERS} players: {seen['failed']} failed, "
        f"{(busy[0] - idle[0]) * 100:.0f} % of a core, parts p50 {seen['part'][0]:.1f} p95 {seen['part'][1]:.1f} ms, "
        f"playlists after the first answer p50 {seen['lag'][0]:.1f} p95 {seen['lag'][1]:.1f} ms"
    )


async def play(job: dict[str, Any]) -> None:
    """Players of one call, all alike; a line when they begin, a line of what they saw."""
    seen: dict[str, Any] = {"requests": 0, "failed": 0}
    parts: list[float] = []
    answered: dict[str, list[float]] = {}
    end = time.monotonic() + job["seconds"]

    async def get(http: aiohttp.ClientSession, url: URL) -> bytes:
        async with http.get(url) as response:
            body = await response.read()
        seen["requests"] += 1
        seen["failed"] += response.status != 200
        return body

    async def player(http: aiohttp.ClientSession, url: URL) -> None:
        wanted = ""
        while time.monotonic() < end:
            text = (await get(http, url.with_query(wanted))).decode()
            answered.setdefault(f"{url} {wanted}", []).append(time.monotonic())
            listed = re.findall(r'#EXT-X-PART:.*?URI="(\d+)\.(\d+)\.m4s"', text)
            hint = re.search(r'PRELOAD-HINT:TYPE=PART,URI="(\d+)\.(\d+)\.m4s"', text)
            if not listed or hint is None:
                seen["failed"] += 1
                return
            began = time.monotonic()
            await get(http, url.join(URL(f"{listed[-1][0]}.{listed[-1][1]}.m4s")))
            parts.append((time.monotonic() - began) * 1e3)
            wanted = f"_HLS_msn={hint[1]}&_HLS_part={hint[2]}&_HLS_skip=YES"

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        begin = time.monotonic()
        text = (await get(http, URL(job["url"]))).decode()
        media = {URL(job["url"]).join(URL(uri)) for uri in re.findall(r"^[^#\n].*$", text, re.M)}
        print("playing", flush=True)
        await asyncio.gather(*(player(http, url) for url in media for _ in range(job["players"])))
    lags = [(at - min(times)) * 1e3 for times in answered.values() for at in times if len(times) > job["players"] // 2]
    seen |= {"seconds": time.monotonic() - begin, "part": [quantile(parts, 0.5), quantile(parts, 0.95)]}
    seen["lag"] = [quantile(lags, 0.5), quantile(lags, 0.95)]
    print(json.dumps(seen), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["cost", "load"])
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--play", type=json.loads)
    options = parser.parse_args()
    if options.play:
        await play(options.play)
        return
    with programme.prepared() as files:
        file = files(60)
        if "cost" in options.parts:
            await cost(file, options.sessions, options.seconds)
        if "load" in options.parts:
            await load(file, options.seconds)


if __name__ == "__main__":
    asyncio.run(main())
