"""How late key frames come, and what a burst of one costs: `python -m tests.bench.key_frames`.

One publisher of 720p30 at 2.5 Mbit/s with a key frame every 2 s, and viewers on two ways: straight over loopback, which carries all of
a key frame at once, and through a relay of 20 Mbit/s with a queue of 32 KB, which does not. All are measured over the same seconds. Prints
figures and always ends well: a figure is no test.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import delay, programme
from tests.bench.delay import Window, quantile
from tests.bench.sessions import SETTLE_S, child, cost, row, title
from tests.support.gateway_process import running_gateway
from tests.support.relay import relaying

VIEWERS = 4  # on the good way; behind the relay, which they would share, there is one
RATE, QUEUE_BYTES = 20_000_000, 32 << 10
GROUP = 60
CALL = "livestream:bench"


@dataclass(frozen=True, slots=True)
class Seen:
    """By the viewers of one way: delays of pictures in ms, and packets that did not come at first."""

    delays: list[float]
    missing: int
    packets: int


async def measure(file: Path) -> tuple[Seen, Seen]:
    """On the good way, and behind the relay."""
    async with (
        running_gateway("capacity.enabled=false", f"calls.public={CALL}") as gateway,
        relaying(gateway.ports["webrtc"], loss=0, round_trip_s=0.02) as relay,
    ):
        relay.rate, relay.queue_s = RATE, QUEUE_BYTES * 8 / RATE
        publishing = {"file": str(file), "addresses": [gateway.rtmp(CALL)], "spread_ms": 0}
        joins = [[0.02 * number, gateway.url(f"/whep/{CALL}")] for number in range(VIEWERS)]
        watching = {"joins": joins, "measuring": list(range(VIEWERS)), "feedback": True}
        behind = {"joins": joins[:1], "measuring": [0], "feedback": True, "through": relay.port}
        async with (
            child("publishers", publishing) as sources,
            child("viewers", watching) as straight,
            child("viewers", behind) as relayed,
        ):
            for each in (sources, straight, relayed):
                await each.line()
            await asyncio.sleep(SETTLE_S)
            _, window = await cost(gateway)
            seen = await straight.stop(), await relayed.stop()
            (sent,) = await sources.stop()
    good, narrow = (_seen(sent, each, window) for each in seen)
    return good, narrow


def _seen(sent: dict[str, Any], viewers: list[dict[str, Any]], window: Window) -> Seen:
    delays = [each for viewer in viewers for each in delay.video(sent["video"], viewer["video"], window)[0]]
    return Seen(delays, sum(each["missing"] for each in viewers), sum(each["packets"] for each in viewers))


def main() -> None:
    with programme.prepared(still=True) as file_with:
        good, narrow = asyncio.run(measure(file_with(GROUP)))
    title(f"720p30 with a key frame every {GROUP} frames")
    for name, seen, goal in (("a good way", good, "p99 <= 8 ms"), ("20 Mbit/s with a queue of 32 KB", narrow, "-")):
        figures = " / ".join(f"{quantile(seen.delays, q):.1f}" for q in (0.5, 0.95, 0.99))
        row(f"video delay p50 / p95 / p99, {name}", f"{figures} ms", goal)
        row("  packets missing at first", f"{seen.missing} of {seen.packets}", "-")


if __name__ == "__main__":
    main()
