"""What transcoding costs and how late it makes things, and how it degrades: `python -m tests.bench.transcode [seconds] [part ...]`.

`cost`: each case goes through the whole way (stage, socket, worker process, sink) at live speed. CPU is user + system time of the gateway's
process and of the worker together, in percent of a core; the same work by the ffmpeg command (same presets, one thread, whole command:
demultiplexing, decoding, scaling, encoding) stands beside it, as fast as it goes, and the ratio of the two.

The *delay* is from the last byte of a picture until its output is at the sink. A part of it is the source's own *order*: until the pictures
that are shown before it have come as well, which no transcoder can spare. The rest is what transcoding *adds*. On a machine that is busy
otherwise pictures are dropped and the effort falls: n tells.

`sessions`: many with sound only. `overload`: several 1080p30 with B-frames share one core, more than it can do: second by second the age of
the oldest picture that came out (from when it was due), how many, and with how much effort. That age must stay bounded by the queue.
"""

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import imageio_ffmpeg
import psutil

from protocols.media import Codec, EncodedPacket, Track
from tests.support.memory import as_a_call
from tests.unit.transcode.media import MS, SECOND, pictures, tone
from transcode.adaptation import preset
from transcode.group_cache import GroupCache
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.ladder import start_bitrate
from transcode.plan import AudioTarget, Policy, Transcode, VideoTarget, plan
from transcode.stage import Stage

SESSIONS = 20
OVERLOAD = 3
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    track: Track
    packets: list[EncodedPacket]
    target: AudioTarget | VideoTarget
    ffmpeg: list[str]  # the arguments after the input


@dataclass(frozen=True, slots=True)
class Result:
    gateway: float  # CPU seconds per media second and session
    worker: float
    delays: list[float]  # ms
    orders: list[float]  # ms, of these
    added: list[float]  # ms, the rest
    outputs: int
    private: float  # MB of the workers' own memory, for each session


def cases(seconds: float) -> list[Case]:
    audio_track, audio = tone(Codec.AAC, seconds=seconds)
    opus = ["-c:a", "libopus", "-application", "lowdelay", "-compression_level", "1", "-b:a", "128k", "-f", "null", os.devnull]
    found = [Case("AAC 48k -> Opus", audio_track, audio, AudioTarget(), opus)]
    audio_track, audio = tone(Codec.AAC, 44_100, seconds=seconds)
    found.append(Case("AAC 44.1k -> Opus", audio_track, audio, AudioTarget(), opus))
    for height in (720, 1080):
        size = (height * 16 // 9, height)
        options = {"bf": "2", "preset": "veryfast", "b": "4M", "maxrate": "4M", "bufsize": "4M"}
        track, packets = pictures(Codec.H264, size, seconds=seconds, noise=8, options=options)
        for layers in (1, 3):
            decision = plan(replace(track, reorder=2), as_a_call(frozenset({Codec.H264})), Policy(layers=layers))
            assert isinstance(decision, Transcode)
            assert isinstance(decision.target, VideoTarget)
            name = f"H.264 {height}p30 B-frames -> {layers} x H.264"
            found.append(Case(name, track, packets, decision.target, ladder_arguments(decision.target)))
    return found


def ladder_arguments(target: VideoTarget) -> list[str]:
    """The same layers from one decoding, scaled one from the other."""
    arguments = []
    scaling = "".join(
        f"[{number}]split=2[out{number}][from{number}];[from{number}]scale={rung.width}:{rung.height}:flags=bilinear[{number + 1}];"
        for number, rung in enumerate(target.encoded[1:])
    )
    last = len(target.encoded) - 1
    graph = f"[0:v]null[0];{scaling}[{last}]null[out{last}]"
    arguments += ["-filter_complex_threads", "1", "-filter_complex", graph]
    for number, rung in enumerate(target.encoded):
        rate = start_bitrate(rung.width, rung.height, target.frame_rate)
        encoder = f"-c:v libx264 -preset {preset(rung.width, rung.height)} -tune zerolatency -profile:v baseline -threads 1 -b:v {rate}"
        encoder += f" -maxrate {rate} -bufsize {rate * 6 // 10} -sc_threshold 0 -g 120 -f null"
        arguments += ["-map", f"[out{number}]", *encoder.split(), os.devnull]
    return arguments


async def play(workers: Workers, case: Case, sessions: int) -> Result:
    """`sessions` workers with one stream each, fed at live speed, one after the other within a packet's time; those of sound share their
    processes."""
    origin = case.packets[0].dts
    delays: list[float] = []
    orders: list[float] = []
    before_it = preceding(case.packets)
    came: dict[tuple[int, int], int] = {}  # when, by session and pts
    stages: list[Stage] = []
    start = workers.sound if isinstance(case.target, AudioTarget) else workers.start
    running = [await start(str(number)) for number in range(sessions)]

    def sink_of(session: int) -> Callable[[EncodedPacket], None]:
        def sink(packet: EncodedPacket) -> None:
            delays.append((time.monotonic_ns() - packet.arrival) / MS)
            last = came.get((session, before_it.get(packet.pts, packet.pts)), packet.arrival)
            orders.append((last - packet.arrival) / MS)

        return sink

    for number, worker in enumerate(running):
        if isinstance(case.target, AudioTarget):
            stage = worker.audio(case.track, case.target, sink_of(number))
        else:
            stage = worker.video(case.track, case.target, sink_of(number), GroupCache())
        stages.append(stage)
    processes = [psutil.Process(pid) for pid in {await _pid(worker) for worker in running}]
    before = resource.getrusage(resource.RUSAGE_SELF)
    first = [sum(process.cpu_times()[:2]) for process in processes]
    begin = time.monotonic_ns() + 50 * MS
    for packet in case.packets:
        for number, stage in enumerate(stages):
            due = begin + packet.dts - origin + number * 20 * MS // sessions
            if (wait := due - time.monotonic_ns()) > 0:
                await asyncio.sleep(wait / SECOND)
            came[number, packet.pts] = time.monotonic_ns()
            stage.process(packet._replace(begun=due, arrival=came[number, packet.pts]))
    for stage in stages:
        await stage.aclose()  # it gives what it holds
    after = resource.getrusage(resource.RUSAGE_SELF)
    media = (case.packets[-1].dts - origin) / SECOND * sessions
    cpu = sum(sum(process.cpu_times()[:2]) for process in processes) - sum(first)
    private = sum(process.memory_full_info().uss for process in processes) / sessions / 1e6
    for worker in running:
        await worker.aclose()
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    added = sorted(delay - order for delay, order in zip(delays, orders, strict=True))
    return Result(own / media, cpu / media, sorted(delays), sorted(orders), added, len(delays), private)


def preceding(packets: list[EncodedPacket]) -> dict[int, int]:
    """For each pts that of the packet that comes last among those which are shown no later."""
    found: dict[int, int] = {}
    order = {packet.pts: number for number, packet in enumerate(packets)}
    last = -1
    for pts in sorted(order):
        last = max(last, order[pts])
        found[pts] = packets[last].pts
    return found


async def _pid(worker: Worker) -> int:
    async with asyncio.timeout(10):
        while not (pid := worker.stats.pid):  # noqa: ASYNC110 - once, at the start
            await asyncio.sleep(0.01)
    return pid


def ffmpeg(case: Case, folder: Path) -> float:
    """CPU seconds per media second of the command doing the same."""
    source = folder / ("in.aac" if case.track.codec is Codec.AAC else "in.h264")
    with source.open("wb") as file:
        for packet in case.packets:
            file.write((_adts(case.track, len(packet.data)) if case.track.codec is Codec.AAC else b"") + packet.data)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([FFMPEG, "-y", "-v", "error", "-threads", "1", "-i", source, *case.ffmpeg], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu / ((case.packets[-1].dts - case.packets[0].dts) / SECOND)


def _adts(track: Track, length: int) -> bytes:
    """An ADTS header (ISO/IEC 14496-3 §1.A.2) of AAC LC."""
    index = {48_000: 3, 44_100: 4}[track.sample_rate]
    bits = 0xFFF << 44 | 1 << 40 | 1 << 38 | index << 34 | track.channels << 30 | (length + 7) << 13 | 0x7FF << 2
    return bits.to_bytes(7, "big")


def quantile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]


def show(name: str, result: Result, reference: float) -> None:
    cost = f"gateway {result.gateway * 100:5.2f} %  worker {result.worker * 100:6.2f} %  ffmpeg {reference * 100:6.2f} %"
    ratio = (result.gateway + result.worker) / reference
    times = {"delay": result.delays, "of it order": result.orders, "added": result.added}
    delay = "  ".join(f"{name} p50 {quantile(of, 0.5):5.1f} p95 {quantile(of, 0.95):5.1f} ms" for name, of in times.items())
    print(f"{name:38} {cost}  ratio {ratio:4.2f}  {delay}  {result.private:5.1f} MB  n={result.outputs}")


async def overload(workers: Workers, case: Case, sessions: int) -> None:
    """`sessions` streams on one core, each with its own clock, until the effort has settled; the ages of each second are printed."""
    core = min(os.sched_getaffinity(0))
    assert isinstance(case.target, VideoTarget)
    running = [await workers.start(str(number)) for number in range(sessions)]
    ages: list[list[float]] = [[] for _ in running]
    length = case.packets[-1].dts - case.packets[0].dts + 33 * MS
    begin = 0

    def sink_of(number: int) -> Callable[[EncodedPacket], None]:
        return lambda packet: ages[number].append((time.monotonic_ns() - begin - packet.pts + case.packets[0].dts) / MS)

    stages = [worker.video(case.track, case.target, sink_of(number), GroupCache()) for number, worker in enumerate(running)]
    for worker in running:
        os.sched_setaffinity(await _pid(worker), {core})
    begin = time.monotonic_ns()
    second = 1
    for packet in (_shifted(packet, turn * length) for turn in range(3) for packet in case.packets):
        due = begin + packet.dts - case.packets[0].dts
        if (wait := due - time.monotonic_ns()) > 0:
            await asyncio.sleep(wait / SECOND)
        for stage in stages:
            stage.process(packet._replace(begun=due, arrival=time.monotonic_ns()))
        if due - begin > second * SECOND:
            print(f"  {second:3} s  " + "  ".join(_state(*pair) for pair in zip(running, ages, strict=True)))
            ages[:] = [[] for _ in running]
            second += 1
    for worker in running:
        await worker.aclose()


def _shifted(packet: EncodedPacket, by: int) -> EncodedPacket:
    return packet._replace(pts=packet.pts + by, dts=packet.dts + by)


def _state(worker: Worker, ages: list[float]) -> str:
    effort = worker.adaptation.text if worker.adaptation else "as planned"
    return f"{len(ages):3} pictures, age <= {max(ages, default=0):4.0f} ms, dropped {worker.stats.dropped:4}, {effort:60}"


async def main(seconds: float, parts: set[str]) -> None:
    prepared = cases(seconds)
    with tempfile.TemporaryDirectory() as folder:
        references = [ffmpeg(case, Path(folder)) if parts & {"cost", "sessions"} else 1.0 for case in prepared]
    async with Workers() as workers:
        if "cost" in parts:
            for case, reference in zip(prepared, references, strict=True):
                show(case.name, await play(workers, case, 1), reference)
        if "sessions" in parts:
            show(f"AAC 48k -> Opus, {SESSIONS} sessions, each", await play(workers, prepared[0], SESSIONS), references[0])
        if "overload" in parts:
            for case in prepared[-2:]:
                print(f"{OVERLOAD} x {case.name} on one core")
                await overload(workers, case, OVERLOAD)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 8.0, set(sys.argv[2:]) or {"cost", "sessions", "overload"}))
