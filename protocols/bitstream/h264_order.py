"""H.264: where each picture stands in the order of presentation (ITU-T H.264 §8.2.1), read off its first slice.

Only for what encoders of live video with B-frames send: whole frames, order counts of type 0. Of anything else nothing is said.
"""

from contextlib import suppress
from typing import NamedTuple

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.h264 import Sps, read_sps
from protocols.bitstream.nal import split_annexb
from protocols.errors import ProtocolError

_START = b"\0\0\1"
_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8
_SLICE_BYTES = 48  # its header up to the order count takes less
_MAX_UNITS = 16  # in front of the first slice


class PicturePosition(NamedTuple):
    """`order` grows with presentation from one IDR picture to the next; `idr`: whatever was decoded before is shown before."""

    idr: bool
    order: int


class PictureOrder:
    """The places of one stream's access units, asked for in decoding order."""

    def __init__(self) -> None:
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, int] = {}  # to its SPS
        self._msb = self._lsb = 0  # of the reference picture before

    @property
    def known(self) -> bool:
        """Whether there are places to be told."""
        return any(sps in self._sps for sps in self._pps.values())

    def follow(self, parameter_sets: bytes) -> None:
        """The stream's parameter sets from here on, as Annex B. Those that cannot be read are left out."""
        self._sps, self._pps = {}, {}
        with suppress(ProtocolError):
            for unit in split_annexb(parameter_sets):
                self._follow_one(unit)

    def _follow_one(self, unit: bytes) -> None:
        with suppress(ProtocolError):
            if unit[0] & 0x1F == _SPS:
                sps = read_sps(unit)
                if sps.order_bits and sps.frames_only:
                    self._sps[sps.identity] = sps
            elif unit[0] & 0x1F == _PPS:
                bits = BitReader(unescape(unit, 16)[1:])
                self._pps[bits.ue(255)] = bits.ue(31)

    def place(self, access_unit: bytes) -> PicturePosition | None:
        """Of a whole access unit (Annex B); None where it cannot be told."""
        at = 0
        for _ in range(_MAX_UNITS):
            at = access_unit.find(_START, at) + len(_START)
            if at < len(_START) or at >= len(access_unit):
                return None
            if access_unit[at] & 0x1F in (_SLICE, _IDR):
                try:
                    return self._read_slice(access_unit[at : at + _SLICE_BYTES])
                except ProtocolError:
                    return None
        return None

    def _read_slice(self, unit: bytes) -> PicturePosition | None:
        """§7.3.3 up to pic_order_cnt_lsb, and §8.2.1.1."""
        idr = unit[0] & 0x1F == _IDR
        bits = BitReader(unescape(unit, _SLICE_BYTES)[1:])
        bits.ue()  # first_mb_in_slice
        bits.ue(9)  # slice_type
        sps = self._sps.get(self._pps.get(bits.ue(255), -1))
        if sps is None:
            return None
        bits.skip(2 * sps.planes + sps.frame_num_bits)
        if idr:
            bits.ue(65535)  # idr_pic_id
            self._msb = self._lsb = 0
        lsb = bits.bits(sps.order_bits)
        half = 1 << (sps.order_bits - 1)
        msb = self._msb
        if self._lsb - lsb >= half:
            msb += 2 * half
        elif lsb - self._lsb > half:
            msb -= 2 * half
        if unit[0] >> 5 & 3:  # nal_ref_idc
            self._msb, self._lsb = msb, lsb
        return PicturePosition(idr, msb + lsb)
