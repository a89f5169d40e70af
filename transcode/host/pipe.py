"""The gateway's end of the socket to one worker process.

Keeps true: the event loop never blocks on a worker; a message is written at once, and what the socket does not take waits in order; what
comes is parsed as from a stranger.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from protocols.errors import ProtocolError
from transcode.messages import MessageFrame, MessageReader


class Pipe:
    """Open from the start; `close` is the end, from either side."""

    def __init__(self, sock: socket.socket, on_frame: Callable[[MessageFrame], None], on_end: Callable[[str], None]) -> None:
        """`on_frame` takes each message and may raise `ProtocolError`; `on_end` is told once that the worker has closed, with words where
        what it sent was wrong."""
        self.backlog = 0
        """Bytes that the socket has not taken yet."""
        self._sock: socket.socket | None = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._inbox = MessageReader()
        self._outbox: deque[memoryview] = deque()
        self._loop.add_reader(sock, self.read)

    @property
    def open(self) -> bool:
        return self._sock is not None

    def write(self, head: bytes, data: bytes = b"") -> None:
        """Both together are a message; after the end it is dropped."""
        if self._sock is None:
            return
        sent = 0
        if not self._outbox:
            try:
                sent = self._sock.sendmsg((head, data))
            except BlockingIOError:
                pass
            except OSError:
                return  # it has ended: the read side says so
            if sent == len(head) + len(data):
                return
            self._loop.add_writer(self._sock, self._flush)
        for part in (head, data):
            if sent < len(part):
                self._outbox.append(memoryview(part)[sent:])
                self.backlog += len(part) - sent
            sent = max(0, sent - len(part))

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
        """Idempotent; the worker ends by it."""
        if self._sock is None:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._sock = None
        self._outbox.clear()
        self.backlog = 0

    def _end(self, fault: str) -> None:
        self.close()
        self._on_end(fault)

    def _flush(self) -> None:
        assert self._sock is not None
        while self._outbox:
            part = self._outbox[0]
            try:
                sent = self._sock.send(part)
            except BlockingIOError:
                return
            except OSError:
                break
            self.backlog -= sent
            if sent < len(part):
                self._outbox[0] = part[sent:]
                return
            self._outbox.popleft()
        self._loop.remove_writer(self._sock)
