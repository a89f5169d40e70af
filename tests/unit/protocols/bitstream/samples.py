"""Streams of real encoders (x264, x265, SVT-AV1, libvpx, LAME and ffmpeg's own) from `tests/data/bitstream/`, cut into access units."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from protocols.bitstream import AccessUnit
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.nal import split_length_prefixed
from protocols.bitstream.unit import check_size

FOLDER = Path(__file__).parents[3] / "data" / "bitstream"
H264_PICTURES, H264_SETS = frozenset({1, 5}), frozenset({7, 8})
HEVC_PICTURES, HEVC_SETS = frozenset(range(32)), frozenset({32, 33, 34})


def sample(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def nal_type(nal: bytes, *, hevc: bool) -> int:
    return nal[0] >> 1 & 0x3F if hevc else nal[0] & 0x1F


def nals(data: bytes) -> list[bytes]:
    """By a plain split, independent of the code under test."""
    return [nal.rstrip(b"\x00") for nal in data.split(b"\x00\x00\x01")[1:]]


def access_units(name: str) -> Iterator[bytes]:
    """An H.264 or HEVC sample's access units as byte streams: each ends with the last slice of its picture."""
    hevc = name.endswith(".hevc")
    pictures = HEVC_PICTURES if hevc else H264_PICTURES
    unit, complete = b"", False
    for nal in nals(sample(name)):
        is_slice = nal_type(nal, hevc=hevc) in pictures
        first = is_slice and nal[2 if hevc else 1] & 0x80 != 0  # first_slice_segment_in_pic_flag; first_mb_in_slice 0
        if complete and (first or not is_slice):
            yield unit
            unit, complete = b"", False
        unit += b"\x00\x00\x01" + nal
        complete |= is_slice
    yield unit


def length_prefixed(unit: bytes) -> bytes:
    return b"".join(len(nal).to_bytes(4, "big") + nal for nal in nals(unit))


class ByLength(NalStream):
    """Its access units come in the framing of the configuration record."""

    def length_prefixed(self, data: bytes) -> AccessUnit:
        check_size(data)
        return self.units(split_length_prefixed(data, self.length_size))


def avcc(sps: list[bytes], pps: list[bytes], length_size: int = 4) -> bytes:
    """ISO/IEC 14496-15 §5.3.3.1."""
    parts = [b"\x01\x42\xc0\x1e", bytes((0xFC | length_size - 1, 0xE0 | len(sps)))]
    parts += [len(nal).to_bytes(2, "big") + nal for nal in sps]
    parts += [bytes((len(pps),)), *(len(nal).to_bytes(2, "big") + nal for nal in pps)]
    return b"".join(parts)


def hvcc(sets: list[bytes]) -> bytes:
    """ISO/IEC 14496-15 §8.3.3.1, an array for each parameter set."""
    arrays = [bytes((0x80 | nal_type(nal, hevc=True), 0, 1)) + len(nal).to_bytes(2, "big") + nal for nal in sets]
    return b"\x01" + bytes(20) + b"\x0f" + bytes((len(arrays),)) + b"".join(arrays)


def parameter_sets(name: str) -> list[bytes]:
    hevc = name.endswith(".hevc")
    wanted = HEVC_SETS if hevc else H264_SETS
    return list(dict.fromkeys(nal for nal in nals(sample(name)) if nal_type(nal, hevc=hevc) in wanted))


def temporal_units(name: str) -> list[bytes]:
    """An AV1 low-overhead stream cut at its temporal delimiters (`12 00`)."""
    data = sample(name)
    starts: list[int] = []
    at = 0
    while at < len(data):
        if data[at] >> 3 & 15 == 2:
            starts.append(at)
        size = shift = 0
        field = at + 1 + (data[at] >> 2 & 1)
        while True:
            size |= (data[field] & 0x7F) << shift
            shift += 7
            field += 1
            if not data[field - 1] & 0x80:
                break
        at = field + size
    return [data[start:end] for start, end in pairwise([*starts, len(data)])]


def ivf_frames(data: bytes) -> list[bytes]:
    """The frames of an IVF file."""
    frames: list[bytes] = []
    at = int.from_bytes(data[6:8], "little")
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        frames.append(data[at + 12 : at + 12 + size])
        at += 12 + size
    return frames
