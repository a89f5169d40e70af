"""What has been received and not yet taken by the session: bounded in time and bytes, aligned when it overflows. Sans-IO.

Live means late is worse than lost: when the reader falls behind by more than the bound, everything up to the newest video key frame is
dropped, of all tracks together, and counted; without one in the queue, until the next one comes. Every other video track (a layer of the
same picture) then waits for a key frame of its own. A `TracksChanged` is never dropped, only overtaken by a later one.
"""

from collections import deque

from protocols.media import EncodedPacket, Kind, TracksChanged

Item = TracksChanged | EncodedPacket


class MediaQueue:
    """`span_ns` is measured by arrival."""

    def __init__(self, span_ns: int, max_bytes: int) -> None:
        self.dropped = 0
        self._span = span_ns
        self._max_bytes = max_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._video: frozenset[int] = frozenset()
        self._waiting: set[int] = set()  # video tracks that wait for their key frame, after an overflow
        self._stopped = False  # no key frame of any track has come since the overflow: nothing is taken

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: Item) -> None:
        if isinstance(item, TracksChanged):
            self._video = frozenset(track.id for track in item.tracks if track.kind is Kind.VIDEO)
            self._waiting &= self._video
            self._stopped = self._stopped and bool(self._video)
        elif self._waiting and not self._fits(item):
            self.dropped += 1
            return
        else:
            self._bytes += len(item.data)
        self._items.append(item)
        if self._bytes > self._max_bytes or self._held_ns() > self._span:
            self._overflow()

    def pop(self) -> Item | None:
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, EncodedPacket):
            self._bytes -= len(item.data)
        return item

    def _fits(self, packet: EncodedPacket) -> bool:
        """Whether a packet can be shown, while some track waits for its key frame."""
        if self._is_key(packet):
            self._waiting.discard(packet.track)
            self._stopped = False
        return not self._stopped and packet.track not in self._waiting

    def _is_key(self, item: Item) -> bool:
        return isinstance(item, EncodedPacket) and item.keyframe and item.track in self._video

    def _held_ns(self) -> int:
        oldest, newest = self._items[0], self._items[-1]
        if isinstance(oldest, EncodedPacket) and isinstance(newest, EncodedPacket):
            return newest.arrival - oldest.arrival
        packets = [item.arrival for item in self._items if isinstance(item, EncodedPacket)]
        return packets[-1] - packets[0] if packets else 0

    def _overflow(self) -> None:
        items = list(self._items)
        keys = [index for index, item in enumerate(items) if self._is_key(item)]
        keep = keys[-1] if keys and keys[-1] else len(items)
        if not self._video:  # every packet of sound is a place to start: the newer half stays
            keep = len(items) // 2 or 1
        else:
            self._waiting, self._stopped = set(self._video), keep == len(items)
        tracks = [item for item in items[:keep] if isinstance(item, TracksChanged)]
        kept = [item for item in items[keep:] if isinstance(item, TracksChanged) or not self._waiting or self._fits(item)]
        self.dropped += len(items) - len(tracks) - len(kept)
        self._items = deque(tracks[-1:] + kept)
        self._bytes = sum(len(item.data) for item in self._items if isinstance(item, EncodedPacket))
