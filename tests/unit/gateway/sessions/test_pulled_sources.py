"""A configured source has a publisher for as long as the gateway runs."""

import asyncio

from gateway.sessions.pulled_sources import PulledSources
from protocols.back_off import BackOff
from tests.support.memory import MemoryPublisher
from tests.support.unheard import WayOut


class Pulled(MemoryPublisher):
    async def until_closed(self) -> None:
        await self.closed.wait()


async def test_each_source_has_one_publisher_and_the_next_when_that_is_closed() -> None:
    made: list[Pulled] = []
    closing = WayOut()

    def make() -> Pulled:
        made.append(Pulled())
        return made[-1]

    async with asyncio.timeout(10), PulledSources("srt", {"one": make, "two": make}, closing, BackOff(0.01, 1)) as sources:
        publishers = aiter(sources)
        first, second = await anext(publishers), await anext(publishers)
        assert [first, second] == made
        await second.aclose()
        third = await anext(publishers)
        assert third is made[2]
        assert len(made) == 3
        closing.begun = True
        await first.aclose()
    assert [publisher async for publisher in publishers] == []
    assert len(made) == 3
