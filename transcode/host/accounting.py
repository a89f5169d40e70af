"""What the kernel says of a worker process, whatever the worker itself may say."""

import resource
from pathlib import Path

_PAGE = resource.getpagesize()


def held(pid: int) -> int:
    """Bytes of memory that are no file's, with those that it has from the fork server; 0 where there is no such process."""
    try:
        resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _PAGE


def starved(pid: int) -> float:
    """Seconds, since they began, that its threads were ready to run and had to wait for a CPU; 0 where the kernel does not count
    them (proc(5), schedstat)."""
    try:
        threads = [Path(thread, "schedstat").read_text(encoding="ascii") for thread in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int(thread.split()[1]) for thread in threads) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
