"""Finds what holds up the event loop: a callback, or a step of a task, that takes long or waits for something itself.

What counts is the CPU time of the loop's thread, and the time for which it waited in a call (a sleep, a file, a lock). The time for which
it was ready and the machine did other work does not count: a busy machine fails nothing. Nor does the garbage collector: this process holds
what thousands of tests have left.
"""

import asyncio
import gc
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PRODUCT = tuple(Path(__file__).parents[2] / package for package in ("gateway", "protocols", "transcode"))
SCHEDULED = Path("/proc/thread-self/schedstat")
"""Of this thread: ns on a CPU, ns ready and waiting for one, and how often it was given one (Linux, proc_pid_schedstat)."""

LONGEST_S = 0.25
"""Of CPU."""
OF_A_TEST_S = 1.0
"""Of CPU, of a test's own steps and its fixtures': some make their media there."""
WAITING_S = 0.5
WAITS = 1
"""Times that the thread gave up the CPU. More of them in one step are turns of threads at the interpreter's lock."""


def _whose(handle: Any) -> Any:
    """The task, of a step."""
    return getattr(handle._callback, "__self__", handle)


def _longest(handle: Any) -> float:
    whose = _whose(handle)
    if isinstance(whose, asyncio.Task):
        file = Path(getattr(whose.get_coro(), "cr_code", _longest.__code__).co_filename)
        return LONGEST_S if any(file.is_relative_to(package) for package in PRODUCT) else OF_A_TEST_S
    return LONGEST_S


def _scheduled_ns() -> int:
    """On a CPU, or ready for one."""
    on_cpu, ready, _ = SCHEDULED.read_text().split()
    return int(on_cpu) + int(ready)


@contextmanager
def unblocked_loop() -> Iterator[None]:
    """Raises AssertionError at the end if a loop was held up meanwhile."""
    run = asyncio.Handle._run
    held_up: list[str] = []
    collecting = 0.0  # s of CPU, in all

    def collected(phase: str, _info: dict[str, int]) -> None:
        nonlocal collecting
        collecting += time.thread_time() if phase == "stop" else -time.thread_time()

    def timed(handle: Any) -> None:
        wall, cpu, scheduled = time.monotonic_ns(), time.thread_time() - collecting, _scheduled_ns()
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        run(handle)
        cpu = time.thread_time() - collecting - cpu
        waited = (time.monotonic_ns() - wall - (_scheduled_ns() - scheduled)) / 1e9
        if cpu > LONGEST_S and cpu > _longest(handle):
            held_up.append(f"{cpu:.2f} s of CPU: {_whose(handle)!r}")
        elif waited > WAITING_S and resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - switches <= WAITS:
            held_up.append(f"waited {waited:.2f} s: {_whose(handle)!r}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Handle, "_run", timed)
        gc.callbacks.append(collected)
        try:
            yield
        finally:
            gc.callbacks.remove(collected)
    assert not held_up, held_up
