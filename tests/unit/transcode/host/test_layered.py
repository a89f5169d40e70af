"""Layers below a video that passes are made by a worker of their own: it may fail, and the video goes on."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import pictures
from tests.unit.transcode.worker.test_process import GENEROUS, Collector, until
from transcode.group_cache import GroupCache
from transcode.host.layered import Below, Layered
from transcode.host.pool import Workers
from transcode.host.process import OnFailure, Worker
from transcode.limits import WorkerLimits
from transcode.plan import VideoTarget
from transcode.stage import OnTracks

BELOW = VideoTarget(640, 480, 1920, 1080, 30.0, 60.0, 800_000, 2_000_000, layers=2, passed=True)
PATIENT = WorkerLimits(workers=2, video_queue=60_000, close=10.0)


def restarted(worker: Worker, times: int) -> bool:
    """So often, and it is there again."""
    return worker.stats.restarts == times and worker.stats.pid != 0


@dataclass
class Scene:
    """A stage with its layers, and what came of it."""

    workers: Workers
    out: Collector = field(default_factory=Collector)
    told: list[tuple[str, ...]] = field(default_factory=list)
    said: list[tuple[bool, str]] = field(default_factory=list)
    made: list[Below] = field(default_factory=list)

    def stage(self, track: Track, first_wait: float = 0.05) -> Layered:
        async def start(source: Track, changed: OnTracks, lost: OnFailure) -> Below:
            worker = await self.workers.start("layers")
            worker.on_failure(lost)
            below = Below(worker, worker.video(source, BELOW, self.out, GroupCache(), changed))
            self.made.append(below)
            return below

        def tracks(tracks: tuple[Track, ...]) -> None:
            self.told.append(tuple(each.layer for each in tracks))

        return Layered(track, self.out, tracks, start, lambda there, what: self.said.append((there, what)), first_wait)

    def of(self, layer: str) -> list[EncodedPacket]:
        return [packet for packet in self.out.packets if packet.layer == layer]

    async def has(self, layer: str, pts: int) -> None:
        await self.out.until(lambda _: any(packet.pts >= pts for packet in self.of(layer)))

    async def kill(self) -> None:
        """End the present worker twice: the first time it is replaced at once, the second time it has failed."""
        worker = self.made[-1].worker
        for restarts in range(2):
            await until(partial(restarted, worker, restarts))
            os.kill(worker.stats.pid, signal.SIGKILL)
        await until(lambda: worker.failure is not None)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Workers(PATIENT) as workers:
        yield Scene(workers)


def feed(stage: Layered, packets: list[EncodedPacket]) -> None:
    for packet in packets:
        stage.process(packet)


async def test_the_top_goes_on_without_its_layers_and_gets_them_back(scene: Scene) -> None:
    track, packets = pictures(Codec.H264, size=(640, 480), seconds=4)
    stage = scene.stage(track)
    await stage.open()
    assert [each.layer for each in stage.tracks] == ["f", "h"]
    feed(stage, packets[:30])
    await scene.has("h", packets[29].pts)
    await scene.kill()
    assert list(scene.told[-1]) == ["f"]
    assert [each.layer for each in stage.tracks] == ["f"]
    (there, what) = scene.said[-1]
    assert not there
    assert what.startswith("transcoding has failed: signal 9; the layers below the video are gone")
    assert not stage.request_keyframe("h")
    assert not stage.starved
    feed(stage, packets[30:50])
    assert [packet.pts for packet in scene.of("f")] == [packet.pts for packet in packets[:50]]
    await until(lambda: len(scene.said) == 2)
    assert scene.said[-1][0]
    assert list(scene.told[-1]) == ["f", "h"]
    feed(stage, packets[50:])
    await scene.has("h", packets[-1].pts)
    await stage.aclose()
    again = [packet for packet in scene.of("h") if packet.pts > packets[29].pts]
    assert again[0].keyframe
    assert [packet.pts for packet in again] == [packet.pts for packet in packets[60:]], "from the next key frame on"
    assert [packet.pts for packet in scene.of("f")] == [packet.pts for packet in packets]
    await until(lambda: scene.workers.count == 0)


async def test_where_there_is_no_room_layers_are_tried_again_later_each_time(scene: Scene) -> None:
    track, packets = pictures(Codec.H264, size=(640, 480), seconds=1)
    stage = scene.stage(track)
    await stage.open()
    feed(stage, packets[:10])
    others = [await scene.workers.start("other")]
    await scene.kill()
    others.append(await scene.workers.start("other"))
    await until(lambda: len(scene.said) == 4)
    assert [there for there, _ in scene.said] == [False] * 4
    assert "no layers below the video: " in scene.said[-1][1]
    await others[1].aclose()
    await until(lambda: scene.said[-1][0])
    await stage.aclose()


async def test_a_stage_that_is_closed_tries_no_more(scene: Scene) -> None:
    track, _ = pictures(Codec.H264, size=(640, 480), seconds=0.2)
    stage = scene.stage(track, first_wait=60)
    await stage.open()
    await scene.kill()
    async with asyncio.timeout(GENEROUS):
        await stage.aclose()
    assert scene.workers.count == 0
    assert len(scene.made) == 1


async def test_what_is_known_of_the_source_is_told_with_and_without_layers(scene: Scene) -> None:
    track, packets = pictures(Codec.H264, size=(640, 480), seconds=1)
    stage = scene.stage(track)
    stage.reconfigure(replace(track, bitrate=5))
    assert [each.bitrate for each in stage.tracks] == [5]
    await stage.open()
    stage.reconfigure(replace(track, bitrate=6))
    assert scene.told == [("f",), ("f", "h")]
    feed(stage, packets)
    await scene.has("h", packets[-1].pts)
    assert [each.bitrate for each in stage.tracks if each.layer == "f"] == [6]
    await stage.aclose()
