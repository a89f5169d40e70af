"""A listener in a process of its own, whose memory is its alone: not of those who attack it, nor of tests before.

`python -m tests.unit.protocols.rtmp.listener_process LIMITS` (a JSON object of those that are other than usual) prints the port, and for
each line that it reads its counters, as a JSON object. It fails at the end if anything held up its event loop.
"""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.listener import RtmpListener
from tests.support.loop_watch import unblocked_loop


class ListenerProcess:
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self._process = process

    def peak(self) -> int:
        """The most bytes that it has ever had in memory."""
        (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        return int(kib) << 10

    async def failures(self) -> dict[str, int]:
        """Connections that ended before they published, by reason."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return dict(json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def listening_elsewhere(**limits: float) -> AsyncIterator[ListenerProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, json.dumps(limits)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield ListenerProcess(process, int(await process.stdout.readline()))
    finally:
        process.stdin.close()
        assert await process.wait() == 0


async def _listen(limits: RtmpLimits) -> None:
    asked = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    async with RtmpListener("127.0.0.1", 0, limits=limits, tls_port=0) as listener:
        print(listener.port, flush=True)
        async for _ in asked:
            print(json.dumps(listener.failures()), flush=True)


if __name__ == "__main__":
    with unblocked_loop():
        asyncio.run(_listen(replace(RtmpLimits(), **json.loads(sys.argv[1]))))
