"""HEVC: a picture that shows nothing new, for when an encoder sends none (ITU-T H.265 §7.3.2.3, §7.3.6, §7.3.8). Sans-IO.

Between two frames there is no place in the order of presentation, so it is not shown itself (pic_output_flag): what was shown last stays.
It keeps all pictures that were there, and is no reference: whatever comes next decodes as if it had not been there, to the bit. Every
coding unit of it is skipped, so it takes some bytes. It needs a picture parameter set of its own.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from protocols.bitstream.bits import BitReader, BitWriter, escape, unescape
from protocols.bitstream.cabac import CabacEncoder, Context
from protocols.bitstream.hevc import read_reordering, read_sps_head, skip_scaling_lists
from protocols.bitstream.nal import START, split_annexb
from protocols.errors import ProtocolError

_SPS, _PPS = 33, 34
_PICTURES = 32  # nal_unit_type below it: a coded slice segment
_IRAP, _IDR = range(16, 24), (19, 20)
_TRAIL_N = 0
_HIGHEST_SPS, _HIGHEST_PPS = 15, 63
_PPS_BYTES = 16  # what is read of one takes less
_SLICE_BYTES = 192  # its header up to the reference pictures takes less
_MAX_UNITS = 16  # of an access unit, in front of the first slice
_MOST_TREES = 9_216  # coding tree blocks: 4K of 32, 8K of 64 samples; each takes some time to write
_P, _QUANTIZER = 1, 26  # slice_type; init_qp_minus26 is 0
_SPLIT = (107, 139, 126)  # initValue of split_cu_flag, P slice (Table 9-11)
_SKIP = (197, 185, 201)  # of cu_skip_flag (Table 9-12)


class _Reference(NamedTuple):
    distance: int  # in picture order count, from the picture that has it in its set
    used: bool


_ReferenceSet = Sequence[_Reference]  # those shown before, nearest first; then those after


@dataclass(frozen=True, slots=True)
class _HevcSps:
    """What is asked of a sequence parameter set (§7.3.2.2.1)."""

    identity: int
    chroma: int  # ChromaArrayType
    columns: int  # smallest coding blocks
    rows: int
    tree: int  # of them in the side of a coding tree block
    order_bits: int  # of slice_pic_order_cnt_lsb
    offsets: bool  # sample_adaptive_offset_enabled_flag
    sets: Sequence[_ReferenceSet]
    long_term: bool
    long_term_sets: int
    temporal_motion: bool


class _HevcPps(NamedTuple):
    sps: int
    output_flag: bool  # output_flag_present_flag
    extra_bits: int  # num_extra_slice_header_bits


class _Newest(NamedTuple):
    """Of the picture decoded last."""

    order: int  # slice_pic_order_cnt_lsb
    references: _ReferenceSet
    sps: _HevcSps


class HevcStill:
    """Of one stream, with its parameter sets (Annex B), which are read once. Where there are several sequence parameter sets it is of the
    pictures of the first: to read one takes long enough."""

    def __init__(self, parameter_sets: bytes) -> None:
        self._sps: _HevcSps | None = None
        self._pps: dict[int, _HevcPps] = {}
        with suppress(ProtocolError):
            self._read(split_annexb(parameter_sets))
        self._identity = next(each for each in range(_HIGHEST_PPS, -1, -1) if each not in self._pps)
        self.parameter_sets = parameter_sets
        """With that of the pictures which are made."""
        if self._sps is not None:
            self.parameter_sets += START + _write_pps(self._identity, self._sps.identity)
        self._unit = b""
        self._count = 0
        self._data = b""

    def note(self, access_unit: bytes, pts: int) -> None:
        """The picture (Annex B) that is decoded next, shown at `pts`."""
        self._unit = access_unit

    def repeat(self, pts: int) -> bytes:
        """An access unit (Annex B) with which what is shown before `pts` stays; empty where there can be none. The next is another."""
        self._count += 1
        try:
            slice_ = _first_slice(self._unit)
            return START + escape(self._following(slice_, self._newest(slice_)))
        except (ProtocolError, LookupError, StopIteration):
            return b""

    def _read(self, units: Sequence[bytes]) -> None:
        for unit in units:
            if unit[0] >> 1 & 0x3F == _PPS:
                with suppress(ProtocolError):
                    identity, pps = _read_pps(unit)
                    self._pps[identity] = pps
        self._sps = next((_read_sps(unit) for unit in units if unit[0] >> 1 & 0x3F == _SPS), None)

    def _newest(self, unit: bytes) -> _Newest:
        """§7.3.6.1 up to the reference pictures."""
        kind = unit[0] >> 1 & 0x3F
        bits = BitReader(unescape(unit, _SLICE_BYTES)[2:])
        bits.skip(2 if kind in _IRAP else 1)  # first_slice_segment_in_pic_flag, no_output_of_prior_pics_flag
        pps = self._pps[bits.ue(_HIGHEST_PPS)]
        sps = self._sps
        if sps is None or pps.sps != sps.identity:
            raise ProtocolError("another sequence parameter set")
        referenced = kind in _IRAP or kind & 1 == 1
        itself = [_Reference(0, used=True)] if referenced else []
        if kind in _IDR:
            return _Newest(0, itself, sps)
        bits.skip(pps.extra_bits)
        bits.ue(2)  # slice_type
        bits.skip(pps.output_flag)
        order = bits.bits(sps.order_bits)
        known = bits.flag()  # short_term_ref_pic_set_sps_flag
        index = bits.bits((len(sps.sets) - 1).bit_length()) if known and sps.sets else 0
        found = sps.sets[index] if known else _read_set(bits, sps.sets, in_slice=True)
        if sps.long_term and ((sps.long_term_sets and bits.ue(32)) or bits.ue(32)):
            raise ProtocolError("long-term reference pictures")
        return _Newest(order, [*itself, *found], sps)

    def _following(self, newest_slice: bytes, newest: _Newest) -> bytes:
        sps = newest.sps
        # Far ahead in the order of presentation, where no picture comes as soon as that, and each time at another place
        orders = 1 << sps.order_bits
        ahead = orders * 3 // 8 - self._count % 2
        written = BitWriter()
        written.bits(_TRAIL_N << 9 | newest_slice[1], 16)  # of the same layer
        written.flags(True)  # first_slice_segment_in_pic_flag
        written.ue(self._identity, _P)
        written.flags(False)  # pic_output_flag
        written.bits((newest.order + ahead) % orders, sps.order_bits)
        written.flags(False)  # short_term_ref_pic_set_sps_flag
        _write_set(written, [each._replace(distance=each.distance - ahead) for each in newest.references], first=not sps.sets)
        if sps.long_term:
            written.ue(*(0,) * (2 if sps.long_term_sets else 1))
        if sps.temporal_motion:
            written.flags(False)  # slice_temporal_mvp_enabled_flag
        if sps.offsets:
            written.flags(*(False,) * (2 if sps.chroma else 1))  # slice_sao_luma_flag, slice_sao_chroma_flag
        written.flags(False)  # num_ref_idx_active_override_flag
        written.ue(4)  # five_minus_max_num_merge_cand: merge_idx is not coded
        written.se(0)  # slice_qp_delta
        written.flags(True)  # byte_alignment
        self._data = self._data or _SkippedPicture(sps).coded()
        return written.aligned() + self._data


class _SkippedPicture:
    """The slice data of one whose coding units are all skipped and as large as can be (§7.3.8)."""

    def __init__(self, sps: _HevcSps) -> None:
        self._sps = sps
        self._encoder = CabacEncoder()
        self._split, self._skip = ([_context(value) for value in values] for values in (_SPLIT, _SKIP))
        self._depths = [bytearray(sps.columns) for _ in range(sps.rows)]

    def coded(self) -> bytes:
        sps = self._sps
        trees = [(x, y) for y in range(0, sps.rows, sps.tree) for x in range(0, sps.columns, sps.tree)]
        for x, y in trees:
            self._quadtree(x, y, sps.tree, 0)
            self._encoder.end((x, y) == trees[-1])
        return self._encoder.finish()

    def _quadtree(self, x: int, y: int, size: int, depth: int) -> None:
        if x >= self._sps.columns or y >= self._sps.rows:
            return
        if x + size > self._sps.columns or y + size > self._sps.rows:
            half = size // 2
            for below in (0, half):
                for beside in (0, half):
                    self._quadtree(x + beside, y + below, half, depth + 1)
            return
        if size > 1:
            deeper = (x > 0 and self._depths[y][x - 1] > depth) + (y > 0 and self._depths[y - 1][x] > depth)
            self._encoder.encode(self._split[deeper], False)
        self._encoder.encode(self._skip[(x > 0) + (y > 0)], True)
        if depth:
            for row in self._depths[y : y + size]:
                row[x : x + size] = bytes((depth,)) * size


def _context(value: int) -> Context:
    """§9.3.2.2."""
    return Context((value >> 4) * 5 - 45, ((value & 15) << 3) - 16, _QUANTIZER)


def _first_slice(access_unit: bytes) -> bytes:
    for unit in split_annexb(access_unit)[:_MAX_UNITS]:
        if unit[0] >> 1 & 0x3F < _PICTURES:
            return unit
    raise ProtocolError("no picture")


def _read_pps(unit: bytes) -> tuple[int, _HevcPps]:
    bits = BitReader(unescape(unit, _PPS_BYTES)[2:])
    identity, sps = bits.ue(_HIGHEST_PPS), bits.ue(_HIGHEST_SPS)
    bits.skip(1)  # dependent_slice_segments_enabled_flag
    return identity, _HevcPps(sps, bits.flag(), bits.bits(3))


def _read_sps(unit: bytes) -> _HevcSps:
    head, bits = read_sps_head(unit)
    if head.planes:
        raise ProtocolError("separate colour planes")
    read_reordering(bits, head.sub_layers)
    width, height = head.coded
    smallest, more = 3 + bits.ue(3), bits.ue(3)  # log2 of the coding block sizes
    if width * height >> 2 * (smallest + more) > _MOST_TREES:
        raise ProtocolError("too large")
    for _ in range(4):
        bits.ue()
    if bits.flag() and bits.flag():  # scaling_list_enabled_flag, sps_scaling_list_data_present_flag
        skip_scaling_lists(bits)
    bits.skip(1)
    offsets = bits.flag()
    if bits.flag():  # pcm_enabled_flag
        bits.skip(8)
        bits.ue()
        bits.ue()
        bits.skip(1)
    sets: list[_ReferenceSet] = []
    for _ in range(bits.ue(64)):
        sets.append(_read_set(bits, sets, in_slice=False))
    long_term = bits.flag()
    long_term_sets = bits.ue(32) if long_term else 0
    bits.skip(long_term_sets * (head.order_bits + 1))
    return _HevcSps(
        identity=head.identity,
        chroma=head.chroma,
        columns=width >> smallest,
        rows=height >> smallest,
        tree=1 << more,
        order_bits=head.order_bits,
        offsets=offsets,
        sets=sets,
        long_term=long_term,
        long_term_sets=long_term_sets,
        temporal_motion=bits.flag(),
    )


def _read_set(bits: BitReader, sets: Sequence[_ReferenceSet], *, in_slice: bool) -> _ReferenceSet:
    """st_ref_pic_set (§7.3.7, §7.4.8) behind these."""
    if sets and bits.flag():  # inter_ref_pic_set_prediction_flag
        back = 1 + (bits.ue(len(sets) - 1) if in_slice else 0)
        sign = bits.flag()
        moved = (bits.ue(1 << 15) + 1) * (-1 if sign else 1)
        found = []
        for distance, _ in (*sets[-back], (0, True)):
            used = bits.flag()
            if (used or bits.flag()) and distance + moved:  # use_delta_flag; none is the picture itself
                found.append(_Reference(distance + moved, used))
        return _in_order(found)
    counts = bits.ue(16), bits.ue(16)
    found = []
    for count, side in zip(counts, (-1, 1), strict=True):
        distance = 0
        for _ in range(count):
            distance += side * (bits.ue(1 << 15) + 1)
            found.append(_Reference(distance, bits.flag()))
    return found


def _in_order(references: Sequence[_Reference]) -> _ReferenceSet:
    return sorted(references, key=lambda each: (each.distance > 0, abs(each.distance)))


def _write_set(written: BitWriter, references: Sequence[_Reference], *, first: bool) -> None:
    """The same; of those that may be referred to the nearest is, and the others are kept."""
    references = _in_order(references)
    used = next(each for each in references if each.used)
    before, after = (
        [each for each in references if each.distance < 0],
        [each for each in references if each.distance > 0],
    )
    if not first:
        written.flags(False)  # inter_ref_pic_set_prediction_flag
    written.ue(len(before), len(after))
    for side in (before, after):
        distance = 0
        for each in side:
            written.ue(abs(each.distance - distance) - 1)
            written.flags(each is used)
            distance = each.distance


def _write_pps(identity: int, sps: int) -> bytes:
    """A picture parameter set (§7.3.2.3.1) with as little in it as can be, and pictures that may be hidden."""
    written = BitWriter()
    written.bits(_PPS << 9 | 1, 16)
    written.ue(identity, sps)
    written.flags(False, True)  # dependent_slice_segments_enabled_flag, output_flag_present_flag
    written.bits(0, 3)  # num_extra_slice_header_bits
    written.flags(False, False)  # sign_data_hiding_enabled_flag, cabac_init_present_flag
    written.ue(0, 0)  # num_ref_idx_l0_default_active_minus1, and of l1
    written.se(0)  # init_qp_minus26
    written.flags(False, False, False)  # constrained_intra_pred_flag, transform_skip_enabled_flag, cu_qp_delta_enabled_flag
    written.se(0)  # pps_cb_qp_offset
    written.se(0)  # pps_cr_qp_offset
    # pps_slice_chroma_qp_offsets_present_flag, weighted_pred_flag, weighted_bipred_flag, transquant_bypass_enabled_flag,
    # tiles_enabled_flag, entropy_coding_sync_enabled_flag, pps_loop_filter_across_slices_enabled_flag
    written.bits(0, 7)
    # deblocking_filter_control_present_flag, deblocking_filter_override_enabled_flag, pps_deblocking_filter_disabled_flag
    written.flags(True, False, True)
    written.flags(False, False)  # pps_scaling_list_data_present_flag, lists_modification_present_flag
    written.ue(0)  # log2_parallel_merge_level_minus2
    written.flags(False, False)  # slice_segment_header_extension_present_flag, pps_extension_present_flag
    written.flags(True)  # rbsp_trailing_bits
    return escape(written.aligned())
