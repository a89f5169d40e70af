"""Sound and picture in step from the first seconds at a viewer, also where the encoder sends sound in spurts; and the streamer is told."""

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from gateway.ingress.srt import SrtIngress
from tests.support.encoders import X264_LIVE, encoder, ffmpeg
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.lipsync import LipSync, flashes_and_beeps
from tests.support.srt_encoders import Way, free_port
from tests.support.viewer import watching

BEFORE, AFTER = 40, 60  # ms that sound may be before and after the picture: EBU R 37
BEGINS, ENDS = 3, 8  # s after the first packet
PROGRAMME = flashes_and_beeps(320, 180)

Encoding = Callable[[GatewayProcess, Way], AbstractAsyncContextManager[object]]


def as_printed(gateway: GatewayProcess, way: Way) -> AbstractAsyncContextManager[object]:
    """What the gateway tells to type, with another picture and sound."""
    ingress = SrtIngress("", f"srt://127.0.0.1:{way.port}", way.stream_id, way.passphrase, 120, "", 0)
    arguments = shlex.split(ingress.test_picture)
    return ffmpeg(*PROGRAMME, *arguments[arguments.index("-c:v") :])


def at_44100_mono(gateway: GatewayProcess, way: Way) -> AbstractAsyncContextManager[object]:
    return ffmpeg(*PROGRAMME, *X264_LIVE, "-c:a", "aac", "-b:a", "64k", "-ar", "44100", "-ac", "1", "-f", "mpegts", way.url())


@asynccontextmanager
async def by_srt_live_transmit(gateway: GatewayProcess, way: Way) -> AsyncIterator[None]:
    between = f"udp://127.0.0.1:{free_port()}"
    ts = (*PROGRAMME, *X264_LIVE, "-c:a", "aac", "-f", "mpegts", f"{between}?pkt_size=1316")
    async with encoder("srt-live-transmit", ["-q", between, way.url(latency=120)]), ffmpeg(*ts):
        yield


def over_rtmp(gateway: GatewayProcess, way: Way) -> AbstractAsyncContextManager[object]:
    return ffmpeg(*PROGRAMME, *X264_LIVE, "-c:a", "aac", "-f", "flv", gateway.rtmp("livestream:demo", "host"))


@pytest.mark.parametrize(
    ("encoding", "apart"), [(as_printed, True), (at_44100_mono, True), (by_srt_live_transmit, True), (over_rtmp, False)]
)
async def test_lips_and_voice_are_together_from_the_third_second_on(encoding: Encoding, apart: bool) -> None:
    viewer = LipSync()
    async with running_gateway("calls.public=livestream:demo") as gateway:
        async with watching(gateway.url("/whep/livestream:demo"), viewer=viewer):
            async with encoding(gateway, Way(gateway, encrypted=encoding is as_printed)):
                await viewer.until_seconds(ENDS)
                await viewer.until_pairs(3)
                stream = await gateway.stream("host", tracks=2)
                late = [viewer.heard_after_seen(second) for second in range(BEGINS, ENDS)]
    print(encoding.__name__, [round(each) for each in late], [round(each) for each in viewer.offsets], stream["warnings"])
    assert all(each + max(viewer.offsets) >= -BEFORE and each + min(viewer.offsets) <= AFTER for each in late)
    assert any(warning.startswith("The sound arrives ") for warning in stream["warnings"]) is apart
