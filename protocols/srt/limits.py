"""What SRT may cost us: every size, count and wait of its connections and of the listener."""

from dataclasses import dataclass
from typing import Final

DEFAULT_LATENCY_MS: Final = 120


@dataclass(frozen=True, slots=True)
class ReceiveLimits:
    """Bounds of one connection."""

    queue_ms: int = 2000  # by arrival, between the socket and the session; what is older is dropped
    queue_bytes: int = 16 << 20
    peer_idle_ms: int = 5000
    max_latency_ms: int = 8000


@dataclass(frozen=True, slots=True)
class SrtLimits(ReceiveLimits):
    """Bounds of the listener."""

    max_publishers: int = 200
    max_pending: int = 256  # being decided on; and again, between that and the accept
    pending_s: float = 10.0
    calls_per_second: float = 10.0  # from one address
    call_burst: int = 20
    backlog: int = 128
    answer_s: float = 0.25  # nothing is received on a port while a caller of it is decided on: as long as the loop is late, and
    look_up_s: float = 0.04  # for an answer that is not in memory
    look_up_share: float = 0.1  # of all time, at most, that callers may have a port wait for such answers
    repeated_s: float = 2.0  # after a refusal: repetitions of that handshake, on their way or waiting at the port
