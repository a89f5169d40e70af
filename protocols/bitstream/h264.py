"""H.264 (ITU-T H.264, 08/2021): the facts in a sequence parameter set, and where decoding can start."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.nal import (
    MAX_SEI_MESSAGES,
    SPS_BYTES,
    NalRole,
    Syntax,
    first_bytes,
    roles_by_first_byte,
    sei_ends,
    split_annexb,
)
from protocols.bitstream.sps import CHROMA, MAX_SIDE, cropped, frame_rate, skip_vui_colour
from protocols.errors import ProtocolError
from protocols.media import Codec, Track

T = TypeVar("T")

_SEI, _SPS, _PPS = 6, 7, 8
WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})  # §7.3.2.1.1
_INTRA_IF_SET3 = frozenset({44, 86, 100, 110, 122, 244})  # §E.2.1: no reordering when constraint_set3_flag is set
_LISTS_8X8 = (2, 6)  # §7.3.2.2: with chroma_format_idc 3 there are 6
_SEI_RECOVERY_POINT = 6
_SEI_BYTES = 1024  # as much of an SEI as is looked at

# (profile_idc, constraint flags that must be set) -> name, the first that fits (§A.2)
_PROFILES = (
    (66, 0x40, "Constrained Baseline"),
    (66, 0x00, "Baseline"),
    (77, 0x00, "Main"),
    (88, 0x00, "Extended"),
    (100, 0x0C, "Constrained High"),
    (100, 0x08, "Progressive High"),
    (100, 0x00, "High"),
    (110, 0x10, "High 10 Intra"),
    (110, 0x00, "High 10"),
    (122, 0x10, "High 4:2:2 Intra"),
    (122, 0x00, "High 4:2:2"),
    (244, 0x10, "High 4:4:4 Intra"),
    (244, 0x00, "High 4:4:4 Predictive"),
    (44, 0x00, "CAVLC 4:4:4 Intra"),
)


@dataclass(frozen=True, slots=True)
class Sps:
    """What is asked of a sequence parameter set, in its own terms (§7.4.2.1.1)."""

    identity: int
    profile: int
    constraints: int
    level: int
    chroma: int  # chroma_format_idc
    depth: int  # bits of a sample
    planes: bool  # separate_colour_plane_flag
    frame_num_bits: int
    order_type: int  # pic_order_cnt_type
    order_bits: int  # of pic_order_cnt_lsb; 0 where the type has none
    width: int
    height: int
    macroblocks: int  # of a frame
    frames_only: bool
    frame_rate: float  # 0: it does not say
    reorder: int | None  # max_num_reorder_frames; None: it does not say
    whole: bool  # it ends where its last field does


def read_sps(unit: bytes) -> Sps:
    """Of a NAL unit (§7.3.2.1.1). A VUI that breaks off is worth what could be read of it; raises `ProtocolError` for anything else."""
    bits = BitReader(unescape(unit, SPS_BYTES)[1:])
    profile, constraints, level = bits.bits(8), bits.bits(8), bits.bits(8)
    identity = bits.ue(31)
    chroma, depth, planes = 1, 8, False
    if profile in WITH_CHROMA_FORMAT:
        chroma = bits.ue(3)
        planes = chroma == 3 and bits.flag()
        depth = 8 + max(bits.ue(6), bits.ue(6))
        bits.skip(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.flag():
            _skip_scaling_matrix(bits, 12 if chroma == 3 else 8)
    frame_num_bits = 4 + bits.ue(12)
    order_type, order_bits = _read_picture_order_count(bits)
    bits.ue(16)  # max_num_ref_frames
    bits.skip(1)  # gaps_in_frame_num_value_allowed_flag
    width = 16 * (bits.ue(MAX_SIDE // 16) + 1)
    map_units = bits.ue(MAX_SIDE // 16) + 1
    frames_only = bits.flag()
    height = 16 * map_units * (1 if frames_only else 2)
    macroblocks = width * height // 256
    if not frames_only:
        bits.skip(1)  # mb_adaptive_frame_field_flag
    bits.skip(1)  # direct_8x8_inference_flag
    width, height = cropped(bits, width, height, chroma, 1 if frames_only else 2)
    rate, reorder = _read_vui(bits) if bits.flag() else (0.0, None)
    return Sps(
        identity=identity,
        profile=profile,
        constraints=constraints,
        level=level,
        chroma=chroma,
        depth=depth,
        planes=planes,
        frame_num_bits=frame_num_bits,
        order_type=order_type,
        order_bits=order_bits,
        width=width,
        height=height,
        macroblocks=macroblocks,
        frames_only=frames_only,
        frame_rate=rate,
        reorder=reorder,
        whole=bits.at_end,
    )


def describe(unit: bytes, track_id: int, extradata: bytes) -> Track:
    """The track that an SPS describes; raises as `read_sps`."""
    sps = read_sps(unit)
    reorder = sps.reorder
    intra = sps.profile in _INTRA_IF_SET3 and sps.constraints & 0x10
    if sps.profile == 66 or sps.order_type == 2 or (reorder is None and intra):
        reorder = 0
    names = (name for idc, flags, name in _PROFILES if idc == sps.profile and sps.constraints & flags == flags)
    return Track(
        track_id,
        Codec.H264,
        extradata,
        width=sps.width,
        height=sps.height,
        frame_rate=sps.frame_rate,
        profile=next(names, str(sps.profile)),
        level=sps.level,
        bit_depth=sps.depth,
        chroma=CHROMA[sps.chroma],
        interlaced=not sps.frames_only,
        reorder=reorder,
    )


def _skip_scaling_matrix(bits: BitReader, lists: int) -> None:
    for index in range(lists):  # §7.3.2.1.1.1
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) & 0xFF
            last = following or last


def _read_picture_order_count(bits: BitReader) -> tuple[int, int]:
    """(its type, bits of pic_order_cnt_lsb)."""
    order_type = bits.ue(2)
    if order_type == 0:
        return order_type, 4 + bits.ue(12)
    if order_type == 1:
        bits.skip(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue(255)):
            bits.se()
    return order_type, 0


def _read_vui(bits: BitReader) -> tuple[float, int | None]:
    """§E.1.1: (frame rate, max_num_reorder_frames)."""
    rate = 0.0
    try:
        skip_vui_colour(bits)
        if bits.flag():  # timing_info_present_flag; a tick is a field
            per_tick, scale = bits.bits(32), bits.bits(32)
            bits.skip(1)
            rate = frame_rate(scale, 2 * per_tick)
        hrd = [bits.flag() and _skip_hrd(bits) for _ in ("nal", "vcl")]
        if any(hrd):
            bits.skip(1)  # low_delay_hrd_flag
        bits.skip(1)  # pic_struct_present_flag
        if not bits.flag():  # bitstream_restriction_flag
            return rate, None
        bits.skip(1)
        for _ in range(4):
            bits.ue()
        reorder = bits.ue(16)
    except ProtocolError:
        return rate, None
    with suppress(ProtocolError):
        bits.ue()  # max_dec_frame_buffering
    return rate, reorder


def _skip_hrd(bits: BitReader) -> bool:
    count = bits.ue(31) + 1  # §E.1.2
    bits.skip(8)
    for _ in range(count):
        bits.ue()
        bits.ue()
        bits.skip(1)
    bits.skip(20)
    return True


def _set_key(nal: bytes) -> tuple[int, int]:
    if nal[0] & 0x1F == _SPS:
        bits = BitReader(unescape(nal, 16)[4:])
        return 0, bits.ue(31)
    return 1, BitReader(unescape(nal, 16)[1:]).ue(255)


def read_pps_ids(nal: bytes) -> tuple[int, int]:
    """Of a picture parameter set (§7.3.2.2): its id, and that of the sequence parameter set that it is for. Raises `ProtocolError`."""
    bits = BitReader(unescape(nal, 16)[1:])
    return bits.ue(255), bits.ue(31)


def read_sets(parameter_sets: bytes, read_pps: Callable[[bytes], tuple[int, T]]) -> tuple[dict[int, Sps], dict[int, T]]:
    """The parameter sets of a stream (Annex B), by their ids; of a picture parameter set `read_pps` gives its id and what is asked of it.
    Those that cannot be read are left out."""
    sequence: dict[int, Sps] = {}
    picture: dict[int, T] = {}
    with suppress(ProtocolError):
        for unit in split_annexb(parameter_sets):
            with suppress(ProtocolError):
                if unit[0] & 0x1F == _SPS:
                    sps = read_sps(unit)
                    sequence[sps.identity] = sps
                elif unit[0] & 0x1F == _PPS:
                    identity, asked = read_pps(unit)
                    picture[identity] = asked
    return sequence, picture


def _pps_sps(nal: bytes) -> int:
    return read_pps_ids(nal)[1]


def _is_whole(nal: bytes) -> bool:
    kind = nal[0] & 0x1F
    try:
        if kind == _SEI:
            return sei_ends(unescape(nal, len(nal))[1:])
        return read_sps(nal).whole if kind == _SPS else any(_pps_ends(nal, lists) for lists in _LISTS_8X8)
    except ProtocolError:
        return False


def _pps_ends(nal: bytes, lists_8x8: int) -> bool:
    """Whether a picture parameter set (§7.3.2.2) ends where its last field does, with so many scaling lists for 8x8 transforms."""
    bits = BitReader(unescape(nal, SPS_BYTES)[1:])
    bits.ue(255)
    bits.ue(31)
    bits.skip(2)  # entropy_coding_mode_flag, bottom_field_pic_order_in_frame_present_flag
    if groups := bits.ue(7):
        _skip_slice_groups(bits, groups)
    bits.ue(31)  # num_ref_idx_l0_default_active_minus1, and of l1
    bits.ue(31)
    bits.skip(1)  # weighted_pred_flag
    if bits.bits(2) > 2:  # weighted_bipred_idc
        return False
    for _ in range(3):  # pic_init_qp_minus26, pic_init_qs_minus26, chroma_qp_index_offset
        bits.se()
    bits.skip(3)
    if not bits.at_end:
        transform_8x8 = bits.flag()
        if bits.flag():  # pic_scaling_matrix_present_flag
            _skip_scaling_matrix(bits, 6 + lists_8x8 * transform_8x8)
        bits.se()  # second_chroma_qp_index_offset
    return bits.at_end


def _skip_slice_groups(bits: BitReader, groups: int) -> None:
    """`groups`: num_slice_groups_minus1."""
    match bits.ue(6):  # slice_group_map_type
        case 0:
            for _ in range(groups + 1):
                bits.ue()
        case 2:
            for _ in range(2 * groups):
                bits.ue()
        case 3 | 4 | 5:
            bits.skip(1)
            bits.ue()
        case 6:
            bits.skip((bits.ue() + 1) * groups.bit_length())


def _slice_pps(nal: bytes) -> int:
    bits = BitReader(unescape(nal, 24)[1:])
    bits.ue()  # first_mb_in_slice
    bits.ue(9)  # slice_type
    return bits.ue(255)


def _recovers(sei: bytes) -> bool:
    """A recovery point (§D.2.8): how open-GOP sources mark their I pictures, and those with intra refresh the start of each round.

    With recovery_frame_cnt above 0 a decoder that starts here shows its first picture that many frames later; the sources that send such
    have no better place to start at.
    """
    data = unescape(sei, _SEI_BYTES)
    at, end = 1, len(data)
    for _ in range(MAX_SEI_MESSAGES):
        kind = size = 0
        # A payload type, then a size (§7.3.2.3.1): 255 means that more follows
        while at < end:
            byte = data[at]
            at += 1
            kind += byte
            if byte != 0xFF:
                break
        while at < end:
            byte = data[at]
            at += 1
            size += byte
            if byte != 0xFF:
                break
        if not size or size >= end - at:  # a message of nothing, or that breaks off: only trailing bits are left
            return False
        if kind == _SEI_RECOVERY_POINT:
            return True
        at += size
    return False


SYNTAX = Syntax(
    roles=roles_by_first_byte(
        0,
        0x1F,
        {
            1: NalRole.PICTURE,
            2: NalRole.PICTURE,
            3: NalRole.PICTURE,
            4: NalRole.PICTURE,
            5: NalRole.KEY,
            _SEI: NalRole.SEI,
            _SPS: NalRole.PARAMETER_SET,
            _PPS: NalRole.PARAMETER_SET,
            9: NalRole.DROPPED,  # access unit delimiter
            12: NalRole.DROPPED,  # filler data
        },
    ),
    header_bytes=1,
    first_slice_byte=1,  # first_mb_in_slice is 0
    opening=first_bytes(0, 0x1F, (_SEI, _SPS, _PPS, 9, *range(14, 19))),  # §7.4.1.2.3
    set_key=_set_key,
    sps_rank=0,
    slice_pps=_slice_pps,
    pps_sps=_pps_sps,
    is_whole=_is_whole,
    describe=describe,
    recovers=_recovers,
)
