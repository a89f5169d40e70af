"""One SRT stream in which everything changes on the way: codec, pixel format, orientation, sound, tracks. The participant stays, and the
picture goes on with the next key frame.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.peers.srt_peers import caller
from tests.support.delivery import assert_delivered, dropped
from tests.support.encoders import FFMPEG_9, X264_LIVE, programme
from tests.support.gateway_process import running_gateway
from tests.support.viewer import Viewer, watching

SECONDS = 3
FRAMES = SECONDS * 30
MUXRATE = 4_000_000  # with padding, so that bytes are time
MESSAGE = 1316
X264 = (*X264_LIVE[:-1], "30", "-x264-params", "threads=1:sliced-threads=0")


@dataclass(frozen=True, slots=True)
class Phase:
    video: tuple[str, ...]
    size: tuple[int, int]
    modes: dict[str, str]  # of each kind: how it is treated
    audio: tuple[str, ...] = ("-c:a", "aac")


PHASES = (
    Phase(X264, (640, 360), {"video": "passthrough", "audio": "transcode"}),
    Phase(
        ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error:keyint=30:pools=1"),
        (640, 360),
        {"video": "transcode", "audio": "transcode"},
        ("-c:a", "aac", "-ar", "44100", "-ac", "1"),
    ),
    Phase((*X264, "-pix_fmt", "yuv422p10le"), (640, 360), {"video": "transcode"}, ("-an",)),
    Phase(X264, (360, 640), {"video": "passthrough", "audio": "passthrough"}, ("-c:a", "libopus")),
)


async def encoded(number: int, phase: Phase, folder: Path) -> bytes:
    path = folder / f"{number}.ts"
    source = [argument for argument in programme(*phase.size, audio="-an" not in phase.audio) if argument != "-re"]
    muxing = [
        "-f",
        "mpegts",
        "-muxrate",
        str(MUXRATE),
        "-tables_version",
        str(number),
        "-output_ts_offset",
        str(number * SECONDS),
    ]
    arguments = [*source, *phase.video, *phase.audio, "-t", str(SECONDS), *muxing, str(path)]
    process = await asyncio.create_subprocess_exec(FFMPEG_9, "-hide_banner", "-loglevel", "error", "-nostdin", *arguments)
    async with asyncio.timeout(60):
        assert await process.wait() == 0
    return path.read_bytes()


async def sent(stream: bytes, write: Callable[[bytes], None], drained: Callable[[], Awaitable[None]]) -> None:
    """At the speed of the media."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for at in range(0, len(stream), MESSAGE):
        if (wait := start + at * 8 / MUXRATE - loop.time()) > 0:
            await asyncio.sleep(wait)
        write(stream[at : at + MESSAGE])
        await drained()


def treated(phase: Phase, stream: dict[str, Any]) -> bool:
    return {each["kind"]: each["mode"] for each in stream["tracks"]} == phase.modes


def turns(viewer: Viewer) -> list[list[int]]:
    """The numbers that were seen, for each time that they began anew."""
    found: list[list[int]] = [[]]
    for number in viewer.numbers:
        if found[-1] and number < found[-1][-1]:
            found.append([])
        found[-1].append(number)
    return found


@pytest.mark.slow
async def test_everything_changes_and_the_participant_stays(tmp_path: Path) -> None:
    parts = [await encoded(number, phase, tmp_path) for number, phase in enumerate(PHASES)]
    async with running_gateway() as gateway, watching(gateway.url("/whep/livestream:demo")) as viewer:
        stream_id = gateway.key()
        async with caller(gateway.ports["srt"], stream_id) as (process, said):
            assert said == {"connected": True}
            assert process.stdin is not None
            sending = asyncio.create_task(sent(b"".join(parts), process.stdin.write, process.stdin.drain))
            seen = []
            for phase in PHASES:
                stream = await gateway.stream(wanted=partial(treated, phase))
                seen.append(stream["id"])
            await viewer.until_number(FRAMES - 3)
            await sending
            audio = viewer.audio_frames
            live = await gateway.stream()
            lost = await dropped(gateway, viewer)
    assert len(set(seen)) == 1
    assert live["reconnects"] == 0
    assert viewer.sizes == [(640, 360), (360, 640)]
    found = turns(viewer)
    assert len(found) <= len(PHASES), found
    for numbers in found:
        assert numbers == sorted(set(numbers))
    assert_delivered(FRAMES * len(PHASES), sum(map(len, found)), lost, share=0.85)  # each change takes some
    assert audio > 100
