"""What a WHIP publisher may cost us, beside the bounds of the UDP port."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WhipLimits:
    """Bounds beside those of the UDP port's peers. Times in seconds."""

    decision_s: float = 10.0  # from an offer to the session's accept() or reject()
    idle_s: float = 20.0  # without a packet
    waiting: int = 256  # publishers that no session has taken yet
    queue_ms: int = 1000  # by arrival, between the tracks and the session; what is older is dropped
    queue_bytes: int = 16 << 20
