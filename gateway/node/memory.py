"""The memory of this process, which holds its secrets, is nobody else's to read."""

import ctypes
import sys

_PR_SET_DUMPABLE = 4


def conceal() -> None:
    """No other process of the same user reads memory or environment from now on, by ptrace(2) or /proc, and no core dump is written
    (prctl(2)). Nothing but on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0))
