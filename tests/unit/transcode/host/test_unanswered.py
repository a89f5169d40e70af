"""What a worker owes: it answers in order, never more than it was asked, and is found to hang only when it does."""

import asyncio
from dataclasses import dataclass

import pytest

from protocols.errors import ProtocolError
from transcode.host.unanswered import Unanswered

HANG = 0.05


@dataclass
class Counting:
    taken: int = 0

    def on_taken(self) -> None:
        self.taken += 1


def never() -> float:
    """It uses no CPU."""
    return 0.0


async def test_answers_go_to_who_asked_in_order() -> None:
    one, two = Counting(), Counting()
    owed: Unanswered[Counting] = Unanswered(60, lambda: False, never, lambda idle: None)
    for asker, dts in ((one, 10), (two, 20), (one, 30)):
        owed.expect(asker, dts)
    owed.answered(0)
    assert owed.in_hand(0) == (one, 10)
    owed.answered(2)
    assert (one.taken, two.taken) == (1, 1)
    assert owed.in_hand(2) == (one, 30)
    with pytest.raises(ProtocolError):
        owed.answered(4)
    owed.answered(3)
    assert owed.in_hand(3) is None
    owed.stop()


async def test_who_answers_nothing_hangs_and_what_it_has_in_hand_is_known() -> None:
    found: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    owed: Unanswered[Counting] = Unanswered(HANG, lambda: False, never, found.set_result)
    asker = Counting()
    owed.expect(asker, 7)
    async with asyncio.timeout(10):
        assert await found >= HANG
    assert owed.in_hand(0) == (asker, 7)


async def test_who_works_with_little_cpu_does_not_hang_but_not_for_ever() -> None:
    found: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    owed: Unanswered[Counting] = Unanswered(HANG, lambda: False, lambda: loop.time() / 1000, found.set_result)
    owed.expect(Counting(), 7)
    async with asyncio.timeout(10):
        assert await found >= 4 * HANG


async def test_who_turns_in_circles_hangs() -> None:
    found: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    owed: Unanswered[Counting] = Unanswered(HANG, lambda: False, lambda: looks.pop() * HANG, found.set_result)
    looks = [1000, 3, 2, 1, 0.5, 0]  # by the second half of the time it has used more than all of it
    owed.expect(Counting(), 7)
    async with asyncio.timeout(10):
        await found
    assert looks == [1000, 3, 2]


async def test_what_has_come_while_the_gateway_stood_still_is_heard_first() -> None:
    heard = asyncio.Event()
    hung: list[float] = []

    def read() -> bool:
        owed.answered(1)
        heard.set()
        return True

    owed: Unanswered[Counting] = Unanswered(HANG, read, never, hung.append)
    owed.expect(Counting(), 7)
    async with asyncio.timeout(10):
        await heard.wait()
    assert hung == []
    assert owed.in_hand(1) is None


async def test_what_a_worker_had_in_hand_is_known_though_it_had_not_answered_what_came_before() -> None:
    one, two = Counting(), Counting()
    owed: Unanswered[Counting] = Unanswered(60, lambda: False, never, lambda idle: None)
    for asker, dts in ((one, 10), (two, 20), (one, 30)):
        owed.expect(asker, dts)
    owed.answered(1)
    assert owed.in_hand(2) == (one, 30)
    assert owed.in_hand(3) is None, "it ended between two packets"
    assert owed.in_hand(0) is None, "what it says of itself cannot be"
    owed.stop()


async def test_nothing_hangs_after_the_end() -> None:
    ended = asyncio.Event()
    hung: list[float] = []

    def read() -> bool:
        owed.stop()  # the socket was found to be closed
        ended.set()
        return False

    owed: Unanswered[Counting] = Unanswered(HANG, read, never, hung.append)
    owed.expect(Counting(), 7)
    async with asyncio.timeout(10):
        await ended.wait()
    assert hung == []
