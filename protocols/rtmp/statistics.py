"""What the RTMP listener counts. Sans-IO."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class RtmpListenerStats:
    """Totals since the start: connections accepted, and those that ended before they published, by reason."""

    connections: int = 0
    handshake_timeout: int = 0
    bad_handshake: int = 0
    protocol_error: int = 0
    too_many_connections: int = 0
    publish_timeout: int = 0
    auth_failed: int = 0

    def failures(self) -> dict[str, int]:
        """By reason, a bounded label."""
        return {reason: count for reason, count in asdict(self).items() if reason != "connections"}
