"""What is not well with a stream, in words for its streamer, each with the name under which it is counted.

The figures come from the seat's own objects; nothing here is secret, and the names are a bounded set: they are a metric's label.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.sessions.input import Input
from gateway.sessions.pacer import LATE, OVERFLOW
from gateway.sessions.seat import Seat
from gateway.sessions.seat_state import InterruptionCause, SeatState
from protocols.media import Lack

NOTED = 3  # frames dropped: fewer are seen by nobody, and need no advice


class Concern(StrEnum):
    """What a finding is about."""

    ENCODER_GONE = "encoder_gone"
    NOT_SHOWN = "not_shown"
    LINK = "link"
    TWO_ENCODERS = "two_encoders"
    STANDBY_DOWN = "standby_down"
    KEYFRAME_INTERVAL = "keyframe_interval"
    STALLED = "stalled"
    LATE = "late"
    TOO_FAST = "too_fast"
    EFFORT_LOWERED = "effort_lowered"
    TRANSCODE_DROPPED = "transcode_dropped"
    CODEC_NOT_TAKEN = "codec_not_taken"
    TRACK_LEFT_OUT = "track_left_out"
    NO_HEADER = "no_header"
    UNREADABLE = "unreadable"
    CLOCK = "clock"
    APART = "apart"


_NOT_SHOWN: Final = {
    InterruptionCause.SILENT: "nothing comes of it: look at the encoder and its upload, for which a lower bitrate may be needed",
    InterruptionCause.BLACK: "its picture is black: look at the camera and the scene "
    "(slate.black_s of the gateway, continuity.black_seconds of the call)",
    InterruptionCause.FROZEN: "its picture stands still: look at the camera and the capture "
    "(slate.frozen_s of the gateway, continuity.frozen_seconds of the call)",
    InterruptionCause.NO_SOUND: "nothing is heard of it: look at the microphone and the mixer "
    "(slate.silent_s of the gateway, continuity.silent_seconds of the call)",
    InterruptionCause.LOW_BITRATE: "too little comes of it: look at the upload and the encoder's bitrate "
    "(slate.low_bitrate_bps of the gateway, continuity.low_bitrate of the call)",
}
"""What to look at, and which setting it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` names what to change."""

    concern: Concern
    text: str


def findings(seat: Seat, now: int) -> Iterator[Finding]:
    """Everything that is not well with this stream; `now` in monotonic ns."""
    if seat.state is SeatState.SLATE and seat.pipeline is None:
        text = f"The encoder has gone ({seat.why_ended}); its place in the call is kept for it to come back."
        yield Finding(Concern.ENCODER_GONE, text)
    interruption = seat.interruption if seat.state is SeatState.SLATE and seat.pipeline is not None else None
    if interruption is not None and (why := _NOT_SHOWN.get(interruption.cause)):
        text = f"Viewers are shown a slate instead of this stream, since {why}; it is shown again as soon as that is over."
        yield Finding(Concern.NOT_SHOWN, text)
    if seat.publisher is not None and (advice := seat.publisher.stats.advice):
        yield Finding(Concern.LINK, advice)
    if advice := seat.rivals.advice(now):
        yield Finding(Concern.TWO_ENCODERS, advice)
    for input in seat.inputs.standing_by:
        if input.well_since(now) is None:
            text = f"Nothing comes of the encoder of rank {input.rank}, which could not stand in: see whether it sends."
            yield Finding(Concern.STANDBY_DOWN, text)
    yield from _left_out(seat)
    if seat.pipeline is None:
        return
    on_demand = seat.publisher is not None and seat.publisher.stats.keyframes_on_demand
    for track_pipeline in seat.pipeline.track_pipelines.values():
        meter = track_pipeline.meter
        if not on_demand and (advice := meter.keyframe_advice or meter.keyframe_wait_advice(now)):
            yield Finding(Concern.KEYFRAME_INTERVAL, advice)
        if advice := meter.stall_advice(now):
            yield Finding(Concern.STALLED, advice)
    totals = seat.pipeline.gather()
    if (n := totals.dropped[LATE]) >= NOTED:
        slow = any(each.lack is Lack.CLOCK for each in seat.left_out)
        why = "" if slow else ": the upload is unsteady, a lower bitrate may be needed"
        text = f"{n} frames came too late and were dropped{why}."
        yield Finding(Concern.LATE, text)
    if (n := totals.dropped[OVERFLOW]) >= NOTED:
        text = f"{n} frames came faster than real time and were dropped: let the encoder send at the speed of the media."
        yield Finding(Concern.TOO_FAST, text)
    if (effort := seat.pipeline.adaptation) is not None:
        text = f"This gateway's CPU does not keep up, so that the video is encoded with less effort: {effort.text}."
        yield Finding(Concern.EFFORT_LOWERED, text)
    if (n := totals.worker_dropped) >= NOTED:
        text = f"{n} frames were dropped because transcoding cannot keep up: send what passes through (see the advice for the track)."
        yield Finding(Concern.TRANSCODE_DROPPED, text)


def wrong_with(input: Input) -> Iterator[str]:
    """What is not well with one of a stream's encoders by itself, in words for its streamer."""
    if advice := input.publisher.stats.advice:
        yield advice
    yield from (each.text for each in input.left_out)


def _left_out(seat: Seat) -> Iterator[Finding]:
    shown = {each.track.kind for each in seat.pipeline.track_pipelines.values()} if seat.pipeline is not None else set()
    unreadable = seat.publisher.stats.packets_unreadable if seat.publisher is not None else 0
    for each in seat.left_out:
        if each.lack is Lack.NO_HEADER and each.kind in shown:
            continue  # it has come
        count = f" {unreadable} so far." if each.lack is Lack.UNREADABLE and unreadable > 1 else ""
        yield Finding(Concern(each.lack.value), each.text + count)
