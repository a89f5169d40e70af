"""The slates of this gateway: the operator's pictures are read, and looked at as far as that can be done without decoding them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.config import SlateConfig
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.sessions.slate import SlatePolicy
from gateway.sessions.slate_pictures import SlatePictures
from transcode.host.pool import Workers

_MOST: Final = 32
_LARGEST: Final = 4 << 20
_BEGINNINGS: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def slates(config: SlateConfig, workers: Workers) -> SlatePolicy | None:
    """None where they are switched off. Raises `ConfigError` where a picture cannot be used."""
    if not config.enabled:
        return None
    pictures = dict(_pictures(config.folder)) if config.folder else {}
    if config.picture and config.picture not in pictures:
        words = f"is not in slate.folder: put it there, or name one of {', '.join(sorted(pictures)) or 'none'}"
        raise ConfigError([ConfigProblem("slate.picture", "the configuration", config.picture, words)])
    return SlatePolicy(SlatePictures(workers, pictures, config.picture))


def _pictures(folder: str) -> Iterator[tuple[str, bytes]]:
    def problem(value: str, words: str) -> ConfigError:
        return ConfigError([ConfigProblem("slate.folder", "the configuration", value, words)])

    try:
        files = sorted(each for each in Path(folder).iterdir() if each.is_file() and not each.name.startswith("."))
        if len(files) > _MOST:
            raise problem(folder, f"has {len(files)} files: at most {_MOST} pictures are kept")
        for file in files:
            if file.stat().st_size > _LARGEST:
                raise problem(str(file), f"is larger than {_LARGEST >> 20} MiB: make it smaller")
            data = file.read_bytes()
            if not data.startswith(_BEGINNINGS):
                raise problem(str(file), "is neither PNG nor JPEG")
            yield file.name, data
    except OSError as error:
        raise problem(folder, f"cannot be read: {error.strerror}") from None
