"""One process makes the sound of several sessions: who crashes it costs others a restart, once, in which nothing of theirs is lost."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psutil
import pytest

from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import MS, SECOND, tone
from tests.unit.transcode.worker.test_process import Collector, one_by_one, pid_of, until
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.host.stream import WorkerStage
from transcode.limits import WorkerLimits
from transcode.plan import AudioTarget

STEP = 20 * MS
FRAME = 1024 * SECOND // 48_000
PATIENT = WorkerLimits(sharing=3, workers=4, hang=20)
TRACK, PACKETS = tone(Codec.AAC, seconds=3, rounded=False)
POISON = Track(2, Codec.PCM, sample_rate=48_000, channels=2, bit_depth=24)
"""No worker knows such samples: it ends at the first packet, by an exception that nobody expects."""


@dataclass
class Sounding:
    """A session with one stream of sound."""

    worker: Worker
    track: Track = TRACK
    out: Collector = field(default_factory=Collector)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        stage = self.worker.audio(self.track, AudioTarget(), self.out)
        assert isinstance(stage, WorkerStage)
        self.stage = stage
        self.worker.on_failure(self.failures.append)

    async def play(self, start: int, end: int) -> None:
        await one_by_one(self.stage.process, PACKETS[start:end], self.out, lag=3)
        await until(lambda: self.stage.queued == 0)

    def gaps(self) -> list[int]:
        """Between two packets: ns more than the usual step."""
        return [after.pts - before.pts - STEP for before, after in itertools.pairwise(self.out.packets)]


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers(PATIENT) as pool:
        yield pool


async def sounding(workers: Workers, count: int) -> list[Sounding]:
    return [Sounding(await workers.sound(f"session {number}")) for number in range(count)]


def at_once(process: int, *given: tuple[Sounding, EncodedPacket]) -> None:
    """The process finds all of this in its socket."""
    os.kill(process, signal.SIGSTOP)
    for session, packet in given:
        session.stage.process(packet)
    os.kill(process, signal.SIGCONT)


async def test_sound_shares_a_process_until_it_is_full_and_the_process_ends_with_the_last(workers: Workers) -> None:
    sessions = await sounding(workers, 4)
    pids = [await pid_of(session.worker) for session in sessions]
    assert pids[0] == pids[1] == pids[2] != pids[3]
    pictures = await workers.start("pictures")
    assert psutil.Process(await pid_of(pictures)).nice() > psutil.Process(pids[0]).nice(), "sound goes before pictures"
    await pictures.aclose()
    assert workers.count == 2
    await asyncio.gather(*(session.play(0, 30) for session in sessions))
    assert all(session.gaps() == [0] * len(session.gaps()) for session in sessions)
    for session in sessions[1:3]:
        await session.stage.aclose()
        await session.worker.aclose()
    await sessions[0].play(30, 60)
    again = Sounding(await workers.sound("again"))
    assert await pid_of(again.worker) == pids[0], "there is room again"
    await again.worker.aclose()
    await sessions[0].worker.aclose()
    assert not psutil.pid_exists(pids[0])
    assert workers.count == 1


async def test_who_leaves_without_closing_their_stream_leaves_nothing_to_others(workers: Workers) -> None:
    left, stays = await sounding(workers, 2)
    await left.play(0, 10)
    left.stage.process(PACKETS[10])
    await left.worker.aclose()
    count = len(left.out.packets)
    await stays.play(0, 30)
    assert len(left.out.packets) == count
    assert stays.worker.stats.restarts == 0


async def test_a_killed_process_is_replaced_for_all_and_costs_nobody_more_than_a_packet(workers: Workers) -> None:
    sessions = await sounding(workers, 3)
    for session in sessions:
        await session.play(0, 40)
    killed = await pid_of(sessions[0].worker)
    at_once(killed, *((session, PACKETS[40]) for session in sessions))
    os.kill(killed, signal.SIGKILL)
    for session in sessions:
        await until(lambda session=session: session.worker.stats.restarts == 1)  # type: ignore[misc]
        count = len(session.out.packets)
        for packet in PACKETS[41:90]:
            session.stage.process(packet)
        await session.out.until(lambda got, count=count: len(got) > count + 40)  # type: ignore[misc]
        assert max(map(abs, session.gaps())) <= STEP
        assert (session.failures, session.worker.stats.dropped) == ([], 0)
    assert len({await pid_of(session.worker) for session in sessions} - {killed}) == 1, "nobody is blamed"


async def test_who_crashes_it_goes_on_alone_and_what_others_had_given_is_not_lost(workers: Workers) -> None:
    one, other = await sounding(workers, 2)
    poisoned = Sounding(await workers.sound("poisoned"), POISON)
    await one.play(0, 40)
    await other.play(0, 40)
    shared = await pid_of(one.worker)
    at_once(shared, (one, PACKETS[40]), (poisoned, PACKETS[0]), (other, PACKETS[40]))
    await until(lambda: one.worker.stats.restarts == 1)
    replaced = await pid_of(one.worker)
    assert await pid_of(other.worker) == replaced != shared
    assert await pid_of(poisoned.worker) not in (shared, replaced)
    assert "KeyError" in poisoned.worker.last_crash
    poisoned.stage.process(PACKETS[1])
    await until(lambda: bool(poisoned.failures))
    for session in (one, other):
        await session.play(41, 90)
        assert max(map(abs, session.gaps())) <= STEP
        assert (session.worker.stats.restarts, session.failures) == (1, [])
        assert await pid_of(session.worker) == replaced
    assert poisoned.failures == [poisoned.worker.failure]
    assert not poisoned.out.packets


async def test_a_crash_between_packets_blames_nobody_and_the_next_one_everybody(workers: Workers) -> None:
    sessions = await sounding(workers, 3)
    for session in sessions:
        await session.play(0, 10)
    for restarts in (1, 2):
        os.kill(await pid_of(sessions[0].worker), signal.SIGKILL)
        await until(lambda restarts=restarts: sessions[2].worker.stats.restarts == restarts)  # type: ignore[misc]
        pids = {await pid_of(session.worker) for session in sessions}
        assert len(pids) == (1 if restarts == 1 else 3)
    for session in sessions:
        await session.play(10, 30)
        assert session.failures == []


async def test_who_cannot_have_a_process_of_their_own_fails_alone() -> None:
    async with Workers(WorkerLimits(sharing=3, workers=1, hang=20)) as workers:
        (one,) = await sounding(workers, 1)
        poisoned = Sounding(await workers.sound("poisoned"), POISON)
        poisoned.stage.process(PACKETS[0])
        await until(lambda: bool(poisoned.failures))
        assert "transcodes as many streams as it can" in poisoned.failures[0]
        await one.play(0, 30)
        assert one.failures == []


async def test_a_codec_that_comes_to_no_end_is_ended_long_before_others_miss_it() -> None:
    async with Workers(WorkerLimits(sharing=3, hang=20, sound_cpu=0.001)) as workers:
        endless = Sounding(await workers.sound("endless"), Track(2, Codec.PCM, sample_rate=48_000, channels=2, bit_depth=16))
        for number in range(200):  # a second of noise in each takes some ms
            endless.stage.process(EncodedPacket(2, number * SECOND, number * SECOND, True, os.urandom(4 * 48_000), 0, 0))
            await until(lambda: endless.stage.queued == 0 or bool(endless.failures))
            if endless.failures:
                break
        assert endless.worker.last_crash == f"signal {signal.SIGPROF}"


async def test_who_takes_too_much_of_it_goes_on_alone_without_a_loss() -> None:
    async with Workers(WorkerLimits(sharing=3, hang=20, sound_cores=0.02, audio_queue=60_000)) as workers:
        busy, other = await sounding(workers, 2)
        notes: list[str] = []
        busy.worker.on_note(notes.append)
        await other.play(0, 5)
        shared = await pid_of(other.worker)
        start = 0
        while not notes:
            for number, packet in enumerate(PACKETS[:100]):
                busy.stage.process(packet._replace(pts=(start + number) * FRAME, dts=(start + number) * FRAME))
            start += 100
            await until(lambda: busy.stage.queued == 0)
        assert "goes on in a worker of its own" in notes[0]
        assert await pid_of(busy.worker) != shared
        await until(lambda: busy.stage.queued == 0)
        await busy.stage.aclose()
        assert len(busy.out.packets) * STEP == pytest.approx(start * FRAME, abs=3 * STEP)
        await other.play(5, 30)
        assert await pid_of(other.worker) == shared
        assert (busy.worker.stats.restarts, other.worker.stats.restarts) == (0, 0)
        assert (busy.worker.stats.dropped, busy.failures) == (0, [])


async def test_each_session_is_charged_what_its_own_sound_costs(workers: Workers) -> None:
    busy, idle = await sounding(workers, 2)
    await idle.play(0, 5)
    await busy.play(0, 140)
    await asyncio.gather(busy.stage.aclose(), idle.stage.aclose())
    used = busy.worker.stats, idle.worker.stats
    assert used[0].cpu_ns > 2 * used[1].cpu_ns > 0  # the first packet of each opens a decoder
    assert (used[0].decoded, used[1].decoded) == (140, 5)


@dataclass
class MemoryLink:
    """A link to a worker that takes a packet when the test says so."""

    limits: WorkerLimits = field(default_factory=WorkerLimits)
    up: bool = True
    backlog: int = 0
    sent: list[EncodedPacket] = field(default_factory=list)

    def send(self, message: bytes) -> None: ...

    def send_packet(self, stage: WorkerStage, packet: EncodedPacket, silent: bool) -> None:
        self.sent.append(packet)

    def forget(self, stage: WorkerStage) -> None: ...


def test_a_worker_has_few_packets_of_one_stream_in_hand_and_the_oldest_of_the_rest_are_dropped() -> None:
    link = MemoryLink()
    stage = WorkerStage(link, 0, TRACK, AudioTarget(), lambda packet: None, None, None)
    for packet in PACKETS:
        stage.process(packet)
    assert link.sent == PACKETS[:4]
    assert stage.stats.dropped == len(PACKETS) - stage.queued
    assert PACKETS[stage.stats.dropped + 4].dts >= PACKETS[-1].dts - 1000 * MS
    for _ in PACKETS[stage.stats.dropped :]:
        stage.on_taken()
    assert link.sent == [*PACKETS[:4], *PACKETS[stage.stats.dropped + 4 :]]
    assert stage.queued == 0


@pytest.mark.parametrize("suspect", [None, 1])
def test_what_a_worker_ended_with_is_given_again_but_for_what_ended_it(suspect: int | None) -> None:
    link = MemoryLink()
    stage = WorkerStage(link, 0, TRACK, AudioTarget(), lambda packet: None, None, None)
    for packet in PACKETS[:6]:
        stage.process(packet)
    stage.on_taken()
    link.up = False
    stage.process(PACKETS[6])
    link.up, link.sent = True, []
    stage.restore(PACKETS[suspect].dts if suspect is not None else None)
    again = [packet for packet in PACKETS[1:7] if suspect is None or packet is not PACKETS[suspect]]
    assert link.sent == again[:4]
    for _ in again:
        stage.on_taken()
    assert link.sent == again
