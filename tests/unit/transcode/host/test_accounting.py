"""What the kernel says of a process: its memory, and the CPU that it has had."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from transcode.host.accounting import held, used

PRINTS_AND_SLEEPS = "print(flush=True); import signal; signal.pause()"
IN_THREADS = """
import threading
for _ in range(5):
    thread = threading.Thread(target=lambda: sum(range(2_000_000)))
    thread.start()
    thread.join()
"""


@contextmanager
def asleep_after(code: str) -> Iterator[psutil.Process]:
    """A process that is through with it, and waits."""
    with subprocess.Popen([sys.executable, "-c", code + PRINTS_AND_SLEEPS], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = psutil.Process(child.pid)
        try:
            while process.status() != psutil.STATUS_SLEEPING:
                pass
            yield process
        finally:
            child.kill()


def test_the_cpu_of_a_process_is_that_of_all_its_threads_those_that_have_ended_too() -> None:
    with asleep_after(IN_THREADS) as process:
        spent, total = used(process.pid), process.cpu_times()
        assert spent == pytest.approx(total.user + total.system, abs=0.05)
        assert spent > 0.05
        assert used(process.pid) == spent, "it sleeps"


def test_who_is_not_there_holds_nothing_and_has_no_cpu() -> None:
    with asleep_after("") as gone:
        pass
    assert (held(gone.pid), used(gone.pid)) == (0, 0.0)
    assert held(os.getpid()) > 1 << 20
