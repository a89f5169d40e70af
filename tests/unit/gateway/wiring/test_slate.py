"""The operator's pictures and clips: what cannot be used is said at the start, in words."""

import io
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from gateway.config import SlateConfig
from gateway.config.sources import ConfigError
from gateway.wiring.slate import slates
from tests.unit.transcode.worker.test_slate import mp4
from transcode.host.pool import Workers
from transcode.slate_messages import MAX_CLIP_BYTES, MAX_PICTURE_BYTES


@cache
def picture(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, form)
    return file.getvalue()


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    async with Workers() as pool:
        yield pool


async def test_pictures_and_clips_are_read_by_name(tmp_path: Path, workers: Workers) -> None:
    (tmp_path / "brb.png").write_bytes(picture("PNG"))
    (tmp_path / "end.jpg").write_bytes(picture("JPEG"))
    (tmp_path / "brb.mp4").write_bytes(mp4(2))
    (tmp_path / ".DS_Store").write_bytes(b"of the desktop")
    (tmp_path / "folder").mkdir()
    for name in ("brb.png", "brb.mp4"):
        assert await slates(SlateConfig(folder=str(tmp_path), picture=name), workers) is not None
    assert await slates(SlateConfig(), workers) is not None
    assert await slates(SlateConfig(enabled=False, folder="/nowhere"), workers) is None


def other(folder: Path) -> None:
    (folder / "brb.gif").write_bytes(b"GIF89a")


def broken(folder: Path) -> None:
    (folder / "brb.png").write_bytes(picture("PNG")[:20])


def large(folder: Path) -> None:
    (folder / "brb.png").write_bytes(picture("PNG") + bytes(MAX_PICTURE_BYTES))


def large_clip(folder: Path) -> None:
    (folder / "brb.mp4").write_bytes(mp4(1) + bytes(MAX_CLIP_BYTES))


def long_clip(folder: Path) -> None:
    (folder / "brb.mp4").write_bytes(mp4(11, rate=5))


def many(folder: Path) -> None:
    for number in range(33):
        (folder / f"{number}.png").write_bytes(picture("PNG"))


def many_clips(folder: Path) -> None:
    for number in range(9):
        (folder / f"{number}.mp4").write_bytes(mp4(1))


@pytest.mark.parametrize(
    ("spoil", "wished", "words"),
    [
        (other, "", "brb.gif .*is neither PNG, JPEG nor MP4"),
        (broken, "", "brb.png .*cannot be shown: "),
        (large, "", "brb.png .*is larger than 4 MiB: make it smaller"),
        (large_clip, "", "brb.mp4 .*is larger than 7 MiB: make it smaller"),
        (long_clip, "", "brb.mp4 .*cannot be shown: it lasts 11.0 s: cut it to 10 s"),
        (many, "", "has 33 files: at most 32 pictures and clips are kept"),
        (many_clips, "", "has more than 8 clips"),
        (lambda folder: folder.rmdir(), "", "cannot be read: No such file or directory"),
        (lambda folder: None, "brb.png", "is not in slate.folder: put it there, or name one of none"),
    ],
    ids=["gif", "broken", "large", "large clip", "long clip", "many", "many clips", "no folder", "no such picture"],
)
async def test_what_cannot_be_used_is_said(
    tmp_path: Path, workers: Workers, spoil: Callable[[Path], None], wished: str, words: str
) -> None:
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=words):
        await slates(SlateConfig(folder=str(tmp_path), picture=wished), workers)
