"""Work that others ask for as often as they like, done at most once in a while."""

import asyncio
from collections.abc import Callable


class Spaced:
    """Does `work` when it is asked for, at once or once `apart_s` have passed since the last time: what is asked for meanwhile is one."""

    def __init__(self, work: Callable[[], None], apart_s: float) -> None:
        self._work = work
        self._apart_s = apart_s
        self._loop = asyncio.get_running_loop()
        self._not_before = 0.0  # in the loop's time
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        if self._timer is None and self._loop.time() >= self._not_before:
            self._do()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._not_before, self._do)

    def close(self) -> None:
        """What waits is not done any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _do(self) -> None:
        self._timer = None
        self._not_before = self._loop.time() + self._apart_s
        self._work()
