"""The transport-wide sequence numbers of one viewer, and when the packets under them left, for feedback to be compared with. Sans-IO.

What is kept true: each packet is given once, to the first feedback that speaks of it, so that all feedback together costs no more than what
was sent, whatever it claims; what was never sent is not given; nothing grows where no feedback comes.
"""

from collections import deque
from typing import TypeAlias

from protocols.webrtc.rtp import OVERHEAD

_UNTOLD = 1 << 15  # half of the sequence space: what is further back is not told apart from what is to come
_RUNS = 1024  # of at most 16 packets, which are half of that

Departure: TypeAlias = tuple[int, int, int, int]
"""Packets that left together: (the first of them, by its place in the feedback; the place behind the last; monotonic ns; bytes of each on
the way)"""


class Departures:
    """Of all m-lines of one peer, which share one counter."""

    __slots__ = ("_runs", "_told", "next")

    def __init__(self, first: int = 0) -> None:
        """`first`: the number to begin with."""
        self.next = first
        """The number that is not given yet, not wrapped."""
        self._runs: deque[tuple[int, int, int, int]] = deque(maxlen=_RUNS)
        """What no feedback has spoken of: (first number, count, monotonic ns, payload bytes), in their order"""
        self._told = first  # before this packet all were given, or never will be

    def number(self, count: int, size: int, now: int) -> int:
        """The first number, not wrapped, of `count` packets with `size` bytes of payload together that leave `now` (monotonic ns)."""
        first = self.next
        self.next = first + count
        self._runs.append((first, count, now, size))
        return first

    def number_repair(self) -> int:
        """That of a packet which is sent again: it is left out of what is given."""
        self.next += 1
        return self.next - 1

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
        runs = self._runs
        while runs:
            low, packets, at, size = runs[0]
            if low >= last:
                break
            high = low + packets
            if high > first:
                given.append((max(low, first) - begin, min(high, last) - begin, at, size // packets + OVERHEAD))
            if high > last:
                break
            runs.popleft()
        return given
