"""Runs of packets to many peers, written, protected and sent in Python. Where it was built, the native part (`protocols/webrtc/native`)
does the same for all of them in one call."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

from protocols.webrtc.rtp import VERSION_WITH_EXTENSION, HeaderLayout, Packet
from protocols.webrtc.transport.srtp import Arena, OutboundSrtp, SrtpError

Ancillary: TypeAlias = tuple[int, int, bytes]
"""A control message: level, type, data."""


class OutgoingRun(NamedTuple):
    """At most 64 packets and 64 KiB for one peer, payloads of one size but the last, which may be shorter. The numbers are those of the
    first packet, not wrapped, and count up from there."""

    owner: "RunOwner"
    packets: Sequence[Packet]
    layout: HeaderLayout
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    now: int  # monotonic ns: the time that the packets bear, where they bear any
    transport_sequence: int  # 0 where the layout has none
    outbound: OutboundSrtp
    address: tuple[Any, ...]


outgoing_run: "Callable[[tuple[Any, ...]], OutgoingRun]" = partial(tuple.__new__, OutgoingRun)
"""One of these from a tuple of its fields: in half the time, where there is one for each viewer of each frame."""


class RunOwner(Protocol):
    """Whose run it is."""

    def lost(self, run: OutgoingRun) -> None:
        """It was lost, as `RunSender.send` says."""


class RunSender(Protocol):
    """Of one socket."""

    def send(self, runs: Sequence[OutgoingRun]) -> Sequence[OutgoingRun]:
        """Sends them in their order, and gives those that are lost: that could not be protected, or that the kernel did not take whole."""


class RunSocket(Protocol):
    """Where runs leave: what `egress.Egress` shows."""

    arena: Arena

    def send(self, buffer: memoryview, segment: int, address: tuple[Any, ...]) -> bool: ...


class PythonRuns:
    """The `RunSender` that is always there. The hot path: per packet one header, one copy and one protection in place; per run one system
    call."""

    def __init__(self, socket: RunSocket) -> None:
        self._socket = socket

    def send(self, runs: Sequence[OutgoingRun]) -> Sequence[OutgoingRun]:
        lost: list[OutgoingRun] = []
        send, arena = self._socket.send, self._socket.arena
        view = arena.view
        for run in runs:
            _, packets, layout, payload_type, sequence, timestamp, ssrc, now, counted, outbound, address = run
            pack, protect, header, step = layout.struct.pack_into, outbound.protect, layout.size, layout.transport_step
            stamp, extensions = timestamp & 0xFFFFFFFF, layout.extensions(now)
            begin = segment = 0
            try:
                for marker, payload in packets:
                    pack(
                        view, begin, VERSION_WITH_EXTENSION, payload_type | marker, sequence & 0xFFFF, stamp, ssrc, extensions,
                        counted & 0xFFFF, payload,
                    )  # fmt: skip
                    begin += protect(arena, begin, header + len(payload))
                    segment = segment or begin
                    sequence += 1
                    counted += step
            except SrtpError:
                lost.append(run)
                continue
            if not send(view[:begin], segment, address):
                lost.append(run)
        return lost
