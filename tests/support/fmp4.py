"""What fragmented MP4 says of its times (ISO/IEC 14496-12 §8.4.2, §8.8), read as a player does that knows nothing of who wrote it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SYNC = 0x0001_0000  # sample_is_non_sync_sample, where it is not set
_HEADER = 8


@dataclass(frozen=True)
class Fragment:
    """One `moof` of one track, in ticks of the track's clock: where decoding stands at its first sample, how long each sample lasts, how
    much later than it is decoded each is shown, and whether decoding can start at the first."""

    start: int
    durations: tuple[int, ...]
    offsets: tuple[int, ...]
    sync: bool

    @property
    def end(self) -> int:
        return self.start + sum(self.durations)


def clock(init: bytes) -> int:
    """Ticks a second of the one track of an initialisation section."""
    (header,) = _boxes(init, b"moov", b"trak", b"mdia", b"mdhd")
    return int.from_bytes(header[20:24] if header[0] else header[12:16])


def fragments(data: bytes) -> list[Fragment]:
    """Those of a part or a segment, in their order."""
    return [_fragment(moof) for moof in _boxes(data, b"moof")]


def _fragment(moof: bytes) -> Fragment:
    (head,) = _boxes(moof, b"traf", b"tfhd")
    (time,) = _boxes(moof, b"traf", b"tfdt")
    flags, at = int.from_bytes(head[1:4]), 8
    defaults = {0x8: 0, 0x10: 0, 0x20: 0}  # duration, size, flags of samples
    at += 8 * bool(flags & 0x1) + 4 * bool(flags & 0x2)
    for bit in defaults:
        if flags & bit:
            defaults[bit], at = int.from_bytes(head[at : at + 4]), at + 4
    durations: list[int] = []
    offsets: list[int] = []
    first: int | None = None
    for run in _boxes(moof, b"traf", b"trun"):
        for duration, sample_flags, offset in _samples(run, defaults[0x8], defaults[0x20]):
            first = sample_flags if first is None else first
            durations.append(duration)
            offsets.append(offset)
    start = int.from_bytes(time[4:12] if time[0] else time[4:8])
    return Fragment(start, tuple(durations), tuple(offsets), sync=first is not None and not first & _SYNC)


def _samples(run: bytes, duration: int, sample_flags: int) -> Iterator[tuple[int, int, int]]:
    """(duration, flags, composition time offset) of each sample of a `trun` (§8.8.8)."""
    flags, (count,) = int.from_bytes(run[1:4]), struct.unpack_from(">I", run, 4)
    at = 8 + 4 * bool(flags & 0x1)
    first_flags = None
    if flags & 0x4:
        first_flags, at = int.from_bytes(run[at : at + 4]), at + 4
    for number in range(count):
        own = {0x100: duration, 0x200: 0, 0x400: sample_flags, 0x800: 0}
        for bit in own:
            if flags & bit:
                own[bit], at = int.from_bytes(run[at : at + 4], signed=bit == 0x800), at + 4
        yield own[0x100], own[0x400] if number or first_flags is None else first_flags, own[0x800]


def _boxes(data: bytes, *path: bytes) -> Iterator[bytes]:
    """The contents of the boxes at `path`, without their headers."""
    at = 0
    while at + _HEADER <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert size >= _HEADER, "§4.2: a box holds its own header"
        assert at + size <= len(data), "§4.2: a box is whole"
        if kind == path[0]:
            inside = data[at + _HEADER : at + size]
            if len(path) > 1:
                yield from _boxes(inside, *path[1:])
            else:
                yield inside
        at += size
    assert at == len(data), "§4.2: nothing between boxes"
