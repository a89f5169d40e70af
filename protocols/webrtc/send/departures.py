"""When the packets of one viewer left, by their transport-wide sequence numbers, for feedback to be compared with. Sans-IO.

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
    """Of packets that left together."""

    begin: int  # transport-wide sequence number, not wrapped; as given: which of those that the feedback speaks of
    end: int
    at: int  # monotonic ns
    size: int  # bytes on the way, of each


class _DepartedLine:
    """Of one sender: its runs that no feedback has spoken of."""

    def __init__(self, sender: Sender) -> None:
        self.runs: deque[Departure] = deque()
        self._sent = sender.stream.sent
        self._seen = -1  # the RTP sequence number (not wrapped) with which the newest run that was looked at begins

    def look(self, following: int) -> None:
        """Take up what has left since the last time; `following` is the next transport-wide sequence number (not wrapped)."""
        fresh: list[Departure] = []
        for sequence, packets, _, _, wrapped, at, size in reversed(self._sent):
            if sequence <= self._seen:
                break
            begin = following - (following - wrapped & 0xFFFF)
            fresh.append(Departure(begin, begin + packets, at, size // packets + OVERHEAD))
        if fresh:
            self._seen = self._sent[-1][0]
            fresh.reverse()
            self.runs += fresh


class Departures:
    """Of all m-lines of one peer, which share one counter."""

    def __init__(self, senders: Iterable[Sender]) -> None:
        counted = [sender for sender in senders if sender.parameters.transport_cc_extension]
        self._lines = [_DepartedLine(sender) for sender in counted]
        self._transport = counted[0].stream.transport if counted else None
        self._told = -_UNTOLD  # before this packet all were given, or never will be
        self._following = 0

    @property
    def agreed(self) -> bool:
        """Whether transport-wide feedback was negotiated for any of them."""
        return bool(self._lines)

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
        for line in self._lines:
            line.look(following)
            runs = line.runs
            while runs and runs[0].begin < last:
                low, high, at, size = runs[0]
                if high > first:
                    given.append(Departure(max(low, first) - begin, min(high, last) - begin, at, size))
                if high > last:
                    break
                runs.popleft()
        given.sort()
        return given

    def _next(self) -> int:
        if self._transport is not None:
            self._following += self._transport.transport_sequence - self._following & 0xFFFF
            self._told = max(self._told, self._following - _UNTOLD)
        return self._following
