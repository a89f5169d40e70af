"""The states of a seat, how it may go from one to the other, and what others are told of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class SeatState(StrEnum):
    AUTHORISING = "authorising"
    PROBING = "probing"
    JOINING = "joining"
    LIVE = "live"
    STALLED = "stalled"  # nothing comes of its encoder: it may go on at any moment
    SLATE = "slate"  # nothing has come for long, or its encoder has gone; its place in the call is kept
    CLOSED = "closed"


TRANSITIONS: dict[SeatState, frozenset[SeatState]] = {
    SeatState.AUTHORISING: frozenset({SeatState.PROBING, SeatState.CLOSED}),
    SeatState.PROBING: frozenset({SeatState.JOINING, SeatState.CLOSED}),
    SeatState.JOINING: frozenset({SeatState.LIVE, SeatState.PROBING, SeatState.SLATE, SeatState.CLOSED}),
    SeatState.LIVE: frozenset({SeatState.STALLED, SeatState.SLATE, SeatState.CLOSED}),
    SeatState.STALLED: frozenset({SeatState.LIVE, SeatState.SLATE, SeatState.CLOSED}),
    SeatState.SLATE: frozenset({SeatState.LIVE, SeatState.CLOSED}),
    SeatState.CLOSED: frozenset(),
}


class SeatChange(StrEnum):
    """What others may want to know of a seat, as it happens; its `why_ended` has the reason where there is one."""

    JOINED = "joined"  # a participant in its call
    STARTED = "started"  # the encoder's media are in the call
    FAILED = "failed"  # the encoder's stream ends because something is wrong with it
    LACKING = "lacking"  # something of the encoder's stream is left out, the last of the seat's `left_out`
    STOPPED = "stopped"  # the encoder's media are in the call no longer, for whatever reason
    TAKEN_OVER = "taken_over"  # another encoder comes in the encoder's place
    SWITCHED = "switched"  # another of its inputs is forwarded, about which its `switch` is
    STALLED = "stalled"  # nothing comes of the encoder; this and the next two are about the seat's `interruption`
    SLATE = "slate"  # nothing has come for long, or the encoder has gone
    RESUMED = "resumed"  # media are in the call again
    LEFT = "left"


INTERRUPTED = {SeatChange.STALLED: SeatState.STALLED, SeatChange.SLATE: SeatState.SLATE, SeatChange.RESUMED: SeatState.LIVE}
"""In which state a seat is after these."""


class InterruptionCause(StrEnum):
    """Why nothing came: a bounded label."""

    SILENT = "silent"  # the connection was there, and gave nothing
    CLOSED = "closed"  # it had gone
    RESTART = "restart"  # the gateway itself had
    BLACK = "black"  # it gave a black picture; this and the next three where a trigger asks for it
    FROZEN = "frozen"  # the same picture over and over
    NO_SOUND = "no_sound"  # silence
    LOW_BITRATE = "low_bitrate"


TRIGGERED: Final = frozenset(
    {InterruptionCause.BLACK, InterruptionCause.FROZEN, InterruptionCause.NO_SOUND, InterruptionCause.LOW_BITRATE}
)
"""Causes with which media come all the while."""


@dataclass(slots=True)
class Interruption:
    """A time in which nothing comes of a seat's encoder, or nothing that is worth showing, from the monotonic ns of its last media on."""

    cause: InterruptionCause
    since: int
    gap: int = 0  # ns, once it is over


STEPS = {  # as a trace calls what happens in a state
    SeatState.PROBING: "probe",
    SeatState.JOINING: "join",
    SeatState.LIVE: "live",
    SeatState.STALLED: "stall",
    SeatState.SLATE: "linger",
    SeatState.CLOSED: "end",
}
