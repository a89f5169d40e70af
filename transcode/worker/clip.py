"""The operator's clip as the pictures of a slate. Worker side: imports libav.

Keeps true: what comes out is bounded before it is made: in length, in pixels, in frames that are decoded for it. The sound is left out.
"""

import io
from collections.abc import Iterator
from typing import Final

import av
from av import VideoFrame
from av.container import InputContainer
from av.subtitles import stream as _subtitles  # noqa: F401 PyAV looks for it in each stream, and nothing is loaded in the sandbox

from protocols.errors import ProtocolError
from transcode.slate_messages import MOST_PICTURES, RATE

_LONGEST_S: Final = MOST_PICTURES // RATE
_SHORTEST: Final = RATE  # pictures: fewer would be one key frame after the other
_MOST_RATE: Final = 120  # frames a second, about
_LARGEST: Final = 4096 * 2304  # pixels
_ROUNDED_S: Final = 0.001


def clip_pictures(data: bytes) -> Iterator[VideoFrame]:
    """`RATE` pictures for each second of an MP4 file's first video, `MOST_PICTURES` at most. Raises `ProtocolError` in words for the
    operator, `av.FFmpegError` for what is no such file."""
    with av.open(io.BytesIO(data), format="mp4") as container:
        assert isinstance(container, InputContainer)
        if not container.streams.video:
            raise ProtocolError("it has no picture")
        stream = container.streams.video[0]
        size = stream.codec_context
        if size.width * size.height > _LARGEST:
            raise ProtocolError(f"its picture has {size.width}x{size.height} pixels: make it 4096x2304 or smaller")
        if stream.duration is not None and stream.time_base is not None:
            _check_length(float(stream.duration * stream.time_base))
        size.thread_count = 1
        count, first = 0, None
        for number, frame in enumerate(container.decode(stream)):
            if number >= _LONGEST_S * _MOST_RATE:
                raise ProtocolError(f"it has more than {_MOST_RATE} frames a second")
            if frame.time is None:
                continue
            first = frame.time if first is None else first
            while frame.time - first >= count / RATE - _ROUNDED_S:
                if count == MOST_PICTURES:
                    _check_length(frame.time - first)
                    return
                yield frame
                count += 1
        if count < _SHORTEST:
            raise ProtocolError("it is shorter than a second")


def _check_length(seconds: float) -> None:
    if seconds >= _LONGEST_S + 1 / RATE:
        raise ProtocolError(f"it lasts {seconds:.1f} s: cut it to {_LONGEST_S} s")
