"""Media whose pictures are few, or pause, while the sound goes on, for an encoder that sends each when it is due: ffmpeg by itself lets the
sound wait for the next picture."""

from collections.abc import Sequence
from pathlib import Path

from tests.support.encoders import FFMPEG, X264_LIVE, encoder
from tests.support.flv import Tag, read_tags


async def sparse(folder: Path, which: str, seconds: float, coding: Sequence[str] = X264_LIVE) -> list[Tag]:
    """Of 30 pictures a second only those that `which` selects (an expression of ffmpeg's, of `n` and `t`), with a key frame where two
    seconds have passed, and a whole tone."""
    file = folder / "sparse.flv"
    sources = ("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30", "-f", "lavfi", "-i", "sine=sample_rate=48000")
    chosen = ("-vf", f"select='{which}',format=yuv420p", "-vsync", "vfr", "-force_key_frames", "expr:gte(t,n_forced*2)")
    coded = (*coding, "-c:a", "aac", "-t", str(seconds), "-f", "flv", str(file))
    async with encoder(FFMPEG, ("-v", "error", "-nostdin", "-y", *sources, *chosen, *coded)) as process:
        assert await process.wait() == 0
    return read_tags(file.read_bytes())
