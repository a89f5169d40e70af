"""Parts of HLS streams made by a worker: what comes out plays, has the times that went in, and every part is answered."""

import io
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import av
import numpy as np
import pytest

from protocols.bitstream.h26x import NalStream
from protocols.bitstream.stills import StillPictures
from protocols.hls.segmenter import MS, SECOND, Cut, Segmenter, Timing
from protocols.media import Codec, EncodedPacket, Track
from tests.unit.transcode.media import onset, pictures, see, tone
from tests.unit.transcode.worker.test_process import B_FRAMES, Collector, one_by_one
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.limits import WorkerLimits
from transcode.plan import AudioTarget


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    async with Workers(WorkerLimits(hang=2, workers=2)) as pool:
        yield await pool.start("test")


def cut(track: Track, packets: list[EncodedPacket], *, standing: bool = False) -> list[Cut]:
    """`standing`: a picture lasts until the next."""
    timing, stills = Timing.of(2 * SECOND, SECOND, 34 * MS), StillPictures(track)
    segmenter = Segmenter(timing, video=track.codec is not Codec.AAC, segment=2 * SECOND, stills=stills)
    cuts: list[Cut] = []
    for packet in packets:
        cuts += [*(segmenter.stand(packet.dts) if standing else ()), *segmenter.push(packet)]
    return [*cuts, *segmenter.close()]


class Made(Collector):
    """The parts that came back, as (init, fragment)."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[bytes, bytes]] = []

    def done(self, init: bytes, fragment: bytes) -> None:
        self.parts.append((init, fragment))
        self._news.set()

    async def all(self, count: int) -> list[tuple[bytes, bytes]]:
        await self.until(lambda _: len(self.parts) >= count)
        return self.parts


def order(worker: Worker, track: Track, cuts: list[Cut]) -> Made:
    made = Made()
    for number, part in enumerate(cuts, 1):
        worker.fragments.make(track, part.packets, part.durations, number, made.done)
    return made


def known(track: Track, packets: list[EncodedPacket]) -> Track:
    """With its parameter sets."""
    stream = NalStream(track.codec, track.id)
    stream.annexb(next(packet.data for packet in packets if packet.keyframe))
    assert stream.track is not None
    return stream.track


@pytest.mark.parametrize(("codec", "tag"), [(Codec.H264, "avc1"), (Codec.HEVC, "hvc1")])
async def test_parts_one_after_the_other_are_the_stream_that_went_in(worker: Worker, codec: Codec, tag: str) -> None:
    options = B_FRAMES if codec is Codec.H264 else None
    track, packets = pictures(codec, seconds=3, options=options, start=10 * SECOND)
    track = known(track, packets)
    cuts = cut(track, packets)
    parts = await order(worker, track, cuts).all(len(cuts))
    assert len({init for init, _ in parts}) == 1
    with av.open(io.BytesIO(parts[0][0] + b"".join(fragment for _, fragment in parts)), "r") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec_tag == tag
        read = [packet for packet in container.demux(stream) if packet.size]
        assert stream.time_base is not None
        times = [tuple(round(at * stream.time_base * 1000) for at in (p.pts, p.dts) if at is not None) for p in read]
    assert times == [(round(p.pts / 1e6), round(p.dts / 1e6)) for p in packets]
    with av.open(io.BytesIO(parts[0][0] + b"".join(fragment for _, fragment in parts)), "r") as container:
        assert len(list(container.decode(video=0))) == len(packets)


@pytest.mark.parametrize("reordered", [False, True])
@pytest.mark.parametrize("codec", [Codec.H264, Codec.HEVC])
async def test_a_picture_that_stands_for_three_seconds_leaves_no_hole_and_harms_none(
    worker: Worker, codec: Codec, reordered: bool
) -> None:
    options = {"preset": "fast", "bf": "3" if reordered else "0"}
    if codec is Codec.HEVC:
        options = {"x265-params": f"log-level=none:repeat-headers=1:keyint=30:open-gop=0:bframes={3 * reordered}"}
    track, packets = pictures(codec, seconds=4, options=options, start=10 * SECOND)
    track = known(track, packets)
    paused = [p._replace(pts=p.pts + 3 * SECOND, dts=p.dts + 3 * SECOND) if p.pts >= 12 * SECOND else p for p in packets]
    cuts = cut(track, paused, standing=True)
    stills = [packet.pts for part in cuts for packet in part.packets if not packet.begun]
    assert len(stills) > 6
    assert max(duration for part in cuts for duration in part.durations) < 400 * MS
    with_own = replace(track, extradata=StillPictures(track).parameter_sets)
    parts = await order(worker, with_own, cuts).all(len(cuts))
    with av.open(io.BytesIO(parts[0][0] + b"".join(fragment for _, fragment in parts)), "r") as container:
        shown = {round(frame.time * 1000): frame.to_ndarray() for frame in container.decode(video=0) if frame.time is not None}
    plain = {round((frame.pts or 0) / 1e6): frame.to_ndarray() for frame in see(paused, codec)}
    assert [at for at in shown if at in plain] == sorted(plain)
    assert all(np.array_equal(shown[at], picture) for at, picture in plain.items())


async def test_a_segment_plays_from_its_own_beginning(worker: Worker) -> None:
    track, packets = pictures(seconds=5, options=B_FRAMES, start=10 * SECOND)
    track = known(track, packets)
    cuts = cut(track, packets)
    parts = await order(worker, track, cuts).all(len(cuts))
    second = [number for number, part in enumerate(cuts) if part.opens][1]
    assert cuts[second].independent
    with av.open(io.BytesIO(parts[0][0] + b"".join(fragment for _, fragment in parts[second:])), "r") as container:
        first = next(container.decode(video=0))
    assert first.time == pytest.approx(min(p.pts for p in cuts[second].packets) / 1e9, abs=0.001)


@pytest.mark.parametrize("codec", [Codec.OPUS, Codec.AAC, Codec.MP3])
async def test_any_sound_becomes_aac_in_its_time(worker: Worker, codec: Codec) -> None:
    track, packets = tone(codec, seconds=3, silent_until=1.0, start=10 * SECOND)
    out = Collector()
    stage = worker.audio(track, AudioTarget(codec=Codec.AAC), out)
    await one_by_one(stage.process, packets, out, lag=20)
    await stage.aclose()
    (output,) = stage.tracks
    assert output.codec is Codec.AAC
    assert output.extradata
    cuts = cut(output, out.packets[2:])  # players drop what is before the beginning; here it would be decoded
    parts = await order(worker, output, cuts).all(len(cuts))
    with av.open(io.BytesIO(parts[0][0] + b"".join(fragment for _, fragment in parts)), "r") as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in frames])
    assert frames[0].time is not None
    assert onset(samples, round(frames[0].time * 1e9)) == pytest.approx(11_000, abs=30)


async def test_every_part_is_answered_in_order_whatever_becomes_of_the_worker(worker: Worker) -> None:
    track, packets = pictures(seconds=4, start=10 * SECOND)
    track = known(track, packets)
    cuts = cut(track, packets)
    broken = replace(track, codec=Codec.VP8)
    made = Made()
    worker.fragments.make(broken, cuts[0].packets, cuts[0].durations, 1, made.done)
    assert (await made.all(1))[0] == (b"", b"")
    huge = cuts[0].packets[0]._replace(data=bytes(9 << 20))
    worker.fragments.make(track, [huge], [MS], 2, made.done)
    assert made.parts[1] == (b"", b"")
    os.kill(worker.stats.pid, signal.SIGSTOP)
    for number, part in enumerate(cuts[:3], 3):
        worker.fragments.make(track, part.packets, part.durations, number, made.done)
    assert len(made.parts) == 2
    os.kill(worker.stats.pid, signal.SIGKILL)
    assert (await made.all(5))[2:] == [(b"", b"")] * 3
    assert worker.fragments.lost == 5
    while not worker.up:
        await made.all(5)
    worker.fragments.make(track, cuts[3].packets, cuts[3].durations, 6, made.done)
    assert (await made.all(6))[5][1]
    await worker.aclose()
    worker.fragments.make(track, cuts[3].packets, cuts[3].durations, 7, made.done)
    assert made.parts[6] == (b"", b"")
