"""The operator's socket: a file in the state directory through which the command line of the same user speaks to the gateway that runs.

Kept true: the file is its owner's alone (mode 0600), from its first moment on.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.config import Config

_LONGEST: Final = 100  # bytes of a path that every system takes (sockaddr_un)


def socket_file(config: Config) -> Path:
    """Where it is: gateways with one state directory have ports of their own."""
    return Path(config.state.directory, f"gateway-{config.http.port}.sock")


@contextmanager
def listening(config: Config) -> Iterator[socket.socket]:
    """Bound; the file goes with it. Raises `OSError`."""
    file = socket_file(config)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound, _address(file) as address:
        file.unlink(missing_ok=True)  # of a gateway that was killed
        os.fchmod(bound.fileno(), 0o600)
        bound.bind(address)
        try:
            yield bound
        finally:
            file.unlink(missing_ok=True)


def connected(config: Config, timeout_s: float) -> socket.socket:
    """To the gateway of this configuration. Raises `OSError`."""
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connecting.settimeout(timeout_s)
        with _address(socket_file(config)) as address:
            connecting.connect(address)
    except OSError:
        connecting.close()
        raise
    return connecting


@contextmanager
def _address(file: Path) -> Iterator[str]:
    """The file as the system takes it: one with a long path by way of its open folder (Linux)."""
    if len(os.fsencode(file)) <= _LONGEST:
        yield str(file)
        return
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{file.name}"
    finally:
        with suppress(OSError):
            os.close(folder)
