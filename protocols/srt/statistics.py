"""What SRT counts: of a connection, with what its publisher is told to change about it, and of the listener. Sans-IO."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from protocols.metric import MetricFamily
from protocols.publisher import LinkReading, PublisherStats

MS: Final = 1_000_000
_ROUND_TRIPS_WANTED: Final = 3  # one for the loss to be noticed and repaired, two for a repair that is lost again

_COUNTERS: Final[Mapping[str, str]] = {
    "packets_received": "SRT data packets",
    "packets_lost": "Packets noticed missing, repaired or not",
    "packets_retransmitted": "Packets that were sent again",
    "packets_dropped": "Packets given up as too late",
    "packets_belated": "Packets that came after they were given up",
    "packets_undecryptable": "Packets that could not be decrypted",
    "nak_sent": "Requests to send again",
    "continuity_errors": "Jumps of a continuity counter of the transport stream",
    "sync_lost_bytes": "Bytes that are no transport stream",
    "broken_units": "Access units left out because a part was missing",
    "units_dropped": "Access units that the session took too slowly",
}


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """One reading of `srt_bistats`, receiving side: totals since the connection, then gauges."""

    packets: int
    bytes: int
    lost: int  # noticed missing; repaired or not
    retransmitted: int
    dropped: int  # given up: too late
    belated: int  # came after they were given up
    undecryptable: int
    nak_sent: int
    round_trip_ms: float
    latency_ms: int  # negotiated
    buffer_ms: int
    buffer_packets: int
    receive_mbps: float
    capacity_mbps: float  # an estimate, meaningless on short links


@dataclass(slots=True)
class SrtStats(PublisherStats):
    """Totals of one publisher over all its connections, and the last reading's gauges."""

    packets_retransmitted: int = 0
    packets_belated: int = 0
    packets_undecryptable: int = 0
    nak_sent: int = 0
    continuity_errors: int = 0  # of the transport stream
    sync_lost_bytes: int = 0
    broken_units: int = 0
    units_dropped: int = 0  # the session was too slow
    reconnects: int = 0
    latency_ms: int = 0
    buffer_ms: int = 0
    receive_mbps: float = 0.0
    capacity_mbps: float = 0.0
    absent: str = ""  # why there is no connection now; empty while there is one

    def add_link(self, now: LinkStatistics, before: LinkStatistics | None) -> None:
        """Take a reading; `before` is the last one of the same connection (totals restart with each connection)."""
        self.packets_received += now.packets - (before.packets if before else 0)
        self.packets_lost += now.lost - (before.lost if before else 0)
        self.packets_retransmitted += now.retransmitted - (before.retransmitted if before else 0)
        self.packets_dropped += now.dropped - (before.dropped if before else 0)
        self.packets_belated += now.belated - (before.belated if before else 0)
        self.packets_undecryptable += now.undecryptable - (before.undecryptable if before else 0)
        self.nak_sent += now.nak_sent - (before.nak_sent if before else 0)
        self.round_trip_ns = round(now.round_trip_ms * MS)
        self.latency_ms = now.latency_ms
        self.buffer_ms = now.buffer_ms
        self.receive_mbps = now.receive_mbps
        self.capacity_mbps = now.capacity_mbps

    def counters(self) -> Iterator[MetricFamily]:
        """Each total."""
        for name, meaning in _COUNTERS.items():
            yield MetricFamily(name, meaning, {(): getattr(self, name)})

    @property
    def network_latency_ns(self) -> int:
        """Half the round trip and the negotiated latency, for which libsrt holds every packet; 0 before the first reading."""
        return self.round_trip_ns // 2 + self.latency_ms * MS

    @property
    def link(self) -> LinkReading:
        return LinkReading(
            latency_ms=self.latency_ms,
            buffer_ms=self.buffer_ms,
            capacity_mbps=self.capacity_mbps,
            packets_received=self.packets_received,
            packets_lost=self.packets_lost,
            packets_retransmitted=self.packets_retransmitted,
            packets_dropped=self.packets_dropped,
            packets_belated=self.packets_belated,
            current=not self.absent and self.latency_ms > 0,
        )

    @property
    def advice(self) -> str:
        """Why nothing comes, else whether the latency is too short; empty when all is well."""
        if self.absent:
            return f"SRT source: {self.absent}. It is tried again."
        wanted = _ROUND_TRIPS_WANTED * self.round_trip_ns
        if not self.latency_ms or self.latency_ms * MS >= wanted:
            return ""
        return (
            f"SRT latency {self.latency_ms} ms is less than {_ROUND_TRIPS_WANTED} round trips ({self.round_trip_ns / MS:.0f} ms each): "
            f"lost packets cannot be repaired in time; set latency to {-(-wanted // MS)} ms or more in the encoder or for this stream"
        )


@dataclass(slots=True)
class SrtListenerStats:
    """Totals since the start."""

    accepted: int = 0
    auth_failed: int = 0  # handshakes given up after the callback: nearly always a wrong passphrase
    refused: Counter[str] = field(default_factory=Counter)  # by `Reason.label`
    latency_too_long: int = 0

    def failures(self) -> Mapping[str, int]:
        """Connections that ended in the handshake, for a reason that was not ours to tell."""
        return {"passphrase": self.auth_failed, "latency_too_long": self.latency_too_long}
