"""Connections as they come to a listening TCP socket.

Kept true: who is cancelled while they wait loses none: a connection that nobody has taken stays with the socket, for whoever has it next.
"""

import asyncio
import errno
import logging
import socket

log = logging.getLogger(__name__)

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BREATH_S = 1.0  # before the next try when there are no file descriptors


async def accept(listening: socket.socket, protocol: str) -> tuple[socket.socket, str, int]:
    """The next connection, with the peer's numeric host and port; `protocol` names it in the log. Where the process is out of file
    descriptors it waits until there are some."""
    await asyncio.sleep(0)  # hundreds that wait are taken one by one, and others have their turn between
    while True:
        try:
            accepted, address = listening.accept()
        except BlockingIOError:
            await _readable(listening)
        except OSError as error:
            exhausted = error.errno in _OUT_OF_RESOURCES
            if exhausted:
                log.warning("no %s connection accepted: %s", protocol, error.strerror)
            await asyncio.sleep(_BREATH_S if exhausted else 0)  # otherwise the peer has gone before we took it
        else:
            accepted.setblocking(False)
            return accepted, address[0], address[1]


async def _readable(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listening, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listening)
