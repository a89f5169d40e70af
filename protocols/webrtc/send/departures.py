"""The transport-wide sequence numbers of one viewer, and when the packets under them left, for feedback to be compared with. Sans-IO.

What is kept true: each packet is given once, to the first feedback that speaks of it, so that all feedback together costs no more than what
was sent, whatever it claims; what was never sent is not given; nothing grows where no feedback comes.
"""

from collections import deque
from typing import TypeAlias

from protocols.webrtc.rtp import OVERHEAD

_UNTOLD = 1 << 15  # half of the sequence space: what is further back is not told apart from what is to come
_RUNS = 1024  # of at most 16 packets, which are half of that

Sent: TypeAlias = tuple[int, int, int, int, int, int, int]
"""A run as it left: (sequence, count, source index, timestamp, transport-wide sequence, monotonic ns, payload bytes); no number wrapped"""

Departure: TypeAlias = tuple[int, int, int, int]
"""Packets that left together: (the first of them, by its place in the feedback; the place behind the last; monotonic ns; bytes of each on
the way)"""


class Departures:
    """Of all m-lines of one peer, which share one counter."""

    __slots__ = ("_told", "next", "runs")

    def __init__(self, first: int = 0) -> None:
        """`first`: the number to begin with."""
        self.next = first
        """The number that is not given yet, not wrapped. Who takes some for what leaves notes that in `runs`; repairs are left out of what
        is given."""
        self.runs: deque[Sent] = deque(maxlen=_RUNS)
        """What no feedback has spoken of, in its order."""
        self._told = first  # before this packet all were given, or never will be

    def take(self, base: int, count: int) -> list[Departure]:
        """Of the `count` packets from `base` (16 bits) on those that no feedback has spoken of yet, in their order. Repairs are left out,
        and what is forgotten."""
        following = self.next
        behind = following - base & 0xFFFF
        begin = following - behind
        first, last = max(begin, self._told, following - _UNTOLD), min(begin + count, following)
        if behind > _UNTOLD or first >= last:
            return []
        self._told = last
        given: list[Departure] = []
        runs = self.runs
        while runs:
            _, packets, _, _, low, at, size = runs[0]
            if low >= last:
                break
            high = low + packets
            if high > first:
                given.append((max(low, first) - begin, min(high, last) - begin, at, size // packets + OVERHEAD))
            if high > last:
                break
            runs.popleft()
        return given
