"""Receives from all SRT sockets of the process, on the event loop: a thread waits for them together and rings, the loop reads.

Kept true here:
* Sockets are read and closed on the loop only, in turns of a millisecond or two: each socket that was ready is read once, by at most 64
  messages, before any is read again, and whoever else waits for the loop comes in between.
* A frame is many messages, and one round for them costs less than many: rings are a moment apart.
* What goes wrong with one socket ends that one; if the thread itself ends, everybody who waits for it is told.
"""

import asyncio
import atexit
import contextlib
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Final, Protocol, Self

from protocols.errors import ProtocolError
from protocols.srt.libsrt import Libsrt, SrtError
from protocols.srt.statistics import SrtStats
from protocols.srt.threads import Doorbell, Ready

PAUSE_S: Final = 0.001  # measured at 20 sessions: longer pauses save nothing, and each ms is a ms of delay
_TURN_NS: Final = 1_000_000  # then the socket that is being read is the turn's last; 64 messages take about as long
_SWEEP_S: Final = 1.0
_TIDY_NS: Final = 5_000_000_000  # libsrt frees a socket up to 4 s after its end
_MANY_CALLERS: Final = 64
_END_S: Final = 2.0


class Endpoint(Protocol):
    """A socket that the receiver watches. `SrtError` and `ProtocolError` of `ready` and `sweep` end the endpoint. Times: monotonic ns."""

    @property
    def socket(self) -> int: ...

    @property
    def events(self) -> int: ...

    def ready(self, now: int) -> None:
        """There is something to read, or the socket has failed."""

    def sweep(self, now: int) -> None:
        """Once a second."""

    def ended(self, error: ProtocolError | None, now: int) -> None:
        """Removed, its socket not yet closed; None: in order."""


Step = Callable[[Endpoint, int], None]


def _read(endpoint: Endpoint, now: int) -> None:
    endpoint.ready(now)


def _look_after(endpoint: Endpoint, now: int) -> None:
    endpoint.sweep(now)


class SrtReceiver:
    """Async context manager: receives inside it. All on the event loop that entered it."""

    def __init__(self, srt: Libsrt, pause_s: float = PAUSE_S) -> None:
        self.srt = srt
        self.read = srt.reader()
        self.totals = SrtStats()
        """Of all connections since the start. Its gauges mean nothing."""
        self.callers = 0
        """Asked about in a listen callback since the start; libsrt has made a socket for each, taken or refused."""
        self._pause_s = pause_s
        self._epoll = srt.epoll()
        self._endpoints: dict[int, Endpoint] = {}
        self._idle = True  # nobody is waited for
        self._tidying = _Tidying()
        self._loop: asyncio.AbstractEventLoop
        self._doorbell: Doorbell
        self._sweeping: asyncio.TimerHandle
        self._given_back: asyncio.Future[None]  # memory, the last time
        self._silent = asyncio.Event()  # the doorbell has ended
        self._leaving = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._doorbell = Doorbell(self.srt.waiter(self._epoll), self._pause_s, self._rung, self._silenced)
        self._doorbell.start()
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        self._given_back = self._loop.create_future()
        self._given_back.set_result(None)
        atexit.register(self._halt)  # before libsrt's own clean-up, which was registered earlier
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._leaving = True
        self._sweeping.cancel()
        for socket in list(self._endpoints):
            self.end(socket, None)
        self._doorbell.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await self._silent.wait()
        atexit.unregister(self._halt)
        self._halt()
        await self._given_back

    def watch(self, endpoint: Endpoint) -> None:
        """Begin with an endpoint."""
        self._endpoints[endpoint.socket] = endpoint
        try:
            self.srt.epoll_add(self._epoll, endpoint.socket, endpoint.events)
        except SrtError as error:
            self.end(endpoint.socket, ProtocolError(f"connection lost at its start: {error}"))
        if self._idle:  # libsrt refuses to wait for an empty set
            self._idle = False
            self._doorbell.answer()

    def release(self, socket: int) -> None:
        """Stop watching, and leave the socket open."""
        self._endpoints.pop(socket, None)
        self.srt.epoll_remove(self._epoll, socket)

    def end(self, socket: int, error: ProtocolError | None) -> None:
        """Stop watching and close. Nothing happens if it has ended already."""
        endpoint = self._endpoints.pop(socket, None)
        if endpoint is None:
            return
        self.srt.epoll_remove(self._epoll, socket)
        endpoint.ended(error, monotonic_ns())
        self.srt.close(socket)

    def _halt(self) -> None:
        self._doorbell.stop()
        self._doorbell.join()
        for socket in self._endpoints:
            self.srt.close(socket)
        self._endpoints.clear()
        self.srt.epoll_release(self._epoll)

    def _rung(self, ready: Ready) -> None:
        self._in_turns(deque(socket for socket, _events in ready), _read, self._answer)

    def _answer(self) -> None:
        self._idle = not self._endpoints
        if not self._idle:
            self._doorbell.answer()

    def _sweep(self) -> None:
        self._in_turns(deque(self._endpoints), _look_after, self._swept)

    def _swept(self) -> None:
        if self._leaving:
            return
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        if self._tidying.due(monotonic_ns(), self.callers) and self._given_back.done():
            self._given_back = self._loop.run_in_executor(None, self.srt.give_back_memory)  # too long for the loop

    def _in_turns(self, sockets: deque[int], step: Step, on_done: Callable[[], None]) -> None:
        """Takes the step with each, for a bounded time; with the rest in the next turn. What goes wrong with one ends that one."""
        begun = now = monotonic_ns()
        while sockets:
            if now - begun > _TURN_NS:
                self._loop.call_soon(self._in_turns, sockets, step, on_done)
                return
            endpoint = self._endpoints.get(sockets.popleft())
            if endpoint is not None:
                try:
                    step(endpoint, now)
                except ProtocolError as error:
                    self.end(endpoint.socket, error)
                except SrtError as error:
                    self.end(endpoint.socket, ProtocolError(str(error)))
            now = monotonic_ns()
        on_done()

    def _silenced(self) -> None:
        self._silent.set()
        if not self._leaving:
            for socket in list(self._endpoints):
                self.end(socket, ProtocolError("the SRT receiver has stopped"))


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
