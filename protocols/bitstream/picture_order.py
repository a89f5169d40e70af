"""Where each picture of a stream stands in the order of presentation, read off its first slice: what H.264 and HEVC share. Sans-IO."""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar, NamedTuple

from protocols.bitstream.nal import split_annexb
from protocols.errors import ProtocolError

_START = b"\0\0\1"
_MAX_UNITS = 16  # in front of the first slice


class PicturePosition(NamedTuple):
    """`order` grows with presentation from one IDR picture to the next; `idr`: whatever was decoded before is shown before."""

    idr: bool
    order: int


class PictureOrder(ABC):
    """The places of one stream's access units, asked for in decoding order."""

    frame: ClassVar[int]
    """What the order grows by from frame to frame, as most encoders count."""
    slice_bytes: ClassVar[int] = 48
    """A slice's header up to its order count takes less."""

    def __init__(self) -> None:
        self._msb = self._lsb = 0  # of the picture before that others are counted from

    def follow(self, parameter_sets: bytes) -> None:
        """The stream's parameter sets from here on, as Annex B. Those that cannot be read are left out."""
        self._forget()
        with suppress(ProtocolError):
            for unit in split_annexb(parameter_sets):
                with suppress(ProtocolError):
                    self._follow_one(unit)

    def place(self, access_unit: bytes) -> PicturePosition | None:
        """Of a whole access unit (Annex B); None where it cannot be told."""
        at = 0
        for _ in range(_MAX_UNITS):
            at = access_unit.find(_START, at) + len(_START)
            if at < len(_START) or at + 1 >= len(access_unit):
                return None
            if self._is_slice(access_unit[at]):
                try:
                    return self._read_slice(access_unit[at : at + self.slice_bytes])
                except ProtocolError:
                    return None
        return None

    def _restart(self, lsb: int = 0) -> None:
        """Orders are counted from this one again."""
        self._msb, self._lsb = 0, lsb

    def _counted(self, lsb: int, bits: int, *, counts: bool) -> int:
        """The order by its last `bits` bits (H.264 §8.2.1.1, H.265 §8.3.1); `counts`: the next ones are counted from it."""
        msb, half = self._msb, 1 << (bits - 1)
        if self._lsb - lsb >= half:
            msb += 2 * half
        elif lsb - self._lsb > half:
            msb -= 2 * half
        if counts:
            self._msb, self._lsb = msb, lsb
        return msb + lsb

    @abstractmethod
    def _forget(self) -> None:
        """No parameter sets."""

    @abstractmethod
    def _follow_one(self, unit: bytes) -> None:
        """One NAL unit, not empty. Raises `ProtocolError`."""

    @abstractmethod
    def _is_slice(self, first: int) -> bool:
        """By a NAL unit's first byte."""

    @abstractmethod
    def _read_slice(self, unit: bytes) -> PicturePosition | None:
        """By the beginning of a slice's NAL unit, of 2 bytes at least. Raises `ProtocolError`."""
