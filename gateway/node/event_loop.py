"""How late the event loop is: everything in this process waits for it."""

import asyncio

from gateway.telemetry.latency import Histogram

INTERVAL_S = 0.5


async def measure_lag(lag: Histogram) -> None:
    """Until cancelled: how late a timer comes, twice a second."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        lag.observe(int((loop.time() - due) * 1e9))
