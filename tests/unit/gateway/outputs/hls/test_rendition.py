"""A rendition: what it keeps, for how long, and who waits for it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.outputs.hls.archive import Archive
from gateway.outputs.hls.policy import HlsPolicy, HlsTotals
from gateway.outputs.hls.rendition import Rendition
from protocols.hls.segmenter import MS, SECOND, Cut, Timing
from protocols.media import Codec, EncodedPacket, Track
from tests.support.hls_checker import Follower, parse
from transcode.host.fragments import Done

TRACK = Track(1, Codec.H264, b"sets", 640, 360)
POLICY = HlsPolicy(segment=2 * SECOND, window=12 * SECOND, memory=64 << 20, audio_bitrate=96_000)
TIMING = Timing.of(2 * SECOND, 2 * SECOND, 34 * MS)
FRAME = 33 * MS


class Owner:
    """Makes parts at once, of 100 bytes and their number; none while `broken`, none yet while `busy`."""

    def __init__(self) -> None:
        self.broken = self.busy = False
        self.segments = 0
        self.waiting: list[Callable[[], None]] = []
        self.parts: list[Cut] = []

    def on_part(self, rendition: Rendition, part: Cut) -> None:
        self.parts.append(part)

    def on_segment(self) -> None:
        self.segments += 1

    def make(self, track: Track, packets: Sequence[EncodedPacket], durations: Sequence[int], index: int, done: Done) -> None:
        answer = (b"", b"") if self.broken else (track.extradata, b"%06d" % index + bytes(94))
        self._later(lambda: done(*answer))

    def then(self, done: Callable[[], None]) -> None:
        self._later(done)

    def _later(self, answer: Callable[[], None]) -> None:
        self.waiting.append(answer)
        while self.waiting and not self.busy:
            self.waiting.pop(0)()


class Stage:
    def __init__(self, policy: HlsPolicy = POLICY, archive: Archive | None = None) -> None:
        self.owner = Owner()
        self.totals = HlsTotals()
        self.time = 0
        self.rendition = Rendition(
            "video", "demo/video", TRACK, TIMING, policy, self.totals, self.owner, archive, "rtmp", lambda time: time, 0
        )

    def feed(self, seconds: float) -> None:
        for number in range(round(seconds * SECOND / FRAME)):
            key = number == 0 or self.time % (60 * FRAME) == 0
            self.rendition.push(EncodedPacket(1, self.time, self.time, key, b"x", 0, 1))
            self.time += FRAME

    @property
    def text(self) -> str:
        return self.rendition.text(skip=False).plain.decode()


async def test_what_is_listed_can_be_fetched_and_a_segment_is_its_parts() -> None:
    stage, follower = Stage(), Follower()
    for _ in range(60):
        stage.feed(0.5)
        playlist = follower.take(stage.text)
        for segment in playlist.segments:
            parts = [await stage.rendition.file(part.uri) for part in segment.parts]
            assert None not in parts
            assert await stage.rendition.file(segment.init) == b"sets"
            if segment.uri and parts:
                assert await stage.rendition.file(segment.uri) == b"".join(bytes(part or b"") for part in parts)
    assert stage.owner.segments == stage.totals.segments > 10
    assert stage.rendition.variant.average > 0


async def test_who_asks_ahead_waits_for_exactly_that() -> None:
    stage = Stage()
    stage.feed(3)
    number, part = stage.rendition.playlist.next_part
    waiting = [
        asyncio.create_task(stage.rendition.reached(number, part)),
        asyncio.create_task(stage.rendition.file(f"{number}.{part}.m4s")),
    ]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    stage.feed(0.5)
    reached, file = await asyncio.gather(*waiting)
    assert reached is True
    assert file is not None
    assert await stage.rendition.file(f"{number}.{part + 9}.m4s") is None
    assert await stage.rendition.reached(number + 9, 0) is False


async def test_a_part_that_could_not_be_made_is_a_gap_and_the_end_comes_after_what_is_under_way() -> None:
    stage = Stage()
    stage.feed(4.5)
    stage.owner.broken = True
    stage.feed(0.7)
    stage.owner.broken = False
    stage.feed(2)
    assert stage.totals.gaps > 0
    assert any(part.gap for segment in parse(stage.text).segments for part in segment.parts)
    stage.owner.busy = True
    stage.rendition.end()
    assert not parse(stage.text).ended
    stage.owner.busy = False
    stage.owner.then(lambda: None)
    assert parse(stage.text).ended


async def test_an_interruption_is_a_discontinuity_with_its_own_beginning_and_two_at_once_are_one() -> None:
    stage = Stage()
    stage.feed(5)
    stage.rendition.interrupt(TRACK)
    stage.rendition.interrupt(replace(TRACK, extradata=b"others"))
    stage.feed(5)
    segments = parse(stage.text).segments
    assert [segment.discontinuity for segment in segments].count(True) == 1
    assert await stage.rendition.file("init0.mp4") == b"sets"
    assert await stage.rendition.file("init1.mp4") == b"others"
    assert stage.totals.discontinuities == 1


async def test_memory_is_bounded_however_long_it_runs() -> None:
    stage = Stage(replace(POLICY, memory=6000))
    stage.feed(600)
    assert stage.rendition.held <= 6000
    playlist = parse(stage.text)
    assert playlist.first > 250
    assert await stage.rendition.file(playlist.segments[0].uri) is not None
    assert await stage.rendition.file("0.m4s") is None
    assert len(stage.rendition._inits) == 1


async def test_a_folder_keeps_what_memory_does_not(tmp_path: Path) -> None:
    archive = Archive(f"file://{tmp_path}", {})
    stage = Stage(replace(POLICY, window=60 * SECOND), archive)
    async with asyncio.TaskGroup() as group:
        working = group.create_task(archive.run())
        for _ in range(15):
            stage.feed(2)
            await asyncio.sleep(0.01)  # obstore's threads
        async with asyncio.timeout(5):
            while archive.results["stored"] < 14:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stage.feed(2)
        first = parse(stage.text).segments[0]
        assert not first.gap
        assert first.uri not in stage.rendition._files
        assert len(await stage.rendition.file(first.uri) or b"") == 600
        working.cancel()


async def test_where_frames_are_missing_time_is_listed_as_gaps_and_every_rule_holds() -> None:
    stage, follower = Stage(), Follower()
    for missing in (0.2, 0.5, 0.9, 1.3):
        stage.feed(3.1)
        stage.time += round(missing * SECOND / FRAME) * FRAME
        stage.rendition.push(EncodedPacket(1, stage.time, stage.time, False, b"x", 0, 1))
        stage.time += FRAME
        follower.take(stage.text)
    assert stage.totals.gaps == 0, "nothing was lost here"
    assert any(part.gap for segment in follower.seen.values() for part in segment.parts)
    for segment in parse(stage.text).complete:
        assert await stage.rendition.file(segment.uri) is not None


@pytest.mark.parametrize("url", ["s4://bucket", "s3://bucket?x", "nonsense"])
def test_a_storage_that_is_none_is_refused_in_words(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Archive(url, {"no_such_option": "1"})
