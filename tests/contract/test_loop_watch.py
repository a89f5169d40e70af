"""What holds up the loop is found; what waits as it should is not."""

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.support.loop_watch import LONGEST_S, WAITING_S, unblocked_loop


def works() -> None:
    began = time.thread_time()
    while time.thread_time() - began < LONGEST_S + 0.01:
        pass


def waits() -> None:
    time.sleep(WAITING_S + 0.01)


async def after(callback: Callable[[], None]) -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_soon(callback)
    loop.call_soon(done.set)
    await done.wait()


@pytest.mark.parametrize("callback", [works, waits])
def test_a_callback_that_holds_up_the_loop_is_found(callback: Callable[[], None]) -> None:
    with pytest.raises(AssertionError, match=callback.__name__), unblocked_loop():
        asyncio.run(after(callback))


def test_what_waits_in_the_loop_or_in_a_thread_holds_up_nothing() -> None:
    async def patient() -> None:
        await asyncio.sleep(WAITING_S + 0.01)
        await asyncio.to_thread(waits)

    with unblocked_loop():
        asyncio.run(patient())
