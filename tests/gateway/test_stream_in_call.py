"""Real encoders publish, a decoding viewer watches: what is shown is what was sent, in order, with sound."""

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.support.encoders import X264_LIVE, encoder, ffmpeg, programme
from tests.support.gateway_process import running_gateway
from tests.support.publishing import OPUS
from tests.support.shared import OwnCall
from tests.support.viewer import watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = programme(320, 192)
AAC = ("-c:a", "aac", "-b:a", "128k")
BFRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "60", "-threads", "1")


def tracks(stream: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {track["kind"]: (track["codec"], track["mode"], track["reason"]) for track in stream["tracks"]}


async def test_opus_by_enhanced_rtmp_passes_untouched(own: OwnCall) -> None:
    others = own.gateway.workers()
    async with own.watching() as viewer:
        source = (*programme(), *X264_LIVE, "-c:a", "libopus")
        async with ffmpeg(*source, "-f", "flv", own.rtmp(), version=9):
            await viewer.until(frames=60, audio=100)
            stream = await own.stream(tracks=2)
            workers = own.gateway.workers() - others
    assert tracks(stream) == {"video": ("h264", "passthrough", "same_codec"), "audio": ("opus", "passthrough", "same_codec")}
    assert not workers, "nothing needs a worker"
    assert viewer.frequency == pytest.approx(1000, rel=0.03)


async def test_whip_as_dtls_client_and_where_the_key_names_the_call(own: OwnCall) -> None:
    target = ("-f", "whip", "-whip_flags", "dtls_active", "-authorization", own.key(), own.gateway.url("/whip"))
    async with ffmpeg(*programme(), *X264_LIVE, *OPUS, *target, version=9):
        stream = await own.stream(tracks=2)
    assert stream["call"] == own.cid


async def test_gstreamer_rtmp2sink_with_mono_at_44100(own: OwnCall) -> None:
    pipeline = (
        "flvmux name=m streamable=true ! rtmp2sink location={url} "
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 ! "
        "x264enc tune=zerolatency key-int-max=60 ! m. "
        "audiotestsrc is-live=true freq=1000 ! audio/x-raw,rate=44100,channels=1 ! avenc_aac ! aacparse ! m."
    )
    async with own.watching() as viewer:
        async with encoder("gst-launch-1.0", ["-q", *pipeline.format(url=own.rtmp()).split()]):
            await viewer.until(frames=60, audio=100)
            stream = await own.stream(tracks=2)
    (audio,) = (track for track in stream["tracks"] if track["kind"] == "audio")
    assert (audio["sample_rate"], audio["channels"]) == (44100, 1)
    assert viewer.frequency == pytest.approx(1000, rel=0.03)


@pytest.mark.parametrize("codec", [X264_LIVE, BFRAMES], ids=["passthrough", "transcoded"])
async def test_the_size_changes_in_mid_stream_when_the_encoder_comes_back_with_another(
    own: OwnCall, codec: tuple[str, ...]
) -> None:
    async with own.watching() as viewer:
        async with ffmpeg(*programme(640, 360), *codec, *AAC, "-f", "flv", own.rtmp()):
            await viewer.until(frames=60, audio=50)
        seen = len(viewer.numbers)
        async with ffmpeg(*programme(320, 240), *codec, *AAC, "-f", "flv", own.rtmp()):
            await viewer.until(frames=seen + 60, audio=150)
            stream = await own.stream(tracks=2)
    assert viewer.sizes == [(640, 360), (320, 240)]
    assert stream["reconnects"] == 1
    assert viewer.frequency == pytest.approx(1000, rel=0.03)


async def test_two_users_in_one_call_are_two_participants(own: OwnCall) -> None:
    one = ffmpeg(*programme(), *X264_LIVE, *AAC, "-f", "flv", own.rtmp("one"))
    two = ffmpeg(*programme(320, 240), *X264_LIVE, *AAC, "-f", "flv", own.rtmp("two"))
    async with one, two:
        await own.stream("one", tracks=2)
        await own.stream("two", tracks=2)
        async with own.watching(slots=2) as viewer, asyncio.timeout(60):
            while {(640, 360), (320, 240)} - set(viewer.sizes):
                viewer.progress.clear()
                await viewer.progress.wait()


@pytest.mark.parametrize(("codec", "count"), [(X264_LIVE, 1), (BFRAMES, 2)], ids=["audio", "audio-and-video"])
async def test_killed_workers_are_replaced_within_two_seconds_and_the_session_goes_on(
    codec: tuple[str, ...], count: int
) -> None:
    async with running_gateway("calls.public=livestream:demo") as gateway:
        async with watching(gateway.url("/whep/livestream:demo")) as viewer:
            async with ffmpeg(*programme(), *codec, *AAC, "-f", "flv", gateway.rtmp()):
                await viewer.until(frames=60, audio=60)
                session = (await gateway.stream(tracks=2))["id"]
                workers = gateway.workers()
                assert len(workers) == count
                for worker in workers:
                    os.kill(worker, signal.SIGKILL)
                number, audio = viewer.numbers[-1], viewer.audio_frames
                await viewer.until_number(number + 30, timeout=3)  # one second of media, within two more
                await viewer.until(audio=audio + 50, timeout=3)
                assert (await gateway.stream(tracks=2))["id"] == session
                assert await gateway.metric('ingress_worker_restarts_total{protocol="rtmp"}') == count
        assert viewer.in_order


async def test_a_stream_for_which_there_is_no_room_is_told_so_and_the_first_goes_on() -> None:
    async with running_gateway("calls.max_streams=1") as gateway:
        async with ffmpeg(*programme(), *X264_LIVE, "-f", "flv", gateway.rtmp(user="one")):
            await gateway.stream("one")
            async with ffmpeg(*programme(), *X264_LIVE, "-f", "flv", gateway.rtmp(user="two")) as encoding:
                assert encoding.stderr is not None
                assert "no room for another stream" in (await encoding.stderr.read()).decode()
            assert (await gateway.stream("one"))["reconnects"] == 0
            assert await gateway.metric('ingress_refused_total{protocol="rtmp",reason="overloaded"}') == 1
