"""HEVC: where each picture stands in the order of presentation (ITU-T H.265 §8.3.1), read off its first slice segment."""

from typing import NamedTuple

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.hevc import read_sps_head
from protocols.bitstream.picture_order import PictureOrder, PicturePosition

_SPS, _PPS = 33, 34
_PICTURES = 32  # nal_unit_type below it: a coded slice segment
_IDR = frozenset({19, 20})
_BROKEN_LINK = frozenset({16, 17, 18})
_IRAP = range(16, 24)
_UNREFERENCED = frozenset({*range(0, 16, 2), 7, 9})  # sub-layer non-reference pictures, RADL and RASL: not counted from


class _OrderPps(NamedTuple):
    sps: int
    output_flag: bool  # output_flag_present_flag
    extra_bits: int  # num_extra_slice_header_bits


class HevcPictureOrder(PictureOrder):
    """It is counted in frames. A picture with a broken link before it counts as IDR."""

    frame = 1

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        self._sps: dict[int, tuple[bool, int]] = {}  # separate_colour_plane_flag, bits of slice_pic_order_cnt_lsb
        self._pps: dict[int, _OrderPps] = {}

    def _follow_one(self, unit: bytes) -> None:
        kind = unit[0] >> 1 & 0x3F
        if kind == _SPS:
            sps, _ = read_sps_head(unit)
            self._sps[sps.identity] = sps.planes, sps.order_bits
        elif kind == _PPS:
            bits = BitReader(unescape(unit, 16)[2:])
            identity, sps_identity = bits.ue(63), bits.ue(15)
            bits.skip(1)  # dependent_slice_segments_enabled_flag
            self._pps[identity] = _OrderPps(sps_identity, bits.flag(), bits.bits(3))

    def _is_slice(self, first: int) -> bool:
        return first >> 1 & 0x3F < _PICTURES

    def _read_slice(self, unit: bytes) -> PicturePosition | None:
        """§7.3.6.1 up to slice_pic_order_cnt_lsb."""
        kind, layer = unit[0] >> 1 & 0x3F, unit[1] & 7  # nuh_temporal_id_plus1
        bits = BitReader(unescape(unit, self.slice_bytes)[2:])
        bits.skip(2 if kind in _IRAP else 1)  # first_slice_segment_in_pic_flag, no_output_of_prior_pics_flag
        pps = self._pps.get(bits.ue(63))
        sps = self._sps.get(pps.sps) if pps is not None else None
        if pps is None or sps is None:
            return None
        planes, order_bits = sps
        if kind in _IDR:
            self._restart()
            return PicturePosition(True, 0)
        bits.skip(pps.extra_bits)
        bits.ue(2)  # slice_type
        bits.skip(pps.output_flag + 2 * planes)
        lsb = bits.bits(order_bits)
        if kind in _BROKEN_LINK:
            self._restart(lsb)
            return PicturePosition(True, lsb)
        return PicturePosition(False, self._counted(lsb, order_bits, counts=layer == 1 and kind not in _UNREFERENCED))
