"""The worker that makes the layers below a video fails for good: the video and its sound go on, the layers are gone, and it is told."""

import asyncio
import os
import signal

import psutil

from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.viewer import watching


def cpu(pid: int) -> float:
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


async def test_a_video_goes_on_without_its_layers() -> None:
    settings = ("calls.public=livestream:demo", "transcode.layers=2")
    async with running_gateway(*settings) as gateway, watching(gateway.url("/whep/livestream:demo")) as viewer:
        async with ffmpeg(
            *programme(640, 480), *X264_LIVE, "-c:a", "aac", "-f", "flv", gateway.rtmp("livestream:demo", "demo")
        ):
            await viewer.until(frames=60)
            both = gateway.workers()
            assert len(both) == 2, "one for the sound, one for the layers"
            layers = max(both, key=cpu)
            os.kill(layers, signal.SIGKILL)
            async with asyncio.timeout(60):
                while not (replaced := gateway.workers() - both):
                    viewer.progress.clear()
                    await viewer.progress.wait()
            os.kill(replaced.pop(), signal.SIGKILL)
            line = await gateway.logged("the layers below the video are gone")
            assert line["level"] == "warning"
            heard = viewer.audio_frames
            await viewer.until(frames=len(viewer.numbers) + 60)
            stream = await gateway.stream("demo", tracks=2)
            assert {track["kind"]: track["mode"] for track in stream["tracks"]} == {
                "video": "passthrough",
                "audio": "transcode",
            }
            assert stream["reconnects"] == 0
            assert await gateway.metric('ingress_layers_lost_total{protocol="rtmp"}') == 1
            assert await gateway.metric('ingress_worker_restarts_total{protocol="rtmp"}') == 1
    assert viewer.in_order, viewer.numbers
    assert viewer.audio_frames > heard + 50
    assert (640, 480) in viewer.sizes
