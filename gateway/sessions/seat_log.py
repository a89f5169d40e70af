"""What the log says of a seat: one line for each thing that happens to it."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from gateway.sessions.seat_state import Interruption, SeatChange
from gateway.telemetry.log import event
from protocols.media import LeftOut, Track
from protocols.publisher import Publisher

log = logging.getLogger(__name__)


class Logged(Protocol):
    """What a line names of a seat."""

    id: str
    user_id: str
    call_cid: str
    protocol: str
    started_at: datetime
    reconnects: int
    why_ended: str


def log_live(seat: Logged, tracks: Sequence[Track]) -> None:
    tracks_by_codec = ",".join(track.codec.value for track in tracks)
    _event(logging.INFO, "live", seat, tracks=tracks_by_codec, reconnects=seat.reconnects or None)


def log_input(seat: Logged, publisher: Publisher, rank: int, line: str) -> None:
    """Of one that stands by."""
    who = {"publisher": publisher.id, "protocol": publisher.protocol, "remote": publisher.remote, "rank": rank}
    event(log, logging.INFO, line, session=seat.id, **who)


def log_switched(seat: Logged, before: int, after: int, cause: str) -> None:
    _event(logging.INFO, "another encoder of the stream is live", seat, cause=cause, rank_before=before, rank=after)


def log_held(seat: Logged) -> None:
    words = "encoders have taken the stream from each other too often: the one that is live stays for a while"
    _event(logging.WARNING, f"{words}. Look at their connections, or give each a key of its own", seat)


def log_left_out(seat: Logged, item: LeftOut) -> None:
    _event(logging.WARNING, "left out", seat, lack=item.lack.value, what=item.text)


def log_gone(seat: Logged) -> None:
    event(log, logging.INFO, "encoder gone, waiting for it", session=seat.id, why=seat.why_ended)


_INTERRUPTED = {
    SeatChange.STALLED: "nothing comes of the encoder",
    SeatChange.SLATE: "nothing comes of the encoder for long: viewers are shown that it is away",
    SeatChange.RESUMED: "media come again",
}


def log_interrupted(seat: Logged, interruption: Interruption, change: SeatChange) -> None:
    seconds = round(interruption.gap / 1e9, 2) if interruption.gap else None
    _event(logging.INFO, _INTERRUPTED[change], seat, cause=interruption.cause.value, seconds=seconds)


def log_ended(seat: Logged) -> None:
    seconds = round((datetime.now(UTC) - seat.started_at).total_seconds(), 1)
    event(log, logging.INFO, "ended", session=seat.id, why=seat.why_ended, seconds=seconds, reconnects=seat.reconnects or None)


def _event(level: int, line: str, seat: Logged, **more: object) -> None:
    event(log, level, line, session=seat.id, call=seat.call_cid, user=seat.user_id, protocol=seat.protocol, **more)
