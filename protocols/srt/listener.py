"""The SRT listener: callers that publish, decided on before they are connected.

A caller's stream id comes with libsrt's listen callback, which waits for the event loop; what it may do and with which passphrase is
asked of `authorise`, and a refusal reaches the caller as its SRT reject code. Encoders without a stream id have ports of their own, each
mapped to a stream key.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from time import monotonic_ns
from types import NoneType
from typing import Self

from protocols.errors import ProtocolError, Reason, Rejected
from protocols.metric import MetricFamily
from protocols.publisher import BoundPort, ReachedBy
from protocols.rate_limit import TokenBucket
from protocols.srt.address import Address, server, unpack_sockaddr
from protocols.srt.admission import Access, CallerAdmission, Handshake, LookUpBudget, Reservation
from protocols.srt.connection import SrtConnection, inbox, prepare
from protocols.srt.libsrt import FAILED, READABLE, Option, SrtError, load
from protocols.srt.limits import DEFAULT_LATENCY_MS, SrtLimits
from protocols.srt.publisher import SrtPublisher
from protocols.srt.receiver import SrtReceiver
from protocols.srt.statistics import SrtListenerStats, SrtStats
from protocols.srt.streamid import StreamId, parse_stream_id
from protocols.srt.threads import ask, tell
from protocols.srt.tracks import TsDemuxer

log = logging.getLogger(__name__)

_LOG_RATE = 1.0  # lines a second of callers whose stream id cannot be read: each calls dozens of times a second
_WRONG_PASSPHRASE = "its passphrase is wrong (it shows code 10) or missing (code 11): copy it again from gateway ingress srt"
_NEEDLESS_PASSPHRASE = "it has a passphrase, and a stream key as the stream id needs none (it shows code 11): leave it out"

Authorise = Callable[[StreamId, str], Awaitable[Access]]
"""(stream id, caller's host) -> what it needs; raises `Rejected`. Nothing is received on the port meanwhile: what takes longer than some
tens of ms goes on, and its caller is told to come again."""


class SrtListener:
    """`protocols.publisher.Listener` for SRT. `receiver` is shared with others; without one it has its own.

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
        self._loop: asyncio.AbstractEventLoop
        self._closing = False  # nobody is asked about any more
        self._shared = receiver
        self._library = library
        limit = self._limits
        self._admission = CallerAdmission(
            limit.calls_per_second,
            limit.call_burst,
            round(limit.pending_s * 1e9),
            limit.max_pending,
            round(limit.repeated_s * 1e9),
        )
        self._lines = TokenBucket(_LOG_RATE, 1)
        self._budget = LookUpBudget(round(limit.look_up_s * 1e9), limit.look_up_share)
        self._deciding: set[asyncio.Future[Access]] = set()
        self._live: dict[int, SrtPublisher] = {}  # by socket
        self._new: asyncio.Queue[SrtPublisher | None] = asyncio.Queue()  # bounded by max_publishers
        self._open: list[_Listening] = []
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
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
        return self.stats.refused

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
        receiver.watch(listening)
        self.take(socket, monotonic_ns())  # libsrt raises no event for who connected before
        return bound

    async def _close(self) -> None:
        self._closing = True
        for listening in self._open:
            self._receiver.end(listening.socket, None)
        for socket in list(self._live):
            self._receiver.end(socket, None)
        deciding = list(self._deciding)
        for each in deciding:
            each.cancel()
        await asyncio.gather(*deciding, return_exceptions=True)
        self._new.put_nowait(None)

    # -- libsrt's thread of a port

    def _called(self, mapped: StreamId | None, socket: int, sockaddr: bytes, raw: bytes) -> int:
        """The listen callback: 0 or a reject code, as the loop decides."""
        if self._closing:  # the loop waits for this to return
            return Reason.OVERLOADED.srt_code
        handshake = Handshake(unpack_sockaddr(sockaddr), raw, mapped.key if mapped is not None else "")
        code = ask(self._loop, self._answer(mapped, socket, handshake), self._limits.answer_s)
        if code is None:
            tell(self._loop, partial(self._unanswered, socket, handshake))  # before it is asked about a repetition
            return Reason.OVERLOADED.srt_code
        return code

    # -- the loop

    async def _answer(self, mapped: StreamId | None, socket: int, handshake: Handshake) -> int:
        """What a caller hears: 0 to go on, or a reject code."""
        self._receiver.callers += 1
        now, address = monotonic_ns(), handshake.address
        if (reason := self._admission.refused(handshake, now)) is not None:
            return reason.srt_code
        try:
            self._admission.check_rate(address.host, now)
            if len(self._live) >= self._limits.max_publishers:
                raise Rejected(Reason.OVERLOADED, "no room for another publisher")
            stream = mapped or self._named(handshake.raw, address)
            access = await self._decide(stream, address.host)
            if access.passphrase is not None:
                self._receiver.srt.set(socket, Option.PASSPHRASE, access.passphrase)
            if access.latency_ms is not None:
                self._receiver.srt.set(socket, Option.RCVLATENCY, min(access.latency_ms, self._limits.max_latency_ms))
            self._admission.reserve(socket, Reservation(stream, access, address, now))
        except Rejected as refusal:
            self._refuse(handshake, refusal.reason)
            return refusal.reason.srt_code
        return 0

    def _refuse(self, handshake: Handshake, reason: Reason) -> None:
        self._admission.refuse(handshake, reason, monotonic_ns())
        self.stats.refused[reason.label] += 1

    def _named(self, raw: bytes, address: Address) -> StreamId:
        try:
            return parse_stream_id(raw)
        except Rejected as refusal:
            if self._lines.take(monotonic_ns()):
                log.warning("SRT: %s was refused with %d: %s", address, refusal.reason.srt_code, refusal.detail)
            raise

    async def _decide(self, stream: StreamId, host: str) -> Access:
        """What `authorise` says, as far as there is time for it; what it has to look up will be known when the caller comes again."""
        if len(self._deciding) >= self._limits.max_pending:
            raise Rejected(Reason.OVERLOADED, "too many handshakes at once")
        deciding = asyncio.ensure_future(self._authorise(stream, host))
        self._deciding.add(deciding)
        deciding.add_done_callback(self._decided)
        await asyncio.wait({deciding}, timeout=0)
        now = monotonic_ns()
        if not deciding.done() and (left := self._budget.left(now)):
            await asyncio.wait({deciding}, timeout=left / 1e9)
            self._budget.spent(now, monotonic_ns())
        if not deciding.done():
            raise Rejected(Reason.OVERLOADED, "the gateway is looking this up: connect again in a moment")
        if isinstance(deciding.exception(), Rejected | NoneType):
            return deciding.result()
        raise Rejected(Reason.INTERNAL, "the gateway has failed: connect again")

    def _decided(self, deciding: asyncio.Future[Access]) -> None:
        self._deciding.discard(deciding)
        if not deciding.cancelled() and not isinstance(error := deciding.exception(), Rejected | NoneType):
            log.error("SRT: a caller was lost by a defect of ours", exc_info=error)

    def _unanswered(self, socket: int, handshake: Handshake) -> None:
        """The loop was too slow for a caller, who was refused: the answer may have been given all the same."""
        self._admission.take(socket)
        self._refuse(handshake, Reason.OVERLOADED)

    def _hook_failed(self, error: BaseException) -> None:
        tell(self._loop, partial(self._defect, error))

    def _defect(self, error: BaseException) -> None:
        self.stats.refused[Reason.INTERNAL.label] += 1
        log.error("SRT caller refused: the listen callback failed with %s", type(error).__name__)

    def take(self, listening: int, now: int) -> None:
        """Accept every caller that has connected."""
        srt, receiver = self._receiver.srt, self._receiver
        while (socket := srt.accept(listening)) is not None:
            reservation = self._admission.take(socket)
            if reservation is None or len(self._live) >= self._limits.max_publishers or not self._latency_fits(socket):
                srt.close(socket)
                continue
            stats = SrtStats()
            box = inbox(self._limits, stats)
            publisher = SrtPublisher(receiver, socket, reservation, box, stats)
            demuxer = TsDemuxer()
            self._live[socket] = publisher
            self.stats.accepted += 1
            self._new.put_nowait(publisher)
            receiver.watch(SrtConnection(receiver, socket, demuxer, box, stats, self._limits, partial(self._forget, socket)))

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
        broken_off = [*self._admission.break_off(self._receiver.srt.over), *self._admission.expire(now)]
        self.stats.auth_failed = self._admission.expired
        if broken_off:  # at most a line for each look: who is refused calls dozens of times a second
            first, more = broken_off[0], len(broken_off) - 1
            why = _WRONG_PASSPHRASE if first.access.passphrase is not None else _NEEDLESS_PASSPHRASE
            log.warning(
                "SRT: %s was not connected: %s%s", first.address, why, f" ({more} more calls broke off)" if more else ""
            )

    def stopped(self, error: ProtocolError | None) -> None:
        """A listening socket has ended; with an error, nobody will be accepted any more."""
        if error is not None:
            log.error("SRT listener has ended: %s", error)
            self._new.put_nowait(None)


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
