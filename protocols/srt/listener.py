"""The SRT listener: callers that publish, decided on before they are connected.

A caller's stream id is read in libsrt's listen callback; what it may do and with which passphrase is asked of `authorise`, and a refusal
reaches the caller as its SRT reject code. Encoders without a stream id have ports of their own, each mapped to a stream key.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from time import monotonic_ns
from typing import Final, Self

from protocols.errors import ProtocolError, Reason, Rejected
from protocols.metric import MetricFamily
from protocols.publisher import BoundPort, Credential, ReachedBy
from protocols.srt.address import Address, server
from protocols.srt.admission import Access, CallerAdmission, Reservation
from protocols.srt.libsrt import FAILED, READABLE, Option, SrtError, load
from protocols.srt.receiver import Inbox, Item, ReceiveLimits, SrtConnection, SrtReceiver, prepare
from protocols.srt.statistics import SrtStats
from protocols.srt.streamid import StreamId, parse_stream_id
from protocols.srt.tracks import TsDemuxer

log = logging.getLogger(__name__)

DEFAULT_LATENCY_MS: Final = 120

Authorise = Callable[[StreamId, str], Access]
"""(stream id, caller's host) -> what it needs; raises `Rejected`. In memory and quick: nothing is received on the port meanwhile."""


@dataclass(frozen=True, slots=True)
class SrtLimits(ReceiveLimits):
    """Bounds of the listener."""

    max_publishers: int = 200
    max_pending: int = 256  # between callback and accept
    pending_s: float = 10.0
    calls_per_second: float = 10.0  # from one address
    call_burst: int = 20
    backlog: int = 128


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


class SrtPublisher:
    """One connected encoder (`protocols.publisher.Publisher`)."""

    protocol = "srt"
    software = ""  # SRT does not say

    def __init__(self, receiver: SrtReceiver, socket: int, reservation: Reservation, inbox: Inbox, stats: SrtStats) -> None:
        stream = reservation.stream
        self.id = secrets.token_urlsafe(12)
        self.remote = str(reservation.address)
        self.credential = Credential(stream.key, reservation.access.user)
        self.params = stream.beside
        self.stats = stats
        self._receiver = receiver
        self._socket = socket
        self._inbox = inbox

    async def accept(self) -> None:
        """The handshake is over already. Raises `ProtocolError` if the encoder has gone."""
        if self._inbox.over:
            raise ProtocolError("the encoder has gone")

    async def reject(self, refusal: Rejected) -> None:
        """Close: a connected caller cannot be told why; `authorise` can."""
        await self.aclose(refusal.detail)

    async def __aiter__(self) -> AsyncIterator[Item]:
        while (item := await self._inbox.get()) is not None:
            yield item

    def pause(self, paused: bool) -> None:
        """SRT has no back-pressure that a live encoder heeds."""

    def request_keyframe(self, layer: str = "") -> bool:
        return False

    async def aclose(self, why: str = "") -> None:
        if not self._inbox.over:
            self._receiver.order(partial(self._receiver.end, self._socket, None))
            await self._receiver.settled()
            self._inbox.end(None)  # where the receiver has stopped


class SrtListener:
    """`protocols.publisher.Listener` for SRT. `receiver` shares the I/O thread with others; without one it has its own.

    `host` is a numeric address; empty: all, IPv6 and IPv4 alike. Port 0 is any free one. Entering raises `LibsrtMissing` (its text says
    what to install) or `SrtError` (an `OSError`: the port is taken).
    `ports` are further listening ports: port number to stream key.
    """

    protocol = "srt"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        authorise: Authorise,
        limits: SrtLimits | None = None,
        latency_ms: int = DEFAULT_LATENCY_MS,
        ports: Mapping[int, str] | None = None,
        receiver: SrtReceiver | None = None,
        library: str = "",
    ) -> None:
        self.port = port
        self.mapped_ports: dict[str, int] = {}
        """Stream key to the bound port of `ports`."""
        self.stats = SrtListenerStats()
        self._host = host
        self._authorise = authorise
        self._limits = limits or SrtLimits()
        self._latency_ms = min(latency_ms, self._limits.max_latency_ms)
        self._ports = dict(ports or {})
        self._receiver: SrtReceiver
        self._shared = receiver
        self._library = library
        limit = self._limits
        self._admission = CallerAdmission(
            limit.calls_per_second, limit.call_burst, round(limit.pending_s * 1e9), limit.max_pending
        )
        self._live: dict[int, SrtPublisher] = {}  # by socket; changed in the receiver's thread only
        self._new: asyncio.Queue[SrtPublisher | None] = asyncio.Queue()  # bounded by max_publishers
        self._open: list[_Listening] = []
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._shared is None:
                receiver = await stack.enter_async_context(SrtReceiver(load(self._library)))
            else:
                receiver = self._shared
            self._receiver = receiver
            stack.push_async_callback(self._close)
            self.port = self._listen(receiver, self.port, None)
            for port, key in self._ports.items():
                self.mapped_ports[key] = self._listen(receiver, port, key)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exit.aclose()

    async def __aiter__(self) -> AsyncIterator[SrtPublisher]:
        while (publisher := await self._new.get()) is not None:
            yield publisher

    @property
    def ports(self) -> Sequence[BoundPort]:
        return [BoundPort("srt", number, udp=True) for number in (self.port, *self.mapped_ports.values())]

    def failures(self) -> Mapping[str, int]:
        return self.stats.failures()

    def refusals(self) -> Mapping[str, int]:
        return self.stats.refused.copy()  # libsrt's thread counts meanwhile

    def counters(self) -> Iterable[MetricFamily]:
        """Those of all connections of the receiver, which may be shared."""
        return self._receiver.totals.counters()

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]:
        """The call is the stream key's to say."""
        return {"srt": server(by.host, self.port)}

    def _listen(self, receiver: SrtReceiver, port: int, key: str | None) -> int:
        """Opens a port; returns its number."""
        if self._host:
            return self._listen_at(self._host, receiver, port, key)
        try:
            return self._listen_at("::", receiver, port, key)
        except SrtError:  # a machine without IPv6; a port that is taken is so for IPv4, too
            return self._listen_at("0.0.0.0", receiver, port, key)

    def _listen_at(self, host: str, receiver: SrtReceiver, port: int, key: str | None) -> int:
        srt = receiver.srt
        socket = srt.create()
        try:
            prepare(srt, socket, self._limits, self._latency_ms)
            if ":" in host:
                srt.set(socket, Option.IPV6ONLY, 0)  # `::` takes IPv4, too
            srt.bind(socket, host, port)
            mapped = StreamId(resource=key, key=key) if key is not None else None
            srt.listen(socket, self._limits.backlog, partial(self._called, mapped), self._hook_failed)
            bound = srt.local_port(socket)
        except SrtError:
            srt.close(socket)
            raise
        listening = _Listening(self, socket)
        self._open.append(listening)
        receiver.order(partial(self._watch, listening))
        return bound

    async def _close(self) -> None:
        receiver = self._receiver
        for listening in self._open:
            receiver.order(partial(receiver.end, listening.socket, None))
        await receiver.settled()
        for socket in list(self._live):  # nobody is added any more
            receiver.order(partial(receiver.end, socket, None))
        await receiver.settled()
        self._new.put_nowait(None)

    # -- libsrt's thread of a port

    def _called(self, mapped: StreamId | None, socket: int, address: Address, raw: bytes) -> int:
        """The listen callback: 0 or a reject code."""
        now = monotonic_ns()
        try:
            self._admission.check_rate(address.host, now)
            if len(self._live) >= self._limits.max_publishers:
                raise Rejected(Reason.OVERLOADED, "no room for another publisher")
            stream = mapped or parse_stream_id(raw)
            access = self._authorise(stream, address.host)
            if access.passphrase is not None:
                self._receiver.srt.set(socket, Option.PASSPHRASE, access.passphrase)
            if access.latency_ms is not None:
                self._receiver.srt.set(socket, Option.RCVLATENCY, min(access.latency_ms, self._limits.max_latency_ms))
            self._admission.reserve(socket, Reservation(stream, access, address, now))
        except Rejected as refusal:
            self.stats.refused[refusal.reason.label] += 1
            return refusal.reason.srt_code
        return 0

    def _hook_failed(self, error: BaseException) -> None:
        self.stats.refused[Reason.INTERNAL.label] += 1
        log.error("SRT caller refused: the listen callback failed with %s", type(error).__name__)

    # -- the receiver's thread

    def _watch(self, listening: "_Listening") -> None:
        self._receiver.watch(listening)
        self.take(listening.socket, monotonic_ns())  # libsrt raises no event for who connected before

    def take(self, listening: int, now: int) -> None:
        """Accept every caller that has connected."""
        srt, receiver = self._receiver.srt, self._receiver
        while (socket := srt.accept(listening)) is not None:
            reservation = self._admission.take(socket)
            if reservation is None or len(self._live) >= self._limits.max_publishers or not self._latency_fits(socket):
                srt.close(socket)
                continue
            stats = SrtStats()
            inbox = Inbox(self._limits, stats)
            publisher = SrtPublisher(receiver, socket, reservation, inbox, stats)
            demuxer = TsDemuxer(reservation.access.programme)
            self._live[socket] = publisher
            self.stats.accepted += 1
            receiver.post(partial(self._new.put_nowait, publisher))
            receiver.watch(SrtConnection(receiver, socket, demuxer, inbox, stats, self._limits, partial(self._forget, socket)))

    def _forget(self, socket: int) -> None:
        self._live.pop(socket, None)

    def _latency_fits(self, socket: int) -> bool:
        """SRT takes the longer of both sides' latencies: a caller's wish can only be refused."""
        try:
            fits = self._receiver.srt.get(socket, Option.RCVLATENCY) <= self._limits.max_latency_ms
        except SrtError:  # gone already
            return False
        self.stats.latency_too_long += not fits
        return fits

    def expire(self, now: int) -> None:
        self._admission.expire(now)
        if new := self._admission.expired - self.stats.auth_failed:
            self._receiver.post(partial(log.warning, "SRT: %d handshakes broke off: a wrong or missing passphrase", new))
        self.stats.auth_failed = self._admission.expired

    def stopped(self, error: ProtocolError | None) -> None:
        """A listening socket has ended; with an error, nobody will be accepted any more."""
        if error is not None:
            log.error("SRT listener has ended: %s", error)
            self._receiver.post(lambda: self._new.put_nowait(None))


class _Listening:
    """A listening socket, watched by the receiver."""

    events = READABLE | FAILED

    def __init__(self, listener: SrtListener, socket: int) -> None:
        self.socket = socket
        self._listener = listener

    def ready(self, now: int) -> None:
        self._listener.take(self.socket, now)

    def sweep(self, now: int) -> None:
        self._listener.expire(now)

    def ended(self, error: ProtocolError | None, now: int) -> None:
        self._listener.stopped(error)


__all__ = ["Access", "SrtLimits", "SrtListener", "SrtListenerStats", "SrtPublisher"]
