"""All that happens in other threads than the event loop's: waiting.

Libsrt has nothing that an event loop could wait for, and asks about callers in a thread of its own. Kept true here:
* The doorbell's thread waits for all SRT sockets together, rings, and waits anew only when the loop has answered the ring: there is never
  more than one, however busy the loop is and however long a socket stays readable.
* Libsrt's thread of a port puts its question to the loop and waits for the answer, within a limit: nothing is received there meanwhile, and
  libsrt holds a lock that whoever closes the listening socket waits for.
* Neither reads, decides or changes anything; both end quietly with the loop.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import Any, Final, TypeVar

_WAIT_MS: Final = 100
_JOIN_S: Final = 2.0

T = TypeVar("T")

Ready = list[tuple[int, int]]
"""(socket, events) of those ready."""


class Doorbell:
    """Rings when a socket is ready. Made on the loop; it first waits once it has been `answer`ed."""

    def __init__(
        self, wait: Callable[[int], Ready], pause_s: float, on_ring: Callable[[Ready], None], on_end: Callable[[], None]
    ) -> None:
        """`wait` is the blocking call, with its time-out in ms; two rings are at least `pause_s` apart. `on_ring` and `on_end` (the thread
        has ended) run on the loop."""
        self._wait = wait
        self._pause_s = pause_s
        self._on_ring = on_ring
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._answers: SimpleQueue[None] = SimpleQueue()  # a semaphore in C: this is up to a thousand times a second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="srt-doorbell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def answer(self) -> None:
        """All is done that the last ring was about: ring again."""
        self._answers.put(None)

    def stop(self) -> None:
        """`on_end` follows within 100 ms."""
        self._stopping.set()
        self._answers.put(None)

    def join(self) -> None:
        """Wait for the end of a thread that was stopped; 2 s at most."""
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to ring for
            try:
                while True:
                    self._answers.get()
                    if self._stopping.is_set():
                        break
                    ready = self._wait(_WAIT_MS)
                    self._loop.call_soon_threadsafe(self._on_ring, ready)
                    self._stopping.wait(self._pause_s)
            finally:
                tell(self._loop, self._on_end)


def tell(loop: asyncio.AbstractEventLoop, news: Callable[[], object]) -> None:
    """From another thread: have this called on the loop, unless it is closed."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(news)


def ask(loop: asyncio.AbstractEventLoop, question: Coroutine[Any, Any, T], within_s: float) -> T | None:
    """From another thread: what the loop answers, None when it does not in time or is closed; then the question is cancelled, though it may
    just have been answered. Raises what the question raises."""
    try:
        answer = asyncio.run_coroutine_threadsafe(question, loop)
    except RuntimeError:
        question.close()
        return None
    try:
        return answer.result(within_s)
    except (TimeoutError, CancelledError):
        answer.cancel()
        return None
