"""Which of the pictures in a decoder is the next to be shown, as early as that is certain. Sans-IO.

A decoder by itself holds as many pictures as the stream says that it may have to: mostly one more than it has to (x264 with two B-frames
says two where one will do), and each costs a frame's time. Here a picture is due as soon as nothing that is still to come can be before it:

* it is an IDR picture,
* it is the neighbour of the one that was shown last, by the stream's own count of pictures, or
* a packet has been decoded whose decoding time is not before the picture's time: what comes after that one is shown later.
"""

from bisect import insort
from typing import NamedTuple

from protocols.bitstream.picture_order import PicturePosition

_TRUSTED = 4  # distances between pictures after which the least of them is that of neighbours
_MOST_HELD = 32  # H.264 lets 16 wait


class _Held(NamedTuple):
    pts: int
    place: PicturePosition


class Presentation:
    """Told of each picture that goes into the decoder and of each that comes out. Every IDR picture begins with an empty decoder."""

    def __init__(self) -> None:
        self._held: list[_Held] = []  # by pts
        self._dts = 0  # of the last picture that was decoded
        self._ahead = 0  # by how much decoding times were after their pictures' times, which they should never be
        self._last: PicturePosition | None = None  # of the picture that was shown last
        self._step = 0  # the least distance of two that were shown one after the other
        self._steps = 0  # how many distances were seen

    def decoded(self, pts: int, dts: int, place: PicturePosition) -> None:
        if place.idr:
            self._held.clear()
            self._last = None
        self._dts = dts
        self._ahead = max(self._ahead, dts - pts)
        insort(self._held, _Held(pts, place))
        del self._held[:-_MOST_HELD]  # the decoder has lost them

    def shown(self, pts: int) -> None:
        number = next((number for number, held in enumerate(self._held) if held.pts == pts), None)
        if number is None:
            return
        last, self._last = self._last, self._held[number].place
        del self._held[: number + 1]  # those before it have been lost
        if last is not None and (step := self._last.order - last.order) > 0:
            self._step = min(self._step or step, step)
            self._steps += 1

    @property
    def due(self) -> bool:
        """Whether the first of those in the decoder can be shown."""
        if not self._held:
            return False
        pts, place = self._held[0]
        return place.idr or self._dts - self._ahead >= pts or self._is_neighbour(place)

    def _is_neighbour(self, place: PicturePosition) -> bool:
        return self._last is not None and self._steps >= _TRUSTED and place.order - self._last.order == self._step
