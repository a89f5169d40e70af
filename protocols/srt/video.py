"""H.264 and HEVC in the payloads of one PID: from PES to access units, wherever they are cut (ISO/IEC 13818-1 §2.4.3.7). Sans-IO.

Kept true here:
* Access units are found in the elementary stream. One whose end only the next shows is given out then; where each ends with its PES, which
  the first ones show, it is given out with that, but of a PES larger than any that was whole: it may have been cut at a largest size.
* The time of a PES is that of the first access unit that begins in it. Those without are spaced by those that have one, in the order in
  which they are shown where that is not the order in which they come.
"""

from typing import Final, NamedTuple

from protocols.bitstream import h264, hevc
from protocols.bitstream.access_units import AccessUnitFinder, FoundUnit
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.h264_numbers import PictureNumbers
from protocols.bitstream.h264_order import H264PictureOrder
from protocols.bitstream.hevc_order import HevcPictureOrder
from protocols.bitstream.picture_order import PictureOrder, PicturePosition
from protocols.errors import ProtocolError
from protocols.media import Codec, Kind, Track
from protocols.srt.sound import SECOND, Unit

_STEP_NS: Final = SECOND // 25  # of video whose times are not known and that does not say it, until two are
_SURE: Final = 5  # PES in a row that ended with an access unit, after which the next are believed to
_NAL_BYTES: Final = 64  # what a NAL unit has on average at the least; more of them than that are work like frames
_MAX_REORDER: Final = 17  # frames: H.264 §A.3.1 and HEVC §A.4.2 have 16 at most
_SYNTAX: Final = {Codec.H264: h264.SYNTAX, Codec.HEVC: hevc.SYNTAX}
_ORDER: Final[dict[Codec, type[PictureOrder]]] = {Codec.H264: H264PictureOrder, Codec.HEVC: HevcPictureOrder}


class _Stamp(NamedTuple):
    pts: int
    dts: int


class VideoReader:
    """From the first key frame on."""

    kind = Kind.VIDEO

    def __init__(self, pid: int, codec: Codec) -> None:
        self.frames = 0
        self.broken = 0
        self._stream = NalStream(codec, pid)
        self._finder: AccessUnitFinder[_Stamp] = AccessUnitFinder(_SYNTAX[codec], self._fields_of_one)
        self._numbers = PictureNumbers(b"")
        self._times = _Times(_ORDER[codec].frame)
        self._order: PictureOrder | None = None  # None: each picture had a time of its own
        self._ordered = b""  # the parameter sets that it goes by
        self._before = b""  # the last access unit, while there is no order
        self._whole = 0  # PES that ended with an access unit
        self._largest = 0  # bytes of those
        self._cut = False  # one did not: none is believed to any more
        self._size = 0  # of the last PES
        self._last: _Stamp | None = None  # that of an access unit had
        self._started = False

    @property
    def track(self) -> Track | None:
        return self._stream.track

    def split(self, data: bytes, pts: int | None, dts: int | None) -> list[Unit]:
        finder = self._finder
        held, before = finder.holding, finder.nal_units
        found = finder.add(data, None if pts is None or dts is None else _Stamp(pts, dts))
        if finder.went_on:
            self._cut = True
        elif held:
            self._whole += 1
            self._largest = max(self._largest, self._size)
        self._size = len(data)
        if not self._cut and self._whole >= _SURE and len(data) <= self._largest:
            found += finder.settle()
        self._count(before, data, found)
        return [unit for each in found for unit in self._read(each)]

    def lost(self, data: bytes) -> list[Unit]:
        finder, before = self._finder, self._finder.nal_units
        found: list[FoundUnit[_Stamp]] = []
        if finder.holding and not self._cut:
            found = finder.settle()
        elif finder.holding:
            found = finder.add(data, None)
            if finder.went_on:
                found = []
        self._count(before, data, found)
        self.reset()
        return [unit for each in found[:1] for unit in self._read(each)]

    def settle(self) -> list[Unit]:
        return [unit for each in self._finder.settle() for unit in self._read(each)]

    def _count(self, before: int, data: bytes, found: list[FoundUnit[_Stamp]]) -> None:
        self.frames += 1 + len(found) + max(0, self._finder.nal_units - before - len(data) // _NAL_BYTES)

    def reset(self) -> None:
        self._finder.reset()

    def _read(self, found: FoundUnit[_Stamp]) -> list[Unit]:
        """The access unit, if it is whole and there is a time for it."""
        if found.headless and (self._cut or found.stamp is None or found.stamp == self._last):
            self.broken += 1  # the end of one that had been given out, or lost
            return []
        try:
            unit = self._stream.units(found.units)
        except ProtocolError:
            self.broken += 1
            self._times.skip()
            return []
        track = self._stream.track
        self._last = found.stamp or self._last
        time = self._times.place(
            found.stamp, track.frame_rate if track is not None else 0, self._position(unit.data, found.stamp)
        )
        self._started = self._started or unit.keyframe
        if not self._started or not unit.data or time is None:
            return []
        return [Unit(unit.data, time.pts, time.dts, unit.keyframe)]

    def _position(self, data: bytes, stamp: _Stamp | None) -> PicturePosition | None:
        """Where an access unit stands in the order of presentation: asked from the first on that has no time."""
        track = self._stream.track
        if track is None or track.reorder == 0:
            return None
        first = self._order is None
        if self._order is None:
            if stamp is not None:
                self._before = data
                return None
            self._order = _ORDER[track.codec]()
        if self._ordered != track.extradata:
            self._ordered = track.extradata
            self._order.follow(track.extradata)
        if first:
            self._times.see(self._order.place(self._before))
            self._before = b""
        return self._order.place(data)

    def _fields_of_one(self, first: bytes, second: bytes) -> bool:
        track = self._stream.track
        if track is None or track.codec is not Codec.H264 or not track.interlaced:
            return False
        if self._numbers.parameter_sets != track.extradata:
            self._numbers = PictureNumbers(track.extradata)
        return self._numbers.fields_of_one(first, second)


class _Times:
    """When each access unit is due and shown. `frame` is what the order of presentation grows by from frame to frame: H.264 counts in
    fields, HEVC and some encoders of H.264 in frames."""

    def __init__(self, frame: int) -> None:
        self._frame = frame
        self._step = 0  # from picture to picture by the times that there are; 0: not known,
        self._spacing = _STEP_NS  # or by what else there is
        self._stamped: _Stamp | None = None  # of the last that had a time of its own,
        self._since = 0  # and access units since
        self._dts: int | None = None
        self._begun: int | None = None  # dts of the picture with which the order began,
        self._zero: int | None = None  # the pts of order 0,
        self._lag = 0  # and how far that was behind

    def skip(self) -> None:
        """One could not be read."""
        self.place(None, 0, None)

    def place(self, stamp: _Stamp | None, frame_rate: float, position: PicturePosition | None) -> _Stamp | None:
        self._since += 1
        if stamp is not None and self._stamped is not None:
            step = (stamp.dts - self._stamped.dts) // self._since
            self._step = step if 0 < step < SECOND else self._step
        self._spacing = self._step or (round(SECOND / frame_rate) if frame_rate else _STEP_NS)
        if stamp is None:
            if self._dts is None:
                return None
            self._dts += self._spacing
            return _Stamp(self._shown(self._dts, position), self._dts)
        self._stamped, self._dts = stamp, stamp.dts
        self._since = 0
        self.see(position)
        return stamp

    def see(self, position: PicturePosition | None) -> None:
        """Where the last that had a time of its own stands in the order of presentation."""
        if position is None or self._stamped is None:
            return
        self._zero = self._stamped.pts - self._after_zero(position)
        if position.idr:
            self._begun = self._stamped.dts
        if self._begun is not None and 0 <= (lag := self._zero - self._begun) < _MAX_REORDER * self._spacing:
            self._lag = lag

    def _shown(self, dts: int, position: PicturePosition | None) -> int:
        """The pts of one that has no time of its own."""
        if position is None:
            return dts
        if position.idr:
            self._begun, self._zero = dts, dts + self._lag
        return dts if self._zero is None else max(dts, self._zero + self._after_zero(position))

    def _after_zero(self, position: PicturePosition) -> int:
        if position.order & 1:
            self._frame = 1
        return position.order * self._spacing // self._frame
