"""The gateway's end of the socket to a fan-out process, on which units are given in time or not at all.

Keeps true: what a process does not read waits for `LATE_NS` and `MOST_BACKLOG` at most; then all that follows is left out, and counted,
until it has read again.
"""

import socket
from collections import deque
from collections.abc import Callable

from gateway.outputs.fanout import messages
from gateway.outputs.fanout.messages import PackedUnit
from transcode.host.pipe import Pipe
from transcode.messages import MessageFrame

LATE_NS = 250_000_000
"""Later than this is worse than lost."""
MOST_BACKLOG = 16 << 20
"""Bytes: two of the largest units."""


class UnitPipe(Pipe):
    def __init__(self, sock: socket.socket, on_frame: Callable[[MessageFrame], None], on_end: Callable[[str], None]) -> None:
        super().__init__(sock, on_frame, on_end)
        self.left_out = 0
        """Units that were not given."""
        self._written = 0  # bytes of units
        self._waiting: deque[tuple[int, int]] = deque()  # of units: the bytes written up to its end, and when

    def push(self, number: int, unit: PackedUnit | None, now: int) -> bool:
        """Give a unit of the source of this number; False where it has to be left out, as one is that has no room (None). `now` in
        monotonic ns."""
        if unit is None or not self.reads(now):
            self.left_out += 1
            return False
        head = messages.unit_of(number, unit)
        self.write(head, unit.data)
        self._written += len(head) + len(unit.data)
        if self.backlog:
            self._waiting.append((self._written, now))
        return True

    def reads(self, now: int) -> bool:
        """Whether what is written now is read in time."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._written - self.backlog:
            waiting.popleft()
        return self.backlog < MOST_BACKLOG and (not waiting or now - waiting[0][1] < LATE_NS)
