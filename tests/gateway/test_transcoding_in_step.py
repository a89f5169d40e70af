"""Sound and picture stay in step at a viewer, whatever is done to each of them on the way."""

import asyncio
import statistics
from dataclasses import dataclass

from tests.support.encoders import X264_LIVE, ffmpeg
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.lipsync import LipSync, flashes_and_beeps
from tests.support.viewer import watching

PAIRS = 4
B_FRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "60", "-threads", "1")


@dataclass(frozen=True, slots=True)
class Way:
    user: str
    protocol: str
    video: tuple[str, ...]
    audio: tuple[str, ...]


WAYS = (
    Way("passed", "rtmp", X264_LIVE, ("-c:a", "aac")),
    Way("transcoded", "rtmp", B_FRAMES, ("-c:a", "aac", "-ar", "44100")),
    Way("transcoded-srt", "srt", B_FRAMES, ("-c:a", "aac")),
    Way("opus-srt", "srt", B_FRAMES, ("-c:a", "libopus")),
)


async def offsets(gateway: GatewayProcess, way: Way) -> list[float]:
    call = f"livestream:{way.user}"
    if way.protocol == "srt":
        to = ("-f", "mpegts", f"srt://127.0.0.1:{gateway.ports['srt']}?streamid={gateway.key(call, way.user)}")
    else:
        to = ("-f", "flv", gateway.rtmp(call, way.user))
    viewer = LipSync()
    async with watching(gateway.url(f"/whep/{call}"), viewer=viewer):
        async with ffmpeg(*flashes_and_beeps(320, 180), *way.video, *way.audio, *to):
            await viewer.until_pairs(PAIRS)
    return viewer.offsets


async def test_sound_and_picture_are_within_40_ms_of_each_other() -> None:
    public = ",".join(f"livestream:{way.user}" for way in WAYS)
    async with running_gateway(f"calls.public={public}") as gateway:
        found = await asyncio.gather(*(offsets(gateway, way) for way in WAYS))
    for way, measured in zip(WAYS, found, strict=True):
        print(way.user, [round(each, 1) for each in measured])
        assert len(measured) >= PAIRS - 1
        assert max(map(abs, measured)) <= 40, (way.user, measured)
        assert statistics.pstdev(measured) < 12, (way.user, measured)  # and it does not wander
