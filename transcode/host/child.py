"""What a worker needs of the process that the fork server made for it: a socket, a way to end it, and to be told of its end."""

import socket
from collections.abc import Callable
from typing import Protocol


class Child(Protocol):
    """A forked process: `sock` is the gateway's end of its socket, `pid` is 0 until it runs."""

    @property
    def sock(self) -> socket.socket: ...

    @property
    def pid(self) -> int: ...

    @property
    def watched(self) -> bool:
        """Whether its exit will be told; not so after it was, and where the fork server has gone."""

    def kill(self) -> None: ...


OnExit = Callable[[int, int], None]
"""Told the exit (code, or -signal), and how many packets the worker was through with by then, modulo 2**32; on the event loop."""

Launch = Callable[[OnExit], Child]
"""Forks a worker and tells its exit; raises `OSError` where there is no fork server."""
