"""What fan-out processes gain and cost, on a whole gateway: `python -m tests.bench.fanout_processes [viewers]`.

One stream of 720p30 at 2.5 Mbit/s with AAC, and the same viewers served by the main process, by one process and by two. A process is full
when its own core is, so what counts is the CPU of the busiest: how many times as many viewers two processes carry as one is the CPU of the
one over that of the busier of the two. Counted in CPU seconds, since this machine's cores are shared with the publisher and the viewers;
the delays stand beside it. Prints figures and always ends well: a figure is no test.
"""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns

import psutil

from tests.bench import delay, programme
from tests.bench.delay import Window, quantile
from tests.bench.sessions import SPREAD_MS, child, row, title
from tests.support.gateway_process import GatewayProcess, running_gateway

VIEWERS = 100
PROCESSES = (0, 1, 2)
GROUP = 60  # frames
SETTLE_S = 3
MEASURE_S = 12
MEASURING = 8  # viewers
CALL = "livestream:bench"


@dataclass(frozen=True, slots=True)
class Spent:
    """Shares of a core, and delays in ms."""

    main: float
    fanout: list[float]
    workers: float
    video: list[float]
    memory: list[float]  # MiB, proportional, of each fan-out process

    @property
    def busiest(self) -> float:
        return max(self.fanout, default=self.main)


async def run(file: Path, viewers: int, processes: int) -> Spent:
    settings = ("capacity.enabled=false", f"webrtc.processes={processes}", f"calls.public={CALL}")
    async with running_gateway(*settings) as gateway:
        publishing = {"file": str(file), "addresses": [gateway.rtmp(CALL)], "spread_ms": SPREAD_MS}
        measuring = sorted({viewers * n // MEASURING for n in range(MEASURING)})
        joins = [[2 + 0.02 * n, gateway.url(f"/whep/{CALL}")] for n in range(viewers)]
        watching = {"joins": joins, "measuring": measuring, "feedback": True}
        async with child("publishers", publishing) as sources, child("viewers", watching) as sinks:
            await sources.line()
            await sinks.line()
            await asyncio.sleep(SETTLE_S)
            own, fanout, workers = _processes(gateway)
            every = [own, *fanout, *workers]
            before, begin = [_cpu(each) for each in every], monotonic_ns()
            await asyncio.sleep(MEASURE_S)
            after, end = [_cpu(each) for each in every], monotonic_ns()
            memory = [each.memory_full_info().pss / (1 << 20) for each in fanout]
            seen, sent = await sinks.stop(), await sources.stop()
    spent = [(late - early) * 1e9 / (end - begin) for early, late in zip(before, after, strict=True)]
    window = Window(begin, end)
    delays = [each for number in measuring for each in delay.video(sent[0]["video"], seen[number]["video"], window)[0]]
    last = 1 + len(fanout)
    return Spent(spent[0], spent[1:last], sum(spent[last:]), delays, memory)


def _processes(gateway: GatewayProcess) -> tuple[psutil.Process, list[psutil.Process], list[psutil.Process]]:
    own = psutil.Process(gateway.pid)
    fanout = [each for each in own.children() if "gateway.outputs.fanout.process" in each.cmdline()]
    return own, fanout, [each for each in own.children(recursive=True) if each not in fanout]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def main(file: Path, viewers: int) -> None:
    busiest: dict[int, float] = {}
    for processes in PROCESSES:
        spent = await run(file, viewers, processes)
        busiest[processes] = spent.busiest
        title(f"one stream, {viewers} viewers, {processes or 'no'} fan-out processes")
        row("CPU of the main process", f"{spent.main:.3f} core", "-")
        for index, (each, memory) in enumerate(zip(spent.fanout, spent.memory, strict=True)):
            row(f"  of fan-out process {index}, and its memory (PSS)", f"{each:.3f} core, {memory:.0f} MiB", "-")
        row("  of workers and their fork server", f"{spent.workers:.3f} core", "-")
        row("video delay p50 / p95", f"{quantile(spent.video, 0.5):.2f} / {quantile(spent.video, 0.95):.2f} ms", "-")
    row("viewers that two processes carry for each of one", f"{busiest[1] / busiest[2]:.2f}", ">= 1.7")


if __name__ == "__main__":
    with programme.prepared() as file_with:
        asyncio.run(main(file_with(GROUP), int(sys.argv[1]) if len(sys.argv) > 1 else VIEWERS))
