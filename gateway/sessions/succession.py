"""Who publishes into a seat next: an encoder that takes over from the present one, or that comes back while the seat is kept for it."""

import asyncio

from protocols.errors import Rejected
from protocols.publisher import Publisher


class Succession:
    """Of one seat. At most one publisher waits for its turn."""

    def __init__(self) -> None:
        self._successor: Publisher | None = None
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> bool:
        """There is one."""
        return self._successor is not None

    async def come(self, publisher: Publisher, refusal: Rejected) -> None:
        """It is the next. Who waited before it gets `refusal`."""
        replaced, self._successor = self._successor, publisher
        self._wake.set()
        if replaced is not None:
            await replaced.reject(refusal)

    async def next(self, within_s: float) -> Publisher | None:
        """Who has its turn now; None where nobody comes within this time, or none is wanted any more."""
        if self._successor is None:
            try:
                async with asyncio.timeout(within_s):
                    await self._wake.wait()
            except TimeoutError:
                return None
        publisher, self._successor = self._successor, None
        self._wake.clear()
        return publisher

    def stop_waiting(self) -> None:
        """The seat ends."""
        self._wake.set()

    async def refuse(self, refusal: Rejected) -> None:
        """Whoever waits gets no turn."""
        if self._successor is not None:
            await self._successor.reject(refusal)
