"""H.264 (ITU-T H.264, 08/2021): the facts in a sequence parameter set, and where decoding can start."""

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.nal import SPS_BYTES, Role, Syntax, roles_by_first_byte
from protocols.bitstream.sps import CHROMA, MAX_SIDE, cropped, frame_rate, skip_vui_colour
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.wire import Reader

_SPS, _PPS = 7, 8
WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})  # §7.3.2.1.1
_INTRA_IF_SET3 = frozenset({44, 86, 100, 110, 122, 244})  # §E.2.1: no reordering when constraint_set3_flag is set
_SEI_RECOVERY_POINT = 6
_MAX_SEI_MESSAGES = 32
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


def describe(sps: bytes, track_id: int, extradata: bytes) -> Track:
    """The track that an SPS describes (§7.3.2.1.1). A VUI that breaks off is worth what could be read of it."""
    bits = BitReader(unescape(sps, SPS_BYTES)[1:])
    profile, constraints, level = bits.bits(8), bits.bits(8), bits.bits(8)
    bits.ue(31)  # seq_parameter_set_id
    chroma, depth = 1, 8
    if profile in WITH_CHROMA_FORMAT:
        chroma = bits.ue(3)
        if chroma == 3:
            bits.skip(1)  # separate_colour_plane_flag
        depth = 8 + max(bits.ue(6), bits.ue(6))
        bits.skip(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.flag():
            skip_scaling_matrix(bits, 12 if chroma == 3 else 8)
    bits.ue(12)  # log2_max_frame_num_minus4
    poc_type = _skip_picture_order_count(bits)
    bits.ue(16)  # max_num_ref_frames
    bits.skip(1)  # gaps_in_frame_num_value_allowed_flag
    width = 16 * (bits.ue(MAX_SIDE // 16) + 1)
    map_units = bits.ue(MAX_SIDE // 16) + 1
    frames_only = bits.flag()
    height = 16 * map_units * (1 if frames_only else 2)
    if not frames_only:
        bits.skip(1)  # mb_adaptive_frame_field_flag
    bits.skip(1)  # direct_8x8_inference_flag
    width, height = cropped(bits, width, height, chroma, 1 if frames_only else 2)
    rate, reorder = _read_vui(bits) if bits.flag() else (0.0, None)
    if profile == 66 or poc_type == 2 or (reorder is None and profile in _INTRA_IF_SET3 and constraints & 0x10):
        reorder = 0
    return Track(
        track_id,
        Codec.H264,
        extradata,
        width=width,
        height=height,
        frame_rate=rate,
        profile=next((name for idc, flags, name in _PROFILES if idc == profile and constraints & flags == flags), str(profile)),
        level=level,
        bit_depth=depth,
        chroma=CHROMA[chroma],
        interlaced=not frames_only,
        reorder=reorder,
    )


def skip_scaling_matrix(bits: BitReader, lists: int) -> None:
    for index in range(lists):  # §7.3.2.1.1.1
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) & 0xFF
            last = following or last


def _skip_picture_order_count(bits: BitReader) -> int:
    poc_type = bits.ue(2)
    if poc_type == 0:
        bits.ue(12)
    elif poc_type == 1:
        bits.skip(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue(255)):
            bits.se()
    return poc_type


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
        return rate, bits.ue(16)
    except ProtocolError:
        return rate, None


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


def _pps_sps(nal: bytes) -> int:
    bits = BitReader(unescape(nal, 16)[1:])
    bits.ue(255)
    return bits.ue(31)


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
    reader = Reader(unescape(sei, _SEI_BYTES)[1:])
    for _ in range(_MAX_SEI_MESSAGES):
        kind, size = _sei_number(reader), _sei_number(reader)
        if not size or size >= len(reader):  # a message of nothing, or that breaks off: only trailing bits are left
            return False
        if kind == _SEI_RECOVERY_POINT:
            return True
        reader.skip(size)
    return False


def _sei_number(reader: Reader) -> int:
    """A payload type or size (§7.3.2.3.1): 255 means that more follows; 0 at the end."""
    value = 0
    while len(reader):
        byte = reader.u8()
        value += byte
        if byte != 0xFF:
            break
    return value


SYNTAX = Syntax(
    roles=roles_by_first_byte(
        0,
        0x1F,
        {
            1: Role.PICTURE,
            2: Role.PICTURE,
            3: Role.PICTURE,
            4: Role.PICTURE,
            5: Role.KEY,
            6: Role.SEI,
            _SPS: Role.PARAMETER_SET,
            _PPS: Role.PARAMETER_SET,
            9: Role.DROPPED,  # access unit delimiter
            12: Role.DROPPED,  # filler data
        },
    ),
    header_bytes=1,
    set_key=_set_key,
    sps_rank=0,
    slice_pps=_slice_pps,
    pps_sps=_pps_sps,
    describe=describe,
    recovers=_recovers,
)
