"""What sessions cost and how much delay they add, measured on a whole gateway: `python -m tests.bench.sessions [part ...] [--rounds N]`.

The parts are `sessions` (20 publishers, one viewer each), `viewers` (one publisher; 1, 50 and 100 viewers) and `join` (4 s between key
frames). Of several rounds the one that cost the least CPU is shown: a busy machine makes everything dearer and later. Encoders cost
nothing (`programme`), publishers and viewers are processes of their own on this machine, which has one monotonic clock. CPU is user and
system time of the gateway, its fork server and its workers; memory is their proportional set size. The goals are those that the project
has set itself against a server in C++. Prints figures and always ends well: a figure is no test.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tests.bench import delay, fanout, programme
from tests.bench.delay import Window, quantile
from tests.support.gateway_process import ROOT, GatewayProcess, running_gateway

SESSIONS = 20
VIEWERS = ((1, True), (50, True), (100, True), (100, False))  # and whether they send transport-wide feedback
JOINS = 10
KEY_BYTES, DELTA_BYTES = 30_000, 9_700  # of the programme's pictures, about
SPREAD_MS = 2000 + 1000 / 30  # of the starts: over a group of pictures for key frames, and over a frame for all others
MEASURE_S = 12
SETTLE_S = 3
MEASURING = 8  # viewers, evenly spread over the order of sending
_TIMEOUT_S = 60
_LINE_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the gateway's processes: share of one core, that of the gateway's main process alone, MiB."""

    cpu: float
    main: float
    memory: float


class Child:
    """A process of the benchmark: says one line when it is ready, and all it knows when told to stop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has ended: see above")
        return line.decode().strip()

    async def stop(self) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return json.loads(await self.line())


@asynccontextmanager
async def child(module: str, job: dict[str, Any]) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.bench.{module}", json.dumps(job)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def cost(gateway: GatewayProcess) -> tuple[Cost, Window]:
    """Over the next `MEASURE_S`."""
    root = psutil.Process(gateway.pid)
    processes = [root, *root.children(recursive=True)]
    before, begin = [_cpu(process) for process in processes], time.monotonic_ns()
    await asyncio.sleep(MEASURE_S)
    after, end = [_cpu(process) for process in processes], time.monotonic_ns()
    seconds = (end - begin) / 1e9
    spent = [(late - early) / seconds for early, late in zip(before, after, strict=True)]
    return Cost(sum(spent), spent[0], sum(map(_memory, processes))), Window(begin, end)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _memory(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / (1 << 20)


@dataclass(frozen=True, slots=True)
class Measured:
    cost: Cost
    video: list[float]  # ms
    audio: list[float]
    missing: int
    packets: int
    error: str = ""


async def least(rounds: int, file: Path, publishers: int, viewers: int, feedback: bool = True) -> Measured:
    """The cheapest of several runs."""
    measured = [await run(file, publishers, viewers, feedback) for _ in range(rounds)]
    return min(measured, key=lambda each: each.cost.cpu)


async def run(file: Path, publishers: int, viewers: int, feedback: bool = True) -> Measured:
    """Each publisher in a call of its own, `viewers` of each call."""
    calls = [f"livestream:bench-{number}" for number in range(publishers)]
    async with running_gateway("capacity.enabled=false", f"calls.public={','.join(calls)}") as gateway:
        addresses = [gateway.rtmp(call, f"host-{number}") for number, call in enumerate(calls)]
        joins = [[0.02 * n, gateway.url(f"/whep/{call}")] for n, call in enumerate(calls * viewers)]
        measuring = sorted({len(joins) * n // MEASURING for n in range(MEASURING)})
        publishing = {"file": str(file), "addresses": addresses, "spread_ms": SPREAD_MS / publishers}
        watching = {"joins": joins, "measuring": measuring, "feedback": feedback}
        async with child("publishers", publishing) as sources, child("viewers", watching) as sinks:
            await sources.line()
            await sinks.line()
            await asyncio.sleep(SETTLE_S)
            spent, window = await cost(gateway)
            seen, sent = await sinks.stop(), await sources.stop()
    return _measured(spent, window, [(sent[number % publishers], seen[number]) for number in measuring])


def _measured(spent: Cost, window: Window, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Measured:
    video: list[float] = []
    audio: list[float] = []
    error = ""
    for sent, seen in pairs:
        try:
            delays, zero = delay.video(sent["video"], seen["video"], window)
        except ValueError as problem:
            error = str(problem)
            continue
        video += delays
        audio += delay.audio(sent["audio"], seen["audio"], zero, seen["reports"]["video"], seen["reports"]["audio"], window)
    return Measured(
        spent, video, audio, sum(seen["missing"] for _, seen in pairs), sum(seen["packets"] for _, seen in pairs), error
    )


async def joins(file: Path) -> list[float]:
    """ms from the POST to the last packet of the first picture, of viewers who come at random moments."""
    call = "livestream:bench"
    async with running_gateway(f"calls.public={call}") as gateway:
        at = sorted(random.uniform(0, 20) for _ in range(JOINS))
        job = {"joins": [[5 + after, gateway.url(f"/whep/{call}")] for after in at], "measuring": [], "feedback": True}
        publishing = {"file": str(file), "addresses": [gateway.rtmp(call)], "spread_ms": 0}
        async with child("publishers", publishing) as sources, child("viewers", job) as sinks:
            await sources.line()
            await sinks.line()
            seen = await sinks.stop()
    return [(each["first_picture"] - each["posted"]) / 1e6 for each in seen]


def title(text: str) -> None:
    """With the machine's load, without which no figure can be judged."""
    print(f"{text} ({os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})", flush=True)


def row(name: str, value: str, goal: str) -> None:
    print(f"  {name:<58}{value:>20}   goal {goal}", flush=True)


def show_delays(measured: Measured, viewers: int) -> None:
    if measured.error:
        print(f"  delays: {measured.error}")
    if not measured.video or not measured.audio:
        return
    p50, p95 = quantile(measured.video, 0.5), quantile(measured.video, 0.95)
    row(f"video delay p50 / p95, {viewers} viewers", f"{p50:.2f} / {p95:.2f} ms", "<= 1.5 / 8 ms" if viewers <= 50 else "-")
    p50, p95 = quantile(measured.audio, 0.5), quantile(measured.audio, 0.95)
    row(f"audio delay p50 / p95, {viewers} viewers", f"{p50:.1f} / {p95:.1f} ms", "<= 30 ms")
    if measured.missing:
        print(f"  packets missing at the measuring viewers: {measured.missing} of {measured.packets}")


def show_floor(spent: float, viewers: int) -> None:
    """`spent` of a core beside what its packets alone cost."""
    bottom = fanout.lowest(viewers, fanout.programme(key_bytes=KEY_BYTES, delta_bytes=DELTA_BYTES))
    if bottom is not None:
        row("  as a multiple of the floor, the same packets sent in C", f"{spent / bottom:.1f} x {bottom:.4f} core", "-")


async def bench_sessions(file: Path, rounds: int) -> None:
    measured = await least(rounds, file, SESSIONS, 1)
    title(f"{SESSIONS} sessions of 720p30 2.5 Mbit/s + AAC, one viewer each")
    spent = measured.cost
    row("CPU per session, audio transcoding included", f"{spent.cpu / SESSIONS:.2%} of a core", "<= 2 %")
    show_floor(spent.cpu / SESSIONS, 1)
    row("  of it the gateway's main process", f"{spent.main / SESSIONS:.2%} of a core", "-")
    row("memory (PSS) of all processes", f"{spent.memory:.0f} MiB", "<= 300 MiB")
    show_delays(measured, 1)


async def bench_viewers(file: Path, rounds: int) -> None:
    for viewers, feedback in VIEWERS:
        measured = await least(rounds, file, 1, viewers, feedback)
        title(f"one stream, {viewers} viewers" + ("" if feedback else " without transport-wide feedback"))
        row("CPU of all processes", f"{measured.cost.cpu:.3f} core", "<= 0.25 core" if viewers == 100 else "-")
        row("  of it the gateway's main process", f"{measured.cost.main:.3f} core", "-")
        show_floor(measured.cost.cpu, viewers)
        show_delays(measured, viewers)


async def bench_join(file: Path, rounds: int) -> None:
    delays = min([await joins(file) for _ in range(rounds)], key=median)
    title(f"joining with 4 s between key frames, {JOINS} viewers at random moments")
    row("POST to the last packet of the first picture, median", f"{median(delays):.0f} ms", "<= 250 ms")
    row("  and at worst", f"{max(delays):.0f} ms", "<= 250 ms")


PARTS = {"sessions": (bench_sessions, 60), "viewers": (bench_viewers, 60), "join": (bench_join, 120)}
"""And the frames from key frame to key frame of the programme that each wants."""


def main(parts: Sequence[str], rounds: int) -> None:
    print("video: from when a frame was given to the publisher's kernel to its last packet in the viewer's socket")
    print(
        "audio: from when the AAC frame was given to the kernel that holds the first sample of an Opus packet, to that packet in the"
    )
    print("       viewer's socket: the 20 ms that it waits for its own last sample are in it", flush=True)
    with programme.prepared() as file_with:
        for name in parts:
            measure, group = PARTS[name]
            asyncio.run(measure(file_with(group), rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What sessions cost and how much delay they add.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(unknown)}")
    main(options.parts or list(PARTS), options.rounds)
