"""What a scrape of `/metrics` costs with streams of all protocols under way: `python -m tests.bench.scrape [--sessions N]` (50 by default).

Nearly all publishers are files sent over RTMP and SRT, whose sound is transcoded; two are ffmpeg over WHIP; five viewers watch. The cost
of a scrape is the CPU that the gateway uses beyond what it uses without scrapes; the time is that of the whole HTTP request, which waits
for its turn among the media. Prints figures and always ends well: a figure is no test.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import psutil

from tests.bench import programme, srt_receive
from tests.bench.sessions import child, row, title
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.publishing import Pasted, publishing
from tests.support.waiting import eventually

WHIP, VIEWERS, BURSTS, SCRAPES, SECONDS = 2, 5, 4, 5, 60
FRESH_S = 1.05  # after which the text is made anew: no event tells of it, and asking for it would cost what is measured
SRT = 16  # more at once from one address are refused


async def run(flv: Path, ts: Path, sessions: int) -> None:
    calls = [f"livestream:bench-{number}" for number in range(sessions)]
    settings = (f"calls.public={','.join(calls)}", "capacity.enabled=false", "transcode.workers_max=100")
    async with running_gateway(*settings) as gateway, AsyncExitStack() as stack:
        for call in calls[:WHIP]:
            await stack.enter_async_context(publishing("whip", Pasted.of_gateway(gateway, call)))
        rest = calls[WHIP:]
        by_srt, by_rtmp = rest[:SRT], rest[SRT:]
        rtmp = {"file": str(flv), "addresses": [gateway.rtmp(call, "host") for call in by_rtmp], "spread_ms": 40}
        keys = [gateway.key(call, "host") for call in by_srt]
        srt = {"file": str(ts), "port": gateway.ports["srt"], "stream_ids": keys, "spread_ms": 40}
        joins = [[0.05 * n, gateway.url(f"/whep/{call}")] for n, call in enumerate((calls[:1] + by_rtmp + by_srt)[:VIEWERS])]
        for module, job in (
            ("publishers", rtmp),
            ("srt_publishers", srt),
            ("viewers", {"joins": joins, "measuring": [], "feedback": True}),
        ):
            await (await stack.enter_async_context(child(module, job))).line()

        async def everybody_is_there() -> bool:
            streams = (await gateway.json("/api/streams"))["streams"]
            live = [stream for stream in streams if stream["state"] == "live"]
            return len(live) == sessions and await gateway.metric("ingress_viewers") == VIEWERS

        await eventually(everybody_is_there, within_s=60)
        await measure(gateway, sessions)


async def measure(gateway: GatewayProcess, live: int) -> None:
    """Bursts of scrapes: what the media cost meanwhile, as measured between one and the next, is taken off, and the median is shown."""
    process = psutil.Process(gateway.pid)
    took: list[float] = []
    costs: list[float] = []
    text = ""
    async with aiohttp.ClientSession() as http:
        for _ in range(BURSTS):
            between, scraping = Spent(), Spent()
            for _ in range(SCRAPES):
                with between.by(process):
                    await asyncio.sleep(FRESH_S)
                with scraping.by(process):
                    async with http.get(gateway.url("/metrics")) as response:
                        text = await response.text()
                took.append(scraping.last_s)
            costs.append((scraping.cpu_s - scraping.lasted_s * between.cpu_s / between.lasted_s) / SCRAPES)
    title(f"a scrape with {live} streams")
    row("CPU of a scrape, median of bursts", f"{median(costs) * 1e3:.1f} ms", "<= 10 ms")
    row("the request, median / worst", f"{median(took) * 1e3:.1f} / {max(took) * 1e3:.1f} ms", "-")
    row("series", str(sum(not line.startswith("#") for line in text.splitlines())), "<= 300")


@dataclass(slots=True)
class Spent:
    """CPU that a process used in several spans of time."""

    cpu_s: float = 0.0
    lasted_s: float = 0.0
    last_s: float = 0.0  # of these, the last span's

    @contextmanager
    def by(self, process: psutil.Process) -> Iterator[None]:
        begun, before = time.monotonic(), _cpu(process)
        yield
        self.last_s = time.monotonic() - begun
        self.lasted_s += self.last_s
        self.cpu_s += _cpu(process) - before


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(sessions: int) -> None:
    with programme.prepared() as flv, tempfile.TemporaryDirectory() as folder:
        ts = Path(folder) / "programme.ts"
        srt_receive.prepare(ts, SECONDS)
        asyncio.run(run(flv(60), ts, sessions))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a scrape of /metrics costs.")
    parser.add_argument("--sessions", type=int, default=50)
    main(parser.parse_args().sessions)
