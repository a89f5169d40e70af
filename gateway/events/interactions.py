"""What people in a call send each other: reactions and custom messages, over REST or the WebSocket alike.

Kept true: a sender may send `SENDER_RATE` a second (anonymous viewers of one address share theirs), a call carries `CALL_RATE` a second,
with short bursts on top, so that no one floods a call and no crowd the gateway. What is sent is told by the bus as it came and is never
looked into: its form and size are checked by `gateway.api.schemas`, and whether the sender may by `gateway.model.permissions`, both before.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, Final

from gateway.model.events import Bus, Event, EventType
from protocols.addresses import client_network
from protocols.errors import Reason, Rejected
from protocols.rate_limit import RateLimit

SENDER_RATE: Final = 5.0  # a second
SENDER_BURST: Final = 10.0
CALL_RATE: Final = 100.0
CALL_BURST: Final = 200.0


@dataclass(frozen=True, slots=True)
class InteractionSender:
    """Who sends. `address` tells anonymous ones (empty `id`) apart, and is told to nobody."""

    id: str
    name: str
    role: str
    address: str = ""

    def as_json(self) -> dict[str, str]:
        return {"id": self.id, "name": self.name, "role": self.role}


class Interactions:
    """Tells them by the bus. `now` gives monotonic ns."""

    def __init__(self, bus: Bus, now: Callable[[], int] = monotonic_ns) -> None:
        self.refused: Counter[str] = Counter()  # by whose rate was used up: sender, call
        self._bus = bus
        self._now = now
        self._senders = RateLimit(SENDER_RATE, SENDER_BURST)
        self._calls = RateLimit(CALL_RATE, CALL_BURST)

    def react(self, cid: str, sender: InteractionSender, kind: str, emoji_code: str | None, custom: Mapping[str, Any]) -> Event:
        """`kind` is a word of the application (`like`). Raises `Rejected` (TOO_MANY_REQUESTS) for one too many."""
        self._admit(cid, sender)
        reaction = {"type": kind, "emoji_code": emoji_code, "custom": custom}
        return self._publish(EventType.REACTION_NEW, cid, sender, reaction=reaction)

    def send(self, cid: str, sender: InteractionSender, custom: Mapping[str, Any]) -> Event:
        """Raises `Rejected` (TOO_MANY_REQUESTS) for one too many."""
        self._admit(cid, sender)
        return self._publish(EventType.CUSTOM, cid, sender, custom=custom)

    def _publish(self, kind: EventType, cid: str, sender: InteractionSender, **payload: Any) -> Event:
        return self._bus.publish(kind, cid, {**payload, "user": sender.as_json()})

    def _admit(self, cid: str, sender: InteractionSender) -> None:
        now = self._now()
        if not self._senders.take(sender.id or f"address {client_network(sender.address)}", now):
            self.refused["sender"] += 1
            raise Rejected(Reason.TOO_MANY_REQUESTS, f"you may send {SENDER_RATE:.0f} a second: wait a moment")
        if not self._calls.take(cid, now):
            self.refused["call"] += 1
            raise Rejected(Reason.TOO_MANY_REQUESTS, "too many are writing in this call: wait a moment")
