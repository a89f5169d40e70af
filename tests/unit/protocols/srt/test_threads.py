"""What other threads do for SRT: ring the event loop, once at a time, and ask it, for as long as was agreed."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from protocols.srt.threads import Doorbell, Ready, ask

STEP_S = 10.0


class Visitors:
    """A blocking call that gives what the test puts; None is a defect."""

    def __init__(self) -> None:
        self.waits = 0
        self.here: queue.SimpleQueue[Ready | None] = queue.SimpleQueue()

    def wait(self, timeout_ms: int) -> Ready:
        self.waits += 1
        ready = self.here.get()
        if ready is None:
            raise OSError
        return ready


async def until(changed: asyncio.Event, true: Callable[[], bool]) -> None:
    async with asyncio.timeout(STEP_S):
        while not true():
            await changed.wait()
            changed.clear()


async def test_there_is_one_ring_until_it_is_answered() -> None:
    visitors, rings, changed, ended = Visitors(), list[Ready](), asyncio.Event(), asyncio.Event()

    def rung(ready: Ready) -> None:
        rings.append(ready)
        changed.set()

    bell = Doorbell(visitors.wait, 0.0, rung, ended.set)
    bell.start()
    for socket in range(3):
        visitors.here.put([(socket, 1)])
    for n in range(3):
        assert (len(rings), visitors.waits) == (n, n), "it does not wait before the last ring is answered"
        bell.answer()
        await until(changed, lambda n=n: len(rings) == n + 1)  # type: ignore[misc]
    assert rings == [[(0, 1)], [(1, 1)], [(2, 1)]]
    bell.stop()
    async with asyncio.timeout(STEP_S):
        await ended.wait()


async def test_the_end_of_its_thread_is_told() -> None:
    visitors, ended = Visitors(), asyncio.Event()
    bell = Doorbell(visitors.wait, 0.0, lambda ready: None, ended.set)
    raised = asyncio.Queue[type[BaseException]]()
    loop, usual = asyncio.get_running_loop(), threading.excepthook
    threading.excepthook = lambda what: loop.call_soon_threadsafe(raised.put_nowait, what.exc_type) and None
    try:
        bell.start()
        bell.answer()
        visitors.here.put(None)
        async with asyncio.timeout(STEP_S):
            await ended.wait()
            assert await raised.get() is OSError
    finally:
        threading.excepthook = usual


@pytest.fixture
def elsewhere() -> ThreadPoolExecutor:
    """Another thread."""
    return ThreadPoolExecutor(1)


async def test_a_question_is_answered_on_the_loop(elsewhere: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()

    async def question() -> str:
        return threading.current_thread().name

    assert await loop.run_in_executor(elsewhere, lambda: ask(loop, question(), STEP_S)) == threading.current_thread().name


async def test_what_a_question_raises_is_raised(elsewhere: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()

    async def question() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(elsewhere, lambda: ask(loop, question(), STEP_S))


async def test_a_question_that_takes_too_long_is_cancelled(elsewhere: ThreadPoolExecutor) -> None:
    loop, cancelled = asyncio.get_running_loop(), asyncio.Event()

    async def question() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "too late"

    given = await loop.run_in_executor(elsewhere, partial(ask, loop, question(), 0.01))
    assert given is None
    async with asyncio.timeout(STEP_S):
        await cancelled.wait()


async def test_a_loop_that_is_too_busy_does_not_keep_who_asks(elsewhere: ThreadPoolExecutor) -> None:
    loop, answered = asyncio.get_running_loop(), list[int]()

    async def question() -> int:
        answered.append(1)
        return 1

    asked = elsewhere.submit(lambda: ask(loop, question(), 0.01))
    assert asked.result(STEP_S) is None  # the loop is in here all the while
    assert answered == []


def test_a_closed_loop_answers_nothing(recwarn: pytest.WarningsRecorder) -> None:
    loop = asyncio.new_event_loop()
    loop.close()

    async def question() -> int:
        return 1

    assert ask(loop, question(), 0.01) is None
    assert not recwarn.list
