"""Arithmetic coding as both H.264 and HEVC have it (ITU-T H.264 §9.3, H.265 §9.3.4.3), of a few bits: the encoder's side. Sans-IO."""

from protocols.bitstream.bits import BitWriter

_RANGES = (  # rangeTabLps (H.264 Table 9-44, H.265 Table 9-52)
    *((128, 176, 208, 240), (128, 167, 197, 227), (128, 158, 187, 216), (123, 150, 178, 205), (116, 142, 169, 195)),
    *((111, 135, 160, 185), (105, 128, 152, 175), (100, 122, 144, 166), (95, 116, 137, 158), (90, 110, 130, 150)),
    *((85, 104, 123, 142), (81, 99, 117, 135), (77, 94, 111, 128), (73, 89, 105, 122), (69, 85, 100, 116)),
    *((66, 80, 95, 110), (62, 76, 90, 104), (59, 72, 86, 99), (56, 69, 81, 94), (53, 65, 77, 89)),
    *((51, 62, 73, 85), (48, 59, 69, 80), (46, 56, 66, 76), (43, 53, 63, 72), (41, 50, 59, 69)),
    *((39, 48, 56, 65), (37, 45, 54, 62), (35, 43, 51, 59), (33, 41, 48, 56), (32, 39, 46, 53)),
    *((30, 37, 43, 50), (29, 35, 41, 48), (27, 33, 39, 45), (26, 31, 37, 43), (24, 30, 35, 41)),
    *((23, 28, 33, 39), (22, 27, 32, 37), (21, 26, 30, 35), (20, 24, 29, 33), (19, 23, 27, 31)),
    *((18, 22, 26, 30), (17, 21, 25, 28), (16, 20, 23, 27), (15, 19, 22, 25), (14, 18, 21, 24)),
    *((14, 17, 20, 23), (13, 16, 19, 22), (12, 15, 18, 21), (12, 14, 17, 20), (11, 14, 16, 19)),
    *((11, 13, 15, 18), (10, 12, 15, 17), (10, 12, 14, 16), (9, 11, 13, 15), (9, 11, 12, 14)),
    *((8, 10, 12, 14), (8, 9, 11, 13), (7, 9, 11, 12), (7, 9, 10, 12), (7, 8, 10, 11)),
    *((6, 8, 9, 11), (6, 7, 9, 10), (6, 7, 8, 9), (2, 2, 2, 2)),
)
_AFTER_LPS = (  # transIdxLps (Table 9-45, Table 9-53)
    *(0, 0, 1, 2, 2, 4, 4, 5, 6, 7, 8, 9, 9, 11, 11, 12, 13, 13, 15, 15, 16, 16, 18, 18, 19, 19, 21, 21, 22, 22, 23, 24),
    *(24, 25, 26, 26, 27, 27, 28, 29, 29, 30, 30, 30, 31, 32, 32, 33, 33, 33, 34, 34, 35, 35, 35, 36, 36, 36, 37, 37),
    *(37, 38, 38, 63),
)
_LAST_STATE = 62
_HALF, _QUARTER = 512, 256


class Context:
    """What is known of one kind of bit: its most probable value, and how probable that is."""

    __slots__ = ("likely", "state")

    def __init__(self, slope: int, offset: int, quantizer: int) -> None:
        """The initial state for m, n and SliceQpY (§9.3.1.1)."""
        value = max(1, min(126, (slope * quantizer >> 4) + offset))
        self.likely = value > 63
        self.state = value - 64 if value > 63 else 63 - value


class CabacEncoder:
    """Writes slice data from a byte border on."""

    def __init__(self) -> None:
        self._written = BitWriter()
        self._low, self._range = 0, 510
        self._outstanding = 0
        self._first = True

    def encode(self, context: Context, value: bool) -> None:
        least = _RANGES[context.state][self._range >> 6 & 3]
        self._range -= least
        if value == context.likely:
            context.state = min(context.state + 1, _LAST_STATE)
        else:
            self._low, self._range = self._low + self._range, least
            context.likely ^= context.state == 0
            context.state = _AFTER_LPS[context.state]
        self._renormalize()

    def end(self, last: bool) -> None:
        """end_of_slice_flag, end_of_slice_segment_flag."""
        self._range -= 2
        if last:
            self._low, self._range = self._low + self._range, 2
        self._renormalize()

    def finish(self) -> bytes:
        """All of it, after the last `end`, with rbsp_slice_segment_trailing_bits."""
        self._put(self._low >> 9 & 1)
        self._written.bits(self._low >> 7 & 3 | 1, 2)  # the last is rbsp_stop_one_bit
        return self._written.aligned()

    def _renormalize(self) -> None:
        while self._range < _QUARTER:
            if self._low < _QUARTER:
                self._put(0)
            elif self._low >= _HALF:
                self._low -= _HALF
                self._put(1)
            else:
                self._low -= _QUARTER
                self._outstanding += 1
            self._low, self._range = self._low << 1, self._range << 1

    def _put(self, bit: int) -> None:
        if not self._first:
            self._written.bits(bit, 1)
        self._first = False
        self._written.bits((1 << self._outstanding) - 1 if not bit else 0, self._outstanding)
        self._outstanding = 0
