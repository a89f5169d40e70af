"""ffmpeg 9 publishes by WHIP into a whole gateway, and viewers that decode see it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.delivery import assert_shown, dropped
from tests.support.encoders import FFMPEG_9, X264_LIVE, encoder, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.viewer import watching

OPUS = ("-c:a", "libopus", "-ar", "48000", "-ac", "2", "-b:a", "96k")


@asynccontextmanager
async def ffmpeg_whip(
    gateway: GatewayProcess,
    *,
    video: bool = True,
    audio: bool = True,
    key: str = "",
    path: str = "/whip/livestream:demo",
    more: str = "",
    limit_s: float = 40,
) -> AsyncIterator[asyncio.subprocess.Process]:
    codecs = [*(X264_LIVE if video else ()), *(OPUS if audio else ())]
    target = ["-f", "whip", *more.split(), "-authorization", key or gateway.key(), gateway.url(path)]
    arguments = [
        FFMPEG_9,
        "-hide_banner",
        "-loglevel",
        "error",
        "-nostdin",
        *programme(video=video, audio=audio),
        *codecs,
        *target,
    ]
    # After a refusal or our goodbye ffmpeg's WHIP may hang and ignore signals (facts: clients §3).
    async with encoder("timeout", ["--kill-after=3", str(limit_s), *arguments]) as process:
        yield process


async def test_picture_and_sound_pass_untouched() -> None:
    async with running_gateway() as gateway, ffmpeg_whip(gateway):
        stream = await gateway.stream(tracks=2)
        assert stream["protocol"] == "whip"
        assert stream["software"].startswith("Lavf/")
        assert {(track["codec"], track["mode"]) for track in stream["tracks"]} == {
            ("h264", "passthrough"),
            ("opus", "passthrough"),
        }
        async with watching(gateway.url("/whep/livestream:demo")) as viewer:
            await viewer.until(frames=60, audio=50)
            first = viewer.numbers[0]
            await viewer.until(frames=120)
            assert_shown(viewer.numbers, first, viewer.numbers[-1], await dropped(gateway, viewer))
            assert 900 < viewer.frequency < 1100
            assert viewer.sizes == [(640, 360)]
        assert await gateway.metric('ingress_sessions_started_total{protocol="whip"}') == 1
        for counter in ("lost", "broken", "undecodable", "ignored"):
            assert await gateway.metric(f"ingress_whip_{counter}_total") == 0


@pytest.mark.parametrize("kind", ["video", "audio"])
async def test_one_of_both_alone(kind: str) -> None:
    async with running_gateway() as gateway, ffmpeg_whip(gateway, video=kind == "video", audio=kind == "audio"):
        (track,) = (await gateway.stream(tracks=1))["tracks"]
        assert track["kind"] == kind
        async with watching(gateway.url("/whep/livestream:demo")) as viewer:
            await viewer.until(**({"frames": 30} if kind == "video" else {"audio": 30}))


async def test_as_dtls_client_and_where_the_key_names_the_call() -> None:
    async with running_gateway() as gateway, ffmpeg_whip(gateway, path="/whip", more="-whip_flags dtls_active"):
        stream = await gateway.stream(tracks=2)
        assert stream["call"] == "livestream:demo"


async def test_a_wrong_key_is_refused_and_counted() -> None:
    async with running_gateway() as gateway, ffmpeg_whip(gateway, key="not-a-key") as process:
        async with asyncio.timeout(15):
            await process.wait()
        assert process.returncode
        assert await gateway.metric('ingress_refused_total{protocol="whip",reason="unauthorized"}') == 1
        assert not any("not-a-key" in str(entry) for entry in gateway.log)


async def test_an_encoder_that_comes_back_goes_on_as_the_same_participant() -> None:
    async with running_gateway() as gateway, watching(gateway.url("/whep/livestream:demo")) as viewer:
        async with ffmpeg_whip(gateway):
            await viewer.until(frames=30)
        seen = len(viewer.numbers)
        async with ffmpeg_whip(gateway):
            await viewer.until(frames=seen + 30)
            assert (await gateway.stream(tracks=2))["reconnects"] == 1


async def test_shutting_down_says_goodbye() -> None:
    async with running_gateway(expect_exit=None) as gateway, ffmpeg_whip(gateway):
        await gateway.stream(tracks=2)
        async with asyncio.timeout(6):
            assert await gateway.terminate() == 0
        with contextlib.suppress(StopIteration):
            assert next(entry for entry in gateway.log if entry["level"] == "error") is None
