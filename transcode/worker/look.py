"""Looks at pictures and listens to sound: is it black, has it changed, is it silent. Worker side: imports libav.

Kept true: what is decoded is one key frame and a second's packets, by decoders of its own each time: nothing of a stream stays but the last
picture, small.
"""

from array import array
from math import isfinite, log10
from typing import Final

from av import AudioFrame, FFmpegError, Packet

from protocols.media import EncodedPacket, Track
from transcode.look_messages import Look, LookedAt
from transcode.worker.audio import sound_decoder
from transcode.worker.decoder import VideoDecoder

_WIDTH, _HEIGHT = 160, 90  # in which it is looked at
_DARK: Final = 38  # luma of 16 to 235: a tenth above black
_CHANGED: Final = 4  # of luma: less is what coding again makes of the same picture
_EACH: Final = 4  # sample is looked at: the effective value of one in so many is that of all
_SAMPLES: Final = {  # by sample format: its type, and the value of the loudest
    "fltp": ("f", 1.0),
    "flt": ("f", 1.0),
    "s16": ("h", 32768.0),
    "s16p": ("h", 32768.0),
    "s32": ("i", 2147483648.0),
    "s32p": ("i", 2147483648.0),
}
_SILENT_DBFS: Final = -120.0  # of zeros


class Looker:
    """Of one stream."""

    def __init__(self) -> None:
        self._before = b""  # luma of the picture before

    def look(self, at: LookedAt) -> Look:
        """What cannot be decoded is not judged."""
        dark, changed = self._see(at.picture, at.keyframe) if at.picture is not None and at.keyframe else (None, None)
        return Look(dark, changed, _level(at.sound, at.packets) if at.sound is not None and at.packets else None)

    def _see(self, track: Track, keyframe: bytes) -> tuple[float | None, float | None]:
        decoder = VideoDecoder(track.codec)
        pictures = decoder.take(EncodedPacket(track.id, 0, 0, True, keyframe, 0, 0)) or decoder.drain()
        if not pictures:
            return None, None
        plane = pictures[0].reformat(width=_WIDTH, height=_HEIGHT, format="gray", threads=1).planes[0]
        rows, line = memoryview(plane), plane.line_size
        luma = b"".join(bytes(rows[row * line : row * line + _WIDTH]) for row in range(_HEIGHT))
        before, self._before = self._before, luma
        dark = sum(each < _DARK for each in luma) / len(luma)
        if not before:
            return dark, None
        return dark, sum(abs(one - two) >= _CHANGED for one, two in zip(before, luma, strict=True)) / len(luma)


def _level(track: Track, packets: tuple[bytes, ...]) -> float | None:
    """In dBFS."""
    count, total = 0, 0.0
    try:
        decoder = sound_decoder(track)
        for data in packets:
            coded = Packet(len(data))
            coded.update(data)
            for frame in decoder.decode(coded):
                if isinstance(frame, AudioFrame) and frame.format.name in _SAMPLES:
                    samples = _samples(frame)
                    count += len(samples)
                    total += sum(each * each for each in samples)
    except FFmpegError:
        return None  # a stream that cannot be decoded is not silent
    if not count or not isfinite(total):
        return None
    return max(_SILENT_DBFS, 10 * log10(total / count)) if total else _SILENT_DBFS


def _samples(frame: AudioFrame) -> list[float]:
    """Some of each channel, -1 to 1."""
    kind, loudest = _SAMPLES[frame.format.name]
    size = frame.samples * frame.format.bytes * (1 if frame.format.is_planar else frame.layout.nb_channels)
    values: list[float] = []
    for plane in frame.planes:
        values += (each / loudest for each in array(kind, bytes(memoryview(plane)[:size]))[::_EACH])
    return values
