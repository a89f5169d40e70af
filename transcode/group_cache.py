"""The group of pictures that is under way in one track, kept once for whoever must begin in the middle of it. Sans-IO."""

from protocols.media import EncodedPacket

LONGEST_NS = 5_000_000_000
LARGEST_BYTES = 16 << 20


class GroupCache:
    """The packets since the last key frame, while they are few enough to be decoded again."""

    def __init__(self, size_limit: int = LARGEST_BYTES, duration_limit: int = LONGEST_NS) -> None:
        """In bytes, and in ns from the first packet's dts to the last one's."""
        self.packets: list[EncodedPacket] = []
        """From the key frame on; empty before the first one and after a group that is too long."""
        self._duration_limit = duration_limit
        self._size_limit = size_limit
        self._size = 0

    def add(self, packet: EncodedPacket) -> None:
        if packet.keyframe:
            self.packets = []
            self._size = 0
        elif not self.packets:
            return
        self.packets.append(packet)
        self._size += len(packet.data)
        if self._size > self._size_limit or packet.dts - self.packets[0].dts > self._duration_limit:
            self.packets = []

    def clear(self) -> None:
        """What comes next does not follow from what is here."""
        self.packets = []
