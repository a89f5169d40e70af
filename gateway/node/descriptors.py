"""How many files and sockets the process may have open, and what of them is kept for all that is not HTTP.

Kept true: who fills the HTTP port takes no descriptor from encoders, workers and the database.
"""

import resource
from typing import Final

from gateway.config import Config

_MOST: Final = 1 << 20  # where there is no limit at all
_PER_WORKER: Final = 4  # its socket, and what is open while it is made
_PER_SOURCE: Final = 4  # of SRT: libsrt's own
_REST: Final = 256  # the database's connections, listening sockets, webhooks, segments being written, libraries


def raise_limit() -> int:
    """The soft limit on open files becomes the hard one. Returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def for_http(config: Config, descriptors: int) -> int:
    """What is left of so many for HTTP connections: at least a quarter."""
    rtmp = config.rtmp.max_connections if config.rtmp.enabled else 0
    srt = _PER_SOURCE * (len(config.srt.sources) + len(config.srt.ports) + 1)
    return max(descriptors // 4, descriptors - rtmp - srt - _PER_WORKER * config.transcode.workers_max - _REST)
