"""What seats and viewers do, told as events: encoders come, go and are refused, participants join and leave, viewers are counted.

Kept true: nothing here waits or raises, because media calls it; viewers, who come and go by hundreds, are told as a number, at most once in
`viewers_s` for each call; a refusal is told only where the credential was a good one: strangers announce nothing in other people's calls.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final

from gateway.model.events import Bus, EventType, event_of
from gateway.model.kept import KeptSeat
from gateway.model.records import Call
from gateway.sessions.seat import Seat
from gateway.sessions.seat_state import INTERRUPTED, InterruptionCause, SeatChange
from protocols.errors import Rejected
from protocols.media import Kind
from protocols.publisher import Applicant, Credential

VIEWERS_S: Final = 1.0  # between two numbers of a call's viewers

_TYPES: Final[dict[SeatChange, EventType]] = {
    SeatChange.JOINED: EventType.PARTICIPANT_JOINED,
    SeatChange.LEFT: EventType.PARTICIPANT_LEFT,
    SeatChange.STARTED: EventType.INGRESS_STARTED,
    SeatChange.STOPPED: EventType.INGRESS_STOPPED,
    SeatChange.FAILED: EventType.INGRESS_ERROR,
    SeatChange.LACKING: EventType.INGRESS_WARNING,
    SeatChange.TAKEN_OVER: EventType.INGRESS_TAKEN_OVER,
    SeatChange.SWITCHED: EventType.INGRESS_SWITCHED,
    SeatChange.STALLED: EventType.INGRESS_STALLED,
    SeatChange.SLATE: EventType.INGRESS_SLATE,
    SeatChange.RESUMED: EventType.INGRESS_RESUMED,
}
_WITH_REASON: Final = frozenset({SeatChange.LEFT, SeatChange.STOPPED, SeatChange.FAILED})

Whose = Callable[[Credential, str | None], tuple[str, str] | None]


class EventProducers:
    """Callbacks for seats, admission and viewers.

    `whose` gives the user and the call of a good credential, whatever is allowed there now. `viewers_s`: seconds in which viewers are
    counted before their number is told.
    """

    def __init__(self, bus: Bus, whose: Whose, *, viewers_s: float = VIEWERS_S) -> None:
        self._bus = bus
        self._whose = whose
        self._viewers_s = viewers_s
        self._counting: dict[str, Callable[[], int]] = {}  # calls whose number of viewers is about to be told

    def seat_changed(self, seat: Seat, change: SeatChange) -> None:
        """`gateway.sessions.seat.SeatPolicy.on_change`."""
        reason = {"reason": seat.why_ended} if change in _WITH_REASON else {}
        if change is SeatChange.LACKING:
            reason = {"reason": seat.left_out[-1].text}
        if change in (SeatChange.JOINED, SeatChange.LEFT):
            payload: dict[str, Any] = {"participant": {"user_id": seat.user_id, "protocol": seat.protocol}}
        elif change in INTERRUPTED and (interruption := seat.interruption) is not None:
            # told to viewers, too: nothing of the equipment
            payload = {"user_id": seat.user_id, "cause": interruption.cause.value}
            if change is SeatChange.RESUMED:
                payload["gap_seconds"] = round(interruption.gap / 1e9, 3)
        else:
            software = seat.publisher.software if seat.publisher is not None else ""
            payload = {"user_id": seat.user_id, "protocol": seat.protocol, "software": software, "stream": seat.id}
        if change is SeatChange.SWITCHED and (switch := seat.switch) is not None:
            payload |= {"from": switch.before, "to": switch.after, "cause": switch.cause.value}
        self._bus.publish(_TYPES[change], seat.call_cid, payload | reason)

    def awaited(self, seat: KeptSeat) -> None:
        """The gateway is back, and its encoder not yet."""
        payload = {"user_id": seat.user_id, "cause": InterruptionCause.RESTART.value}
        self._bus.publish(EventType.INGRESS_SLATE, seat.call_cid, payload)

    def gave_up(self, seat: KeptSeat, why: str) -> None:
        """It has not come back in time."""
        participant = {"user_id": seat.user_id, "protocol": seat.protocol}
        self._bus.publish(EventType.PARTICIPANT_LEFT, seat.call_cid, {"participant": participant, "reason": why})

    def refused(self, applicant: Applicant, refusal: Rejected) -> None:
        """Who asked to publish was turned away."""
        whose = self._whose(applicant.credential, applicant.params.get("call"))
        if whose is None:
            return
        user_id, cid = whose
        who = {"user_id": user_id, "protocol": applicant.protocol, "software": applicant.software, "stream": applicant.id}
        self._bus.publish(EventType.INGRESS_ERROR, cid, who | {"reason": refusal.detail})

    def muted(self, cid: str, user_id: str, kinds: frozenset[Kind]) -> None:
        """Of this user, who is in the call here, nobody is given these kinds any more."""
        payload = {"user_id": user_id, "audio": Kind.AUDIO in kinds, "video": Kind.VIDEO in kinds}
        self._bus.publish(EventType.USER_MUTED, cid, payload)

    def viewers(self, cid: str, count: Callable[[], int]) -> None:
        """The call's viewers have become more or fewer; `count` gives how many there are, also later."""
        if cid not in self._counting:
            self._counting[cid] = count
            asyncio.get_running_loop().call_later(self._viewers_s, self._tell_viewers, cid)

    def _tell_viewers(self, cid: str) -> None:
        self._bus.publish(EventType.VIEWERS_CHANGED, cid, {"viewers": self._counting.pop(cid)()})


class CallEvents:
    """Callbacks for who writes calls, beside the API, which tells what it does by itself."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def written(self, before: Call | None, after: Call | None) -> None:
        """This gateway has written a call of its own accord."""
        self._tell(before, after, elsewhere=False)

    def elsewhere(self, before: Call | None, after: Call | None) -> None:
        """Another process has written a call."""
        self._tell(before, after, elsewhere=True)

    def _tell(self, before: Call | None, after: Call | None, *, elsewhere: bool) -> None:
        call = after or before
        if call is not None:
            for kind in happened(before, after):
                self._bus.publish(kind, call.cid, {"call": event_of(call)}, elsewhere=elsewhere)


def happened(before: Call | None, after: Call | None) -> Iterator[EventType]:
    """What the difference of a call's record means."""
    if before is None or after is None:
        if before is not after:
            yield EventType.CALL_CREATED if before is None else EventType.CALL_DELETED
        return
    if before.ended_at is None and after.ended_at is not None:
        yield EventType.CALL_ENDED
    elif before.live != after.live:
        yield EventType.CALL_LIVE_STARTED if after.live else EventType.CALL_LIVE_ENDED
    elif before != after:
        yield EventType.CALL_UPDATED
