"""Listening sockets that somebody else has opened, keeps open and hands to each process of the gateway: systemd's socket activation.

As sd_listen_fds(3) has it: `LISTEN_FDS` descriptors from 3 on, for the process `LISTEN_PID`. While the gateway is restarted the kernel
still takes connections on them, and they wait. UDP needs nothing of that kind: no datagram is refused, SRT callers ask again several times
a second, and viewers begin anew in any case.
"""

import logging
import os
import socket
from collections.abc import MutableMapping, Sequence
from typing import Final, Self

from gateway.telemetry.log import event

log = logging.getLogger(__name__)

_FIRST: Final = 3
_MOST: Final = 64
_NAMES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


class InheritedSockets:
    """TCP sockets by their port; each is given out once. True where there were any."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._unused = list(sockets)
        self._any = bool(sockets)

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Self:
        """Of this process: what says so is taken out of its environment, so that no process of ours believes it, too."""
        given = {name: environment.pop(name, "") for name in _NAMES}
        count = given["LISTEN_FDS"]
        if given["LISTEN_PID"] != str(os.getpid()) or not (count.isascii() and count.isdigit() and 0 < int(count) <= _MOST):
            return cls(())
        return cls([each for descriptor in range(_FIRST, _FIRST + int(count)) if (each := _listening(descriptor)) is not None])

    def __bool__(self) -> bool:
        return self._any

    def take(self, port: int) -> list[socket.socket]:
        """Those that listen on this port, whatever their addresses are; they are the taker's to close."""
        found = [each for each in self._unused if port and each.getsockname()[1] == port]
        self._unused = [each for each in self._unused if each not in found]
        return found

    def warn_of_unused(self) -> None:
        """Nobody answers on those that were not taken: whoever connects there waits in vain."""
        for each in self._unused:
            words = "a socket was handed to the gateway for a port that its configuration does not have: nobody answers there"
            event(log, logging.WARNING, words, port=each.getsockname()[1])


NO_SOCKETS: Final = InheritedSockets(())


def _listening(descriptor: int) -> socket.socket | None:
    """None for what is no listening TCP socket."""
    os.set_inheritable(descriptor, False)
    each = socket.socket(fileno=descriptor)
    tcp = each.family in (socket.AF_INET, socket.AF_INET6) and each.type == socket.SOCK_STREAM
    if tcp and each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        each.setblocking(False)
        return each
    event(
        log,
        logging.WARNING,
        "the gateway was handed something that is no listening TCP socket: it is left alone",
        descriptor=descriptor,
    )
    each.detach()
    return None
