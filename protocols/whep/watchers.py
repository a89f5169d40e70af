"""Who waits for news of one viewer: the event streams of its page (draft-ietf-wish-whep-03)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

_MOST = 4


class Watchers:
    """Of one viewer."""

    def __init__(self) -> None:
        self._events: set[asyncio.Event] = set()

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event | None]:
        """An event that `tell` sets; None when too many watch."""
        if len(self._events) >= _MOST:
            yield None
            return
        event = asyncio.Event()
        self._events.add(event)
        try:
            yield event
        finally:
            self._events.discard(event)

    def tell(self) -> None:
        """There is something new."""
        for event in self._events:
            event.set()
