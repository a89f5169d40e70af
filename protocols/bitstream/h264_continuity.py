"""H.264: whether a picture follows another with none missing between them that decoding needs (ITU-T H.264 §7.4.3, frame_num). Sans-IO."""

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.h264 import Sps, read_sps
from protocols.bitstream.nal import split_annexb
from protocols.errors import ProtocolError

_SPS, _PPS = 7, 8
_SLICE_BYTES = 24  # its header up to frame_num takes less


def follows(before: bytes, after: bytes, parameter_sets: bytes) -> bool:
    """Of the first slices of two pictures, NAL units both, with the parameter sets of the stream (Annex B). `after` is of no IDR picture.

    A picture that is no reference may be missing: nothing depends on it. False where it cannot be read.
    """
    try:
        sps = _sps_of(after, parameter_sets)
        expected = _frame_num(before, sps) + (before[0] >> 5 & 3 != 0)  # nal_ref_idc: only a reference is counted
        return _frame_num(after, sps) == expected % (1 << sps.frame_num_bits)
    except ProtocolError:
        return False


def _sps_of(unit: bytes, parameter_sets: bytes) -> Sps:
    wanted = _slice_header(unit)[1]
    sets = split_annexb(parameter_sets)
    named = {}
    for pps in (each for each in sets if each[0] & 0x1F == _PPS):
        bits = BitReader(unescape(pps, 16)[1:])
        named[bits.ue(255)] = bits.ue(31)
    for sps in (read_sps(each) for each in sets if each[0] & 0x1F == _SPS):
        if sps.identity == named.get(wanted):
            return sps
    raise ProtocolError("a slice of a parameter set that is not known")


def _frame_num(unit: bytes, sps: Sps) -> int:
    bits = _slice_header(unit)[0]
    bits.skip(2 * sps.planes)  # colour_plane_id
    return bits.bits(sps.frame_num_bits)


def _slice_header(unit: bytes) -> tuple[BitReader, int]:
    """§7.3.3 up to the id of its picture parameter set, which is given beside what follows it."""
    bits = BitReader(unescape(unit, _SLICE_BYTES)[1:])
    bits.ue()  # first_mb_in_slice
    bits.ue(9)  # slice_type
    return bits, bits.ue(255)
