"""What was written in each call lately, for who comes later: in memory alone, so many messages and bytes of a call, and so many calls.

Kept true: what was said in backstage is not told to those who come when the call is live, and a call that is deleted or has ended is
forgotten, so that one of the same name begins empty.
"""

from collections import OrderedDict, deque
from typing import Final

from gateway.model.events import Event, EventType

MAX_MESSAGES: Final = 50  # of a call
MAX_BYTES: Final = 32 * 1024  # of them, as JSON
MAX_CALLS: Final = 1000  # those written in last

_ANEW: Final = frozenset({EventType.CALL_LIVE_STARTED, EventType.CALL_ENDED, EventType.CALL_DELETED})


class EventHistory:
    """`hear` is told of every event."""

    def __init__(self, *, max_calls: int = MAX_CALLS) -> None:
        """`max_calls`: so many calls are remembered."""
        self._max_calls = max_calls
        self._calls: OrderedDict[str, deque[Event]] = OrderedDict()

    def hear(self, event: Event) -> None:
        if event.type in _ANEW:
            self._calls.pop(event.cid, None)
        elif event.type is EventType.CUSTOM:
            messages = self._calls.setdefault(event.cid, deque(maxlen=MAX_MESSAGES))
            self._calls.move_to_end(event.cid)
            messages.append(event)
            while sum(len(each.text) for each in messages) > MAX_BYTES:
                messages.popleft()
            if len(self._calls) > self._max_calls:
                self._calls.popitem(last=False)

    def of(self, cid: str) -> tuple[Event, ...]:
        """Oldest first."""
        return tuple(self._calls.get(cid, ()))
