"""The one thread that receives: waits for all SRT sockets together, reads, demultiplexes, and hands over to the event loop once per round.

Kept true here:
* Sockets are read and closed by this thread only; the loop asks for it by an order, carried out within 100 ms.
* A round reads what has come, then pauses for a moment: a frame is many messages, and one round for them costs less than many.
* What goes wrong with one socket ends that one; if the thread itself ends, everybody who waits for it is told.
"""

import asyncio
import atexit
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns
from typing import Final, Protocol, Self

from protocols.errors import ProtocolError
from protocols.media import EncodedPacket, TracksChanged
from protocols.queue import MediaQueue
from protocols.srt.libsrt import FAILED, READABLE, Libsrt, Option, SrtError
from protocols.srt.statistics import MS, LinkStatistics, SrtStats
from protocols.srt.tracks import TsDemuxer

PAUSE_S: Final = 0.001  # measured at 20 sessions: longer pauses save nothing, and each ms is a ms of delay
_WAIT_MS: Final = 100
_SWEEP_NS: Final = 1_000_000_000
_TIDY_NS: Final = 5_000_000_000  # libsrt frees a socket up to 4 s after its end
_MANY_CALLERS: Final = 64
_JOIN_S: Final = 2.0
_SILENT: Final = 0.8  # of the idle time-out: a connection that ends after such a silence was lost, not closed

Item = TracksChanged | EncodedPacket


@dataclass(frozen=True, slots=True)
class ReceiveLimits:
    """Bounds of one connection."""

    queue_ms: int = 2000
    queue_bytes: int = 16 << 20
    peer_idle_ms: int = 5000
    max_latency_ms: int = 8000


class Endpoint(Protocol):
    """A socket that the receiver watches. All methods run in its thread; `SrtError` and `ProtocolError` end the endpoint."""

    @property
    def socket(self) -> int: ...

    @property
    def events(self) -> int: ...

    def ready(self, now: int) -> None: ...

    def sweep(self, now: int) -> None:
        """Once a second."""

    def ended(self, error: ProtocolError | None, now: int) -> None:
        """Removed, its socket not yet closed; None: in order."""


class SrtReceiver:
    """Async context manager: the thread runs inside it. Made and left on the event loop that it hands over to."""

    def __init__(self, srt: Libsrt, pause_s: float = PAUSE_S) -> None:
        self.srt = srt
        self.read = srt.reader()
        self.totals = SrtStats()
        """Of all connections since the start. Its gauges mean nothing."""
        self._pause_s = pause_s
        self._epoll = srt.epoll()
        self._endpoints: dict[int, Endpoint] = {}
        self._orders: deque[Callable[[], None]] = deque()
        self._batch: list[Callable[[], None]] = []
        self._tidying = _Tidying()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="srt-io", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        atexit.register(self._halt)  # before libsrt's own clean-up, which was registered earlier
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self._halt)
        atexit.unregister(self._halt)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def order(self, action: Callable[[], None]) -> None:
        """From any thread: carry out `action` in the receiver's thread."""
        self._orders.append(action)

    async def settled(self) -> None:
        """From the loop: wait until the orders given so far are carried out and what they post has arrived; 2 s at most."""
        done = asyncio.Event()
        self.order(lambda: self.post(done.set))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_JOIN_S if self.running else 0):
                await done.wait()

    def post(self, action: Callable[[], None]) -> None:
        """From the receiver's thread: carry out `action` on the event loop at the end of this round."""
        self._batch.append(action)

    def watch(self, endpoint: Endpoint) -> None:
        """In the receiver's thread: begin with an endpoint."""
        self._endpoints[endpoint.socket] = endpoint
        try:
            self.srt.epoll_add(self._epoll, endpoint.socket, endpoint.events)
        except SrtError as error:
            self.end(endpoint.socket, ProtocolError(f"connection lost at its start: {error}"))

    def release(self, socket: int) -> None:
        """In the receiver's thread: stop watching, and leave the socket open."""
        self._endpoints.pop(socket, None)
        self.srt.epoll_remove(self._epoll, socket)

    def end(self, socket: int, error: ProtocolError | None) -> None:
        """In the receiver's thread: stop watching and close. Nothing happens if it has ended already."""
        endpoint = self._endpoints.pop(socket, None)
        if endpoint is None:
            return
        self.srt.epoll_remove(self._epoll, socket)
        endpoint.ended(error, monotonic_ns())
        self.srt.close(socket)

    def _halt(self) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        orderly = False
        try:
            self._rounds()
            orderly = True
        finally:
            error = None if orderly else ProtocolError("the SRT receiver has stopped")
            while self._orders:  # who was being watched for is told, too
                self._orders.popleft()()
            for socket in list(self._endpoints):
                self.end(socket, error)
            self._hand_over()
            self.srt.epoll_release(self._epoll)

    def _rounds(self) -> None:
        wait = self.srt.waiter(self._epoll)
        endpoints, orders = self._endpoints, self._orders
        next_sweep = 0
        while not self._stop.is_set():
            ready = wait(_WAIT_MS)
            now = monotonic_ns()
            for socket, _events in ready:
                endpoint = endpoints.get(socket)
                if endpoint is not None:
                    self._guarded(endpoint, endpoint.ready, now)
            while orders:
                orders.popleft()()
            if now >= next_sweep:
                next_sweep = now + _SWEEP_NS
                for endpoint in list(endpoints.values()):
                    self._guarded(endpoint, endpoint.sweep, now)
                if self._tidying.due(now, self.srt.callers):
                    self.srt.give_back_memory()
            self._hand_over()
            if ready:
                self._stop.wait(self._pause_s)
            elif not endpoints:
                self._stop.wait(_WAIT_MS / 1000)  # libsrt refuses to wait for an empty set

    def _guarded(self, endpoint: Endpoint, step: Callable[[int], None], now: int) -> None:
        try:
            step(now)
        except ProtocolError as error:
            self.end(endpoint.socket, error)
        except SrtError as error:
            self.end(endpoint.socket, ProtocolError(str(error)))

    def _hand_over(self) -> None:
        if not self._batch or self._loop is None:
            return
        batch, self._batch = self._batch, []
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(_carry_out, batch)
            except RuntimeError:  # it was closed in between: there is nobody left to tell
                return


class _Tidying:
    """When memory is given back: while many call, and once more after the last of them has been freed."""

    def __init__(self) -> None:
        self._next = 0
        self._callers = 0
        self._fresh = 0

    def due(self, now: int, callers: int) -> bool:
        if now < self._next:
            return False
        self._next = now + _TIDY_NS
        before, self._fresh, self._callers = self._fresh, callers - self._callers, callers
        return before + self._fresh >= _MANY_CALLERS


def _carry_out(batch: list[Callable[[], None]]) -> None:
    for action in batch:
        action()


class Inbox:
    """The event loop's end of a connection: what the session has not yet taken. Lives on the loop."""

    def __init__(self, limits: ReceiveLimits, stats: SrtStats) -> None:
        self._queue = MediaQueue(limits.queue_ms * MS, limits.queue_bytes)
        self._stats = stats
        self._dropped = 0
        self._news = asyncio.Event()
        self._over = False
        self._error: ProtocolError | None = None

    @property
    def over(self) -> bool:
        return self._over

    def put(self, items: list[Item]) -> None:
        for item in items:
            self._queue.push(item)
        self._stats.units_dropped += self._queue.dropped - self._dropped
        self._dropped = self._queue.dropped
        self._news.set()

    def end(self, error: ProtocolError | None) -> None:
        if not self._over:
            self._over, self._error = True, error
            self._news.set()

    async def get(self) -> Item | None:
        """The next item; None when the stream has ended; raises `ProtocolError` when it broke off."""
        while (item := self._queue.pop()) is None:
            if self._over:
                if self._error is not None:
                    raise self._error
                return None
            self._news.clear()
            await self._news.wait()
        return item


class SrtConnection:
    """One connected encoder or source: bytes to packets, in the receiver's thread."""

    events = READABLE | FAILED

    def __init__(
        self,
        receiver: SrtReceiver,
        socket: int,
        demuxer: TsDemuxer,
        inbox: Inbox,
        stats: SrtStats,
        limits: ReceiveLimits,
        over: Callable[[], None] = lambda: None,
    ) -> None:
        """`over` is called in the receiver's thread when the connection has ended."""
        self.socket = socket
        self._receiver = receiver
        self._demuxer = demuxer
        self._inbox = inbox
        self._stats = stats
        self._limits = limits
        self._over = over
        self._link: LinkStatistics | None = None
        self._last_data = monotonic_ns()
        self._counted = (0, 0, 0, 0, stats.units_dropped)

    def ready(self, now: int) -> None:
        data = self._receiver.read(self.socket)
        if data is None:
            if now - self._last_data > _SILENT * self._limits.peer_idle_ms * MS:
                raise ProtocolError(f"the encoder has been silent for {self._limits.peer_idle_ms // 1000} s: connection lost")
            self._receiver.end(self.socket, None)
        elif data:
            self._last_data = now
            self._stats.bytes_received += len(data)
            self._receiver.totals.bytes_received += len(data)
            items = self._demuxer.feed(data, now)
            if items:
                self._receiver.post(partial(self._inbox.put, items))

    def sweep(self, now: int) -> None:
        self._demuxer.check(now)
        self._take_statistics()
        if not self._receiver.srt.connected(self.socket):  # one that broke before it was watched never raises an event
            self.ready(now)

    def ended(self, error: ProtocolError | None, now: int) -> None:
        self._take_statistics()
        self._receiver.post(partial(self._inbox.end, error))
        self._over()

    def _take_statistics(self) -> None:
        link = self._receiver.srt.statistics(self.socket)
        packets, units = self._demuxer.packets, self._demuxer.counts
        counted = (packets.ignored, packets.continuity_errors, packets.sync_lost, units.broken, self._stats.units_dropped)
        ignored, errors, lost, broken, dropped = (new - old for new, old in zip(counted, self._counted, strict=True))
        for stats in (self._stats, self._receiver.totals):
            if link is not None:
                stats.add_link(link, self._link)
            stats.packets_ignored += ignored
            stats.continuity_errors += errors
            stats.sync_lost_bytes += lost
            stats.broken_units += broken
        self._receiver.totals.units_dropped += dropped  # of its own, the inbox has counted them
        self._link = link or self._link
        self._counted = counted


def prepare(srt: Libsrt, socket: int, limits: ReceiveLimits, latency_ms: int) -> None:
    """The options of every socket that will receive; accepted sockets inherit them from their listener."""
    for option, value in (
        (Option.RCVSYN, 0),
        (Option.SNDSYN, 0),
        (Option.RCVLATENCY, latency_ms),
        (Option.PEERLATENCY, 0),
        (Option.TLPKTDROP, 1),
        (Option.ENFORCEDENCRYPTION, 1),
        (Option.PEERIDLETIMEO, limits.peer_idle_ms),
        (Option.PAYLOADSIZE, 1456),  # senders with more than seven TS packets per message
        (Option.FC, 8192),  # packets: 20 Mbit/s for 4 s; half the memory per caller of the default
        (Option.RCVBUF, 8192 * 1472),
        (Option.SNDBUF, 64 * 1472),  # we do not send
        (Option.UDP_RCVBUF, 4 << 20),
        (Option.MINVERSION, 0x010300),  # handshake 5, which brings the stream id
        (Option.LOSSMAXTTL, 0),
    ):
        srt.set(socket, option, value)
