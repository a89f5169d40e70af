"""H.264: a picture that shows the one before it again, for when an encoder sends none (ITU-T H.264 §7.3.3 - §7.3.5, §9.3.4). Sans-IO.

Every macroblock of it is skipped, so it takes a few bytes and a decoder copies. It is no reference: whatever comes next decodes as if it
had not been there, to the bit. Only for what encoders without B-frames send: whole frames, order counts of type 0 or 2.
"""

import re
from dataclasses import dataclass

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.h264 import Sps, read_sets
from protocols.bitstream.nal import SPS_BYTES, START
from protocols.errors import ProtocolError

_SHORT_START = b"\0\0\1"
_SLICE, _IDR = 1, 5
_B = 1  # slice_type modulo 5
_SLICE_BYTES = 48  # its header up to the order count takes less
_MAX_UNITS = 16  # in front of the first slice
_DELIMITER = START + b"\x09\x30"  # two of these in a row would else look like slices of one picture (§7.4.1.2.4)
_HEAD = b"\x01"  # nal_ref_idc 0: no reference
_WORST_QP = 51

# CABAC: mb_skip_flag of a P slice whose neighbours are skipped too (Table 9-13, ctxIdx 11, cabac_init_idc 2: m 29, n 16) begins at
# quantizer 51 in this state of the most probable symbol 1, and each macroblock is one more of it. Table 9-44 from there on: rangeTabLPS.
_INIT_IDC, _FIRST_STATE, _LAST_STATE = 2, 44, 62
_LPS_RANGES = (
    *(
        (14, 18, 21, 24),
        (14, 17, 20, 23),
        (13, 16, 19, 22),
        (12, 15, 18, 21),
        (12, 14, 17, 20),
        (11, 14, 16, 19),
        (11, 13, 15, 18),
    ),
    *((10, 12, 15, 17), (10, 12, 14, 16), (9, 11, 13, 15), (9, 11, 12, 14), (8, 10, 12, 14), (8, 9, 11, 13), (7, 9, 11, 12)),
    *((7, 9, 10, 12), (7, 8, 10, 11), (6, 8, 9, 11), (6, 7, 9, 10), (6, 7, 8, 9)),
)


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


class StillPictures:
    """Of one stream, with its parameter sets (Annex B), which are read once; those that cannot be read are left out."""

    def __init__(self, parameter_sets: bytes) -> None:
        self._sps, self._pps = read_sets(parameter_sets, _read_pps)

    def repeat(self, access_unit: bytes) -> bytes:
        """An access unit (Annex B) that shows again what this one shows, the last of its stream; empty where there can be none. It may be
        shown more than once."""
        slice_ = _first_slice(access_unit)
        if not slice_ or not slice_[0] >> 5 & 3:  # nal_ref_idc: no later picture can refer to it
            return b""
        try:
            return self._following(slice_)
        except (ProtocolError, KeyError):
            return b""

    def _following(self, unit: bytes) -> bytes:
        bits = BitReader(unescape(unit, _SLICE_BYTES)[1:])
        bits.ue()  # first_mb_in_slice
        kind, identity = bits.ue(9), bits.ue(255)
        pps = self._pps[identity]
        sps = self._sps[pps.sps]
        if kind % 5 == _B or sps.planes or not sps.frames_only or sps.order_type == 1:
            return b""
        number = bits.bits(sps.frame_num_bits)
        if unit[0] & 0x1F == _IDR:
            bits.ue(65535)  # idr_pic_id
        written = _Bits()
        written.ue(0)  # first_mb_in_slice
        written.ue(0)  # slice_type: P
        written.ue(identity)
        written.bits((number + 1) % (1 << sps.frame_num_bits), sps.frame_num_bits)
        if sps.order_type == 0:
            order = bits.bits(sps.order_bits)
            if order & 1:  # encoders count fields, two a frame: one that does not leaves no place between two frames
                return b""
            written.bits(order + 1, sps.order_bits)
            if pps.bottom_order:
                written.se(0)
        self._rest(written, sps, pps)
        return _DELIMITER + START + _HEAD + _escape(written.aligned())

    def _rest(self, written: "_Bits", sps: Sps, pps: _StillPps) -> None:
        """The slice header from redundant_pic_cnt on, and the slice's data."""
        if pps.redundant:
            written.ue(0)
        written.bits(1, 1)  # num_ref_idx_active_override_flag
        written.ue(0)  # one: the picture decoded last (§8.2.4.2.1)
        written.bits(0, 1)  # ref_pic_list_modification_flag_l0
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
            written.cabac_skips(sps.macroblocks)
        else:
            written.ue(sps.macroblocks)  # mb_skip_run
            written.bits(1, 1)  # rbsp_stop_one_bit


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


class _Bits:
    """Bits being written, most significant first."""

    def __init__(self) -> None:
        self._value, self._count = 1, 0  # a 1 in front keeps leading zeros

    def bits(self, value: int, count: int) -> None:
        self._value = self._value << count | value
        self._count += count

    def ue(self, value: int) -> None:
        self.bits(value + 1, 2 * (value + 1).bit_length() - 1)

    def se(self, value: int) -> None:
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def cabac_skips(self, macroblocks: int) -> None:
        """That many mb_skip_flags of 1, each with its end_of_slice_flag (§9.3.4.2, §9.3.4.5). Since all are the most probable symbol,
        codILow stays 0 until the last: every bit before it is 0."""
        while self._count % 8:
            self.bits(1, 1)  # cabac_alignment_one_bit
        range_, zeros, state = 510, -1, _FIRST_STATE  # the first bit is not written
        for left in range(macroblocks, 0, -1):
            range_ -= _LPS_RANGES[state - _FIRST_STATE][range_ >> 6 & 3]
            state = min(state + 1, _LAST_STATE)
            if range_ < 256:
                range_, zeros = range_ << 1, zeros + 1
            range_ -= 2
            if left > 1 and range_ < 256:
                range_, zeros = range_ << 1, zeros + 1
        self.bits(range_ | 1, zeros + 10)  # codILow, flushed; its last bit is rbsp_stop_one_bit

    def aligned(self) -> bytes:
        """With zeros to a whole byte."""
        size = (self._count + 7) // 8
        return ((self._value << 8 * size - self._count) & (1 << 8 * size) - 1).to_bytes(size)


def _escape(payload: bytes) -> bytes:
    """With emulation prevention bytes (§7.4.1)."""
    return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", payload)
