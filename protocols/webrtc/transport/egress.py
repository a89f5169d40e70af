"""The way out: runs of equal packets into one UDP socket, each with one system call where the kernel cuts it (`UDP_SEGMENT`).

What is kept true: sending never blocks, never raises and never queues. What the kernel does not take at once is lost like any packet on
the way (repair is RTCP's), and is counted.
"""

import errno
import logging
import os
import socket
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any

from protocols.webrtc.native import runs as native
from protocols.webrtc.transport.runs import Ancillary, PythonRuns, RunSender
from protocols.webrtc.transport.srtp import Arena

_SOL_UDP = 17
_UDP_SEGMENT = 103  # linux/udp.h; Python has no name for it
_SEGMENT_LIMIT = 1500

_FULL = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})
# The kernel or the network card cannot cut: for good. EINVAL and EMSGSIZE can also mean one viewer's way (port 0, a path MTU that its
# own ICMP made small), so they never end it for the others: that datagram alone goes packet by packet.
_NO_SEGMENTATION = frozenset({errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
_TRY_SINGLY = _NO_SEGMENTATION | {errno.EINVAL, errno.EMSGSIZE}


_log = logging.getLogger(__name__)


class Egress:
    """Sends on `sock` (UDP), shared by all peers. `arena` is where Python builds packets: each run leaves before the next is built."""

    __slots__ = (
        "_ancillary", "_flags", "_sock", "arena", "dropped", "errors", "family", "native_failures", "runs", "segmentation", "sent",
        "sources",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, module: ModuleType | None = None) -> None:
        """`module` is the native part, where there is one that can be used."""
        self.arena = Arena()
        self.sent = 0
        """Packets that the kernel took."""
        self.dropped = 0
        """Packets lost to a full socket buffer or queue."""
        self.errors = 0
        """Packets that could not go to their address."""
        self.segmentation = _supported(sock)
        self._sock = sock
        self.family = sock.family
        self.native_failures = 0
        self.runs: RunSender = PythonRuns(self) if module is None else native.NativeRuns(self, module)
        """What writes and protects packets of ours, and sends them here."""
        self._flags = getattr(socket, "MSG_DONTWAIT", 0)
        self._ancillary: dict[int, list[Ancillary]] = {}
        self.sources: dict[tuple[Any, ...], list[Ancillary]] = {}
        """By address: the control message that names our own address to send from, where the kernel would choose another one."""

    def send(self, buffer: memoryview, segment: int, address: tuple[Any, ...]) -> bool:
        """Sends the packets that lie side by side in `buffer`, all of `segment` bytes but the last, which may be shorter.

        At most 64 packets and 64 KiB. False if any of them was not taken.
        """
        size = len(buffer)
        if size <= segment:
            return self.send_one(buffer, address)
        if not self.segmentation:
            return self._send_singly(buffer, segment, address)
        ancillary = self._ancillary.get(segment) or self._remember(segment)
        if self.sources and address in self.sources:
            ancillary = ancillary + self.sources[address]
        try:
            self._sock.sendmsg((buffer,), ancillary, self._flags, address)
        except OSError as error:
            if error.errno not in _TRY_SINGLY:
                self.refused(error.errno, -(-size // segment))
                return False
            taken = self._send_singly(buffer, segment, address)
            if taken and error.errno in _NO_SEGMENTATION:
                self.segmentation = False
            return taken
        self.sent += -(-size // segment)
        return True

    def send_one(self, packet: memoryview | bytes, address: tuple[Any, ...]) -> bool:
        """Sends one packet. False if it was not taken."""
        try:
            if self.sources and address in self.sources:
                self._sock.sendmsg((packet,), self.sources[address], self._flags, address)
            else:
                self._sock.sendto(packet, self._flags, address)
        except OSError as error:
            self.refused(error.errno, 1)
            return False
        self.sent += 1
        return True

    def _send_singly(self, buffer: memoryview, segment: int, address: tuple[Any, ...]) -> bool:
        taken = True
        for begin in range(0, len(buffer), segment):
            taken &= self.send_one(buffer[begin : begin + segment], address)
        return taken

    def fileno(self) -> int:
        return self._sock.fileno()

    def without_native(self, error: int) -> RunSender:
        """The native part has failed with this errno: what sends in Python from now on."""
        self.native_failures += 1
        self.runs = PythonRuns(self)
        _log.warning(
            "the native sender has failed (%s): until the next start packets are sent in Python, at more CPU for each viewer",
            os.strerror(error),
        )
        return self.runs

    def refused(self, error: int | None, packets: int) -> None:
        """Counts packets that the kernel has not taken, by its errno."""
        if error in _FULL:
            self.dropped += packets
        else:
            self.errors += packets

    def _remember(self, segment: int) -> list[Ancillary]:
        if not 0 < segment <= _SEGMENT_LIMIT:
            raise ValueError("segment size out of range")
        ancillary = [(_SOL_UDP, _UDP_SEGMENT, segment.to_bytes(2, sys.byteorder))]
        self._ancillary[segment] = ancillary
        return ancillary


def _supported(sock: socket.socket) -> bool:
    # An old kernel would ignore the control message and send one fragmented giant: ask first, with a value that changes nothing.
    if sys.platform != "linux":
        return False
    with suppress(OSError):
        sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
        return True
    return False
