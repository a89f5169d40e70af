"""Tests of live media run side by side where the machine has room for it: one that is busy runs them one after the other."""

import fcntl
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FREE = 0.15
"""So much of all cores is at hand where another test may begin."""
_LOOKED_S = 0.5  # at least, to say how busy it is
_STAT = Path("/proc/stat")
_LOOK = "d8Q"  # when it was, and the ticks of all cores


class Room:
    """Shared by the processes of one run, by its name. One test at a time asks for room; none is asked of who is alone."""

    def __init__(self, run: str) -> None:
        folder = Path(tempfile.gettempdir())
        self._asking, self._running = (
            os.open(folder / f"tests-{run}-{name}", os.O_RDWR | os.O_CREAT) for name in ("ask", "run")
        )

    @contextmanager
    def taken(self, alone: bool) -> Iterator[None]:
        """Waits until there is room, and has it meanwhile; `alone`: all of it."""
        fcntl.flock(self._asking, fcntl.LOCK_EX)
        try:
            while not self._alone() and (alone or self._free() < FREE):
                time.sleep(_LOOKED_S)
            fcntl.flock(self._running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            self._look()
        finally:
            fcntl.flock(self._asking, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._running, fcntl.LOCK_UN)

    def _alone(self) -> bool:
        try:
            fcntl.flock(self._running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _free(self) -> float:
        """The share of all cores that nobody has used but who gives way, since the last test began or somebody last looked.
        proc_stat(5): user, nice, system, idle, waiting for disks."""
        before: list[int]
        seen, *before = struct.unpack(_LOOK, os.pread(self._asking, struct.calcsize(_LOOK), 0))
        time.sleep(max(0, seen + _LOOKED_S - time.monotonic()))
        spent: list[int] = [after - earlier for after, earlier in zip(self._look(), before, strict=True)]
        return (spent[1] + spent[3] + spent[4]) / max(1, sum(spent))

    def _look(self) -> list[int]:
        """For whoever asks next."""
        ticks = [int(field) for field in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        os.pwrite(self._asking, struct.pack(_LOOK, time.monotonic(), *ticks), 0)
        return ticks
