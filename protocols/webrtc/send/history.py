"""What one source has sent, once for all its viewers: the packets of the last two seconds for repair, and the current group of pictures
for joining. Sans-IO.

What is kept true: packets have one index that only grows; both parts are bounded in time and bytes; a group that breaks its bound is
given up whole until the next key frame, because half of one cannot be decoded.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from protocols.webrtc.rtp import MARKER, OVERHEAD, Packet
from protocols.webrtc.send.packetize import runs

REPAIR_NS = 2_000_000_000
REPAIR_BYTES = 16 << 20
GROUP_NS = 10_000_000_000  # an encoder left to choose makes a key frame every 250 frames
GROUP_BYTES = 16 << 20
SLICE = 16
"""Packets of a large frame that leave together."""

_SHORTEST_SPAN_NS = 500_000_000  # what a rate is told of: the key frame with which a source begins is no rate


@dataclass(frozen=True, slots=True)
class Run:
    """Packets that leave in one `sendmsg`: payloads of one size but the last."""

    index: int
    packets: tuple[Packet, ...]
    size: int  # payload bytes
    ends: bool  # the frame ends with it

    def parts(self, limit: int) -> "tuple[Run, ...]":
        """The same in runs of at most `limit` packets."""
        count = len(self.packets)
        if count <= limit:
            return (self,)
        return tuple(
            Run(self.index + at, part, sum(len(payload) for _, payload in part), self.ends and at + limit >= count)
            for at in range(0, count, limit)
            for part in (self.packets[at : at + limit],)
        )


@dataclass(frozen=True, slots=True)
class SentFrame:
    """One access unit as sent. `timestamp` counts the RTP clock from the media time 0 and does not wrap; `arrival` is monotonic ns."""

    index: int
    count: int
    pts: int
    timestamp: int
    keyframe: bool
    arrival: int
    size: int  # payload bytes
    runs: tuple[Run, ...]
    slices: tuple[Run, ...]  # the same in runs of at most `SLICE` packets: made once for all viewers


class History:
    """Of one source. `groups` says whether its frames depend on each other (video)."""

    def __init__(self, groups: bool) -> None:
        self.oldest = 0
        """Index of the oldest packet that can be repaired."""
        self.next = 0
        self._frames: deque[SentFrame] = deque()
        self._bytes = 0
        self._groups = groups
        self._group: list[SentFrame] = []
        self._group_bytes = 0

    @property
    def group(self) -> Sequence[SentFrame]:
        """The frames since the last key frame; empty where they cannot be joined."""
        return self._group

    @property
    def bitrate(self) -> int:
        """bit/s of the packets that can be repaired, with their headers."""
        if not self._frames:
            return 0
        span = max(self._frames[-1].arrival - self._frames[0].arrival, _SHORTEST_SPAN_NS)
        return (self._bytes + (self.next - self.oldest) * OVERHEAD) * 8 * 1_000_000_000 // span

    @property
    def payload_share(self) -> float:
        """Of the bytes that `bitrate` counts, what is payload."""
        return self._bytes / (self._bytes + (self.next - self.oldest) * OVERHEAD) if self._bytes else 1.0

    def append(self, payloads: Sequence[bytes], pts: int, timestamp: int, keyframe: bool, now: int) -> SentFrame:
        """Takes a frame of at least one payload; the last one gets the marker (RFC 6184 §5.1).

        Audio gets none: RFC 7587 §4.1 keeps it for the start of a talkspurt, which a live programme has not.
        """
        index = self.next
        made: list[Run] = []
        for run in runs(payloads):
            packets: list[Packet] = [(0, payload) for payload in run]
            made.append(Run(self.next, tuple(packets), sum(map(len, run)), False))
            self.next += len(run)
        last = made[-1]
        marker = MARKER if self._groups else 0
        made[-1] = Run(last.index, (*last.packets[:-1], (marker, last.packets[-1][1])), last.size, True)
        size = sum(run.size for run in made)
        slices = tuple(part for run in made for part in run.parts(SLICE))
        frame = SentFrame(index, len(payloads), pts, timestamp, keyframe, now, size, tuple(made), slices)
        self._remember(frame)
        if self._groups:
            self._regroup(frame)
        return frame

    def packet(self, index: int) -> Packet | None:
        """The packet of this index while it can be repaired."""
        if not self.oldest <= index < self.next:
            return None
        frame = self._frames[bisect_right(self._frames, index, key=lambda frame: frame.index) - 1]
        for run in reversed(frame.runs):
            if run.index <= index:
                return run.packets[index - run.index]
        return None

    def _remember(self, frame: SentFrame) -> None:
        frames = self._frames
        frames.append(frame)
        self._bytes += frame.size
        horizon = frame.arrival - REPAIR_NS
        while frames[0].arrival < horizon or self._bytes > REPAIR_BYTES:
            self._bytes -= frames.popleft().size
            if not frames:
                self.oldest = self.next
                return
        self.oldest = frames[0].index

    def _regroup(self, frame: SentFrame) -> None:
        if frame.keyframe:
            self._group, self._group_bytes = [], 0
        elif not self._group:
            return
        self._group.append(frame)
        self._group_bytes += frame.size
        if self._group_bytes > GROUP_BYTES or frame.pts - self._group[0].pts > GROUP_NS:
            self._group = []
