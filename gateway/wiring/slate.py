"""The slates of this gateway: the operator's pictures and clips are read, and each is made once, in a worker, to see that it can be."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.config import SlateConfig
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.sessions.slate import SlatePolicy
from gateway.sessions.slate_pictures import SlatePictures
from gateway.sessions.triggers import Triggers
from protocols.errors import Rejected
from protocols.media import Codec, Track
from transcode.host.pool import Workers
from transcode.host.process import Worker
from transcode.slate_messages import MAX_CLIP_BYTES, MAX_PICTURE_BYTES, STILLS, Clip, SlatePicture, is_clip

_MOST: Final = 32
_MOST_CLIPS: Final = 8
_TRIED: Final = Track(0, Codec.H264, width=320, height=180)
_TRIED_WITHIN_S: Final = 30.0


async def slates(config: SlateConfig, workers: Workers) -> SlatePolicy | None:
    """None where they are switched off. Raises `ConfigError` where a picture or clip cannot be used."""
    if not config.enabled:
        return None
    files = dict(_files(config.folder)) if config.folder else {}
    if config.picture and config.picture not in files:
        words = f"is not in slate.folder: put it there, or name one of {', '.join(sorted(files)) or 'none'}"
        raise ConfigError([ConfigProblem("slate.picture", "the configuration", config.picture, words)])
    if files:
        await _try(config.folder, files, workers)
    triggers = Triggers(
        black_s=config.black_s,
        frozen_s=config.frozen_s,
        silent_s=config.silent_s,
        silent_dbfs=config.silent_dbfs,
        low_bitrate=config.low_bitrate_bps,
        low_bitrate_s=config.low_bitrate_s,
    )
    return SlatePolicy(SlatePictures(workers, files, config.picture), triggers=triggers)


def _problem(value: str, words: str) -> ConfigError:
    return ConfigError([ConfigProblem("slate.folder", "the configuration", value, words)])


def _files(folder: str) -> Iterator[tuple[str, bytes]]:
    try:
        files = sorted(each for each in Path(folder).iterdir() if each.is_file() and not each.name.startswith("."))
        if len(files) > _MOST:
            raise _problem(folder, f"has {len(files)} files: at most {_MOST} pictures and clips are kept")
        clips = 0
        for file in files:
            if file.stat().st_size > MAX_CLIP_BYTES:
                raise _problem(str(file), f"is larger than {MAX_CLIP_BYTES >> 20} MiB: make it smaller")
            data = file.read_bytes()
            clips += is_clip(data)
            if clips > _MOST_CLIPS:
                raise _problem(folder, f"has more than {_MOST_CLIPS} clips")
            if not is_clip(data):
                _check_still(str(file), data)
            yield file.name, data
    except OSError as error:
        raise _problem(folder, f"cannot be read: {error.strerror}") from None


def _check_still(file: str, data: bytes) -> None:
    if not data.startswith(STILLS):
        raise _problem(file, "is neither PNG, JPEG nor MP4")
    if len(data) > MAX_PICTURE_BYTES:
        raise _problem(file, f"is larger than {MAX_PICTURE_BYTES >> 20} MiB: make it smaller")


async def _try(folder: str, files: Mapping[str, bytes], workers: Workers) -> None:
    """One after the other in one worker, in a small size."""
    try:
        worker = await workers.start("slate")
    except Rejected as error:
        raise _problem(folder, f"cannot be looked at: {error.detail}") from None
    try:
        for name, data in files.items():
            made = await _tried(worker, data)
            if not isinstance(made, Clip):
                raise _problem(str(Path(folder, name)), f"cannot be shown: {made}")
    finally:
        await worker.aclose()


async def _tried(worker: Worker, data: bytes) -> Clip | str:
    try:
        async with asyncio.timeout(_TRIED_WITHIN_S):
            return await worker.slate(_TRIED, SlatePicture("", "", data))
    except TimeoutError:
        return f"it takes longer than {_TRIED_WITHIN_S:.0f} s to be made"
