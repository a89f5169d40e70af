"""What whole SRT sessions cost and how much delay they add: `python -m tests.bench.srt_sessions [sessions ...]` (1 and 10 by default).

Each publishes 720p30 at 4 Mbit/s with AAC and has one viewer. Delay is from a frame's last message given to libsrt to its last WebRTC
packet in the viewer's socket, less SRT's own latency of 120 ms. CPU is that of all of the gateway's processes. Prints figures and always
ends well: a figure is no test.
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench import delay
from tests.bench.delay import quantile
from tests.bench.sessions import SETTLE_S, child, cost, row
from tests.bench.srt_receive import prepare
from tests.support.gateway_process import running_gateway

LATENCY_MS = 120
SECONDS = 45


async def run(file: Path, sessions: int) -> None:
    calls = [f"livestream:bench-{number}" for number in range(sessions)]
    async with running_gateway(
        "capacity.enabled=false", f"calls.public={','.join(calls)}", f"srt.latency_ms={LATENCY_MS}"
    ) as gateway:
        publishing = {
            "file": str(file),
            "port": gateway.ports["srt"],
            "stream_ids": [gateway.key(call, f"host-{number}") for number, call in enumerate(calls)],
            "spread_ms": 2000 / sessions,
        }
        joins = [[0.02 * number, gateway.url(f"/whep/{call}")] for number, call in enumerate(calls)]
        watching = {"joins": joins, "measuring": list(range(sessions)), "feedback": True}
        async with child("srt_publishers", publishing) as sources, child("viewers", watching) as sinks:
            await sources.line()
            await sinks.line()
            await asyncio.sleep(SETTLE_S)
            spent, window = await cost(gateway)
            seen, sent = await sinks.stop(), await sources.stop()
    late: list[float] = []
    for source, sink in zip(sent, seen, strict=True):
        released = [(time, at + LATENCY_MS * 1_000_000) for time, at in source["video"]]
        late += delay.video(released, sink["video"], window)[0]
    print(f"{sessions} SRT sessions of 720p30 4 Mbit/s + AAC, one viewer each")
    row("CPU per session, audio transcoding included", f"{spent.cpu / sessions:.2%} of a core", "<= 5 %")
    row("  of it the gateway's main process", f"{spent.main / sessions:.2%} of a core", "-")
    row(
        f"video delay beyond {LATENCY_MS} ms, p50 / p95",
        f"{quantile(late, 0.5):.2f} / {quantile(late, 0.95):.2f} ms",
        "<= 8 ms",
    )
    if missing := sum(sink["missing"] for sink in seen):
        print(f"  packets missing at the viewers: {missing} of {sum(sink['packets'] for sink in seen)}")


def main(counts: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "programme.ts"
        prepare(file, SECONDS)
        for count in counts:
            asyncio.run(run(file, count))


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1, 10])
