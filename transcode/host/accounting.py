"""What the kernel says of a worker process, whatever the worker itself may say."""

import resource
import time
from pathlib import Path

_PAGE = resource.getpagesize()
_SCHEDULED = 2  # clock_getcpuclockid(3): the clock of a process is made of this and its pid


def held(pid: int) -> int:
    """Bytes of memory that are no file's, with those that it has from the fork server; 0 where there is no such process."""
    try:
        resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _PAGE


def used(pid: int) -> float:
    """Seconds of CPU that all its threads have had since its start, with those that have ended; 0 where there is no such process."""
    try:
        return time.clock_gettime(~pid << 3 | _SCHEDULED)
    except OSError:
        return 0.0
