"""Runs of packets to many peers in C (`runs.c`, made by `build.py`): one call, without the interpreter, for what `transport/runs.py` does
one by one. No number is kept here: what comes next is the streams' to know, whichever of the two sends."""

import os
import socket
from array import array
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from struct import Struct
from types import ModuleType
from typing import Any, Protocol

from protocols.webrtc.rtp import VERSION_WITH_EXTENSION, HeaderLayout, Packet
from protocols.webrtc.transport.runs import Ancillary, OutgoingRun, RunSender, RunSocket
from protocols.webrtc.transport.srtp import TRAILER_LIMIT, protect_address

BUILT = f"{__package__}._runs"
_MEMORY = 128 << 10  # bytes that are written before they are sent: what stays in a core's cache
_PAYLOADS = Struct("=I128s64s")  # `struct payloads` of runs.h, and so on
_HEADER = Struct("=HH")
_OUTGOING = Struct("@PPPPIIHHHHB28shh6x")
_CONTROL = Struct("@Nii")  # struct cmsghdr
_FAMILY, _SCOPE = Struct("=H"), Struct("=I")
_ADDRESSES = 4096  # remembered as the kernel takes them


class NativeSocket(RunSocket, Protocol):
    """Where runs leave: what `egress.Egress` shows."""

    sent: int
    segmentation: bool
    sources: dict[tuple[Any, ...], list[Ancillary]]

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def refused(self, error: int, packets: int) -> None:
        """The kernel has not taken so many packets, with this errno."""

    def without_native(self, error: int) -> RunSender:
        """The native part has failed with this errno. What sends instead of it from now on."""


class CannotSend(Exception):
    """Why the native part cannot be used here."""


def module(name: str = BUILT) -> ModuleType:
    """The C part, where it was built for this Python and the system has what it takes. Raises `CannotSend`."""
    if find_spec(name) is None:
        raise CannotSend("it was not built")
    try:
        made = import_module(name)
    except ImportError as why:
        raise CannotSend(str(why)) from None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        error = made.lib.usable(sock.fileno())
    if error:
        raise CannotSend(f"sendmmsg: {os.strerror(-error)}")
    return made


class NativeRuns:
    """The `RunSender` in C, of one socket."""

    def __init__(self, sock: NativeSocket, module: ModuleType) -> None:
        self._socket = sock
        self._ffi: Any = module.ffi
        self._send_runs: Any = module.lib.send_runs
        self._memory = self._ffi.new("char[]", _MEMORY)
        self._egress = self._ffi.new(
            "struct egress *",
            {"protect": protect_address(), "memory": self._memory, "capacity": _MEMORY, "trailer": TRAILER_LIMIT},
        )

    def send(self, runs: Sequence[OutgoingRun]) -> Sequence[OutgoingRun]:
        sock, egress = self._socket, self._egress
        egress.socket, egress.segmentation = sock.fileno(), sock.segmentation
        written = _Written(self._ffi, sock)
        outgoing = written.of(runs)
        lost = self._send_runs(egress, outgoing, len(runs))
        if lost < 0:
            return sock.without_native(-lost).send(runs)
        sock.sent += egress.taken
        if not egress.segmentation:
            sock.segmentation = False
        return self._lost(runs, outgoing) if lost else ()

    def _lost(self, runs: Sequence[OutgoingRun], outgoing: Any) -> Sequence[OutgoingRun]:
        lost: list[OutgoingRun] = []
        for run, told in zip(runs, outgoing, strict=True):
            missing = len(run.packets) - told.taken
            if missing:
                lost.append(run)
                if told.error:
                    self._socket.refused(told.error, missing)
        return lost


class _Written:
    """Runs as C takes them; keeps alive what they point to. What is alike in several of them stands there once."""

    def __init__(self, ffi: Any, sock: NativeSocket) -> None:
        self._ffi = ffi
        self._socket = sock
        self._kept: list[Any] = []
        self._payloads: dict[int, int] = {}
        self._headers: dict[tuple[int, int], int] = {}

    def of(self, runs: Sequence[OutgoingRun]) -> Any:
        """An array of `struct outgoing`."""
        data = bytearray(_OUTGOING.size * len(runs))
        pack, payloads, sources, family = _OUTGOING.pack_into, self._payloads, self._socket.sources, self._socket.family
        at = header = 0
        for_layout, for_time = None, 0
        for run in runs:
            _, packets, layout, payload_type, sequence, timestamp, ssrc, now, counted, outbound, address = run
            if layout is not for_layout or now != for_time:
                header, for_layout, for_time = self._header(layout, now), layout, now
            where, size = _socket_address(family, address)
            control, control_size = self._control(sources[address]) if sources and address in sources else (0, 0)
            pack(
                data, at,
                payloads.get(id(packets)) or self._gather(packets), header, outbound.address, control,
                timestamp & 0xFFFFFFFF, ssrc, sequence & 0xFFFF, counted & 0xFFFF, size, control_size, payload_type, where, 0, 0,
            )  # fmt: skip
            at += _OUTGOING.size
        return self._ffi.from_buffer("struct outgoing[]", data)

    def _gather(self, packets: Sequence[Packet]) -> int:
        payloads = [payload for _, payload in packets]
        sizes, markers = array("H", map(len, payloads)).tobytes(), bytes(marker for marker, _ in packets)
        return self._payloads.setdefault(id(packets), self._keep(_PAYLOADS.pack(len(packets), sizes, markers), *payloads))

    def _header(self, layout: HeaderLayout, now: int) -> int:
        made = self._headers.get((id(layout), now))
        if made is None:
            bare = layout.struct.pack(VERSION_WITH_EXTENSION, 0, 0, 0, 0, layout.extensions(now), 0, b"")[: layout.size]
            made = self._headers[id(layout), now] = self._keep(_HEADER.pack(layout.size, layout.transport_at), bare)
        return made

    def _control(self, ancillary: Sequence[Ancillary]) -> tuple[int, int]:
        data = b"".join(
            (_CONTROL.pack(socket.CMSG_LEN(len(value)), level, kind) + value).ljust(socket.CMSG_SPACE(len(value)), b"\0")
            for level, kind, value in ancillary
        )
        return self._keep(data), len(data)

    def _keep(self, *parts: bytes) -> int:
        """Where these stand one behind the other."""
        kept = self._ffi.from_buffer(b"".join(parts))
        self._kept.append(kept)
        return int(self._ffi.cast("uintptr_t", kept))


@lru_cache(_ADDRESSES)
def _socket_address(family: int, address: tuple[Any, ...]) -> tuple[bytes, int]:
    """`sockaddr_in` or `sockaddr_in6`, and how much of that the kernel is to read."""
    host, port, *rest = address
    data = _FAMILY.pack(family) + port.to_bytes(2, "big")
    if family == socket.AF_INET:
        data += socket.inet_pton(family, host) + bytes(8)
    else:
        flow, scope = rest or (0, 0)
        data += flow.to_bytes(4, "big") + socket.inet_pton(family, host.partition("%")[0]) + _SCOPE.pack(scope)
    return data, len(data)
