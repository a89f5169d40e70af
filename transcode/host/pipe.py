"""One end of the socket between the gateway and a process of its own.

Keeps true: the event loop never blocks on the other side; a message is written at once, or with those that come within a time that is
named; what the socket does not take waits in order; what comes is parsed as from a stranger.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from itertools import islice

from protocols.errors import ProtocolError
from transcode.messages import MessageFrame, MessageReader

_MOST_PARTS = 256  # in one system call: the kernel takes 1024


class Pipe:
    """Open from the start; `close` is the end, from either side."""

    def __init__(self, sock: socket.socket, on_frame: Callable[[MessageFrame], None], on_end: Callable[[str], None]) -> None:
        """`on_frame` takes each message and may raise `ProtocolError`; `on_end` is told once that the other side has closed, with words
        where what it sent was wrong."""
        self.backlog = 0
        """Bytes that the socket has not taken yet."""
        self._sock: socket.socket | None = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._inbox = MessageReader()
        self._outbox: deque[memoryview] = deque()
        self._timer: asyncio.TimerHandle | None = None  # until which what is in it waits for more
        self._full = False  # the socket takes no more: what is in it waits for that
        self._loop.add_reader(sock, self.read)

    @property
    def open(self) -> bool:
        return self._sock is not None

    def write(self, head: bytes, data: bytes = b"", within: float = 0.0) -> None:
        """Both together are a message, which may wait `within` s for others that leave with it; after the end it is dropped."""
        if self._sock is None:
            return
        for part in (head, data):
            if part:
                self._outbox.append(memoryview(part))
                self.backlog += len(part)
        if self._full:
            return
        if not within:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(within, self._flush)

    def read(self) -> bool:
        """Handle what has come; False where nothing had."""
        sock = self._sock
        if sock is None:
            return False
        try:
            count = sock.recv_into(self._inbox.room())
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if count == 0:
            self._end("")
            return False
        try:
            for frame in self._inbox.received(count):
                self._on_frame(frame)
                if self._sock is None:  # closed by what a sink did
                    return False
        except ProtocolError as error:
            self._end(str(error))
            return False
        return True

    def close(self) -> None:
        """Idempotent; a process of ours ends by it."""
        if self._sock is None:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._stop_timer()
        self._sock.close()
        self._sock = None
        self._outbox.clear()
        self.backlog = 0

    def _end(self, fault: str) -> None:
        self.close()
        self._on_end(fault)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        assert self._sock is not None
        self._stop_timer()
        while self._outbox:
            try:
                sent = self._sock.sendmsg(list(islice(self._outbox, _MOST_PARTS)))
            except BlockingIOError:
                if not self._full:
                    self._full = True
                    self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:
                self._outbox.clear()  # it has ended: the read side says so
                self.backlog = 0
                break
            self.backlog -= sent
            while sent and sent >= len(self._outbox[0]):
                sent -= len(self._outbox.popleft())
            if sent:
                self._outbox[0] = self._outbox[0][sent:]
        if self._full:
            self._full = False
            self._loop.remove_writer(self._sock)
