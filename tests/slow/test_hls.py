"""HLS for minutes, and over disks and buckets that fail."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Self

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.gateway.test_hls import AAC, ffmpeg_and_mpv_play, gateway, reconnects_and_a_change_of_size_keep_every_rule, run
from tests.support.delivery import assert_shown, dropped
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.hls_client import following
from tests.support.shared import OwnCall, own
from tests.support.viewer import watching

__all__ = ["gateway", "own"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_ffmpeg_and_mpv_play_two_minutes_without_a_word(own: OwnCall) -> None:
    await ffmpeg_and_mpv_play(own, 120)


async def test_two_reconnects_and_a_change_of_size_keep_every_rule_over_five_minutes(own: OwnCall, tmp_path: Path) -> None:
    await reconnects_and_a_change_of_size_keep_every_rule(own, tmp_path, 75)


class Disk:
    """A small one of its own, which is full when `fail` returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = (f"hls.storage=file://{folder}/segments",)

    async def __aenter__(self) -> Self:
        code, _, why = await run("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(self.folder), timeout=10)
        assert code == 0, why
        return self

    async def __aexit__(self, *_: object) -> None:
        await run("umount", str(self.folder), timeout=10)

    async def fail(self) -> None:
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))


class Bucket:
    """One that speaks S3, and no longer answers when `fail` returns."""

    def __init__(self) -> None:
        self.server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self.settings: tuple[str, ...] = ()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.server.start)
        endpoint = "http://{}:{}".format(*self.server.get_host_and_port())
        options = {"endpoint": endpoint, "region": "us-east-1", "access_key_id": "key", "secret_access_key": "secret"}
        names = {
            "endpoint_url": endpoint,
            "region_name": "us-east-1",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
        }
        await asyncio.to_thread(lambda: boto3.client("s3", **names).create_bucket(Bucket="hls"))
        self.settings = ("hls.storage=s3://hls/live", f"hls.storage_options={json.dumps(options)}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.server.stop)

    async def fail(self) -> None:
        await asyncio.to_thread(self.server.stop)


async def test_a_disk_that_fills_up_harms_no_viewer(tmp_path: Path) -> None:
    await watched_over_its_failure(Disk(tmp_path))


async def test_a_bucket_that_goes_harms_no_viewer() -> None:
    await watched_over_its_failure(Bucket())


async def watched_over_its_failure(storage: Disk | Bucket) -> None:
    source = (*programme(320, 180), *X264_LIVE, "-g", "30", *AAC)
    async with storage as store:
        settings = ("hls.auto=true", "hls.segment_s=1", "hls.window_s=12", *store.settings)
        async with running_gateway(*settings) as running, ffmpeg(*source, "-f", "flv", running.rtmp()):
            async with (
                following(running.url("/hls/livestream:demo/open/index.m3u8")) as (client, followed),
                watching(running.url("/whep/livestream:demo")) as viewer,
            ):
                video = client.renditions["video"]
                await video.until_segment(7)
                first = video.playlist.complete[0]
                assert await client.get(video, first.uri), "it is no longer in memory"
                assert await running.metric('ingress_hls_archived_total{result="stored"}') >= 6
                assert await running.metric('ingress_hls_archived_total{result="failed"}') == 0
                await store.fail()
                at = viewer.numbers[-1]
                async with asyncio.timeout(40):
                    while not any(segment.gap for segment in video.playlist.segments):
                        video.news.clear()
                        await video.news.wait()
                assert not followed.done(), followed.exception()
                last = viewer.numbers[-1]
                assert last > at + 60
                assert_shown(viewer.numbers, at, last, await dropped(running, viewer))
            assert await running.metric('ingress_hls_archived_total{result="failed"}') > 0
            assert "check hls.storage" in (await running.logged("HLS segments are not kept"))["message"]
