"""What is kept of an input that is not forwarded: of each picture the group that is under way, so that it can go on at once. Sans-IO.

Kept true: it is bounded in time and bytes whatever comes; what came with other tracks than the present ones is forgotten.
"""

from collections.abc import Iterable
from typing import Final

from protocols.media import EncodedPacket, Kind, Track
from transcode.group_cache import GroupCache

LARGEST_BYTES: Final = 8 << 20  # of one track
AHEAD_NS: Final = 500_000_000  # of real time, by which an input may be read
_JUMP_NS: Final = 5_000_000_000  # what is so far off is another clock
_DRIFT: Final = 100  # part of real time by which a clock may run faster than ours


class Standby:
    """Of one input."""

    def __init__(self) -> None:
        self._tracks: dict[int, Track] = {}
        self._groups: dict[int, GroupCache] = {}
        self._lead: int | None = None  # dts minus arrival, of what comes when it is due
        self._seen = 0  # arrival of the newest packet

    def expect(self, tracks: Iterable[Track]) -> None:
        """These are its tracks from here on."""
        before, self._tracks = self._tracks, {track.id: track for track in tracks if track.kind is Kind.VIDEO}
        self._groups = {
            id: self._groups[id] if before.get(id) == track else GroupCache(LARGEST_BYTES) for id, track in self._tracks.items()
        }

    def add(self, packet: EncodedPacket) -> bool:
        """False: it is of a picture that could go on with its next key frame alone."""
        group = self._groups.get(packet.track)
        if group is None:
            return True
        group.add(packet)
        return bool(group.packets)

    def ahead(self, packet: EncodedPacket) -> int:
        """By how many ns it is read faster than its media last; 0 where that is little. One that was late and catches up is not ahead."""
        lead = packet.dts - packet.arrival
        if self._lead is None or abs(lead - self._lead) > _JUMP_NS:
            self._lead = lead
        elif lead > self._lead:
            self._lead += min(lead - self._lead, (packet.arrival - self._seen) // _DRIFT)
        self._seen = packet.arrival
        ahead = lead - self._lead
        return ahead if ahead > AHEAD_NS else 0

    @property
    def oldest(self) -> int | None:
        """When the oldest that is kept came, in monotonic ns."""
        return min((group.packets[0].arrival for group in self._groups.values() if group.packets), default=None)

    def take(self) -> list[EncodedPacket]:
        """All that is kept, in the order received, and no longer."""
        kept = sorted((packet for group in self._groups.values() for packet in group.packets), key=lambda each: each.arrival)
        for group in self._groups.values():
            group.clear()
        return kept
