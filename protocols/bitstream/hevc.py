"""HEVC (ITU-T H.265, 08/2021): the facts in a sequence parameter set of the base layer, and where decoding can start."""

from typing import NamedTuple

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.nal import SPS_BYTES, NalRole, Syntax, first_bytes, roles_by_first_byte, sei_ends
from protocols.bitstream.sps import CHROMA, MAX_SIDE, cropped, frame_rate, skip_vui_colour
from protocols.errors import ProtocolError
from protocols.media import Codec, Track

_VPS, _SPS, _PPS, _SEI = 32, 33, 34, 39
_LOWEST = 1  # the second byte of a NAL unit of the base layer with TemporalId 0, as every VPS and SPS is (§7.4.2.2)
_PROFILES = {
    1: "Main",
    2: "Main 10",
    3: "Main Still Picture",
    4: "Range Extensions",
    5: "High Throughput",
    9: "Screen Content",
}


class SpsHead(NamedTuple):
    """A sequence parameter set up to where pictures stand in the order of presentation (§7.3.2.2.1)."""

    identity: int
    sub_layers: int  # minus 1
    profile: int
    level: int
    interlaced: bool
    chroma: int  # chroma_format_idc
    planes: bool  # separate_colour_plane_flag
    coded: tuple[int, int]  # width and height, before cropping
    shown: tuple[int, int]
    depth: int
    order_bits: int  # of slice_pic_order_cnt_lsb


def read_sps_head(sps: bytes) -> tuple[SpsHead, BitReader]:
    """Of a NAL unit, and what follows; raises `ProtocolError`."""
    bits = BitReader(unescape(sps, SPS_BYTES)[2:])
    bits.skip(4)  # sps_video_parameter_set_id
    sub_layers = bits.bits(3)
    bits.skip(1)
    profile, level, interlaced = _read_profile(bits, sub_layers)
    identity, chroma = bits.ue(15), bits.ue(3)
    planes = chroma == 3 and bits.flag()
    coded = bits.ue(MAX_SIDE), bits.ue(MAX_SIDE)
    shown = cropped(bits, *coded, chroma, 1)
    depth = 8 + max(bits.ue(8), bits.ue(8))
    order_bits = 4 + bits.ue(12)
    return SpsHead(identity, sub_layers, profile, level, interlaced, chroma, planes, coded, shown, depth, order_bits), bits


def read_reordering(bits: BitReader, sub_layers: int) -> int:
    """What follows the head: how many frames may leave out of order, in the highest sub-layer."""
    reorder = 0
    for _ in range(sub_layers + 1 if bits.flag() else 1):  # sps_sub_layer_ordering_info_present_flag; the last is the highest
        bits.ue()
        reorder = bits.ue(16)
        bits.ue()
    return reorder


def describe(sps: bytes, track_id: int, extradata: bytes) -> Track:
    """The track that an SPS describes (§7.3.2.2.1). What breaks off after the reordering is worth what could be read of it."""
    head, bits = read_sps_head(sps)
    reorder = read_reordering(bits, head.sub_layers)
    rate, fields = _read_tail(bits, head.order_bits)
    width, height = head.shown
    return Track(
        track_id,
        Codec.HEVC,
        extradata,
        width=width,
        height=height,
        frame_rate=rate,
        profile=_PROFILES.get(head.profile, str(head.profile)),
        level=head.level,
        bit_depth=head.depth,
        chroma=CHROMA[head.chroma],
        interlaced=head.interlaced or fields,
        reorder=reorder,
    )


def _read_profile(bits: BitReader, sub_layers: int) -> tuple[int, int, bool]:
    """profile_tier_level (§7.3.3): (general_profile_idc, general_level_idc, an interlaced source)."""
    bits.skip(3)
    profile = bits.bits(5)
    compatible = bits.bits(32)
    if profile == 0:  # older encoders say it by the compatibility flags alone
        profile = 32 - compatible.bit_length() if compatible else 0
    progressive, interlaced = bits.flag(), bits.flag()
    bits.skip(46)
    level = bits.bits(8)
    present = [(bits.flag(), bits.flag()) for _ in range(sub_layers)]
    if sub_layers:
        bits.skip(2 * (8 - sub_layers))
    for has_profile, has_level in present:
        bits.skip(88 * has_profile + 8 * has_level)
    return profile, level, interlaced and not progressive


def _read_tail(bits: BitReader, poc_bits: int) -> tuple[float, bool]:
    """The rest of the SPS for what its VUI (§E.2.1) says: (frame rate, pictures are fields)."""
    fields = False
    try:
        for _ in range(6):  # sizes of coding and transform blocks, their depth
            bits.ue()
        if bits.flag() and bits.flag():  # scaling_list_enabled_flag, sps_scaling_list_data_present_flag
            skip_scaling_lists(bits)
        bits.skip(2)
        if bits.flag():  # pcm_enabled_flag
            bits.skip(8)
            bits.ue()
            bits.ue()
            bits.skip(1)
        _skip_short_term_sets(bits)
        if bits.flag():  # long_term_ref_pics_present_flag
            bits.skip(bits.ue(32) * (poc_bits + 1))
        bits.skip(2)
        if not bits.flag():  # vui_parameters_present_flag
            return 0.0, False
        skip_vui_colour(bits)
        bits.skip(1)
        fields = bits.flag()  # field_seq_flag
        bits.skip(1)
        if bits.flag():  # default_display_window_flag
            for _ in range(4):
                bits.ue()
        if not bits.flag():  # vui_timing_info_present_flag
            return 0.0, fields
        per_tick, scale = bits.bits(32), bits.bits(32)
        return frame_rate(scale, per_tick), fields
    except ProtocolError:
        return 0.0, fields


def skip_scaling_lists(bits: BitReader) -> None:
    for size in range(4):  # §7.3.4
        for _ in range(0, 6, 3 if size == 3 else 1):
            if not bits.flag():
                bits.ue()
                continue
            if size > 1:
                bits.se()
            for _ in range(min(64, 1 << (4 + 2 * size))):
                bits.se()


def _skip_short_term_sets(bits: BitReader) -> None:
    pictures = 0  # NumDeltaPocs of the set before (§7.3.7)
    for index in range(bits.ue(64)):
        if index and bits.flag():  # inter_ref_pic_set_prediction_flag
            bits.skip(1)
            bits.ue()
            # used_by_curr_pic_flag, or else use_delta_flag, keeps a picture
            pictures = sum(bits.flag() or bits.flag() for _ in range(pictures + 1))
        else:
            pictures = bits.ue(16) + bits.ue(16)
            for _ in range(pictures):
                bits.ue()
                bits.skip(1)


def _set_key(nal: bytes) -> tuple[int, int]:
    kind = nal[0] >> 1 & 0x3F
    bits = BitReader(unescape(nal, SPS_BYTES)[2:])
    if kind == _VPS:
        return 0, bits.bits(4)
    if kind == _PPS:
        return 2, bits.ue(63)
    bits.skip(4)
    sub_layers = bits.bits(3)
    bits.skip(1)
    _read_profile(bits, sub_layers)
    return 1, bits.ue(15)


def _is_whole(nal: bytes) -> bool:
    """Of an SPS no more is asked than that it can be read: what follows its facts has too many forms, and its header is 16 known bits."""
    kind = nal[0] >> 1 & 0x3F
    try:
        if kind == _PPS:
            return _pps_ends(nal)
        if kind == _SEI:
            return sei_ends(unescape(nal, len(nal))[2:])
        if kind == _SPS:
            describe(nal, 0, b"")
            return nal[1] == _LOWEST
        return nal[1] == _LOWEST and BitReader(nal[4:]).bits(16) == 0xFFFF  # vps_reserved_0xffff_16bits
    except ProtocolError:
        return False


def _pps_ends(nal: bytes) -> bool:
    """Whether a picture parameter set (§7.3.2.3.1) ends where its last field does; False for one with extensions of other layers, of 3D or
    of screen content, which are not read."""
    bits = BitReader(unescape(nal, SPS_BYTES)[2:])
    bits.ue(63)
    bits.ue(15)
    bits.skip(7)
    for _ in range(2):  # num_ref_idx_l0_default_active_minus1, and of l1
        bits.ue(14)
    bits.se()  # init_qp_minus26
    bits.skip(1)
    transform_skip = bits.flag()
    if bits.flag():  # cu_qp_delta_enabled_flag
        bits.ue(3)
    for _ in range(2):  # pps_cb_qp_offset, pps_cr_qp_offset
        bits.se()
    bits.skip(4)
    tiles = bits.flag()
    bits.skip(1)
    if tiles:
        columns, rows = bits.ue(19), bits.ue(21)  # minus 1; Table A.8
        if not bits.flag():  # uniform_spacing_flag
            for _ in range(columns + rows):
                bits.ue()
        bits.skip(1)
    bits.skip(1)
    if bits.flag():  # deblocking_filter_control_present_flag
        bits.skip(1)
        if not bits.flag():  # pps_deblocking_filter_disabled_flag
            bits.se()
            bits.se()
    if bits.flag():  # pps_scaling_list_data_present_flag
        skip_scaling_lists(bits)
    bits.skip(1)
    bits.ue(4)  # log2_parallel_merge_level_minus2
    bits.skip(1)
    if bits.flag():  # pps_extension_present_flag
        ranges, others = bits.flag(), bits.bits(7)
        if others:
            return False
        if ranges:
            _skip_range_extension(bits, transform_skip)
    return bits.at_end


def _skip_range_extension(bits: BitReader, transform_skip: bool) -> None:
    """§7.3.2.3.2."""
    if transform_skip:
        bits.ue(3)
    bits.skip(1)
    if bits.flag():  # chroma_qp_offset_list_enabled_flag
        bits.ue(3)
        for _ in range(2 * (bits.ue(5) + 1)):
            bits.se()
    bits.ue()
    bits.ue()


def _pps_sps(nal: bytes) -> int:
    bits = BitReader(unescape(nal, 16)[2:])
    bits.ue(63)
    return bits.ue(15)


def _slice_pps(nal: bytes) -> int:
    bits = BitReader(unescape(nal, 24)[2:])
    bits.skip(2)  # first_slice_segment_in_pic_flag, and of an IRAP picture no_output_of_prior_pics_flag
    return bits.ue(63)


def _recovers(_: bytes) -> bool:
    return False  # open GOPs begin with a CRA picture, which is an IRAP picture


SYNTAX = Syntax(
    roles=roles_by_first_byte(
        1,
        0x3F,
        {
            **dict.fromkeys(range(16), NalRole.PICTURE),
            **dict.fromkeys(range(16, 24), NalRole.KEY),  # intra random access points: BLA, IDR, CRA (§7.4.2.2)
            **dict.fromkeys((_VPS, _SPS, _PPS), NalRole.PARAMETER_SET),
            35: NalRole.DROPPED,  # access unit delimiter
            38: NalRole.DROPPED,  # filler data
            _SEI: NalRole.SEI,
        },
    ),
    header_bytes=2,
    first_slice_byte=2,  # first_slice_segment_in_pic_flag
    opening=first_bytes(1, 0x3F, (_VPS, _SPS, _PPS, 35, _SEI, *range(41, 45), *range(48, 56))),  # §7.4.2.4.4
    set_key=_set_key,
    sps_rank=1,
    slice_pps=_slice_pps,
    pps_sps=_pps_sps,
    is_whole=_is_whole,
    describe=describe,
    recovers=_recovers,
)
