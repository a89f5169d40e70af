"""One UDP socket for all WebRTC peers, as an ICE-lite agent (RFC 8445 §2.5), told apart by RFC 7983.

What is kept true: a connectivity check is believed by its password; DTLS and SRTP are taken only from an address that passed a check; any
other datagram costs a counter and nothing else. One wake-up reads a bounded number of datagrams. The socket has no queue of its own.
"""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_address
from types import MappingProxyType, ModuleType
from typing import Self

from protocols.bounded_map import BoundedMap
from protocols.webrtc.native import runs as native
from protocols.webrtc.sdp.description import Offer
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.dtls import Certificate
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.handshakes import Handshakes
from protocols.webrtc.transport.ice import Candidate, host_candidates
from protocols.webrtc.transport.peer import Address, Limits, MuxStats, Peer, Port
from protocols.webrtc.transport.places import Place, Places, Standing
from protocols.webrtc.transport.runs import Ancillary
from protocols.webrtc.transport.turns import Turns

_READS_PER_WAKE = 64
_SOCKET_BUFFER = 8 << 20  # bytes; the kernel gives what its own limit allows
_SMALLEST, _LARGEST = 12, 1500  # an RTP header; Ethernet's MTU, and libsrtp's buffer
_CLOSING = 2.0  # s
_MAX_SOURCES = 4096
_ANCILLARY_BYTES = 64  # one struct in6_pktinfo
_WILDCARDS = ("::", "0.0.0.0")
# Linux: ask for the local address of each datagram. Elsewhere several addresses of ours need `host` to name one.
_PACKET_INFO: Mapping[socket.AddressFamily, tuple[int, int]] | None = (
    MappingProxyType(
        {
            socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
            socket.AF_INET: (socket.IPPROTO_IP, 8),  # IP_PKTINFO, for which Python has no name
        }
    )
    if sys.platform == "linux"
    else None
)

_COUNTERS: Mapping[str, str] = MappingProxyType(
    {
        "received": "Datagrams read",
        "junk": "Datagrams of no size or shape that is known",
        "unknown_source": "DTLS and SRTP datagrams from an address that passed no connectivity check",
        "forged": "Connectivity checks for nobody, or with a wrong password",
        "dropped": "DTLS datagrams of a peer that sent too many at once",
        "over_budget": "Datagrams not looked at because what their peer sends takes too much time",
        "send_errors": "STUN and DTLS datagrams that could not be sent",
        "handshakes": "DTLS handshakes begun",
        "handshakes_failed": "DTLS handshakes that failed",
        "never_connected": "Peers that did not connect in time",
        "consent_lost": "Peers that fell silent",
    }
)

_log = logging.getLogger(__name__)


class UdpMux:
    """The port. Entering it binds, leaving it closes every peer with close_notify and then the socket.

    Args:
        host: address to bind; empty for every address of IPv6 and IPv4 alike.
        port: 0 for any.
        external_addresses: what the candidates name instead of our own addresses (behind NAT). IP addresses, `ValueError` otherwise.
    """

    def __init__(
        self, host: str = "", port: int = 0, external_addresses: Sequence[str] = (), limits: Limits | None = None
    ) -> None:
        self.stats = MuxStats()
        self.port = port
        self._host = host
        self._external = [str(ip_address(address)) for address in external_addresses]
        limits = self._limits = limits or Limits()
        self._certificate = Certificate.generate()
        self._peers: set[Peer] = set()
        self._places = Places(limits.peers, limits.peers_per_client, limits.unconnected_per_client)
        self.turns = Turns(self._places, limits.turn)
        """Who has a place, or waits for one: also those who are served by other processes."""
        self._socket: socket.socket | None = None
        self._shared: Port | None = None
        self._usual_sources: BoundedMap[Address, str] = BoundedMap(_MAX_SOURCES)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What answers advertise, once the port is open."""
        return self._shared.candidates if self._shared else ()

    @property
    def peers(self) -> int:
        return len(self._peers)

    async def __aenter__(self) -> Self:
        self._socket = _bind(self._host, self.port)
        self.port = self._socket.getsockname()[1]
        self._shared = Port(
            candidates=host_candidates(self._external or _own_addresses(self._socket), self.port),
            egress=Egress(self._socket, _native()),
            send=self._send,
            limits=self._limits,
            stats=self.stats,
            handshakes=Handshakes(self._limits.handshakes, self._limits.handshakes_per_client),
        )
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable, self._socket, self._shared)
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = {peer.task for peer in self._peers}
        for peer in tuple(self._peers):
            peer.close("the gateway is shutting down")
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING)
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def counters(self) -> Iterator[tuple[str, str, int]]:
        """Name, meaning and value of each total, for metrics."""
        stats = self.stats
        for name, meaning in _COUNTERS.items():
            yield name, meaning, getattr(stats, name)
        if self._shared is not None:
            egress = self._shared.egress
            yield "packets_sent", "Media packets that the kernel took", egress.sent
            yield "packets_dropped", "Media packets lost to a full socket buffer", egress.dropped
            yield "packets_unsendable", "Media packets that could not go to their address", egress.errors
            yield "native_failures", "Times the native sender failed and Python took its place", egress.native_failures

    def turn(self, client: str, standing: Standing, user: str = "") -> AbstractAsyncContextManager[Place]:
        """A place for who asks from this address (empty: not counted), before their offer is read; it takes until those of theirs who
        connect are few. `standing` is what they have shown, `user` whose token that is (empty: nobody's in particular). Raises `Rejected`.
        """
        return self.turns.turn(standing, client, user)

    def take(self, client: str, standing: Standing) -> Place:
        """As `turn`, at once or not at all, for `add`."""
        return self._places.take(standing, client)

    def add(self, offer: Offer, place: Place | None = None) -> Peer:
        """A new peer for `offer`, in this place; None: in one that is nobody's. Raises `Rejected` when there are too many."""
        if self._shared is None:
            raise RuntimeError("the port is not open")
        place = place or self._places.take(Standing.ANONYMOUS, "")
        if self._certificate.expiring:
            self._certificate = Certificate.generate()
        peer = Peer(self._shared, offer, self._certificate, place.standing, on_connected=lambda: self.turns.connect(place))
        place.used = True
        self._peers.add(peer)
        peer.task.add_done_callback(lambda _: self._forget(peer, place))
        return peer

    def _forget(self, peer: Peer, place: Place) -> None:
        self._peers.discard(peer)
        self.turns.give_back(place)
        if self._shared is not None:
            sources, owned = self._shared.egress.sources, self._shared.by_address
            for address in [address for address in sources if address not in owned]:
                del sources[address]

    def _readable(self, udp: socket.socket, port: Port) -> None:
        stats, receive = self.stats, self._receive
        for _ in range(_READS_PER_WAKE):
            try:
                data, ancillary, _, address = udp.recvmsg(2048, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error of an earlier send
                stats.send_errors += 1
                continue
            stats.received += 1
            receive(port, data, ancillary, address, time.monotonic_ns())

    def _receive(self, port: Port, data: bytes, ancillary: list[Ancillary], address: Address, now: int) -> None:
        if not _SMALLEST <= len(data) <= _LARGEST:
            self.stats.junk += 1
            return
        first = data[0]
        if first < 4:  # RFC 7983 §7
            self._check(port, data, ancillary, address, now)
            return
        media = 127 < first < 192
        if not media and not 19 < first < 64:
            self.stats.junk += 1
            return
        peer = port.by_address.get(address)
        if peer is None:
            self.stats.unknown_source += 1
        elif media:
            peer.media(data, now)
        else:
            peer.dtls(data, now)

    def _check(self, port: Port, data: bytes, ancillary: list[Ancillary], address: Address, now: int) -> None:
        message = stun.parse(data)
        if message is None:
            self.stats.junk += 1
            return
        if message.type is stun.Type.SUCCESS:
            peer = port.by_address.get(address)
            if peer is None:
                self.stats.unknown_source += 1
            else:
                peer.answered(message, address, now)
            return
        entry = port.by_ufrag.get(message.ufrag)
        if entry is None:
            self.stats.forged += 1
            return
        peer, password = entry
        if peer.over_budget(now):
            return
        if not message.authentic(password):
            self.stats.forged += 1
            return
        # The check came to one of our addresses: the answer, and all that follows, must come from that one (RFC 8445 §7.2.5.2.1).
        if ancillary and not self._is_usual_source(ancillary, address):
            port.egress.sources[address] = ancillary
        else:
            port.egress.sources.pop(address, None)
        peer.check(message, password, address, now)
        if address not in port.by_address:
            port.egress.sources.pop(address, None)

    def _is_usual_source(self, ancillary: list[Ancillary], address: Address) -> bool:
        """Whether the kernel would send to `address` from where its packet came to anyway; looked up once per address."""
        local = _local_address(ancillary)
        known = self._usual_sources.get(address)
        if known is None:
            known = self._usual_sources[address] = _usual_source(address)
        return local is None or local == known

    def _send(self, data: bytes, address: Address) -> None:
        """A datagram that the peer asks for again if it is lost: a full buffer drops it."""
        if self._shared is not None and not self._shared.egress.send_one(data, address):
            self.stats.send_errors += 1


def _native() -> ModuleType | None:
    try:
        return native.module()
    except native.CannotSend as why:
        _log.info("packets are sent in Python, since the native sender cannot be used: %s", why)
        return None


def _bind(host: str, port: int) -> socket.socket:
    wildcard = host in ("", "::")
    family = socket.AF_INET6 if wildcard or ":" in host else socket.AF_INET
    try:
        return _bound(family, host or "::", port)
    except OSError:
        if not wildcard:
            raise
        return _bound(socket.AF_INET, "0.0.0.0", port)  # a host without IPv6


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            udp.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
        udp.setblocking(False)
        if host in _WILDCARDS and _PACKET_INFO is not None:
            udp.setsockopt(*(_PACKET_INFO[family]), 1)
        udp.bind((host, port))
    except OSError:
        udp.close()
        raise
    return udp


def _local_address(ancillary: list[Ancillary]) -> str | None:
    """Which of our addresses a datagram came to (RFC 3542 §6.1; ip(7))."""
    for level, _, data in ancillary:
        if level == socket.IPPROTO_IPV6:
            return socket.inet_ntop(socket.AF_INET6, data[:16])
        if level == socket.IPPROTO_IP:
            return socket.inet_ntop(socket.AF_INET, data[8:12])
    return None


def _usual_source(address: Address) -> str:
    """Our address from which the kernel sends to `address` unasked; empty where it does not say."""
    with socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _own_addresses(udp: socket.socket) -> list[str]:
    """The address bound, or for a wildcard those from which the routes to the world start; loopback where there is none."""
    bound = udp.getsockname()[0]
    if not ip_address(bound).is_unspecified:
        return [bound]
    families = [(socket.AF_INET, "192.0.2.1")]
    if udp.family == socket.AF_INET6:
        families.append((socket.AF_INET6, "2001:db8::1"))
    found = []
    for family, somewhere in families:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((somewhere, 9))  # sends nothing: the kernel picks a route
            except OSError:
                continue
            found.append(probe.getsockname()[0])
    return found or ["127.0.0.1"]
