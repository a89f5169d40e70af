"""The operator's pictures: what cannot be used is said at the start, in words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import SlateConfig
from gateway.config.sources import ConfigError
from gateway.wiring.slate import slates
from transcode.host.pool import Workers

PNG, JPEG = b"\x89PNG\r\n\x1a\n picture", b"\xff\xd8\xff picture"


async def test_pictures_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "brb.png").write_bytes(PNG)
    (tmp_path / "end.jpg").write_bytes(JPEG)
    (tmp_path / ".DS_Store").write_bytes(b"of the desktop")
    (tmp_path / "folder").mkdir()
    assert slates(SlateConfig(folder=str(tmp_path), picture="brb.png"), Workers()) is not None
    assert slates(SlateConfig(), Workers()) is not None
    assert slates(SlateConfig(enabled=False, folder="/nowhere"), Workers()) is None


def broken(folder: Path) -> None:
    (folder / "brb.gif").write_bytes(b"GIF89a")


def large(folder: Path) -> None:
    (folder / "brb.png").write_bytes(PNG + bytes(4 << 20))


def many(folder: Path) -> None:
    for number in range(33):
        (folder / f"{number}.png").write_bytes(PNG)


@pytest.mark.parametrize(
    ("spoil", "picture", "words"),
    [
        (broken, "", "is neither PNG nor JPEG"),
        (large, "", "is larger than 4 MiB: make it smaller"),
        (many, "", "has 33 files: at most 32 pictures are kept"),
        (lambda folder: folder.rmdir(), "", "cannot be read: No such file or directory"),
        (lambda folder: None, "brb.png", "is not in slate.folder: put it there, or name one of none"),
    ],
    ids=["gif", "large", "many", "no folder", "no such picture"],
)
async def test_what_cannot_be_used_is_said(tmp_path: Path, spoil: Callable[[Path], None], picture: str, words: str) -> None:
    spoil(tmp_path)
    with pytest.raises(ConfigError, match=words):
        slates(SlateConfig(folder=str(tmp_path), picture=picture), Workers())
