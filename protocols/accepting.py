"""Connections as they come to a listening TCP socket."""

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
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)  # hundreds that wait are taken one by one, and others have their turn between
    while True:
        try:
            accepted, address = await loop.sock_accept(listening)
        except OSError as error:
            exhausted = error.errno in _OUT_OF_RESOURCES
            if exhausted:
                log.warning("no %s connection accepted: %s", protocol, error.strerror)
            await asyncio.sleep(_BREATH_S if exhausted else 0)  # otherwise the peer has gone before we took it
        else:
            return accepted, address[0], address[1]
