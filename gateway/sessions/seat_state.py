"""The states of a seat, how it may go from one to the other, and what others are told of it."""

from enum import StrEnum


class SeatState(StrEnum):
    AUTHORISING = "authorising"
    PROBING = "probing"
    JOINING = "joining"
    LIVE = "live"
    LINGERING = "lingering"
    CLOSED = "closed"


TRANSITIONS: dict[SeatState, frozenset[SeatState]] = {
    SeatState.AUTHORISING: frozenset({SeatState.PROBING, SeatState.CLOSED}),
    SeatState.PROBING: frozenset({SeatState.JOINING, SeatState.LIVE, SeatState.LINGERING, SeatState.CLOSED}),
    SeatState.JOINING: frozenset({SeatState.LIVE, SeatState.LINGERING, SeatState.CLOSED}),
    SeatState.LIVE: frozenset({SeatState.LINGERING, SeatState.CLOSED}),
    SeatState.LINGERING: frozenset({SeatState.PROBING, SeatState.CLOSED}),
    SeatState.CLOSED: frozenset(),
}


class SeatChange(StrEnum):
    """What others may want to know of a seat, as it happens; its `why_ended` has the reason where there is one."""

    JOINED = "joined"  # a participant in its call
    STARTED = "started"  # the encoder's media are in the call
    FAILED = "failed"  # the encoder's stream ends because something is wrong with it
    LACKING = "lacking"  # something of the encoder's stream is left out, the last of the seat's `left_out`
    STOPPED = "stopped"  # the encoder's media are in the call no longer, for whatever reason
    LEFT = "left"


STEPS = {  # as a trace calls what happens in a state
    SeatState.PROBING: "probe",
    SeatState.JOINING: "join",
    SeatState.LIVE: "live",
    SeatState.LINGERING: "linger",
    SeatState.CLOSED: "end",
}
