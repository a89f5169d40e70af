"""The threads of this process are scheduled as it was started, whatever a library makes of them.

SVT-AV1 gives its threads, and the one that opens it, real-time priority above all else where it may (as root). On a machine of few cores
they then starve everything: not only the gateway, but the kernel's own work, and nothing can be stopped any more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def own_scheduling() -> Iterator[None]:
    """Gives every thread that is there at the end the policy and priority that the caller had at the beginning. Nothing but on Linux."""
    if not hasattr(os, "sched_getscheduler") or not _THREADS.exists():
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in _THREADS.iterdir():
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setscheduler(int(thread.name), policy, priority)
