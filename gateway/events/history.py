"""What was written in each call lately, for who comes later: in memory alone, so many messages and bytes of a call, and so many calls.

Kept true: what was said in backstage is not told to those who come when the call is live, and a call that is deleted or has ended is
forgotten, so that one of the same name begins empty.
"""

from collections import deque
from typing import Final

from gateway.model.events import Event, EventType
from protocols.bounded_map import BoundedMap

MAX_MESSAGES: Final = 50  # of a call
MAX_BYTES: Final = 32 * 1024  # of them, as JSON
MAX_CALLS: Final = 1000  # those written in last

_ANEW: Final = frozenset({EventType.CALL_LIVE_STARTED, EventType.CALL_ENDED, EventType.CALL_DELETED})


class EventHistory:
    """`hear` is told of every event."""

    def __init__(self, *, max_calls: int = MAX_CALLS) -> None:
        """`max_calls`: so many calls are remembered."""
        self._calls: BoundedMap[str, deque[Event]] = BoundedMap(max_calls)

    def hear(self, event: Event) -> None:
        if event.type in _ANEW:
            self._calls.pop(event.cid, None)
        elif event.type is EventType.CUSTOM:
            messages = self._calls[event.cid] = self._calls.get(event.cid, deque(maxlen=MAX_MESSAGES))
            messages.append(event)
            while sum(len(each.text) for each in messages) > MAX_BYTES:
                messages.popleft()

    def of(self, cid: str) -> tuple[Event, ...]:
        """Oldest first."""
        return tuple(self._calls.get(cid, ()))
