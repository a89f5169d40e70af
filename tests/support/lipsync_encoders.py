"""Real encoders with a programme of flashes and beeps, over SRT and RTMP, as the gateway prints their lines."""

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from gateway.ingress import words
from gateway.ingress.srt import SrtIngress
from tests.support.encoders import X264_LIVE, encoder, ffmpeg
from tests.support.gateway_process import GatewayProcess
from tests.support.lipsync import flashes_and_beeps
from tests.support.srt_encoders import Way, free_port

PROGRAMME = flashes_and_beeps(320, 180)
SECONDS = 30  # of a file of it
FLASHES = "filesrc location={file} ! matroskademux name=d d. ! queue ! jpegdec ! videoconvert ! clocksync"
BEEPS = "d. ! queue ! audioconvert ! clocksync"

Publish = Callable[[GatewayProcess, str, str, Path], AbstractAsyncContextManager[object]]
"""Into this call of a gateway as this user, with a folder for files."""


def printed(gateway: GatewayProcess, call: str, user: str) -> SrtIngress:
    way = Way(gateway, True, user, call)
    return SrtIngress(call, f"srt://127.0.0.1:{way.port}", way.stream_id, way.passphrase, 120, "", 0)


def by_ffmpeg_over_srt(gateway: GatewayProcess, call: str, user: str, folder: Path) -> AbstractAsyncContextManager[object]:
    arguments = shlex.split(printed(gateway, call, user).test_picture)
    return ffmpeg(*PROGRAMME, *arguments[arguments.index("-c:v") :])


def by_ffmpeg_in_spurts(gateway: GatewayProcess, call: str, user: str, folder: Path) -> AbstractAsyncContextManager[object]:
    """As it does unless it is told otherwise."""
    return ffmpeg(*PROGRAMME, *X264_LIVE, "-c:a", "aac", "-b:a", "128k", "-f", "mpegts", Way(gateway, False, user, call).url())


def at_44100_mono(gateway: GatewayProcess, call: str, user: str, folder: Path) -> AbstractAsyncContextManager[object]:
    sound = ("-c:a", "aac", "-b:a", "64k", "-ar", "44100", "-ac", "1")
    return ffmpeg(*PROGRAMME, *X264_LIVE, *sound, "-f", "mpegts", Way(gateway, False, user, call).url())


@asynccontextmanager
async def by_srt_live_transmit(gateway: GatewayProcess, call: str, user: str, folder: Path) -> AsyncIterator[None]:
    between = f"udp://127.0.0.1:{free_port()}"
    ts = (*PROGRAMME, *X264_LIVE, "-c:a", "aac", "-f", "mpegts", f"{between}?pkt_size=1316")
    url = Way(gateway, False, user, call).url(latency=120)
    async with encoder("srt-live-transmit", ["-q", between, url]), ffmpeg(*ts):
        yield


def by_ffmpeg_over_rtmp(gateway: GatewayProcess, call: str, user: str, folder: Path) -> AbstractAsyncContextManager[object]:
    coding = shlex.split(f"{words.TEST_PICTURE} {words.AAC}")
    return ffmpeg(*PROGRAMME, *coding[coding.index("-c:v") :], "-f", "flv", gateway.rtmp(call, user))


@asynccontextmanager
async def by_gstreamer_over_srt(gateway: GatewayProcess, call: str, user: str, folder: Path) -> AsyncIterator[None]:
    file = await filed(folder)
    (line,) = (line for line in printed(gateway, call, user).text().splitlines() if "gst-launch-1.0 " in line)
    arguments = line.replace("videotestsrc is-live=true", FLASHES.format(file=file)).replace("audiotestsrc is-live=true", BEEPS)
    async with encoder("gst-launch-1.0", shlex.split(arguments)[1:]):
        yield


@asynccontextmanager
async def by_gstreamer_over_rtmp(gateway: GatewayProcess, call: str, user: str, folder: Path) -> AsyncIterator[None]:
    picture, file = FLASHES.format(file=await filed(folder)), gateway.rtmp(call, user)
    line = (
        f"flvmux name=m streamable=true ! rtmp2sink location={file} {picture} ! video/x-raw,format=I420 ! "
        f"x264enc tune=zerolatency key-int-max=60 ! h264parse ! m. {BEEPS} ! avenc_aac ! aacparse ! m."
    )
    async with encoder("gst-launch-1.0", line.split()):
        yield


async def filed(folder: Path) -> Path:
    """The programme as a file, since GStreamer has no flashes of its own."""
    path = folder / "flashes.mkv"
    programme = [argument for argument in PROGRAMME if argument != "-re"]
    async with ffmpeg(
        *programme, "-t", str(SECONDS), "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s16le", str(path)
    ) as making:
        assert await making.wait() == 0
    return path


IN_SPURTS: dict[str, Publish] = {
    "ffmpeg over SRT, in spurts": by_ffmpeg_in_spurts,
    "ffmpeg over SRT, 44.1 kHz mono": at_44100_mono,
    "srt-live-transmit": by_srt_live_transmit,
}
"""Those that send a quarter of a second of sound and more at once."""
AT_ONCE: dict[str, Publish] = {
    "ffmpeg over SRT": by_ffmpeg_over_srt,
    "GStreamer over SRT": by_gstreamer_over_srt,
    "ffmpeg over RTMP": by_ffmpeg_over_rtmp,
    "GStreamer over RTMP": by_gstreamer_over_rtmp,
}
"""Those that send each frame when they have it."""
