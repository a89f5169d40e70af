"""Access units of H.264 and HEVC in a byte stream that comes in pieces cut anywhere (H.264 §7.4.1.2.3, H.265 §7.4.2.4.4). Sans-IO.

An access unit begins with the first of the NAL units before its first slice that may stand there: delimiter, parameter sets, SEI. Which
those are shows with the slice behind them: one that is the first of a picture begins an access unit, another goes on with it.
"""

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from protocols.bitstream.nal import SLICES, Syntax
from protocols.bitstream.unit import MAX_BYTES, MAX_UNITS
from protocols.errors import ProtocolError

MAX_FOUND: Final = 256  # access units in one piece: more than a second of pictures
_START: Final = b"\x00\x00\x01"
_EDGE: Final = len(_START)
_HEAD: Final = 32  # bytes of a slice that say to which picture it belongs

Stamp = TypeVar("Stamp")


class FoundUnit(NamedTuple, Generic[Stamp]):
    """NAL units of one picture and what stands before and behind it. `headless`: its first slice was not there."""

    units: list[bytes]
    stamp: Stamp | None
    headless: bool


class _Piece(Generic[Stamp]):
    """Its stamp is that of the first access unit that begins in it (ISO/IEC 13818-1 §2.4.3.7)."""

    __slots__ = ("_stamp", "taken")

    def __init__(self, stamp: Stamp | None) -> None:
        self._stamp = stamp
        self.taken = False

    def take(self) -> Stamp | None:
        stamp = None if self.taken else self._stamp
        self.taken = True
        return stamp


class AccessUnitFinder(Generic[Stamp]):
    """One stream. `same_picture(first slice, this one)` says of two that each begin a picture that they are fields of one."""

    def __init__(self, syntax: Syntax, same_picture: Callable[[bytes, bytes], bool]) -> None:
        self._syntax = syntax
        self._same_picture = same_picture
        self.went_on = False
        """The last piece began in the middle of an access unit."""
        self.nal_units = 0
        """Seen since the start."""
        self.reset()

    def reset(self) -> None:
        """What is in the making is lost."""
        self._parts: list[bytes] | None = None  # of the NAL unit under way, None: there is none
        self._edge = b""  # its last bytes, in which a start code may begin
        self._piece = self._last = _Piece[Stamp](None)  # in which that NAL unit began; that came last
        self._before: list[bytes] = []  # what belongs to the picture of the next slice
        self._before_piece = self._piece
        self._size = 0
        self._decided = False  # to which picture the slice under way belongs
        self._begin([], self._piece)

    def _begin(self, units: list[bytes], piece: _Piece[Stamp]) -> None:
        self._units = units
        self._unit_piece = piece
        self._sliced: bytes | None = None  # the first slice of the access unit under way
        self._headless = False
        self._old = False  # that slice came with a piece before

    @property
    def holding(self) -> bool:
        """There is a picture to which more may come."""
        return self._sliced is not None

    def add(self, data: bytes, stamp: Stamp | None) -> list[FoundUnit[Stamp]]:
        """One piece; gives the access units that it shows to have ended. Raises `ProtocolError` beyond the bounds: then `reset` it."""
        last, piece = self._last, _Piece(stamp)
        self._last = piece
        self._old = self._sliced is not None
        border = len(self._edge)
        data = self._edge + data
        self._size += len(data)
        if self._size > MAX_BYTES:
            raise ProtocolError("access unit without an end")
        at = data.find(_START)
        if at < 0:
            self.went_on = data[border:].strip(b"\x00") != b""
            if self._parts is not None:
                self._parts.append(data[:-_EDGE])
            self._edge = data[-_EDGE:]
            return []
        self.went_on = at < border or data[border:at].strip(b"\x00") != b""
        found: list[FoundUnit[Stamp]] = []
        most = self.nal_units + MAX_UNITS
        self._end(data[:at], found)
        self._piece = piece
        if at < border or (at == border > 0 and data[at - 1] == 0 and not last.taken):  # zero_byte is of the start code
            self._piece = last
        start = at + _EDGE
        while (at := data.find(_START, start)) >= 0:
            self._parts = []
            self._end(data[start:at], found)
            if self.nal_units > most:
                raise ProtocolError("too many NAL units at once")
            self._piece = piece
            start = at + _EDGE
        self._parts = [data[start:-_EDGE]]
        self._edge = data[max(start, len(data) - _EDGE) :]
        head = data[start : start + _HEAD]
        if len(head) == _HEAD and self._syntax.roles[head[0]] in SLICES:
            self._decide(head, found)
        return found

    def settle(self) -> list[FoundUnit[Stamp]]:
        """The access unit under way, which is said to be whole."""
        found: list[FoundUnit[Stamp]] = []
        self._end(self._edge, found)
        self._edge = b""
        if self._sliced is not None:
            found.append(self._finish())
        return found

    def _end(self, last: bytes, found: list[FoundUnit[Stamp]]) -> None:
        """The NAL unit under way is whole with these bytes."""
        if self._parts is None:
            return
        unit = (b"".join((*self._parts, last)) if self._parts else last).rstrip(b"\x00")  # no NAL unit ends in zero
        self._parts = None
        if not unit:
            return
        self.nal_units += 1
        if self._syntax.roles[unit[0]] in SLICES:
            if not self._decided:
                self._decide(unit[:_HEAD], found)
            self._decided = False
            self._add(unit)
        elif self._before or (self._sliced is not None and unit[0] in self._syntax.opening):
            if not self._before:
                self._before_piece = self._piece
            self._before.append(unit)
        else:
            self._add(unit)
        if len(self._units) + len(self._before) > MAX_UNITS:
            raise ProtocolError("too many NAL units in one access unit")

    def _add(self, unit: bytes) -> None:
        if not self._units:
            self._unit_piece = self._piece
        self._units.append(unit)

    def _decide(self, head: bytes, found: list[FoundUnit[Stamp]]) -> None:
        """A slice that begins so: of the picture under way, or of the next."""
        at = self._syntax.first_slice_byte
        first = len(head) <= at or head[at] & 0x80 != 0
        if self._sliced is None:
            self._headless = not first
        elif first and (self._old or not self._same_picture(self._sliced, head)):
            found.append(self._finish())
            if len(found) > MAX_FOUND:
                raise ProtocolError("too many access units at once")
        else:
            self.went_on = self.went_on or self._old
            self._units += self._before
            self._before = []
        if not self._units:
            self._unit_piece = self._piece
        self._sliced = self._sliced or head
        self._decided = True

    def _finish(self) -> FoundUnit[Stamp]:
        found = FoundUnit(self._units, self._unit_piece.take(), self._headless)
        self._begin(self._before, self._before_piece)
        self._before = []
        self._size = sum(map(len, self._units))
        return found
