"""What the sequence headers of the video codecs have in common, those of H.264 and HEVC above all."""

from protocols.bitstream.bits import BitReader
from protocols.errors import ProtocolError

CHROMA = ("4:0:0", "4:2:0", "4:2:2", "4:4:4")  # by chroma_format_idc
MAX_SIDE = 16384  # pixels; H.264 level 6.2 and HEVC level 6.2 end below 17,000


def frame_rate(ticks_per_second: int, ticks_per_frame: int) -> float:
    """Frames per second; 0.0 where the stream's numbers say nothing sensible."""
    rate = ticks_per_second / ticks_per_frame if ticks_per_frame else 0.0
    return round(rate, 3) if 0.1 <= rate <= 1000 else 0.0


def cropped(bits: BitReader, width: int, height: int, chroma: int, rows: int) -> tuple[int, int]:
    """The size after frame_cropping_flag or conformance_window_flag and its offsets, in units of chroma samples (Table 6-1 of both).

    `rows` is 2 for an H.264 picture that may be two fields.
    """
    if bits.flag():
        unit_x = 2 if chroma in (1, 2) else 1
        unit_y = (2 if chroma == 1 else 1) * rows
        width -= unit_x * (bits.ue(MAX_SIDE) + bits.ue(MAX_SIDE))
        height -= unit_y * (bits.ue(MAX_SIDE) + bits.ue(MAX_SIDE))
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ProtocolError(f"picture of {width} x {height}")
    return width, height


def skip_vui_colour(bits: BitReader) -> None:
    """The first fields of the VUI, which H.264 §E.1.1 and H.265 §E.2.1 have in common: aspect ratio to chroma location."""
    if bits.flag() and bits.bits(8) == 255:  # aspect_ratio_idc Extended_SAR
        bits.skip(32)
    if bits.flag():  # overscan_info_present_flag
        bits.skip(1)
    if bits.flag():  # video_signal_type_present_flag
        bits.skip(4)
        if bits.flag():  # colour_description_present_flag
            bits.skip(24)
    if bits.flag():  # chroma_loc_info_present_flag
        bits.ue(5)
        bits.ue(5)
