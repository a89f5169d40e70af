"""What the operator has decided of HLS, and what is counted of it."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from gateway.latency import Histogram


@dataclass(frozen=True, slots=True)
class HlsPolicy:
    """Times in ns."""

    segment: int
    window: int  # listed in a playlist
    memory: int  # bytes of one stream
    audio_bitrate: int
    auto: bool = False  # every call, from its first host on


@dataclass(slots=True)
class HlsTotals:
    """Plain totals since the start."""

    parts: int = 0
    segments: int = 0
    gaps: int = 0  # parts that could not be made
    discontinuities: int = 0
    refused: int = 0  # streams for which there was no worker
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # kind and result
    latency: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    """By protocol: from a part's first frame received to the part in its playlist."""
