"""Events: what happens in calls, told at once to whoever listens (viewers' sockets, webhooks, HLS).

An event has a type, its call, a number and a payload; as JSON: `{"id", "type", "cid", "seq", "created_at", "payload"}`.

Kept true: publishing costs microseconds, blocks nobody and raises nothing, so that media may do it; listeners get
every event in the order of publishing, in a later turn of the event loop, and what one of them raises goes to the log and to nobody else.
`seq` rises by one with each event of a call, and is higher after a restart than before it: who sorts by it has the order. `created_at`
is the gateway's wall clock. A payload is plain JSON data and holds no credential.
"""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any, Final

from gateway.model.records import Call
from protocols.bounded_map import BoundedMap

MAX_COUNTED_CALLS: Final = 10_000


class EventType(StrEnum):
    """Everything that can happen. The payload of each stands beside it; `user` is `{"id", "name", "role"}`."""

    CALL_CREATED = "call.created"  # call, user
    CALL_UPDATED = "call.updated"  # call
    CALL_DELETED = "call.deleted"
    CALL_LIVE_STARTED = "call.live_started"  # call
    CALL_LIVE_ENDED = "call.live_ended"  # call: it is in backstage again
    CALL_ENDED = "call.ended"  # call: for good
    MEMBER_ADDED = "call.member_added"  # members: [{"user_id", "role"}]
    MEMBER_UPDATED = "call.member_updated"  # members
    MEMBER_REMOVED = "call.member_removed"  # members: [{"user_id"}]
    PARTICIPANT_JOINED = "call.session_participant_joined"  # participant: {"user_id", "protocol"}
    PARTICIPANT_LEFT = "call.session_participant_left"  # participant, reason
    VIEWERS_CHANGED = "call.viewers_changed"  # viewers: a number, told at most once a second
    INGRESS_STARTED = "ingress.started"  # user_id, protocol, software, stream
    INGRESS_STOPPED = "ingress.stopped"  # user_id, protocol, stream, reason: in the streamer's words
    INGRESS_ERROR = "ingress.error"  # as before; what the streamer should change is in `reason`
    INGRESS_WARNING = "ingress.warning"  # the same of a stream that goes on: something of it is left out
    INGRESS_TAKEN_OVER = (
        "ingress.taken_over"  # user_id, protocol, software, stream: another encoder came in the encoder's place
    )
    INGRESS_SWITCHED = "ingress.switched"  # the same, from, to: ranks, cause: another of the stream's encoders is live
    INGRESS_STALLED = "ingress.stalled"  # user_id, cause: nothing comes of the encoder
    INGRESS_SLATE = "ingress.slate"  # user_id, cause: nothing has come for long, or it has gone
    INGRESS_RESUMED = "ingress.resumed"  # user_id, cause, gap_seconds: media come again
    USER_BLOCKED = "call.user_blocked"  # user_id
    USER_UNBLOCKED = "call.user_unblocked"  # user_id
    USER_KICKED = "call.user_kicked"  # user_id
    USER_MUTED = "call.user_muted"  # user_id, audio, video: whether of these
    REACTION_NEW = "call.reaction_new"  # reaction: {"type", "emoji_code", "custom"}, user
    # playlist_url: empty where not everybody may watch; who may reads their own in the call
    HLS_STARTED = "call.hls_broadcasting_started"
    HLS_STOPPED = "call.hls_broadcasting_stopped"
    CUSTOM = "custom"  # custom: anything, user


class EventAudience(IntEnum):
    """Who is told of an event in a call; each is told what those before it are, and more. Webhooks are told everything."""

    READERS = 0  # may read the call: whether it is live
    PRESENT = 1  # may be in it now: what it is, who is in it and what goes on, which backstage hides from others
    HOSTS = 2  # may publish into it: what their own encoders do


AUDIENCE: Final[Mapping[EventType, EventAudience]] = {
    **dict.fromkeys(EventType, EventAudience.PRESENT),
    EventType.CALL_DELETED: EventAudience.READERS,
    EventType.CALL_LIVE_STARTED: EventAudience.READERS,
    EventType.CALL_LIVE_ENDED: EventAudience.READERS,
    EventType.CALL_ENDED: EventAudience.READERS,
    EventType.HLS_STARTED: EventAudience.READERS,
    EventType.HLS_STOPPED: EventAudience.READERS,
    EventType.INGRESS_STARTED: EventAudience.HOSTS,
    EventType.INGRESS_STOPPED: EventAudience.HOSTS,
    EventType.INGRESS_ERROR: EventAudience.HOSTS,
    EventType.INGRESS_WARNING: EventAudience.HOSTS,
    EventType.INGRESS_TAKEN_OVER: EventAudience.HOSTS,
    EventType.INGRESS_SWITCHED: EventAudience.HOSTS,
}


_INSIDE: Final = frozenset({"created_by_id", "custom"})
"""Of a call as events tell it, what those who may not be in it are not told."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `text` is its JSON, made once for all that are told; `outside_text`, where there is one, is for those who
    may not be in the call: they are told its state and its times."""

    id: str
    type: EventType
    cid: str
    seq: int
    created_at: datetime
    payload: Mapping[str, Any]
    text: str
    elsewhere: bool = False  # another node or the command line did it: told here to who listens here, and to nobody beyond
    outside_text: str = ""

    def told(self, audience: EventAudience) -> str:
        """Its JSON, for this audience."""
        return self.outside_text or self.text if audience is EventAudience.READERS else self.text


def event_of(call: Call) -> dict[str, Any]:
    """A call as events tell it: the same for whoever is told."""
    times = ("created_at", "updated_at", "starts_at", "live_started_at", "live_ended_at", "ended_at")
    moments = {name: getattr(call, name) for name in times}
    return {
        "cid": call.cid,
        "type": call.type,
        "id": call.id,
        "created_by_id": call.created_by_id,
        "backstage": call.backstage,
        "live": call.live,
        "broadcasting": call.broadcasting,
        "custom": dict(call.custom),
        **{name: moment.isoformat() if moment is not None else None for name, moment in moments.items()},
    }


Listener = Callable[[Event], None]
"""Told of each event; it does not block. It runs in the event loop, never inside `publish`."""


class Bus:
    """Gives events their numbers and tells the listeners. For the event loop's thread alone."""

    def __init__(self, wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.published: Counter[EventType] = Counter()
        self._wall_clock = wall_clock
        self._listeners: list[Listener] = []
        self._seqs: BoundedMap[str, int] = BoundedMap(MAX_COUNTED_CALLS)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """`listener` is told every event that is published meanwhile."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def publish(self, kind: EventType, cid: str, payload: Mapping[str, Any] | None = None, *, elsewhere: bool = False) -> Event:
        """Tell it. What is no JSON in the payload is told as text."""
        now = self._wall_clock()
        event = _made(kind, cid, self._next(cid, now), now, payload or {}, elsewhere)
        self.published[kind] += 1
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.call_soon(listener, event)
        return event

    def _next(self, cid: str, now: datetime) -> int:
        # From the clock's milliseconds on: beyond every number before a restart, unless a call had 1000 events a second all its life.
        seq = self._seqs[cid] = self._seqs.get(cid, int(now.timestamp() * 1000)) + 1
        return seq


def _made(kind: EventType, cid: str, seq: int, now: datetime, payload: Mapping[str, Any], elsewhere: bool) -> Event:
    name = f"evt_{secrets.token_urlsafe(12)}"
    form = {
        "id": name,
        "type": kind.value,
        "cid": cid,
        "seq": seq,
        "created_at": now.isoformat(timespec="milliseconds"),
        "payload": dict(payload),
    }
    text, outside = json.dumps(form, separators=(",", ":"), default=str), ""
    if isinstance(call := payload.get("call"), Mapping) and AUDIENCE[kind] is EventAudience.READERS:
        state = {name: value for name, value in call.items() if name not in _INSIDE}
        outside = json.dumps(form | {"payload": {**payload, "call": state}}, separators=(",", ":"), default=str)
    return Event(name, kind, cid, seq, now, payload, text, elsewhere, outside)
