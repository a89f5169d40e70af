"""Worker processes: media through them, and that no crash, hang, garbage or flood in one is more than a restart."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import psutil
import pytest

from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import MS, hear, pictures, pitch, see, shifted, tone
from transcode.group_cache import GroupCache
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.limits import WorkerLimits
from transcode.plan import AudioTarget, VideoTarget
from transcode.stage import OnTracks, Sink, Stage

VIDEO = VideoTarget(320, 180, 1920, 1080, 30.0, 60.0, 800_000, 2_000_000)
B_FRAMES = {"bf": "3", "b_strategy": "0", "preset": "veryfast"}
GENEROUS = 20.0  # s that a test waits for what must come


class Collector:
    """A sink that can be waited for."""

    def __init__(self) -> None:
        self.packets: list[EncodedPacket] = []
        self._news = asyncio.Event()

    def __call__(self, packet: EncodedPacket) -> None:
        self.packets.append(packet)
        self._news.set()

    async def until(self, done: Callable[[list[EncodedPacket]], bool]) -> None:
        async with asyncio.timeout(GENEROUS):
            while not done(self.packets):
                self._news.clear()
                await self._news.wait()


class Fed:
    """A video stage and the group of pictures that its owner keeps for it."""

    def __init__(self, stage: Stage, group: GroupCache) -> None:
        self.stage = stage
        self._group = group

    def process(self, packet: EncodedPacket) -> None:
        self._group.add(packet)
        self.stage.process(packet)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stage, name)


def fed(
    worker: Worker, track: Track, sink: Sink, on_tracks: OnTracks | None = None, target: VideoTarget = VIDEO, **more: Any
) -> Fed:
    group = GroupCache()
    return Fed(worker.video(track, target, sink, group, on_tracks, **more), group)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(WorkerLimits(hang=0.5, workers=3, video_queue=10_000)) as pool:  # a busy machine makes nothing late
        yield pool


@pytest.fixture
async def worker(workers: Workers) -> Worker:
    return await workers.start("test")


def at_least(need: int, got: Sequence[EncodedPacket]) -> bool:
    return len(got) >= need


async def one_by_one(
    stage_process: Callable[[EncodedPacket], None], packets: list[EncodedPacket], out: Collector, lag: int
) -> None:
    """Feed packets so that at most `lag` are under way: faster than live and never too fast."""
    base = len(out.packets)
    for number, packet in enumerate(packets):
        stage_process(packet)
        await out.until(partial(at_least, base + number + 1 - lag))


async def live(stage_process: Callable[[EncodedPacket], None], packets: list[EncodedPacket]) -> None:
    """Feed packets as a live source does: one about every 20 ms."""
    for packet in packets:
        stage_process(packet)
        await asyncio.sleep(0.02)


async def until(done: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(GENEROUS):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_audio_comes_back_as_opus(worker: Worker) -> None:
    track, packets = tone(Codec.AAC, 44_100, "mono")
    out, told = Collector(), list[tuple[Track, ...]]()
    stage = worker.audio(track, AudioTarget(), out, told.append)
    assert stage.tracks[0].codec is Codec.OPUS
    await one_by_one(stage.process, packets, out, lag=3)
    await stage.aclose()
    assert len(out.packets) == pytest.approx(150, abs=4)
    assert pitch(hear(out.packets)[48_000:96_000]) == pytest.approx(1000, abs=2)
    assert told == [stage.tracks]
    assert told[0][0].extradata.startswith(b"OpusHead")
    stats = worker.stats
    assert (stats.decoded, stats.encoded, stats.errors, stats.dropped) == (len(packets), len(out.packets), 0, 0)
    assert stats.cpu_ns > 0


async def test_closing_a_video_stage_gives_its_last_pictures(worker: Worker) -> None:
    track, packets = pictures(Codec.H264, options=B_FRAMES)
    out, told = Collector(), list[tuple[Track, ...]]()
    stage = fed(worker, track, out, told.append)
    await one_by_one(stage.process, packets, out, lag=5)
    await stage.aclose()
    assert [packet.pts for packet in out.packets] == sorted(packet.pts for packet in packets)
    assert len(see(out.packets)) == len(packets)
    assert told[-1] == stage.tracks
    assert (stage.tracks[0].width, stage.tracks[0].height) == (320, 180)
    stage.process(packets[0])  # after the close: ignored
    assert worker.stats.dropped == 0


async def test_audio_and_video_share_a_worker_and_keep_their_track_ids(worker: Worker) -> None:
    heard, seen = Collector(), Collector()
    audio_track, audio = tone(Codec.AAC, seconds=0.5)
    video_track, video = pictures(Codec.H264, seconds=0.5)
    sound = worker.audio(audio_track, AudioTarget(), heard)
    sight = fed(worker, video_track, seen)
    for packet in sorted(audio + video, key=lambda packet: packet.dts):
        (sound if packet.track == audio_track.id else sight).process(packet)
    await sound.aclose()
    await sight.aclose()
    assert {packet.track for packet in heard.packets} == {audio_track.id}
    assert {packet.track for packet in seen.packets} == {video_track.id}
    assert len(seen.packets) == len(video)


async def test_what_a_packet_of_sound_may_take_is_nothing_to_the_pictures_after_it() -> None:
    async with Workers(WorkerLimits(hang=GENEROUS, video_queue=60_000, sound_cpu=0.02)) as pool:
        worker = await pool.start("both")
        heard, seen = Collector(), Collector()
        audio_track, audio = tone(Codec.AAC, seconds=0.5)
        sound = worker.audio(audio_track, AudioTarget(), heard)
        await one_by_one(sound.process, audio[:5], heard, lag=3)
        track, packets = pictures(Codec.H264, (640, 360), seconds=2)
        sight = fed(worker, track, seen)
        await one_by_one(sight.process, packets, seen, lag=1)
        await sight.aclose()
        assert worker.stats.cpu_ns > 60 * MS
        assert worker.stats.restarts == 0


async def test_a_key_frame_and_a_new_configuration_reach_the_worker(worker: Worker) -> None:
    track, packets = pictures(Codec.H264)
    out = Collector()
    stage = fed(worker, track, out)
    await one_by_one(stage.process, packets[:10], out, lag=0)
    assert stage.request_keyframe()
    assert stage.request_keyframe()
    await one_by_one(stage.process, packets[10:20], out, lag=0)
    assert [number for number, packet in enumerate(out.packets) if packet.keyframe] == [0, 10]
    heard = Collector()
    first, old = tone(Codec.AAC, 48_000, "stereo", seconds=1)
    second, new = tone(Codec.AAC, 44_100, "mono", seconds=1)
    sound = worker.audio(first, AudioTarget(), heard)
    await one_by_one(sound.process, old, heard, lag=3)
    sound.reconfigure(second)
    await one_by_one(sound.process, shifted(new, 1000 * MS), heard, lag=6)
    assert worker.stats.errors == 0


async def test_a_killed_worker_is_replaced_and_the_picture_is_back_at_once(worker: Worker) -> None:
    track, packets = pictures(Codec.H264, options=B_FRAMES, gop=60, seconds=4)
    audio_track, audio = tone(Codec.AAC, seconds=4)
    seen, heard = Collector(), Collector()
    failures: list[str] = []
    worker.on_failure(failures.append)
    sight = fed(worker, track, seen)
    sound = worker.audio(audio_track, AudioTarget(), heard)
    await one_by_one(sight.process, packets[:40], seen, lag=5)
    await one_by_one(sound.process, audio[:60], heard, lag=3)
    before, heard_before = len(seen.packets), len(heard.packets)
    os.kill(worker.stats.pid, signal.SIGKILL)
    loop = asyncio.get_running_loop()
    killed = loop.time()
    async with asyncio.TaskGroup() as sources:  # no key frame among them: the next is packet 60
        sources.create_task(live(sight.process, packets[40:55]))
        sources.create_task(live(sound.process, audio[60:75]))
    await seen.until(lambda got: len(got) > before)
    await heard.until(lambda got: len(got) > heard_before)
    assert loop.time() - killed < 2
    assert seen.packets[before].keyframe
    assert packets[39].pts < seen.packets[before].pts + 200 * MS
    assert [packet.pts for packet in seen.packets] == sorted({packet.pts for packet in seen.packets})
    assert (worker.stats.restarts, worker.last_crash, failures) == (1, "signal 9", [])
    await one_by_one(sight.process, packets[55:], seen, lag=80)
    await sight.aclose()
    assert len(see(seen.packets[before:])) == len(seen.packets) - before


async def test_the_second_crash_soon_after_is_a_failure(worker: Worker) -> None:
    track, audio = tone(Codec.AAC)
    out = Collector()
    failed: asyncio.Queue[str] = asyncio.Queue()
    worker.on_failure(failed.put_nowait)
    stage = worker.audio(track, AudioTarget(), out)
    await one_by_one(stage.process, audio[:10], out, lag=3)
    os.kill(worker.stats.pid, signal.SIGKILL)
    count = len(out.packets)
    await live(stage.process, audio[10:20])
    await out.until(lambda got: len(got) > count)
    os.kill(worker.stats.pid, signal.SIGKILL)
    async with asyncio.timeout(GENEROUS):
        assert await failed.get() == "transcoding has failed: signal 9"
    assert worker.closed
    stage.process(audio[20])
    await stage.aclose()
    assert failed.empty()


async def test_a_worker_that_hangs_is_killed_and_replaced(worker: Worker) -> None:
    track, packets = pictures(Codec.H264, gop=60)
    out = Collector()
    stage = fed(worker, track, out)
    await one_by_one(stage.process, packets[:20], out, lag=0)
    stopped = worker.stats.pid
    os.kill(stopped, signal.SIGSTOP)
    stage.process(packets[20])
    await until(lambda: worker.stats.restarts == 1)
    assert not psutil.pid_exists(stopped)
    assert worker.last_crash.startswith("no progress for ")
    await live(stage.process, packets[21:])
    await out.until(lambda got: got[-1].pts == packets[-1].pts)
    resumed = [packet for packet in out.packets if packet.keyframe][1:]
    assert len(resumed) == 1
    assert resumed[0].pts < packets[40].pts  # long before the source's next key frame


async def test_a_worker_that_is_too_slow_costs_pictures_up_to_the_next_key_frame() -> None:
    async with Workers(WorkerLimits(hang=GENEROUS)) as pool:
        worker = await pool.start("slow")
        track, packets = pictures(Codec.H264, gop=30, seconds=4)
        out = Collector()
        stage = fed(worker, track, out)
        await one_by_one(stage.process, packets[:5], out, lag=0)
        os.kill(worker.stats.pid, signal.SIGSTOP)
        for packet in packets[5:35]:  # 1 s: half of it waits, the rest goes
            stage.process(packet)
        assert worker.stats.dropped == pytest.approx(15, abs=2)
        os.kill(worker.stats.pid, signal.SIGCONT)
        await until(lambda: stage.queued == 0)
        dropped = worker.stats.dropped
        await one_by_one(stage.process, packets[60:], out, lag=2)  # packet 30 was a key frame while full: 60 is the next
        assert worker.stats.dropped == dropped
        await stage.aclose()
        assert {packet.pts for packet in out.packets} >= {packet.pts for packet in packets[60:]}
        assert len(see(out.packets)) == len(out.packets)


async def test_what_has_waited_for_too_long_is_decoded_and_not_shown() -> None:
    async with Workers(WorkerLimits(hang=GENEROUS, video_queue=400)) as pool:
        worker = await pool.start("late")
        track, packets = pictures(Codec.H264, gop=120, seconds=3)
        out, told = Collector(), asyncio.Event()
        stage = fed(worker, track, out, on_adaptation=lambda effort, cheaper: told.set())
        await one_by_one(stage.process, packets[:5], out, lag=0)
        os.kill(worker.stats.pid, signal.SIGSTOP)
        for packet in packets[5:15]:  # they may wait; but not for so long
            stage.process(packet)
        assert worker.stats.dropped == 0
        loop = asyncio.get_running_loop()
        stopped = loop.time()
        await until(lambda: loop.time() > stopped + 0.5)
        os.kill(worker.stats.pid, signal.SIGCONT)
        await until(lambda: stage.queued == 0)
        for packet in packets[15:60]:
            stage.process(packet)
            await until(lambda: stage.queued == 0)
        await stage.aclose()
        shown = [packets.index(next(each for each in packets if each.pts == packet.pts)) for packet in out.packets]
        assert len(set(shown) & set(range(5, 15))) <= 2, shown
        assert shown == sorted(shown)
        assert len(set(shown) & set(range(15, 60))) > 30, "no key frame was needed to go on"
        assert told.is_set(), "and it works for less"
        assert worker.stats.dropped >= 9
        assert len(see(out.packets)) == len(out.packets)


async def test_a_stage_may_begin_with_the_gop_that_is_under_way(worker: Worker) -> None:
    track, packets = pictures(Codec.H264, gop=120, seconds=3)
    out = Collector()
    stage = fed(worker, track, out, shown=packets[79].pts)
    for packet in packets:  # 3 s at once
        stage.process(packet)
    await stage.aclose()
    assert [packet.pts for packet in out.packets] == [packet.pts for packet in packets[80:]]


async def test_the_queue_is_bounded_in_bytes_too() -> None:
    async with Workers(WorkerLimits(hang=GENEROUS, backlog=3 << 20)) as pool:
        worker = await pool.start("flood")
        stage = worker.audio(Track(1, Codec.FLAC), AudioTarget(), Collector())
        os.kill(worker.stats.pid or await pid_of(worker), signal.SIGSTOP)
        for _ in range(100):
            stage.process(EncodedPacket(1, 0, 0, True, bytes(1 << 20), 0, 0))
        assert worker.backlog <= 5 << 20
        assert worker.stats.dropped >= 90


async def pid_of(worker: Worker) -> int:
    await until(lambda: worker.stats.pid != 0)
    return worker.stats.pid


@pytest.mark.parametrize("codec", list(Codec))
async def test_garbage_in_any_codec_ends_nothing_uncounted(worker: Worker, codec: Codec) -> None:
    dice = random.Random(codec.value)
    out = Collector()
    track = Track(1, codec, extradata=dice.randbytes(20) if dice.random() < 0.5 else b"", channels=2, sample_rate=48_000)
    is_video = codec in (Codec.H264, Codec.HEVC, Codec.AV1, Codec.VP8, Codec.VP9)
    stage = fed(worker, track, out) if is_video else worker.audio(track, AudioTarget(), out)
    head = b"\0\0\0\1" if codec in (Codec.H264, Codec.HEVC) else b""
    for number in range(300):
        data = head + dice.randbytes(dice.randrange(1, 2000))
        stage.process(EncodedPacket(1, number * MS, number * MS, True, data, 0, 0))
    await stage.aclose()
    stats = worker.stats
    assert (stats.restarts, worker.failure) == (0, None), worker.last_crash
    assert stats.errors + stats.decoded + stats.dropped > 0


async def test_mutated_video_ends_nothing(worker: Worker) -> None:
    dice = random.Random(4)
    track, packets = pictures(Codec.H264, options=B_FRAMES, gop=15, seconds=3)
    out = Collector()
    stage = fed(worker, track, out)
    for packet in packets:
        data = bytearray(packet.data)
        for _ in range(dice.randrange(6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        stage.process(packet._replace(data=bytes(data), dts=0))
    await stage.aclose()
    assert (worker.stats.restarts, worker.failure) == (0, None)
    assert [packet.pts for packet in out.packets] == sorted({packet.pts for packet in out.packets})


async def test_memory_is_bounded() -> None:
    async with Workers(WorkerLimits(memory=48 << 20)) as pool:
        worker = await pool.start("large")
        track, packets = pictures(Codec.H264, size=(3840, 2160), seconds=0.3)
        failed: asyncio.Queue[str] = asyncio.Queue()
        worker.on_failure(failed.put_nowait)
        stage = worker.video(
            track, VideoTarget(3840, 2160, 3840, 2160, 30.0, 60.0, 8_000_000, 8_000_000), Collector(), GroupCache()
        )
        for packet in packets:
            stage.process(packet)
        await stage.aclose()
        # refused by a decoder that gets no memory, or the process has ended: never more than its share
        assert worker.stats.errors + worker.stats.restarts > 0 or not failed.empty()
        assert worker.stats.peak_rss < 128 << 20


async def test_closing_a_worker_ends_its_process(workers: Workers) -> None:
    worker = await workers.start("short")
    process = psutil.Process(await pid_of(worker))
    assert workers.count == 1
    await worker.aclose()
    await worker.aclose()
    assert not process.is_running()
    assert workers.count == 0


async def test_a_stopped_worker_is_closed_by_force(workers: Workers) -> None:
    worker = await workers.start("stopped")
    pid = await pid_of(worker)
    os.kill(pid, signal.SIGSTOP)
    await worker.aclose()
    assert not psutil.pid_exists(pid)


async def test_more_workers_than_allowed_are_refused(workers: Workers) -> None:
    started = [await workers.start(str(number)) for number in range(3)]
    with pytest.raises(Rejected) as refusal:
        await workers.start("one too many")
    assert refusal.value.reason is Reason.OVERLOADED
    await started[0].aclose()
    await workers.start("again")


async def test_a_fork_server_that_died_is_started_anew(workers: Workers) -> None:
    first = await workers.start("first")
    pid = await pid_of(first)
    server = psutil.Process(pid).parent()
    assert server is not None
    server.kill()
    await until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    second = await workers.start("second")
    assert await pid_of(second)
    # the first still works, and its end is told without the server that made it
    track, audio = tone(Codec.AAC, seconds=1)
    out = Collector()
    stage = first.audio(track, AudioTarget(), out)
    await one_by_one(stage.process, audio[:20], out, lag=3)
    failed: asyncio.Queue[str] = asyncio.Queue()
    first.on_failure(failed.put_nowait)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(GENEROUS):
        assert "fork server" in await failed.get()


LONELY = """
import asyncio, os, signal
from transcode.host.pool import Workers

async def main():
    async with Workers() as workers:
        worker = await workers.start("lonely")
        while not worker.stats.pid:
            await asyncio.sleep(0.01)
        print(worker.stats.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_workers_end_with_a_gateway_that_was_killed() -> None:
    result = subprocess.run([sys.executable, "-c", LONELY], capture_output=True, timeout=GENEROUS, check=False)
    assert result.returncode == -signal.SIGKILL
    pid = int(result.stdout)
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(GENEROUS)
    assert not psutil.pid_exists(pid)


def test_the_gateways_side_never_loads_libav() -> None:
    modules = "transcode.plan, transcode.host.passthrough, transcode.host.pool, transcode.host.process, transcode.host.stream"
    code = f"import sys, {modules}; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=GENEROUS, check=False).returncode == 0
