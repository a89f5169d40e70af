"""What encoders can send, over RTMP and SRT: the plan is as the table says, and a decoding viewer sees the pictures whole and in order.

Each source is encoded once and published at the speed of its media on both protocols at the same time, into calls of their own.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.delivery import assert_shown, dropped
from tests.support.encoders import FFMPEG_9, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.slow import slow
from tests.support.viewer import Viewer, watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = (320, 192)
SECONDS = 3
JUDGED = 80  # of the 90 pictures: an SRT caller that closes takes what is still in its buffers with it
PASSES = ("passthrough", "same_codec")


@dataclass(frozen=True, slots=True)
class Source:
    """ffmpeg arguments of an encoding, and what the gateway has to make of it."""

    name: str
    encoding: str
    plan: tuple[str, str]  # mode, reason
    protocols: tuple[str, ...] = ("rtmp", "srt")


def x264(name: str, plan: tuple[str, str], *, profile: str, b_frames: int = 0, params: str = "", more: str = "") -> Source:
    # adaptive B-frames would find none worth it in a test picture
    params = f"threads=1:keyint=30:b-adapt=0:bframes={b_frames}{params}"
    return Source(name, f"-c:v libx264 -preset superfast -profile:v {profile} -x264-params {params} {more}", plan)


REORDERED = ("transcode", "b_frames")
OTHER_CODEC = ("transcode", "codec")
NOT_PLAYED = ("transcode", "viewer")  # aiortc decodes neither AV1 nor VP9
X265 = "-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params log-level=error:keyint=30"
SOURCES = (
    x264("h264-main", PASSES, profile="main"),
    x264("h264-main-2-b-frames", REORDERED, profile="main", b_frames=2),
    x264("h264-high-3-b-frames", REORDERED, profile="high", b_frames=3, params=":b-pyramid=normal"),
    x264("h264-intra-refresh", ("transcode", "open_gop"), profile="high", params=":intra-refresh=1"),
    x264("h264-10-bit", ("transcode", "bit_depth"), profile="high10", more="-pix_fmt yuv420p10le"),
    x264("h264-interlaced", ("transcode", "interlaced"), profile="high", params=":tff=1", more="-flags +ildct+ilme"),
    Source("hevc", X265, OTHER_CODEC),
    Source("av1", "-c:v libsvtav1 -preset 12 -svtav1-params lp=1 -g 30", NOT_PLAYED, ("rtmp",)),  # MPEG-TS has neither
)
SIMILAR_SOURCES = (
    x264("h264-baseline", PASSES, profile="baseline"),
    x264("h264-main-3-b-frames", REORDERED, profile="main", b_frames=3),
    x264("h264-high", PASSES, profile="high"),
    x264("h264-high-2-b-frames", REORDERED, profile="high", b_frames=2),
    x264("h264-422", ("transcode", "chroma"), profile="high422", more="-pix_fmt yuv422p"),
    Source("hevc-10-bit", f"{X265} -pix_fmt yuv420p10le", OTHER_CODEC),
    Source("vp9", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 30 -b:v 1M", NOT_PLAYED, ("rtmp",)),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    calls = [f"livestream:{source.name}-{protocol}" for source in (*SOURCES, *SIMILAR_SOURCES) for protocol in source.protocols]
    calls += ["livestream:stopped", "livestream:other"]
    async with running_gateway("calls.public=" + ",".join(calls)) as running:
        yield running


async def encoded(source: Source, folder: Path) -> Path:
    path = folder / "source.mp4"
    picture = [argument for argument in programme(*SIZE) if argument != "-re"]
    arguments = [*picture, *source.encoding.split(), "-c:a", "aac", "-t", str(SECONDS), str(path)]
    process = await asyncio.create_subprocess_exec(FFMPEG_9, "-hide_banner", "-loglevel", "error", "-nostdin", *arguments)
    async with asyncio.timeout(60):
        assert await process.wait() == 0
    return path


def treatment(track: dict[str, Any]) -> tuple[str, str]:
    return track["mode"], track["reason"]


async def published(gateway: GatewayProcess, path: Path, source: Source, protocol: str) -> None:
    """Publish by one protocol and judge what its viewer was shown."""
    user = f"{source.name}-{protocol}"
    call = f"livestream:{user}"
    if protocol == "srt":
        where = ("-f", "mpegts", f"srt://127.0.0.1:{gateway.ports['srt']}?streamid={gateway.key(call, user)}")
    else:
        where = ("-f", "flv", gateway.rtmp(call, user))
    enhanced = not source.name.startswith("h264") and protocol == "rtmp"
    before = await dropped(gateway)
    async with watching(gateway.url(f"/whep/{call}")) as viewer:
        async with ffmpeg("-re", "-i", str(path), "-c", "copy", *where, version=9 if enhanced else 5):
            stream = await gateway.stream(user, tracks=2, wanted=lambda seen: source.plan in map(treatment, seen["tracks"]))
            await viewer.until_number(JUDGED - 1, timeout=15)
            lost = await dropped(gateway, viewer) - before
    (video,) = (track for track in stream["tracks"] if track["kind"] == "video")
    assert video["why"].endswith(".")
    assert bool(video["advice"]) == (source.plan != PASSES)
    assert_shown(viewer.numbers, 0, JUDGED - 1, lost)
    assert viewer.sizes == [SIZE]
    assert viewer.audio_frames > 50


@pytest.mark.parametrize(
    "source",
    [*SOURCES, *(slow(source) for source in SIMILAR_SOURCES)],
    ids=lambda source: source.name,
)
async def test_a_source_is_treated_as_planned_and_shown_whole(gateway: GatewayProcess, source: Source, tmp_path: Path) -> None:
    path = await encoded(source, tmp_path)
    async with asyncio.TaskGroup() as group:
        for protocol in source.protocols:
            group.create_task(published(gateway, path, source, protocol))


async def caught_up(viewer: Viewer, other: Viewer, ahead: int) -> None:
    """Until the viewer is at most half a second behind where it was in relation to the other."""
    async with asyncio.timeout(60):
        while viewer.numbers[-1] < other.numbers[-1] + ahead - 15:
            viewer.progress.clear()
            await viewer.progress.wait()


async def test_a_worker_that_stands_still_for_3_s_skips_ahead_to_live_and_others_are_undisturbed(
    gateway: GatewayProcess,
) -> None:
    """Proved by order alone, with another stream as the clock: of what piled up no more than may wait is shown, what comes next is of the
    time when the worker went on, and the viewer is where it was beside the other. The process is the same, it works for less, and the other
    stream went on all the while. How long a busy machine takes for it is not judged."""
    b_frames = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "30", "-threads", "1"]

    def publish(user: str) -> Any:
        return ffmpeg(*programme(), *b_frames, "-c:a", "aac", "-f", "flv", gateway.rtmp(f"livestream:{user}", user))

    async with (
        watching(gateway.url("/whep/livestream:stopped")) as viewer,
        watching(gateway.url("/whep/livestream:other")) as other,
    ):
        async with publish("other"):
            await other.until(frames=30, audio=30)
            before = gateway.workers()  # one of its pictures, one for the sound of both
            async with publish("stopped"):
                await viewer.until(frames=30)
                (worker,) = gateway.workers() - before
                ahead = viewer.numbers[-1] - other.numbers[-1]
                os.kill(worker, signal.SIGSTOP)
                try:
                    stopped = other.numbers[-1]
                    await other.until_number(stopped + 90)  # 3 s
                finally:
                    os.kill(worker, signal.SIGCONT)
                went_on = other.numbers[-1] + ahead
                await caught_up(viewer, other, ahead)
                lowered = await gateway.stream("stopped", wanted=lambda seen: "less effort" in str(seen["warnings"]))
                await other.until_number(other.numbers[-1] + 30)
                assert worker in gateway.workers()
                steps = await gateway.metric('ingress_worker_effort_lowered_total{protocol="rtmp"}')
                restarts = await gateway.metric('ingress_worker_restarts_total{protocol="rtmp"}')
    assert viewer.in_order, viewer.numbers
    piled_up = range(
        stopped + ahead + 45, went_on - 15
    )  # but for the 500 ms that may wait, those on their way, and a group of pictures
    assert len(piled_up) >= 25
    assert not set(viewer.numbers) & set(piled_up), viewer.numbers
    assert other.in_order
    assert set(other.numbers) & set(range(stopped + 20, stopped + 70)), other.numbers
    assert any("frames were dropped" in warning for warning in lowered["warnings"])
    assert steps >= 1
    assert restarts == 0
    line = await gateway.logged("it gets cheaper", session=lowered["id"])
    assert line["level"] == "warning"


async def test_hardware_that_is_asked_for_and_not_there_is_told_at_start_and_x264_is_used() -> None:
    async with running_gateway("transcode.encoder=hardware") as running:
        refused = await running.logged("h264_nvenc does not work here: ")
        await running.logged("video is encoded by libx264")
    assert refused["level"] == "warning"
