"""What the operator has decided of HLS, and what is counted of it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway.telemetry.latency import Histogram
from protocols.metric import MetricFamily


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
    refused: int = 0  # streams for which there was no room or no worker
    requests: Counter[tuple[str, ...]] = field(default_factory=Counter)  # kind and result
    latency: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    """By protocol: from a part's first frame received to the part in its playlist."""

    def families(self, archived: Mapping[str, int]) -> Iterator[MetricFamily]:
        """`archived` are segments by what became of them on the disk or in the bucket."""
        plain = {
            "parts": ("Parts of HLS segments in a playlist, lost ones included", self.parts),
            "segments": ("HLS segments completed", self.segments),
            "gaps": ("Parts that could not be made", self.gaps),
            "discontinuities": ("Discontinuities in playlists, each rendition's counted", self.discontinuities),
            "refused": ("Times that there was no room for a stream's HLS", self.refused),
        }
        for name, (meaning, value) in plain.items():
            yield MetricFamily(name, meaning, {(): value})
        meaning = "Requests for HLS, by what was asked for and its result"
        yield MetricFamily("requests", meaning, self.requests.copy(), ("kind", "result"))
        results: dict[tuple[str, ...], float] = {
            (result,): archived.get(result, 0) for result in ("stored", "failed", "dropped")
        }
        yield MetricFamily("archived", "Segments handed to disk or bucket, by what became of them", results, ("result",))
