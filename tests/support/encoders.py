"""Real encoders as child processes, with a picture that carries its own frame number.

The top 16 rows hold the frame number as 16 bits, the lowest on the left, each as a white or black field: `frame_number` reads it back from
a decoded picture, whatever happened to it on the way.
"""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import imageio_ffmpeg

BITS = 16
STRIP = 16  # rows

FFMPEG = shutil.which("ffmpeg") or "ffmpeg"
FFMPEG_9 = imageio_ffmpeg.get_ffmpeg_exe()


def programme(
    width: int = 640, height: int = 360, rate: int = 30, *, audio_rate: int = 48000, video: bool = True, audio: bool = True
) -> list[str]:
    """ffmpeg arguments for a picture that carries its number and a 1 kHz tone, both in real time; what is missing is not mapped."""
    counter = (
        f"color=black:size={BITS}x2:rate={rate},geq=lum='if(mod(floor(N/pow(2,X)),2),235,16)':cb=128:cr=128"  # a pixel a bit
    )
    inputs, maps = [], []
    if video:
        inputs += ["-re", "-f", "lavfi", "-i", f"testsrc2=size={width}x{height - STRIP}:rate={rate}"]
        inputs += ["-re", "-f", "lavfi", "-i", f"{counter},scale={width}:{STRIP}:flags=neighbor"]
        maps += ["-filter_complex", "[1:v][0:v]vstack,format=yuv420p[v]", "-map", "[v]"]
    if audio:
        maps += ["-map", f"{len(inputs) // 5}:a"]
        inputs += ["-re", "-f", "lavfi", "-i", f"sine=frequency=1000:sample_rate={audio_rate}"]
    return inputs + maps


X264_LIVE = ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0", "-g", "60")
BFRAMES = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-b_strategy", "0", "-g", "60", "-threads", "1")


def frame_number(frame: Any) -> int:
    """The number burnt into a decoded `av.VideoFrame`."""
    plane = frame.planes[0]
    rows = memoryview(plane)
    line = rows[(frame.height * STRIP // 2 // max(frame.height, 1)) * plane.line_size :]
    return sum(1 << bit for bit in range(BITS) if line[(2 * bit + 1) * frame.width // (2 * BITS)] > 125)


@asynccontextmanager
async def encoder(program: str, arguments: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The encoder running; it is stopped like by a person (SIGINT) when left. Its standard error is `process.stderr`."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(5):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()


def ffmpeg(*arguments: str, version: int = 5) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """`encoder` with ffmpeg 5 (the system's) or 9 (with enhanced RTMP)."""
    return encoder(FFMPEG if version == 5 else FFMPEG_9, ["-hide_banner", "-loglevel", "error", "-nostdin", *arguments])
