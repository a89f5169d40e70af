"""How many files and sockets the process may have open, and what of them is kept for all that is not HTTP.

Kept true: who fills the HTTP port takes no descriptor from encoders, workers and the database.
"""

import resource
from typing import Final

_MOST: Final = 1 << 20  # where there is no limit at all
_PER_WORKER: Final = 4  # its socket, and what is open while it is made
_REST: Final = 256  # the database's connections, listening sockets, webhooks, segments being written, libraries


def raise_limit() -> int:
    """The soft limit on open files becomes the hard one. Returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def for_http(descriptors: int, *, encoders: int, workers: int) -> int:
    """What is left of so many for HTTP connections, beside those of `encoders` and of so many `workers`: at least a quarter."""
    return max(descriptors // 4, descriptors - encoders - _PER_WORKER * workers - _REST)
