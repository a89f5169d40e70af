"""The floor of a fan-out: the same packets to as many viewers by a few lines of C (`floor.c`: libsrtp and sendmmsg, nothing else). What our
own costs is told as a multiple of it, so that a regression shows on any machine and without another server."""

import contextlib
import gc
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cffi import FFI  # type: ignore[import-untyped]

from protocols.webrtc.rtp import VERSION_WITH_EXTENSION
from protocols.webrtc.transport.runs import OutgoingRun
from protocols.webrtc.transport.srtp import OutboundSrtp, protect_address

_HERE = Path(__file__).parent
_FLAGS = ("-O2", "-fPIC", "-shared", "-D_GNU_SOURCE")


class NoFloor(Exception):
    """Why it cannot be measured here."""


def cpu() -> float:
    """Seconds of this process, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Kept:
    """A `RunSender` that sends nothing and keeps what it was given."""

    def __init__(self) -> None:
        self.runs: list[OutgoingRun] = []

    def send(self, runs: Sequence[OutgoingRun]) -> Sequence[OutgoingRun]:
        self.runs += runs
        return ()


def floor(runs: Sequence[OutgoingRun], sessions: Sequence[OutboundSrtp]) -> float:
    """CPU seconds of giving these, of two streams at most, to as many viewers as there are sessions, which are new.

    Raises `NoFloor`."""
    ffi, lib = _library()
    streams = list(dict.fromkeys(run.payload_type for run in runs))
    fields = [_run(ffi, run, streams.index(run.payload_type)) for run in runs]  # they own what they point to
    written = ffi.new("struct run[]", fields)
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(_socket())
        viewers = ffi.new("struct viewer[]", [_viewer(stack.enter_context(_socket()), each) for each in sessions])
        gc.collect()
        begun = cpu()
        lost = lib.fan_out(out.fileno(), protect_address(), written, len(runs), viewers, len(sessions))
        spent = cpu() - begun
    if lost:
        raise NoFloor("a packet could not be sent")
    return spent


@cache
def _library() -> tuple[Any, Any]:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        raise NoFloor("it takes Linux and a C compiler")
    ffi = FFI()
    ffi.cdef((_HERE / "floor.h").read_text())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "floor.so")
        subprocess.run([compiler, *_FLAGS, str(_HERE / "floor.c"), "-o", str(target)], check=True)
        return ffi, ffi.dlopen(str(target))


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def _run(ffi: Any, run: OutgoingRun, stream: int) -> dict[str, Any]:
    layout, payloads = run.layout, [payload for _, payload in run.packets]
    header = layout.struct.pack(VERSION_WITH_EXTENSION, 0, 0, 0, 0, layout.extensions(run.now), 0, b"")[: layout.size]
    return {
        "header": ffi.from_buffer(header),
        "payloads": ffi.from_buffer(b"".join(payloads)),
        "sizes": ffi.new("uint16_t[]", [len(payload) for payload in payloads]),
        "markers": ffi.new("uint8_t[]", [marker for marker, _ in run.packets]),
        "timestamp": run.timestamp & 0xFFFFFFFF,
        "count": len(payloads),
        "header_size": layout.size,
        "counter_at": layout.transport_at,
        "stream": stream,
        "payload_type": run.payload_type,
    }


def _viewer(sock: socket.socket, outbound: OutboundSrtp) -> dict[str, Any]:
    host, port = sock.getsockname()
    address = socket.AF_INET.to_bytes(2, sys.byteorder) + port.to_bytes(2) + socket.inet_aton(host) + bytes(8)
    return {"session": outbound.address, "ssrc": [1, 2], "address": address}
