"""Who is connected to the HTTP port: bounded in all and by address, with places kept for health checks. Sans-IO.

Kept true: there are at most `places + KEPT` connections. Where all places are taken, the connection that has waited longest without asking
anything makes room for the next, so that who only holds connections keeps nobody out; who is being answered is never cut off. Where all
are being answered, the next ones are told of health alone.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from protocols.addresses import Network, client_network, is_within
from protocols.metric import MetricFamily

KEPT: Final = 32  # beyond what is configured, for probes and scrapes
HEALTH: Final = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})  # what these ask for: the operator's own machines do
REASONS: Final = ("full", "address_full", "evicted", "no_header", "no_tls", "unread")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections at once, and waits in seconds."""

    places: int
    places_per_address: int  # an IPv6 client counts by its /64; trusted proxies, which bring many clients, are not counted
    header_s: float = 10.0  # from the accepted socket to the first request's header, TLS included
    idle_s: float = 30.0  # from an answer to the next request's header
    unread_s: float = 30.0  # in which a client takes some of what waits for it


class ClientConnection:
    """One connection in its place. `on_evicted` ends it at once."""

    __slots__ = ("address", "kept", "on_evicted")

    def __init__(self, address: str, kept: bool, on_evicted: Callable[[], None]) -> None:
        self.address = address
        """What it counts for; empty: for nobody."""
        self.kept = kept
        """It is beyond the places there are: only health is told."""
        self.on_evicted = on_evicted


class ClientConnections:
    """All that are there, and what became of the others."""

    def __init__(self, limits: ConnectionLimits, trusted: Sequence[Network] = ()) -> None:
        """`trusted` proxies' connections are not counted by address."""
        self.limits = limits
        self.accepted = 0
        self.ended: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        """Those that were not let in or that we have cut off, by the reason."""
        self.malformed = 0
        """Requests that were no HTTP."""
        self._trusted = trusted
        self._by_address: Counter[str] = Counter()
        self._idle: dict[ClientConnection, None] = {}  # the one that has waited longest first
        self._answering: set[ClientConnection] = set()

    @property
    def open(self) -> int:
        return len(self._idle) + len(self._answering)

    def counters(self) -> Iterable[MetricFamily]:
        yield MetricFamily("http_connections", "HTTP connections open", {(): self.open}, total=False)
        yield MetricFamily("http_connections_accepted", "HTTP connections that came", {(): self.accepted})
        ended: dict[tuple[str, ...], float] = {(reason,): n for reason, n in self.ended.items()}
        yield MetricFamily("http_connections_ended", "HTTP connections not let in or cut off", ended, ("reason",))
        yield MetricFamily("http_malformed", "Requests that were no HTTP", {(): self.malformed})

    def enter(self, host: str, on_evicted: Callable[[], None]) -> ClientConnection | None:
        """A place for a connection from this numeric address; None: there is none."""
        self.accepted += 1
        address = "" if is_within(host, self._trusted) else client_network(host)
        if address and self._by_address[address] >= self.limits.places_per_address:
            self.ended["address_full"] += 1
            return None
        if self.open >= self.limits.places and not self._evict() and self.open >= self.limits.places + KEPT:
            self.ended["full"] += 1
            return None
        connection = ClientConnection(address, self.open >= self.limits.places, on_evicted)
        self._idle[connection] = None
        if address:
            self._by_address[address] += 1
        return connection

    def began(self, connection: ClientConnection) -> None:
        """It asks something, as it does one after the other."""
        connection.kept = connection.kept and self.open > self.limits.places
        if connection in self._idle:
            del self._idle[connection]
            self._answering.add(connection)

    def answered(self, connection: ClientConnection) -> None:
        """The whole answer has been written."""
        if connection in self._answering:
            self._answering.remove(connection)
            self._idle[connection] = None

    def leave(self, connection: ClientConnection) -> None:
        """It is gone; may be said again."""
        if connection not in self._idle and connection not in self._answering:
            return
        self._idle.pop(connection, None)
        self._answering.discard(connection)
        if connection.address:
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def _evict(self) -> bool:
        """Whether somebody has made room."""
        oldest = next(iter(self._idle), None)
        if oldest is None:
            return False
        self.ended["evicted"] += 1
        self.leave(oldest)
        oldest.on_evicted()
        return True
