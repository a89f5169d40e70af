"""Streams that change while they run, and the heaviest that a call takes."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.delivery import assert_shown
from tests.support.encoders import FFMPEG, X264_LIVE, encoder, ffmpeg, programme
from tests.support.shared import OwnCall

pytestmark = pytest.mark.asyncio(loop_scope="module")

BFRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "60", "-threads", "1")


async def make(*arguments: str) -> None:
    """Run ffmpeg to its end: a source is prepared, as fast as it can be."""
    process = await asyncio.create_subprocess_exec(FFMPEG, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments)
    async with asyncio.timeout(120):
        assert await process.wait() == 0


def in_no_time(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if argument != "-re"]


def restart(numbers: Sequence[int]) -> int:
    """Where they count from 0 again; 0: nowhere."""
    return next((place for place, (one, two) in enumerate(pairwise(numbers), 1) if two < one), 0)


@pytest.mark.parametrize(
    ("codec", "mode"), [(X264_LIVE, "passthrough"), (BFRAMES, "transcode")], ids=["passthrough", "transcoded"]
)
async def test_the_size_changes_inside_the_stream(own: OwnCall, tmp_path: Path, codec: tuple[str, ...], mode: str) -> None:
    for name, size in (("one", (640, 360)), ("two", (320, 240))):
        source = in_no_time(programme(*size, audio=False))
        await make(*source, *codec, "-t", "3", "-f", "mpegts", str(tmp_path / name))
    (tmp_path / "both.ts").write_bytes((tmp_path / "one").read_bytes() + (tmp_path / "two").read_bytes())
    async with own.watching() as viewer:
        published = ("-re", "-i", str(tmp_path / "both.ts"), "-c", "copy", "-f", "flv", own.rtmp())
        async with ffmpeg(*published):
            async with asyncio.timeout(60):
                while not (change := restart(viewer.numbers)) or viewer.numbers[-1] < 60:
                    viewer.progress.clear()
                    await viewer.progress.wait()
            stream = await own.stream()
            lost = await own.dropped(viewer)
    assert viewer.sizes == [(640, 360), (320, 240)]
    (video,) = stream["tracks"]
    assert video["mode"] == mode
    assert_shown(viewer.numbers[:change], 0, 88, lost)
    assert_shown(viewer.numbers[change:], 0, 60, lost)


async def test_the_size_changes_by_a_new_sequence_header(own: OwnCall) -> None:
    pipeline = (
        "flvmux name=m streamable=true ! rtmp2sink location={url} "
        "concat name=c ! x264enc tune=zerolatency key-int-max=60 ! m. "
        "videotestsrc is-live=true num-buffers=60 ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 ! c. "
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! c."
    )
    async with own.watching() as viewer:
        async with encoder("gst-launch-1.0", ["-q", *pipeline.format(url=own.rtmp()).split()]):
            async with asyncio.timeout(60):
                while viewer.sizes != [(640, 360), (320, 240)]:
                    viewer.progress.clear()
                    await viewer.progress.wait()
            stream = await own.stream()
    (video,) = stream["tracks"]
    assert (video["width"], video["height"], video["mode"]) == (320, 240, "passthrough")
    assert stream["reconnects"] == 0


@pytest.mark.slow
async def test_full_hd_with_b_frames_is_shown_whole_and_in_order(own: OwnCall, tmp_path: Path) -> None:
    source = tmp_path / "full.flv"
    await make(*in_no_time(programme(1920, 1080)), *BFRAMES, "-b:v", "6M", "-c:a", "aac", "-t", "6.5", "-f", "flv", str(source))
    async with own.watching() as viewer:
        async with ffmpeg("-re", "-i", str(source), "-c", "copy", "-f", "flv", own.rtmp()):
            await viewer.until_number(180, timeout=40)
            numbers = list(viewer.numbers)  # later come pictures of a slate
            stream = await own.stream(tracks=2)
            lost = await own.dropped(viewer)
    assert [track["mode"] for track in stream["tracks"]] == ["transcode", "transcode"]
    assert viewer.sizes == [(1920, 1080)]
    assert_shown(numbers, 0, 179, lost)
