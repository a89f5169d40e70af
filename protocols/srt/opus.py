"""Opus in the payloads of one PID, by its control headers (ETSI TS 101 154 draft, "Opus in MPEG-TS" §4). Sans-IO."""

from collections.abc import Mapping
from typing import Final

from protocols.bitstream.audio import opus_packet_duration, opus_track
from protocols.errors import ProtocolError
from protocols.media import Kind, Track
from protocols.srt.sound import MAX_FRAMES, Unit


class Opus:
    """Opus with control headers (ETSI TS 101 154 draft, "Opus in MPEG-TS" §4)."""

    kind = Kind.AUDIO
    broken = 0

    def __init__(self, pid: int, channel_code: int) -> None:
        self.track: Track | None = opus_track(pid, _opus_head(channel_code))
        self.frames = 0
        self._next: int | None = None

    def split(self, data: bytes, pts: int | None, dts: int | None) -> list[Unit]:
        time = self._next if pts is None else pts
        units: list[Unit] = []
        at = 0
        while time is not None and at < len(data):
            start, size = _opus_control(data, at)
            packet = data[start : start + size]
            if len(packet) < size or not size:
                raise ProtocolError("broken Opus control header")
            self.frames += 1
            if len(units) == MAX_FRAMES:
                raise ProtocolError(f"more than {MAX_FRAMES} packets of Opus in one PES")
            units.append(Unit(packet, time, time, True))
            time += opus_packet_duration(packet)
            at = start + size
        self._next = time
        return units

    def lost(self, data: bytes) -> list[Unit]:
        return []

    def settle(self) -> list[Unit]:
        return []

    def reset(self) -> None:
        """Nothing is in the making between two PES."""


def _opus_control(data: bytes, at: int) -> tuple[int, int]:
    """Where the packet behind a control header begins, and its size."""
    end = len(data)
    if end - at < 3 or (data[at] << 8 | data[at + 1]) & 0xFFE0 != 0x7FE0:
        raise ProtocolError("no Opus control header")
    flags = data[at + 1]
    at += 2
    size = 0
    while at < end:
        size += data[at]
        at += 1
        if data[at - 1] != 0xFF:
            break
    at += 2 * bool(flags & 0x10) + 2 * bool(flags & 0x08)  # samples to trim at the start and end
    if flags & 0x04:
        at += 1 + (data[at] if at < end else 0)
    return at, size


# RFC 7845 §5.1.1.2: streams, coupled streams and mapping of the Vorbis channel orders
_OPUS_LAYOUTS: Final[Mapping[int, tuple[int, int, bytes]]] = {
    3: (2, 1, bytes((0, 2, 1))),
    4: (2, 2, bytes((0, 1, 2, 3))),
    5: (3, 2, bytes((0, 4, 1, 2, 3))),
    6: (4, 2, bytes((0, 4, 1, 2, 3, 5))),
    7: (4, 3, bytes((0, 4, 1, 2, 3, 5, 6))),
    8: (5, 3, bytes((0, 6, 1, 2, 3, 4, 5, 7))),
}


def _opus_head(channel_code: int) -> bytes:
    """An OpusHead for a channel_config_code; unknown ones are taken as stereo."""
    channels = channel_code if 1 <= channel_code <= 8 else 2
    layout = _OPUS_LAYOUTS.get(channels)
    mapping = bytes((1, *layout[:2])) + layout[2] if layout else b"\0"
    return b"OpusHead" + bytes((1, channels)) + bytes(2) + (48000).to_bytes(4, "little") + bytes(2) + mapping
