"""When each packet of one viewer left, by its transport-wide sequence number, for feedback to be compared with. Sans-IO.

What is kept true: each packet is given once, to the first feedback that speaks of it, so that all feedback together costs no more than what
was sent, whatever it claims; what was never sent is not given.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from protocols.webrtc.rtp import OVERHEAD
from protocols.webrtc.send.sender import Sender

_UNTOLD = 1 << 15  # half of the sequence space: what is further back is not told apart from what is to come


class Departure(NamedTuple):
    """Of one packet: when it left (monotonic ns), and how large it was on the way (bytes)."""

    at: int
    size: int


class _DepartedRun(NamedTuple):
    begin: int  # transport-wide sequence number, not wrapped
    end: int
    departure: Departure


class _DepartedLine:
    """Of one sender: its runs that no feedback has spoken of."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.runs: deque[_DepartedRun] = deque()
        self._seen = -1  # the RTP sequence number (not wrapped) with which the newest run that was looked at begins

    def look(self, following: int) -> None:
        """Take up what has left since the last time; `following` is the next transport-wide sequence number (not wrapped)."""
        fresh: list[_DepartedRun] = []
        for sequence, packets, _, _, wrapped, at, size in reversed(self.sender.stream.sent):
            if sequence <= self._seen:
                break
            begin = following - (following - wrapped & 0xFFFF)
            fresh.append(_DepartedRun(begin, begin + packets, Departure(at, size // packets + OVERHEAD)))
        if fresh:
            self._seen = self.sender.stream.sent[-1][0]
            self.runs.extend(reversed(fresh))


class Departures:
    """Of all m-lines of one peer, which share one counter."""

    def __init__(self, senders: Iterable[Sender]) -> None:
        self._lines = [_DepartedLine(sender) for sender in senders if sender.parameters.transport_cc_extension]
        self._told = -_UNTOLD  # before this packet all were given, or never will be
        self._following = 0

    @property
    def agreed(self) -> bool:
        """Whether transport-wide feedback was negotiated for any of them."""
        return bool(self._lines)

    def take(self, base: int, count: int) -> tuple[int, list[Departure | None]]:
        """Of the `count` packets from `base` (16 bits) on: how many come before the first that no feedback has spoken of yet, and the
        departures from that one on; None for repairs, and for what is forgotten."""
        following = self._next()
        behind = following - base & 0xFFFF
        begin, end = following - behind, following - behind + count
        first, last = max(begin, self._told), min(end, following)
        if behind > _UNTOLD or first >= last:
            return 0, []
        self._told = last
        departures: list[Departure | None] = [None] * (last - first)
        for line in self._lines:
            line.look(following)
            runs = line.runs
            while runs and runs[0].begin < last:
                low, high = max(runs[0].begin, first), min(runs[0].end, last)
                if low < high:
                    departures[low - first : high - first] = [runs[0].departure] * (high - low)
                if runs[0].end > last:
                    break
                runs.popleft()
        return first - begin, departures

    def _next(self) -> int:
        if self._lines:
            counter = self._lines[0].sender.stream.transport.transport_sequence
            self._following += counter - self._following & 0xFFFF
            self._told = max(self._told, self._following - _UNTOLD)
        return self._following
