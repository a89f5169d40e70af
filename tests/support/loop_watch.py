"""Finds what holds up the event loop: a callback, or a step of a task, that takes long or waits for something itself.

What counts is the CPU time of the loop's thread, so that a busy machine fails nothing; and of calls that wait (a sleep, a file, a lock) the
wall time in which the thread gave up the CPU of its own accord, which a busy machine only makes longer where there is such a call.
"""

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]

LONGEST_S = 0.25
"""Of CPU."""
OF_A_TEST_S = 1.0
"""Of CPU, of a test's own steps: some make their media there."""
WAITING_S = 0.5
WAITS = 1
"""Times that the thread gave up the CPU. More of them in one step are turns of threads at the interpreter's lock."""


def _whose(handle: Any) -> Any:
    """The task, of a step."""
    return getattr(handle._callback, "__self__", handle)


def _longest(handle: Any) -> float:
    code = getattr(getattr(_whose(handle), "get_coro", lambda: None)(), "cr_code", None)
    return OF_A_TEST_S if code is not None and Path(code.co_filename).is_relative_to(TESTS) else LONGEST_S


@contextmanager
def unblocked_loop() -> Iterator[None]:
    """Raises AssertionError at the end if a loop was held up meanwhile."""
    run = asyncio.Handle._run
    held_up: list[str] = []

    def timed(handle: Any) -> None:
        wall, cpu = time.monotonic(), time.thread_time()
        waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        run(handle)
        wall, cpu = time.monotonic() - wall, time.thread_time() - cpu
        if cpu > LONGEST_S and cpu > _longest(handle):
            held_up.append(f"{cpu:.2f} s of CPU: {_whose(handle)!r}")
        elif wall - cpu > WAITING_S and 0 < resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - waits <= WAITS:
            held_up.append(f"waited {wall:.2f} s: {_whose(handle)!r}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", timed)
        yield
    assert not held_up, held_up
