"""What the kernel says of a process: its memory, and how long it had to wait for a CPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from transcode.host.accounting import held, starved

SPINS = "while True: pass"
SLEEPS = "import signal; signal.pause()"
CPU = min(os.sched_getaffinity(0))


@contextmanager
def running(code: str, niceness: int = 0) -> Iterator[psutil.Process]:
    """A process of its own on a CPU that all of them share."""

    def prepare() -> None:
        os.sched_setaffinity(0, {CPU})
        os.nice(niceness)

    with subprocess.Popen([sys.executable, "-c", code], preexec_fn=prepare, stdout=subprocess.PIPE) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def worked(process: psutil.Process) -> float:
    return float(process.cpu_times().user)


def until(process: psutil.Process, seconds: float) -> None:
    """It has used so much of its CPU."""
    while worked(process) < seconds:
        process.status()


def test_who_gives_way_to_others_is_seen_to_wait_and_who_sleeps_is_not() -> None:
    with running(SLEEPS) as asleep, running(SPINS) as first, running(SPINS, niceness=5) as second:
        until(first, 1.0)
        assert starved(second.pid) > 0.5
        assert starved(asleep.pid) < starved(second.pid) / 2


def test_who_is_not_there_holds_nothing_and_waits_for_nothing() -> None:
    with running("pass") as gone:
        pass
    assert (held(gone.pid), starved(gone.pid)) == (0, 0.0)
    assert held(os.getpid()) > 1 << 20
