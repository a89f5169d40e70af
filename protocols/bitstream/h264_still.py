"""H.264: a picture that shows again what is shown last, for when an encoder sends none (ITU-T H.264 §7.3.3 - §7.3.5, §9.3.4). Sans-IO.

Every macroblock of it is skipped, so it takes a few bytes and a decoder copies. It is no reference: whatever comes next decodes as if it
had not been there, to the bit. Only for whole frames with order counts of type 0 or 2. Where the last to be shown is no reference either,
the one before it that is has to do.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from protocols.bitstream.bits import BitReader, BitWriter, escape, unescape
from protocols.bitstream.cabac import CabacEncoder, Context
from protocols.bitstream.h264 import Sps, read_sets
from protocols.bitstream.nal import SPS_BYTES, START
from protocols.errors import ProtocolError

_SHORT_START = b"\0\0\1"
_SLICE, _IDR = 1, 5
_SLICE_BYTES = 48  # its header up to the order count takes less
_MOST_REORDERED = 18  # of a stream of frames 16 at most are out of order (§A.3.1), here with those beside them
_MAX_UNITS = 16  # in front of the first slice
_DELIMITER = START + b"\x09\x30"  # two of these in a row would else look like slices of one picture (§7.4.1.2.4)
_HEAD = b"\x01"  # nal_ref_idc 0: no reference
_WORST_QP = 51
_MOST_MACROBLOCKS = 36_864  # of level 5.2 (Table A-1); each takes some time to write

_INIT_IDC = 2
_SKIP = (29, 16)  # of mb_skip_flag of a P slice whose neighbours are skipped too (Table 9-13, ctxIdx 11, cabac_init_idc 2)


@dataclass(frozen=True, slots=True)
class _StillPps:
    """What is asked of a picture parameter set (§7.3.2.2)."""

    sps: int
    cabac: bool
    bottom_order: bool  # bottom_field_pic_order_in_frame_present_flag
    weighted: bool
    quantizer: int  # pic_init_qp
    deblocking: bool  # deblocking_filter_control_present_flag
    redundant: bool


class _Picture(NamedTuple):
    pts: int
    slice: bytes  # the beginning of its first


class _Place(NamedTuple):
    """Of a slice: which frame it is of, in the order of decoding and of presentation."""

    pps: int
    number: int  # frame_num
    order: int  # pic_order_cnt_lsb
    referenced: bool


class H264Still:
    """Of one stream, with its parameter sets (Annex B), which are read once; those that cannot be read are left out."""

    def __init__(self, parameter_sets: bytes) -> None:
        self.parameter_sets = parameter_sets
        self._sps, self._pps = read_sets(parameter_sets, _read_pps)
        self._newest = b""  # the first slice of the picture decoded last
        self._pictures: deque[_Picture] = deque(maxlen=_MOST_REORDERED)  # since the last IDR, as decoded
        self._skips: dict[int, bytes] = {}  # the slice data, by the macroblocks of a picture

    def note(self, access_unit: bytes, pts: int) -> None:
        """The picture (Annex B) that is decoded next, shown at `pts`."""
        self._newest = _first_slice(access_unit)
        if self._newest:
            if _is_idr(self._newest):
                self._pictures.clear()
            self._pictures.append(_Picture(pts, self._newest))

    def repeat(self, pts: int) -> bytes:
        """An access unit (Annex B) that shows at `pts` again what is shown just before; empty where there can be none."""
        try:
            shown = self._shown(self._pictures, pts)
            copied = self._shown([each for each in self._pictures if _is_reference(each.slice)], pts)
            return self._following(*(self._place(each) for each in (self._newest, shown, copied)))
        except (ProtocolError, LookupError, ValueError):
            return b""

    @staticmethod
    def _shown(pictures: Collection[_Picture], pts: int) -> bytes:
        """The last before then; of none is that much known, the first. Raises `ValueError` where there is none."""
        before = [each for each in pictures if each.pts <= pts]
        return max(before).slice if before else min(pictures).slice

    def _following(self, newest: _Place, shown: _Place, copied: _Place) -> bytes:
        pps = self._pps[copied.pps]
        sps = self._sps[pps.sps]
        numbers = 1 << sps.frame_num_bits
        number = (newest.number + newest.referenced) % numbers
        written = BitWriter()
        written.ue(0)  # first_mb_in_slice
        written.ue(0)  # slice_type: P
        written.ue(copied.pps)
        written.bits(number, sps.frame_num_bits)
        if sps.order_type == 0:
            written.bits(shown.order + 1, sps.order_bits)
            if pps.bottom_order:
                written.se(0)
        self._rest(written, sps, pps, back=(number - copied.number) % numbers or numbers)
        return _DELIMITER + START + _HEAD + escape(written.aligned())

    def _place(self, unit: bytes) -> _Place:
        """Raises `ProtocolError` or `LookupError` where nothing can follow."""
        bits = BitReader(unescape(unit, _SLICE_BYTES)[1:])
        bits.ue()  # first_mb_in_slice
        bits.ue(9)  # slice_type
        pps = bits.ue(255)
        sps = self._sps[self._pps[pps].sps]
        if sps.planes or not sps.frames_only or sps.order_type == 1 or sps.macroblocks > _MOST_MACROBLOCKS:
            raise ProtocolError("no whole frames, order counts that are not in it, or too large")
        number = bits.bits(sps.frame_num_bits)
        if _is_idr(unit):
            bits.ue(65535)  # idr_pic_id
        order = bits.bits(sps.order_bits) if sps.order_type == 0 else 0
        if order & 1:
            raise ProtocolError("an encoder that does not count fields, two a frame, leaves no place between two frames")
        return _Place(pps, number, order, _is_reference(unit))

    def _rest(self, written: BitWriter, sps: Sps, pps: _StillPps, back: int) -> None:
        """The slice header from redundant_pic_cnt on, and the slice's data; it is a copy of the picture of `back` frame_nums before."""
        if pps.redundant:
            written.ue(0)
        written.bits(1, 1)  # num_ref_idx_active_override_flag
        written.ue(0)  # one: that of the highest frame_num (§8.2.4.2.1), unless it is another
        written.bits(back != 1, 1)  # ref_pic_list_modification_flag_l0
        if back != 1:
            written.ue(0, back - 1, 3)  # modification_of_pic_nums_idc, abs_diff_pic_num_minus1; no more
        if pps.weighted:
            written.ue(0)
            if sps.chroma:
                written.ue(0)
            written.bits(0, 1 + bool(sps.chroma))  # no weight of its own
        if pps.cabac:
            written.ue(_INIT_IDC)
        written.se(_WORST_QP - pps.quantizer)  # there is nothing that is quantized
        if pps.deblocking:
            written.ue(1)  # none
        if pps.cabac:
            while len(written) % 8:
                written.bits(1, 1)  # cabac_alignment_one_bit
            data = self._skips[sps.macroblocks] = self._skips.get(sps.macroblocks) or _skips(sps.macroblocks)
            written.bits(int.from_bytes(data), 8 * len(data))
        else:
            written.ue(sps.macroblocks)  # mb_skip_run
            written.bits(1, 1)  # rbsp_stop_one_bit


def _is_reference(unit: bytes) -> bool:
    return unit[0] >> 5 & 3 != 0  # nal_ref_idc


def _is_idr(unit: bytes) -> bool:
    return unit[0] & 0x1F == _IDR


def _first_slice(access_unit: bytes) -> bytes:
    at = 0
    for _ in range(_MAX_UNITS):
        at = access_unit.find(_SHORT_START, at) + len(_SHORT_START)
        if at < len(_SHORT_START) or at >= len(access_unit):
            return b""
        if access_unit[at] & 0x1F in (_SLICE, _IDR):
            return access_unit[at : at + _SLICE_BYTES]
    return b""


def _read_pps(unit: bytes) -> tuple[int, _StillPps]:
    bits = BitReader(unescape(unit, SPS_BYTES)[1:])
    identity, sps = bits.ue(255), bits.ue(31)
    cabac, bottom_order = bits.flag(), bits.flag()
    if bits.ue(7):  # num_slice_groups_minus1
        raise ProtocolError("slice groups")  # what follows stands behind their map
    bits.ue(31)  # num_ref_idx_l0_default_active_minus1
    bits.ue(31)
    weighted = bits.flag()
    bits.skip(2)  # weighted_bipred_idc
    quantizer = 26 + bits.se()
    bits.se()  # pic_init_qs
    bits.se()  # chroma_qp_index_offset
    deblocking = bits.flag()
    bits.skip(1)  # constrained_intra_pred_flag
    return identity, _StillPps(sps, cabac, bottom_order, weighted, quantizer, deblocking, bits.flag())


def _skips(macroblocks: int) -> bytes:
    """That many mb_skip_flags of 1, each with its end_of_slice_flag."""
    encoder, context = CabacEncoder(), Context(*_SKIP, _WORST_QP)
    for left in range(macroblocks, 0, -1):
        encoder.encode(context, True)
        encoder.end(left == 1)
    return encoder.finish()
