"""A crowd behind one address connects one after the other, and who takes too long does not hold up the others for good."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from protocols.errors import Reason, Rejected
from protocols.webrtc.transport.places import Place, Places, Standing
from protocols.webrtc.transport.turns import Turns

NAT = "203.0.113.1"
AT_ONCE, MOST = 4, 20


class Crowd:
    """Strangers of one address, and what became of them."""

    def __init__(self, wait_s: float = 10) -> None:
        self.places = Places(100, MOST, AT_ONCE)
        self.turns = Turns(self.places, wait_s)
        self.connecting: asyncio.Queue[tuple[int, Place]] = asyncio.Queue()

    async def come(self, number: int) -> None:
        async with self.turns.turn(Standing.ANONYMOUS, NAT) as place:
            place.used = True
            self.connecting.put_nowait((number, place))

    @asynccontextmanager
    async def came(self, number: int) -> AsyncIterator[list[asyncio.Task[None]]]:
        """So many, each of whom has its place or waits for it."""
        tasks = [asyncio.create_task(self.come(each)) for each in range(number)]
        await asyncio.wait(tasks[:AT_ONCE])
        yield tasks
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def within(waiting: Awaitable[None]) -> None:
    async with asyncio.timeout(10):
        await waiting


async def test_a_crowd_gets_in_one_after_the_other_in_the_order_they_came() -> None:
    crowd = Crowd()
    async with crowd.came(MOST) as tasks:
        assert crowd.connecting.qsize() == AT_ONCE
        for expected in range(MOST):
            number, place = await crowd.connecting.get()
            assert number == expected
            assert sum(not task.done() for task in tasks) == max(0, MOST - AT_ONCE - expected), (
                "no more than may be unconnected"
            )
            crowd.turns.connect(place)
            if expected + AT_ONCE < MOST:
                await within(tasks[expected + AT_ONCE])


async def test_a_place_that_is_given_back_is_the_next_ones() -> None:
    crowd = Crowd()
    async with crowd.came(AT_ONCE + 1) as tasks:
        _, place = await crowd.connecting.get()
        crowd.turns.give_back(place)
        await within(tasks[-1])


async def test_an_offer_that_is_refused_leaves_its_place_to_the_next() -> None:
    crowd = Crowd()
    for _ in range(2 * AT_ONCE):
        with pytest.raises(ValueError, match="no offer"):
            async with crowd.turns.turn(Standing.ANONYMOUS, NAT):
                raise ValueError("no offer")
    async with crowd.came(AT_ONCE):
        pass


async def test_whose_turn_does_not_come_is_told_to_try_again_and_others_are_not_held_up() -> None:
    crowd = Crowd(wait_s=0.05)
    async with crowd.came(AT_ONCE + 2) as tasks:
        for late in tasks[AT_ONCE:]:
            with pytest.raises(Rejected, match="not connected yet") as refused:
                await late
            assert (refused.value.reason, refused.value.wait_s) == (Reason.TOO_MANY_REQUESTS, 1)
        async with crowd.turns.turn(Standing.ANONYMOUS, "203.0.113.2"):
            pass
        async with crowd.turns.turn(Standing.KNOWN, NAT, "ann"):
            pass


async def test_who_goes_while_waiting_is_passed_over() -> None:
    crowd = Crowd()
    async with crowd.came(AT_ONCE + 2) as tasks:
        tasks[AT_ONCE].cancel()
        _, place = await crowd.connecting.get()
        crowd.turns.connect(place)
        await within(tasks[-1])
