"""How the live streams are spread: the lowest, the middle and the highest of each figure by protocol, whatever their number.

Only what is measured without a name: no stream can be told from another in it. Sans-IO.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from gateway.sessions.seat import Seat
from gateway.sessions.seat_state import SeatState
from gateway.sessions.track_pipeline import TrackPipeline
from protocols.media import Kind


def _lowest(values: list[float]) -> float:
    return min(values)


def _highest(values: list[float]) -> float:
    return max(values)


_LOWEST = ("lowest", _lowest)
_MIDDLE = ("median", median)
_HIGHEST = ("highest", _highest)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a live stream: `of` gives it, 0 where it is not known. `shown` are the statistics over all streams."""

    name: str
    meaning: str
    of: Callable[[Seat], float]
    shown: tuple[tuple[str, Callable[[list[float]], float]], ...]


def _video(seat: Seat, value: Callable[[TrackPipeline], float]) -> float:
    track_pipelines = seat.pipeline.track_pipelines.values() if seat.pipeline is not None else ()
    return max(
        (value(track_pipeline) for track_pipeline in track_pipelines if track_pipeline.track.kind is Kind.VIDEO), default=0.0
    )


FIGURES = (
    Figure(
        "frame_rate",
        "Frames per second of a stream's video: the lowest and the median of the live streams",
        lambda seat: _video(seat, lambda track_pipeline: track_pipeline.meter.frame_rate),
        (_LOWEST, _MIDDLE),
    ),
    Figure(
        "keyframe_interval_seconds",
        "Length of a group of pictures: the median and the longest of the live streams",
        lambda seat: _video(seat, lambda track_pipeline: track_pipeline.meter.keyframe_interval / 1e9),
        (_MIDDLE, _HIGHEST),
    ),
    Figure(
        "frame_jitter_seconds",
        "How unevenly whole frames of video come in (RFC 3550 6.4.1): the median and the worst of the live streams",
        lambda seat: _video(seat, lambda track_pipeline: track_pipeline.meter.jitter / 1e9),
        (_MIDDLE, _HIGHEST),
    ),
    Figure(
        "round_trip_seconds",
        "Round trip to the encoder: the median and the longest of the live streams",
        lambda seat: seat.publisher.stats.round_trip_ns / 1e9 if seat.publisher is not None else 0.0,
        (_MIDDLE, _HIGHEST),
    ),
)


def spread(figure: Figure, seats: Iterable[Seat]) -> Iterator[tuple[str, str, float]]:
    """Protocol, statistic and value, for each protocol with a live stream whose figure is known."""
    values: dict[str, list[float]] = {}
    for seat in seats:
        if seat.state is SeatState.LIVE and (value := figure.of(seat)):
            values.setdefault(seat.protocol, []).append(value)
    for protocol, known in values.items():
        for statistic, take in figure.shown:
            yield protocol, statistic, take(known)
