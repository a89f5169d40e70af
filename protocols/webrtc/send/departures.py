"""When the packets of one viewer left, by their transport-wide sequence numbers, for feedback to be compared with. Sans-IO.

What is kept true: each packet is given once, to the first feedback that speaks of it, so that all feedback together costs no more than what
was sent, whatever it claims; what was never sent is not given; nothing grows where no feedback comes.
"""

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from protocols.webrtc.rtp import OVERHEAD
from protocols.webrtc.send.rtp_stream import Departed
from protocols.webrtc.send.sender import Sender

_UNTOLD = 1 << 15  # half of the sequence space: what is further back is not told apart from what is to come
_RUNS = 1024  # of at most 16 packets, which are half of that

Departure: TypeAlias = tuple[int, int, int, int]
"""Packets that left together: (the first of them, by its place in the feedback; the place behind the last; monotonic ns; bytes of each on
the way)"""


class Departures:
    """Of all m-lines of one peer, which share one counter."""

    def __init__(self, senders: Iterable[Sender]) -> None:
        counted = [sender for sender in senders if sender.parameters.transport_cc_extension]
        self._transport = counted[0].stream.transport if counted else None
        self._runs: deque[Departed] = deque(maxlen=_RUNS)  # that no feedback has spoken of, in their order
        for sender in counted:
            sender.stream.departed = self._runs
        self._following = self._transport.transport_sequence if self._transport else 0
        self._told = self._following - _UNTOLD  # before this packet all were given, or never will be

    @property
    def agreed(self) -> bool:
        """Whether transport-wide feedback was negotiated for any of them."""
        return self._transport is not None

    def take(self, base: int, count: int) -> list[Departure]:
        """Of the `count` packets from `base` (16 bits) on those that no feedback has spoken of yet, in their order. Repairs are left out,
        and what is forgotten."""
        following = self._next()
        behind = following - base & 0xFFFF
        begin = following - behind
        first, last = max(begin, self._told), min(begin + count, following)
        if behind > _UNTOLD or first >= last:
            return []
        self._told = last
        given: list[Departure] = []
        runs = self._runs
        while runs:
            wrapped, packets, at, size = runs[0]
            low = following - (following - wrapped & 0xFFFF)
            if low >= last:
                break
            high = low + packets
            if high > first:
                given.append((max(low, first) - begin, min(high, last) - begin, at, size // packets + OVERHEAD))
            if high > last:
                break
            runs.popleft()
        return given

    def _next(self) -> int:
        """The transport-wide sequence number that is not given yet, not wrapped."""
        if self._transport is not None:
            self._following += self._transport.transport_sequence - self._following & 0xFFFF
            self._told = max(self._told, self._following - _UNTOLD)
        return self._following
