"""The streams that the gateway fetches: each configured source as a publisher for as long as the gateway runs.

Kept true: a source's publisher reconnects by itself; where its seat ends all the same (refused, another encoder took over), the next
one follows after a wait that grows up to five minutes and begins anew once one has lived for a minute.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from time import monotonic
from typing import Final, Protocol, Self

from gateway.sessions.admission import Closing
from protocols.back_off import BackOff
from protocols.metric import MetricFamily
from protocols.publisher import BoundPort, Publisher, ReachedBy

BACK_OFF: Final = BackOff(1.0, 300.0)
STEADY_S: Final = 60.0


class PulledPublisher(Publisher, Protocol):
    """A publisher that calls its source itself, and goes on calling until it is closed."""

    async def until_closed(self) -> None: ...


class PulledSources:
    """`protocols.publisher.Listener` over `make`: the maker of each source's publisher by name. Once `closing` has begun none is made
    any more; those that are there go on."""

    ports: Sequence[BoundPort] = ()

    def __init__(
        self,
        protocol: str,
        make: Mapping[str, Callable[[], PulledPublisher]],
        closing: Closing,
        back_off: BackOff = BACK_OFF,
    ) -> None:
        self.protocol = protocol
        self._make = make
        self._closing = closing
        self._back_off = back_off
        self._new: asyncio.Queue[Publisher | None] = asyncio.Queue(len(make) + 1)
        self._exit = AsyncExitStack()
        self._keeping: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        group = await self._exit.enter_async_context(asyncio.TaskGroup())
        self._keeping = [group.create_task(self._keep(make), name=f"source {name}") for name, make in self._make.items()]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._keeping:
            task.cancel()
        await self._exit.aclose()
        self._new.put_nowait(None)

    def failures(self) -> Mapping[str, int]:
        """None: a source that cannot be reached has a publisher that says so."""
        return {}

    def refusals(self) -> Mapping[str, int]:
        return {}

    def counters(self) -> Iterable[MetricFamily]:
        return ()

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]:
        """None: nobody sends to what is fetched."""
        return {}

    async def __aiter__(self) -> AsyncIterator[Publisher]:
        while (publisher := await self._new.get()) is not None:
            yield publisher

    async def _keep(self, make: Callable[[], PulledPublisher]) -> None:
        failures = 0
        while not self._closing.begun:
            publisher = make()
            begun = monotonic()
            await self._new.put(publisher)
            await publisher.until_closed()
            failures = 1 if monotonic() - begun > STEADY_S else failures + 1
            await asyncio.sleep(self._back_off.wait_s(failures))
