"""What one worker process was given and has not answered yet, and whether it hangs.

Keeps true: answers come in the order of what was given, and never more of them; a worker hangs that has something in hand and has answered
nothing for so long, while it had a CPU to work on and the gateway itself was awake to hear it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from protocols.errors import ProtocolError

_MOST_EXCUSED = 20
"""Times as long as it may hang: a worker of niceness 10 beside others of 0 has a tenth of a CPU."""


class Asker(Protocol):
    """For whom something is given."""

    def on_taken(self) -> None: ...


A = TypeVar("A", bound=Asker)


class Unanswered(Generic[A]):
    """Of one worker, from its start to its end."""

    def __init__(
        self, hang: float, read: Callable[[], bool], starved: Callable[[], float], on_hang: Callable[[float], None]
    ) -> None:
        """`read` hears what the worker has said meanwhile, `starved` says for how many s of its life it had to wait for a CPU;
        `on_hang` is told that it has been silent for `hang` s or more."""
        self._hang = hang
        self._read = read
        self._starved = starved
        self._on_hang = on_hang
        self._loop = asyncio.get_running_loop()
        self._given: deque[tuple[A, int]] = deque()  # and dts
        self._taken = 0  # modulo 2**32, as the worker counts
        self._last_progress = 0.0
        self._starved_before = 0.0  # s, when it was last not silent for too long
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def in_hand(self, done: int) -> tuple[A, int] | None:
        """What it had in hand when it was through with so many, whether it had answered them or not: who asked, and the dts."""
        ahead = (done - self._taken) & 0xFFFFFFFF
        return self._given[ahead] if ahead < len(self._given) else None

    def expect(self, asker: A, dts: int) -> None:
        """An answer, from now on."""
        if not self._given:
            self._last_progress = self._loop.time()
            if self._timer is None:
                self._check_in(self._hang)
        self._given.append((asker, dts))

    def answered(self, taken: int) -> None:
        """The worker has taken so many by now. Raises `ProtocolError` for more than it was given."""
        count = (taken - self._taken) & 0xFFFFFFFF
        if count == 0:
            return
        if count > len(self._given):
            raise ProtocolError("a worker that answers more than it was asked")
        self._taken = taken
        self._last_progress = self._loop.time()
        for _ in range(count):
            asker, _ = self._given.popleft()
            asker.on_taken()

    def stop(self) -> None:
        """Nothing is expected any more; what is unanswered stays to be seen."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        self._read()  # if it was us who stood still, the answers are here
        if self._stopped or not self._given or self._timer is not None:
            return
        idle = self._loop.time() - self._last_progress
        if idle < self._hang:
            self._check_in(self._hang - idle)
            return
        excused = min(self._starved() - self._starved_before, _MOST_EXCUSED * self._hang)
        if idle - excused >= self._hang:
            self._on_hang(idle)
        else:
            self._timer = self._loop.call_later(self._hang - (idle - excused), self._check)

    def _check_in(self, seconds: float) -> None:
        """It is not silent for too long before then."""
        self._starved_before = self._starved()
        self._timer = self._loop.call_later(seconds, self._check)
