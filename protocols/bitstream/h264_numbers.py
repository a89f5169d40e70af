"""H.264: whether a picture follows another with none missing between them that decoding needs (ITU-T H.264 §7.4.3, frame_num). Sans-IO."""

from enum import Enum, auto

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.h264 import Sps, read_pps_ids, read_sets
from protocols.errors import ProtocolError

_SLICE_BYTES = 24  # its header up to frame_num takes less


class PictureNumbers:
    """The numbers of the pictures of one stream, with its parameter sets (Annex B), which are read once."""

    def __init__(self, parameter_sets: bytes) -> None:
        self.parameter_sets = parameter_sets
        self._sps, self._pps = read_sets(parameter_sets, read_pps_ids)

    def follow(self, before: bytes, after: bytes) -> bool:
        """Of the first slices of two pictures, NAL units both; `after` is of no IDR picture. A picture that is no reference may be missing:
        nothing depends on it. False where it cannot be told."""
        try:
            sps = self._sps[self._pps[_slice_header(after)[1]]]
            expected = _frame_num(before, sps) + (before[0] >> 5 & 3 != 0)  # nal_ref_idc: only a reference is counted
            return _frame_num(after, sps) == expected % (1 << sps.frame_num_bits)
        except (ProtocolError, KeyError):
            return False

    def fields_of_one(self, first: bytes, second: bytes) -> bool:
        """Of the first slices of two pictures: whether these are the fields of one frame (§7.4.1.2.4). False where it cannot be told."""
        try:
            sps = self._sps[self._pps[_slice_header(second)[1]]]
            if sps.frames_only:
                return False
            numbers = [_number_and_field(unit, sps) for unit in (first, second)]
        except (ProtocolError, KeyError):
            return False
        return numbers[0][0] == numbers[1][0] and {field for _, field in numbers} == {_Field.TOP, _Field.BOTTOM}


class _Field(Enum):
    TOP = auto()
    BOTTOM = auto()


def _number_and_field(unit: bytes, sps: Sps) -> tuple[int, _Field | None]:
    """frame_num, and which field it is; None: a frame."""
    bits = _slice_header(unit)[0]
    bits.skip(2 * sps.planes)
    number = bits.bits(sps.frame_num_bits)
    return number, (_Field.BOTTOM if bits.flag() else _Field.TOP) if bits.flag() else None


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
