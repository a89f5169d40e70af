"""Whether what comes of an encoder is worth showing, looked at in a real worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.sessions.inspection import Inspection
from gateway.sessions.seat_state import InterruptionCause
from gateway.sessions.triggers import Triggers
from protocols.media import Codec, Track
from tests.support.memory import OPUS, packet
from tests.unit.transcode.worker.test_look import SIZE, black, keyframes, scene
from transcode.host.pool import Workers
from transcode.limits import WorkerLimits

H264 = Track(1, Codec.H264, width=SIZE[0], height=SIZE[1])


class Owner:
    """What it was told, each as long as it stayed so, and how often it was asked for a key frame."""

    def __init__(self) -> None:
        self.paused = False
        self.causes: list[InterruptionCause | None] = [None]
        self.asked = 0
        self.news = asyncio.Event()

    def ask_keyframe(self, layer: str) -> None:
        self.asked += 1
        self.news.set()

    def judged(self, cause: InterruptionCause | None) -> None:
        if cause is not self.causes[-1]:
            self.causes.append(cause)
        self.news.set()

    async def until_judged(self, *causes: InterruptionCause | None) -> None:
        async with asyncio.timeout(20):
            while self.causes != [None, *causes]:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def inspecting(triggers: Triggers, workers: Workers) -> AsyncIterator[tuple[Inspection, Owner]]:
    owner = Owner()
    inspection = Inspection("test", triggers, workers, owner)
    inspection.expect((H264, OPUS))
    try:
        yield inspection, owner
    finally:
        inspection.close()


async def test_a_black_picture_is_noticed_and_its_end() -> None:
    dark, light = keyframes("libx264", [black(), scene()])
    async with Workers(WorkerLimits(workers=2)) as workers, inspecting(Triggers(black_s=0.5), workers) as (inspection, owner):
        inspection.take(packet(1, 0, keyframe=True, data=dark))
        await owner.until_judged(InterruptionCause.BLACK)
        inspection.take(packet(1, 1000, keyframe=True, data=light))
        await owner.until_judged(InterruptionCause.BLACK, None)


async def test_sound_that_stops_and_too_few_bits_need_no_worker() -> None:
    async with Workers(WorkerLimits(workers=2)) as workers:
        for cause, triggers in (
            (InterruptionCause.NO_SOUND, Triggers(silent_s=1.5)),
            (InterruptionCause.LOW_BITRATE, Triggers(low_bitrate=1000, low_bitrate_s=1)),
        ):
            async with inspecting(triggers, workers) as (inspection, owner):
                inspection.take(packet(1, 0, data=b"x"))
                await owner.until_judged(cause)
                inspection.forget()
                await owner.until_judged(cause, None)


async def test_what_cannot_be_looked_at_is_shown() -> None:
    async with Workers(WorkerLimits(workers=1)) as workers, inspecting(Triggers(black_s=0.5), workers) as (inspection, owner):
        await workers.start("the only one that there may be")
        inspection.take(packet(1, 0, keyframe=True, data=keyframes("libx264", [black()])[0]))
        for _ in range(2):
            owner.news.clear()
            await owner.news.wait()
        assert owner.causes == [None]


async def test_an_encoder_that_sends_no_key_frames_is_asked_for_one() -> None:
    async with Workers(WorkerLimits(workers=2)) as workers, inspecting(Triggers(frozen_s=5), workers) as (inspection, owner):
        inspection.take(packet(1, 0, data=b"delta"))
        async with asyncio.timeout(10):
            while not owner.asked:
                owner.news.clear()
                await owner.news.wait()
        assert owner.asked == 1
