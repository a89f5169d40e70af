"""Cost and delay of receiving SRT: `python -m tests.bench.srt_receive [sessions ...]` (1 and 20 by default).

Each session is an ffmpeg that sends a prepared 4 Mbit/s transport stream in real time (720p30 H.264 and AAC) over loopback. CPU is user +
system time of this process: libsrt, the demuxer, and the hand-over to an event loop that takes every unit. Delay is measured apart, with
one session of our own sender: from a frame's last message given to libsrt to the frame in the reader's hands, less SRT's latency.
"""

import asyncio
import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from protocols.media import EncodedPacket
from protocols.srt.address import Address
from protocols.srt.admission import Access
from protocols.srt.libsrt import Option, load
from protocols.srt.limits import SrtLimits
from protocols.srt.listener import SrtListener
from protocols.srt.publisher import SrtPublisher
from protocols.srt.receiver import PAUSE_S, SrtReceiver
from protocols.srt.streamid import StreamId
from protocols.srt.tracks import TsDemuxer

SECONDS = 10.0
WARM_UP_S = 2.0
LATENCY_MS = 120
GOAL_PERCENT = 1.3
LIMITS = SrtLimits(calls_per_second=1000, call_burst=1000)
FRAMES = 300


def prepare(path: Path, seconds: int = 10) -> None:
    """So many seconds of 4 Mbit/s, all in all."""
    picture = "testsrc2=size=1280x720:rate=30,noise=alls=12:allf=t"
    rate = ("-b:v", "3700k", "-maxrate", "3700k", "-bufsize", "1850k")
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-y",
        "-f",
        "lavfi",
        "-i",
        picture,
        "-f",
        "lavfi",
        "-i",
        "sine=sample_rate=48000",
    ]
    command += [
        "-t",
        str(seconds),
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-tune",
        "zerolatency",
        "-bf",
        "0",
        "-g",
        "60",
        *rate,
    ]
    subprocess.run([*command, "-c:a", "aac", "-b:a", "128k", "-f", "mpegts", str(path)], check=True)


async def anybody(stream: StreamId, host: str) -> Access:
    return Access()


class Load:
    """What has been received by all sessions together."""

    def __init__(self, sessions: int) -> None:
        self.units = 0
        self.publishers: list[SrtPublisher] = []
        self.all_here = asyncio.Event()
        self._sessions = sessions

    async def take(self, publisher: SrtPublisher) -> None:
        self.publishers.append(publisher)
        if len(self.publishers) == self._sessions:
            self.all_here.set()
        async for _ in publisher:
            self.units += 1

    async def run(self, listener: SrtListener) -> None:
        async with asyncio.TaskGroup() as sessions:
            async for publisher in listener:
                sessions.create_task(self.take(publisher))


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def cost(source: Path, sessions: int, pause_s: float) -> dict[str, float]:
    """Per session: percent of a core, Mbit/s and units a second."""
    total = Load(sessions)
    async with SrtReceiver(load(), pause_s) as receiver, asyncio.TaskGroup() as running:
        listener = SrtListener("127.0.0.1", 0, authorise=anybody, limits=LIMITS, receiver=receiver)
        async with listener, contextlib.AsyncExitStack() as senders:
            running.create_task(total.run(listener))
            for n in range(sessions):
                url = f"srt://127.0.0.1:{listener.port}?streamid=key{n}"
                arguments = ["-re", "-stream_loop", "-1", "-i", str(source), "-c", "copy", "-f", "mpegts", url]
                sender = await asyncio.create_subprocess_exec("ffmpeg", "-v", "quiet", "-nostdin", *arguments)
                senders.push_async_callback(sender.wait)
                senders.callback(sender.kill)
            async with asyncio.timeout(30):
                await total.all_here.wait()
            await asyncio.sleep(WARM_UP_S)
            begun, used, units = time.monotonic(), cpu(), total.units
            received = sum(publisher.stats.bytes_received for publisher in total.publishers)
            await asyncio.sleep(SECONDS)
            took = time.monotonic() - begun
            used = cpu() - used
            received = sum(publisher.stats.bytes_received for publisher in total.publishers) - received
            units = total.units - units
            dropped = sum(publisher.stats.packets_dropped + publisher.stats.units_dropped for publisher in total.publishers)
    share = 1 / took / sessions
    return {"percent": 100 * used * share, "mbps": 8e-6 * received * share, "units": units * share, "dropped": dropped}


def demuxing(source: Path) -> float:
    """Percent of a core for 4 Mbit/s, demuxing alone, as messages arrive."""
    data = source.read_bytes()
    begun = time.process_time()
    demuxer = TsDemuxer()
    for at in range(0, len(data), 2632):
        demuxer.feed(data[at : at + 2632], at)
    return 100 * (time.process_time() - begun) / (8 * len(data) / 4e6)


def send(source: str, port: int) -> None:
    """The sender's process: frame by frame in real time; prints the monotonic ns at which each video frame was given to libsrt."""
    data = Path(source).read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    starts = [n for n, packet in enumerate(packets) if packet[1:3] == b"\x41\x00"][: FRAMES + 1]
    srt = load()
    socket = srt.create()
    srt.set(socket, Option.STREAMID, "key")
    srt.connect(socket, Address("127.0.0.1", port))
    srt.send(socket, b"".join(packets[: starts[0]])[:1316])
    begun, times = time.monotonic(), []
    for n, (start, end) in enumerate(itertools.pairwise(starts)):
        time.sleep(max(0.0, begun + n / 30 - time.monotonic()))
        frame = b"".join(packets[start:end])
        for at in range(0, len(frame), 1316):
            srt.send(socket, frame[at : at + 1316])
        times.append(time.monotonic_ns())
    print(json.dumps(times), flush=True)
    sys.stdin.read()  # until all is there: closing discards what the latency still holds back
    srt.close(socket)


async def delay(source: Path) -> list[float]:
    """Ms from a frame sent to the frame in hand, beyond SRT's latency."""
    received: list[int] = []
    all_here = asyncio.Event()

    async def take(listener: SrtListener) -> None:
        async for publisher in listener:
            async for item in publisher:
                if isinstance(item, EncodedPacket) and item.track == 256:
                    received.append(time.monotonic_ns())
                    if len(received) >= FRAMES - 2:  # the last may be cut off
                        all_here.set()
            return

    async with SrtListener("127.0.0.1", 0, authorise=anybody, latency_ms=LATENCY_MS, limits=LIMITS) as listener:
        taking = asyncio.create_task(take(listener))
        sender = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __spec__.name,
            "send",
            str(source),
            str(listener.port),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert sender.stdin is not None
        assert sender.stdout is not None
        out = await sender.stdout.readline()
        async with asyncio.timeout(10):
            await all_here.wait()
        sender.stdin.close()
        await sender.wait()
        await taking
    sent: list[Any] = json.loads(out)
    later = len(sent) - len(received)  # the last may be cut off
    assert 0 <= later <= 2, f"{later} of {len(sent)} frames are missing"
    # The first frames wait for the muxer to be trusted (three ends of a PES seen)
    return [(got - gave) / 1e6 - LATENCY_MS for gave, got in list(zip(sent, received, strict=False))[6:]]


async def main(sessions: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.ts"
        prepare(source)
        print(f"libsrt {load().version} ({load().name}), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"demuxing alone: {demuxing(source):.2f} % of a core per 4 Mbit/s")
        for count in sessions:
            got = await cost(source, count, PAUSE_S)
            goal = f" (goal: <= {GOAL_PERCENT})" if count >= 20 else ""
            print(
                f"{count:3} sessions: {got['percent']:.2f} % of a core per session{goal}, {got['mbps']:.2f} Mbit/s, "
                f"{got['units']:.0f} units/s each, {got['dropped']:.0f} dropped"
            )
        late = sorted(await delay(source))
        p = statistics.quantiles(late, n=100)
        print(
            f"delay beyond SRT's {LATENCY_MS} ms: p50 {p[49]:.1f} ms, p95 {p[94]:.1f} ms, p99 {p[98]:.1f} ms ({len(late)} frames)"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["send"]:
        send(sys.argv[2], int(sys.argv[3]))
    else:
        asyncio.run(main([int(argument) for argument in sys.argv[1:]] or [1, 20]))
