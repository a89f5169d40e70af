"""One WebRTC peer on the shared port: its ICE session, its DTLS, its SRTP, from the offer to the end.

What is kept true: one task per peer, whose timeouts bound each phase, and no timer that polls. Media leaves only to an address that an
authenticated connectivity check has named; once connected, only to one that has itself answered a check of ours, because the source
address of a check can be forged (a lite agent that believes it could be aimed at a victim); before, it gets a few flights of DTLS. A
connected peer's address is its own until it ends. What a peer sends is looked at within its budget of time. However a peer ends, it ends
alone.
"""

import asyncio
import logging
import secrets
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from protocols.addresses import client_network
from protocols.bounded_map import BoundedMap
from protocols.defects import log_defect
from protocols.errors import ProtocolError
from protocols.webrtc.sdp.answer import LocalTransport
from protocols.webrtc.sdp.description import Offer
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.budget import WORK, WorkBudget
from protocols.webrtc.transport.dtls import Certificate, DtlsSession
from protocols.webrtc.transport.egress import Egress
from protocols.webrtc.transport.flights import Flights
from protocols.webrtc.transport.handshakes import Handshakes, HandshakeStep
from protocols.webrtc.transport.ice import Candidate, Credentials
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.srtp import InboundSrtp, OutboundSrtp

Address: TypeAlias = tuple[Any, ...]
OnPacket: TypeAlias = Callable[[bytes, int], None]
"""Takes a decrypted packet and its arrival (monotonic ns), on the event loop; `ProtocolError` only counts it."""

_MAX_ADDRESSES = 16  # candidate pairs of one peer that count as its own
_MAX_CHALLENGES = 4
_UNANSWERED = 3  # of them to one address that has not answered, where nothing but that waits for an answer
_MAX_EARLY = 128  # packets: of a first key frame as much as a sender lets go at once
_OWNED_NS = 5_000_000_000  # an address belongs to the peer that was checked on it this recently, and to the one connected on it
_PRIORITY = struct.pack("!I", 110 << 24 | 65535 << 8 | 255)  # RFC 8445 §7.1.1: as a peer-reflexive candidate of ours

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what peers may cost. Times in seconds."""

    peers: int = 2000
    peers_per_client: int = 128
    unconnected_per_client: int = 32
    turn: float = 5.0  # for which a viewer waits while as many of theirs connect
    handshakes: int = 4  # steps of handshakes in one turn of the event loop: each takes ~1 ms, and media goes between the turns
    handshakes_per_client: int = 16  # unfinished ones with one address
    connect: float = 10.0
    handshake: float = 5.0
    consent: float = 15.0


@dataclass(slots=True)
class MuxStats:
    """Plain totals since the start, read on scrape."""

    received: int = 0
    junk: int = 0  # not of a size or shape that we know
    unknown_source: int = 0  # DTLS or SRTP from an address that passed no check
    forged: int = 0  # STUN for no ufrag of ours, or with a wrong password; SRTCP that does not verify
    dropped: int = 0  # from a peer, but too much at once
    over_budget: int = 0  # from a peer that has taken too much time
    send_errors: int = 0
    handshakes: int = 0
    handshakes_failed: int = 0
    never_connected: int = 0
    consent_lost: int = 0


@dataclass(frozen=True, slots=True)
class Port:
    """What all peers of one socket share. The two maps say which peer a datagram is for: a check by its ufrag (with our password), the
    rest by source address."""

    candidates: tuple[Candidate, ...]
    egress: Egress
    send: Callable[[bytes, Address], None]
    limits: Limits
    stats: MuxStats
    handshakes: Handshakes
    by_ufrag: dict[bytes, tuple["Peer", bytes]] = field(default_factory=dict)
    by_address: dict[Address, "Peer"] = field(default_factory=dict)


class Peer:
    """See the file. Made by `UdpMux.add`; `connected` and `closed` are events to wait for, `why` says how it ended.

    It is a sender's transport: `address` is where media goes now (None: nowhere yet, or no more), `outbound` encrypts it.
    """

    __slots__ = (
        "_addresses", "_certificate", "_challenges", "_checked", "_deadline", "_dtls", "_early", "_fingerprints",
        "_flights", "_former", "_inbound", "_limits", "_local", "_moving", "_on_connected", "_port", "_probe",
        "_proven", "_remote", "_send", "_setup", "_stats", "_task", "_tie_breaker", "_work", "address", "closed",
        "connected", "egress", "on_rtcp", "on_rtp", "outbound", "received", "received_bytes", "rejected",
        "round_trip", "why",
    )  # fmt: skip

    def __init__(
        self, port: Port, offer: Offer, certificate: Certificate, standing: Standing, on_connected: Callable[[], None]
    ) -> None:
        self.address: Address | None = None
        self.outbound: OutboundSrtp | None = None
        self.egress = port.egress
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self.why = ""
        self.on_rtp: OnPacket | None = None
        self.on_rtcp: OnPacket | None = None
        self.round_trip = 0
        """To the peer and back (ns), as the last answer to `measure` says; 0 until one came."""
        self.received = 0
        self.received_bytes = 0
        """Of media, as they lay in their datagrams, whatever became of them."""
        self.rejected = 0  # SRTP and SRTCP that did not verify or parse

        self._on_connected = on_connected
        self._inbound: InboundSrtp | None = None
        self._early: list[tuple[bytes, int]] = []  # media that came on the heels of the handshake
        self._fingerprints = offer.fingerprints
        self._remote = offer.ice
        self._local = Credentials.random()
        self._former: Credentials | None = None
        # RFC 8842 §5.3; passive leaves the first word to the peer
        self._setup = "active" if offer.setup == "passive" else "passive"
        self._certificate = certificate
        self._port = port
        self._send = port.send
        self._limits = port.limits
        self._stats = port.stats
        self._tie_breaker = secrets.token_bytes(8)
        self._addresses: dict[Address, int] = {}  # checked, with the time of the last check
        self._challenges: BoundedMap[bytes, Address] = BoundedMap(_MAX_CHALLENGES)
        self._proven: set[Address] = set()  # of these, those that have answered a check of ours
        self._moving: Address | None = None  # where the peer says it has moved, until that answers
        self._flights = Flights()
        self._work = WorkBudget(*WORK[standing])
        self._probe: tuple[bytes, int] | None = None  # the transaction that measures, and when it left
        self._checked = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._dtls = DtlsSession(
            certificate,
            active=self._setup == "active",
            send=self._send_dtls,
            computing=HandshakeStep(port.handshakes, self._work),
        )
        self._register(self._local)
        self._task = asyncio.get_running_loop().create_task(self._live())
        self._task.add_done_callback(self._ended)

    @property
    def transport(self) -> LocalTransport:
        """Our end as the answer tells it."""
        return LocalTransport(self._local, self._certificate.fingerprint, self._setup, self._port.candidates)

    @property
    def remote_ice(self) -> Credentials:
        return self._remote

    @property
    def task(self) -> asyncio.Task[None]:
        return self._task

    def restart(self, remote: Credentials) -> None:
        """ICE restart (RFC 8445 §2.4): new credentials on both sides; the old ones hold until a check uses the new."""
        self._remote = remote
        if self._former is not None:  # never used: a second restart on top of the first
            self._unregister(self._local)
        else:
            self._former = self._local
        self._local = Credentials.random()
        self._register(self._local)

    def close(self, why: str = "") -> None:
        """End with close_notify. Idempotent; `closed` tells when it is done."""
        self.why = self.why or why
        self._task.cancel()

    def send_rtcp(self, packet: bytes) -> None:
        """Send a compound RTCP packet, if there is a way yet."""
        if self.outbound is not None and self.address is not None:
            self._send(self.outbound.protect_rtcp(packet), self.address)

    def measure(self, now: int) -> None:
        """Ask for the round trip by a connectivity check of ours, which a full agent answers though a lite one need not send any."""
        if self.address is not None:
            transaction = secrets.token_bytes(12)
            self._probe = transaction, now
            self._send_check(transaction, self.address)

    # What the mux has read from the socket

    def over_budget(self, now: int) -> bool:
        """Whether what it sends is not to be looked at now; it is then counted."""
        if not self._work.spent(now):
            return False
        self._stats.over_budget += 1
        return True

    def check(self, request: stun.Binding, password: bytes, address: Address, now: int) -> None:
        """An authentic connectivity check (RFC 8445 §7.3) that used one of our ufrags, with its password."""
        self._check(request, password, address, now)
        self._work.charge(now, time.monotonic_ns())

    def _check(self, request: stun.Binding, password: bytes, address: Address, now: int) -> None:
        if request.unknown:
            self._send(stun.error(request.transaction, stun.ErrorCode.UNKNOWN_ATTRIBUTE, password, request.unknown), address)
            return
        if request.controlled:  # a lite agent cannot take the controlling role (RFC 8445 §6.1.1)
            self._send(stun.error(request.transaction, stun.ErrorCode.ROLE_CONFLICT, password), address)
            return
        self._send(stun.success(request.transaction, address[0], address[1], password), address)
        if not self._own(address, now):
            return
        if self._former is not None and request.ufrag == self._local.ufrag.encode():
            self._unregister(self._former)
            self._former = None
        if self.connected.is_set() and self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._limits.consent)
        if request.nominated and self.connected.is_set() and address != self.address:
            self._moving = address
            self._challenge(address)
            return
        if self.address is None or request.nominated:
            self.address = address
            self._checked.set()

    def answered(self, response: stun.Binding, address: Address, now: int) -> None:
        """The answer to a check of ours: whoever is at `address` has seen it, so media may go there."""
        if self._probe is not None and self._probe[0] == response.transaction:
            if address == self.address and response.authentic(self._remote.password.encode()):
                self.round_trip = now - self._probe[1]
                self._probe = None
            return
        expected = self._challenges.get(response.transaction)
        if expected != address or not response.authentic(self._remote.password.encode()):
            self._stats.forged += 1
            return
        del self._challenges[response.transaction]
        if address in self._addresses:
            self._proven.add(address)
        if address == self._moving:
            self.address, self._moving = address, None

    def dtls(self, datagram: bytes, now: int) -> None:
        if not self.over_budget(now) and not self._dtls.receive(datagram):
            self._stats.dropped += 1

    def media(self, packet: bytes, now: int) -> None:
        """SRTP or SRTCP, told apart by the second byte (RFC 5761 §4)."""
        inbound = self._inbound
        if inbound is None:
            # A DTLS server (ffmpeg) sends media right behind its Finished, before we have made keys of it.
            if len(self._early) < _MAX_EARLY:
                self._early.append((packet, now))
            return
        self.received += 1
        self.received_bytes += len(packet)
        rtcp = 192 <= packet[1] <= 223
        callback = self.on_rtcp if rtcp else self.on_rtp
        if callback is None or self.over_budget(now):
            return
        begun = time.monotonic_ns()  # what came early has waited since `now`
        try:
            opened = inbound.unprotect_rtcp(packet) if rtcp else inbound.unprotect_rtp(packet)
        except ProtocolError:  # perhaps of somebody else who writes from this address: it is nobody's debt
            self.rejected += 1
            return
        try:
            callback(opened, now)
        except ProtocolError:
            self.rejected += 1
        self._work.charge(begun, time.monotonic_ns())

    def keeps(self, address: Address, now: int) -> bool:
        """Whether nobody else may have the address."""
        connected_here = self.connected.is_set() and address == self.address
        return connected_here or now - self._addresses.get(address, 0) < _OWNED_NS

    def disown(self, address: Address) -> None:
        self._addresses.pop(address, None)
        self._proven.discard(address)

    # Inside

    async def _live(self) -> None:
        limits, stats = self._limits, self._stats
        try:
            async with asyncio.timeout(limits.connect) as self._deadline:
                await self._checked.wait()
                await self._dtls.ready()
                async with self._port.handshakes.unfinished(client_network(self.address[0]) if self.address else ""):
                    await self._shake_hands()
                self._deadline.reschedule(asyncio.get_running_loop().time() + limits.consent)
                self.connected.set()
                self._on_connected()
                await self._dtls.closed()
            self.why = self.why or "closed by the peer"
        except TimeoutError:
            if self.connected.is_set():
                self.why = "consent lost"
                stats.consent_lost += 1
            else:
                self.why = "never connected"
                stats.never_connected += 1
        except ProtocolError as error:
            self.why = str(error)
            stats.handshakes_failed += 1
        finally:
            self._deadline = None
            await self._dtls.aclose()

    async def _shake_hands(self) -> None:
        self._stats.handshakes += 1
        try:
            async with asyncio.timeout(self._limits.handshake):
                outbound, inbound = await self._dtls.handshake(self._fingerprints)
        except TimeoutError:
            raise ProtocolError("the DTLS handshake took too long") from None
        self.outbound, self._inbound = OutboundSrtp(outbound), InboundSrtp(inbound)
        early, self._early = self._early, []
        for packet, at in early:
            self.media(packet, at)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """However the task ended: no peer's fault reaches another peer or the socket."""
        self.address = self.outbound = self._inbound = None
        for credentials in (self._local, self._former):
            if credentials is not None:
                self._unregister(credentials)
        for address in self._addresses:
            if self._port.by_address.get(address) is self:
                del self._port.by_address[address]
        self._addresses.clear()
        self._proven.clear()
        self._early.clear()
        self.on_rtp = self.on_rtcp = None
        if log_defect(_log, "a WebRTC peer ended", task):
            self.why = "internal error"
        self.closed.set()

    def _own(self, address: Address, now: int) -> bool:
        """Count `address` as this peer's, unless another peer is alive on it."""
        by_address = self._port.by_address
        owner = by_address.get(address)
        if owner is not self:
            if owner is not None:
                if owner.keeps(address, now):
                    return False
                owner.disown(address)
            by_address[address] = self
        self._addresses[address] = now
        if len(self._addresses) > _MAX_ADDRESSES:
            stale = min((each for each in self._addresses if each != self.address), key=self._addresses.__getitem__)
            self.disown(stale)
            by_address.pop(stale, None)
        return address in self._addresses

    def _challenge(self, address: Address) -> None:
        """A triggered check towards where the peer says it has moved."""
        transaction = secrets.token_bytes(12)
        self._challenges[transaction] = address
        self._send_check(transaction, address)

    def _send_check(self, transaction: bytes, address: Address) -> None:
        attributes = [(stun.Attribute.PRIORITY, _PRIORITY), (stun.Attribute.ICE_CONTROLLED, self._tie_breaker)]
        username = f"{self._remote.ufrag}:{self._local.ufrag}".encode()
        self._send(stun.binding_request(transaction, username, self._remote.password.encode(), attributes), address)

    def _send_dtls(self, datagram: bytes) -> None:
        address = self.address
        if address is None:
            return
        if self.connected.is_set() or address in self._proven or self._flights.take(datagram):
            self._send(datagram, address)
        elif list(self._challenges.values()).count(address) < _UNANSWERED:
            self._challenge(address)  # who answers gets what was held back

    def _register(self, credentials: Credentials) -> None:
        self._port.by_ufrag[credentials.ufrag.encode()] = (self, credentials.password.encode())

    def _unregister(self, credentials: Credentials) -> None:
        self._port.by_ufrag.pop(credentials.ufrag.encode(), None)
