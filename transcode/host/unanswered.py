"""What one worker process was given and has not answered yet, and whether it hangs.

Keeps true: answers come in the order of what was given, and never more of them; a worker hangs that has something in hand and has answered
nothing for so long, while the gateway itself was awake to hear it. One that gets little CPU beside others is given more time for its work.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from protocols.errors import ProtocolError

_LONGEST = 4
"""Times as long it may take where it works, but has little CPU for it."""


class Asker(Protocol):
    """For whom something is given."""

    def on_taken(self) -> None: ...


A = TypeVar("A", bound=Asker)


class Unanswered(Generic[A]):
    """Of one worker, from its start to its end."""

    def __init__(
        self, hang: float, read: Callable[[], bool], used: Callable[[], float], on_hang: Callable[[float], None]
    ) -> None:
        """`read` hears what the worker has said meanwhile, `used` gives the CPU in s that it has had; `on_hang` is told that it has been
        silent for `hang` s or more."""
        self._hang = hang
        self._read = read
        self._used = used
        self._on_hang = on_hang
        self._loop = asyncio.get_running_loop()
        self._given: deque[tuple[A, int]] = deque()  # and dts
        self._taken = 0  # modulo 2**32, as the worker counts
        self._last_progress = 0.0
        self._used_last = 0.0  # s of CPU, when it was last looked at
        self._used_before = 0.0  # and at a look not long before its last answer
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
                self._used_last = self._used_before = self._used()
                self._check_soon()
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
        used, last = self._used(), self._used_last
        self._used_last = used
        if idle < self._hang / 2:
            self._used_before = last
        works = last < used < self._used_before + self._hang and idle < _LONGEST * self._hang
        if idle >= self._hang and not works:
            self._on_hang(idle)
        else:
            self._check_soon()

    def _check_soon(self) -> None:
        self._timer = self._loop.call_later(self._hang / 2, self._check)
