"""Speex by libav's own decoder, which does not keep to steady sound. Worker side: imports libav.

That decoder is not exact to the bit, and on a steady tone its error feeds on itself: 1 kHz at 16 kHz is ten times too loud and off key
after 4 s (FFmpeg 5 and 8; libspeex is not in PyAV's build). So another one goes on each half second, warmed by what came before: on voice
there is no difference, and an error has no time to grow.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from av import AudioFrame, Packet
from av.audio.codeccontext import AudioCodecContext

_PACKETS = 25  # of 20 ms as a rule
_WARMING = 10  # after so many two decoders agree


class SpeexDecoder:
    """`decode` as libav's; `begin` opens a decoder."""

    def __init__(self, begin: Callable[[], AudioCodecContext]) -> None:
        self._begin = begin
        self._decoder = begin()
        self._recent: deque[Packet[Any]] = deque(maxlen=_WARMING)
        self._left = _PACKETS

    def decode(self, packet: "Packet[Any]") -> list[AudioFrame]:
        """Raises `FFmpegError`."""
        if not self._left:
            self._left = _PACKETS
            self._decoder = self._begin()
            for before in self._recent:
                self._decoder.decode(before)
        frames = self._decoder.decode(packet)
        self._recent.append(packet)
        self._left -= 1
        return frames
