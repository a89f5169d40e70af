"""The layers of one video: which sizes it is shown in, so that each viewer gets the one that fits its tile and its network. Sans-IO.

Keeps true: the largest layer comes first, none is larger than the source, each is half of the one above, so that scaling is done once for
each and in a chain; a source that is small has fewer layers, and always one.
"""

from dataclasses import dataclass

NAMES = ("f", "h", "q")
"""Full, half and quarter size: the names of layers, the top one first. The only layer of a video that is to have one is called ""."""
_LEAST_EDGE = 180  # a layer whose shorter edge is less is of no use beside the one above

_START_BITRATES: tuple[tuple[int, int], ...] = (  # (pixels up to, bit/s at up to 40 frames a second)
    (320 * 240, 350_000),
    (640 * 360, 800_000),
    (960 * 540, 1_400_000),
    (1280 * 720, 2_500_000),
    (1920 * 1080, 4_500_000),
    (2560 * 1440, 8_000_000),
)
_BITRATE_BEYOND = 14_000_000
_FAST_MOTION_FACTOR = 1.4  # above 40 frames a second: frames that differ less cost less than twice


@dataclass(frozen=True, slots=True)
class Rung:
    """One layer: its name and its size, even on both edges (4:2:0)."""

    layer: str
    width: int
    height: int


def ladder(width: int, height: int, layers: int) -> tuple[Rung, ...]:
    """Up to `layers` (1-3) rungs, the top one of the size given, which is even and not 0."""
    if layers <= 1:
        return (Rung("", width, height),)
    rungs = [Rung(NAMES[0], width, height)]
    for name in NAMES[1:layers]:
        width, height = _half(width), _half(height)
        if min(width, height) < _LEAST_EDGE:
            break
        rungs.append(Rung(name, width, height))
    return tuple(rungs)


def _half(edge: int) -> int:
    return max(2, edge // 4 * 2)


def fit(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """The largest size of the same shape within the limits, even on both edges (4:2:0), never larger than the source.

    The limits turn with the picture: a phone held upright sends 1080x1920 and keeps it within 1920x1080.
    """
    if (height > width) != (max_height > max_width):
        max_width, max_height = max_height, max_width
    scale = min(1.0, max_width / width, max_height / height) if width and height else 1.0
    return max(2, int(width * scale + 0.001) // 2 * 2), max(2, int(height * scale + 0.001) // 2 * 2)


def start_bitrate(width: int, height: int, frame_rate: float) -> int:
    """The bit/s at which a picture of this size starts; for an unknown size that of 720p."""
    pixels = width * height or 1280 * 720
    bitrate = next((rate for limit, rate in _START_BITRATES if pixels <= limit), _BITRATE_BEYOND)
    return round(bitrate * _FAST_MOTION_FACTOR) if frame_rate > 40 else bitrate
