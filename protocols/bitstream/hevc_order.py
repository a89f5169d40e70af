"""HEVC: where each picture stands in the order of presentation (ITU-T H.265 §8.3.1), read off its first slice segment. Sans-IO."""

from contextlib import suppress
from typing import NamedTuple

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.h264_order import PicturePosition
from protocols.bitstream.hevc import read_order_bits
from protocols.bitstream.nal import split_annexb
from protocols.errors import ProtocolError

_START = b"\0\0\1"
_SPS, _PPS = 33, 34
_PICTURES = 32  # nal_unit_type below it: a coded slice segment
_IDR = frozenset({19, 20})
_BROKEN_LINK = frozenset({16, 17, 18})
_IRAP = range(16, 24)
_UNREFERENCED = frozenset({*range(0, 16, 2), 7, 9})  # sub-layer non-reference pictures, RADL and RASL: not counted from
_SLICE_BYTES = 48  # its header up to the order count takes less
_MAX_UNITS = 16  # in front of the first slice segment


class _OrderPps(NamedTuple):
    sps: int
    output_flag: bool  # output_flag_present_flag
    extra_bits: int  # num_extra_slice_header_bits


class HevcPictureOrder:
    """As `protocols.bitstream.h264_order.PictureOrder`."""

    def __init__(self) -> None:
        self._sps: dict[int, tuple[bool, int]] = {}  # separate_colour_plane_flag, bits of slice_pic_order_cnt_lsb
        self._pps: dict[int, _OrderPps] = {}
        self._msb = self._lsb = 0  # of the picture before that others are counted from

    def follow(self, parameter_sets: bytes) -> None:
        """The stream's parameter sets from here on, as Annex B. Those that cannot be read are left out."""
        self._sps, self._pps = {}, {}
        with suppress(ProtocolError):
            for unit in split_annexb(parameter_sets):
                self._follow_one(unit)

    def _follow_one(self, unit: bytes) -> None:
        with suppress(ProtocolError):
            kind = unit[0] >> 1 & 0x3F
            if kind == _SPS:
                identity, planes, order_bits = read_order_bits(unit)
                self._sps[identity] = planes, order_bits
            elif kind == _PPS:
                bits = BitReader(unescape(unit, 16)[2:])
                identity, sps = bits.ue(63), bits.ue(15)
                bits.skip(1)  # dependent_slice_segments_enabled_flag
                self._pps[identity] = _OrderPps(sps, bits.flag(), bits.bits(3))

    def place(self, access_unit: bytes) -> PicturePosition | None:
        """Of a whole access unit (Annex B); None where it cannot be told."""
        at = 0
        for _ in range(_MAX_UNITS):
            at = access_unit.find(_START, at) + len(_START)
            if at < len(_START) or at + 2 >= len(access_unit):
                return None
            if access_unit[at] >> 1 & 0x3F < _PICTURES:
                try:
                    return self._read_slice(access_unit[at : at + _SLICE_BYTES])
                except ProtocolError:
                    return None
        return None

    def _read_slice(self, unit: bytes) -> PicturePosition | None:
        """§7.3.6.1 up to slice_pic_order_cnt_lsb, and §8.3.1."""
        kind, layer = unit[0] >> 1 & 0x3F, unit[1] & 7  # nuh_temporal_id_plus1
        bits = BitReader(unescape(unit, _SLICE_BYTES)[2:])
        bits.skip(2 if kind in _IRAP else 1)  # first_slice_segment_in_pic_flag, no_output_of_prior_pics_flag
        pps = self._pps.get(bits.ue(63))
        sps = self._sps.get(pps.sps) if pps is not None else None
        if pps is None or sps is None:
            return None
        planes, order_bits = sps
        if kind in _IDR:
            self._msb = self._lsb = 0
            return PicturePosition(True, 0)
        bits.skip(pps.extra_bits)
        bits.ue(2)  # slice_type
        bits.skip(pps.output_flag + 2 * planes)
        lsb, half = bits.bits(order_bits), 1 << (order_bits - 1)
        broken = kind in _BROKEN_LINK
        msb = 0 if broken else self._msb
        if not broken and self._lsb - lsb >= half:
            msb += 2 * half
        elif not broken and lsb - self._lsb > half:
            msb -= 2 * half
        if layer == 1 and kind not in _UNREFERENCED:
            self._msb, self._lsb = msb, lsb
        return PicturePosition(broken, msb + lsb)
