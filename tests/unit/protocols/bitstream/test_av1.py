"""AV1 temporal units from SVT-AV1, and the facts in their sequence header."""

from dataclasses import replace
from fractions import Fraction

import av
import pytest

from protocols.bitstream.av1 import Av1Stream
from protocols.bitstream.unit import MAX_UNITS
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from tests.unit.protocols.bitstream.samples import temporal_units

MAIN = Track(1, Codec.AV1, width=96, height=64, profile="Main", reorder=0)
DELIMITER = b"\x12\x00"
PADDING = b"\x7a\x02\x00\x80"


def obus(data: bytes) -> list[tuple[int, bytes]]:
    """(type, whole OBU); sizes in these samples are below 2^14."""
    out = []
    while data:
        start = 2 if data[0] & 4 else 1
        size = data[start] & 0x7F
        start += 1
        if data[start - 1] & 0x80:
            size |= data[start] << 7
            start += 1
        out.append((data[0] >> 3 & 15, data[: start + size]))
        data = data[start + size :]
    return out


def without_last_size(unit: bytes) -> bytes:
    *others, (_, last) = obus(unit)
    header = 3 if last[1] & 0x80 else 2
    return b"".join(obu for _, obu in others) + bytes((last[0] & ~2,)) + last[header:]


@pytest.mark.parametrize(("name", "depth", "keys"), [("av1_main.obu", 8, "K...K...K"), ("av1_main10.obu", 10, "K...K")])
def test_facts_and_key_frames(name: str, depth: int, keys: str) -> None:
    stream = Av1Stream(1)
    units = [stream.temporal_unit(unit) for unit in temporal_units(name)]
    assert stream.track is not None
    assert replace(stream.track, extradata=b"") == replace(MAIN, bit_depth=depth)
    assert [kind for kind, _ in obus(stream.track.extradata)] == [1]
    assert "".join("K" if unit.keyframe else "." for unit in units) == keys
    assert [unit.changed for unit in units] == [True] + [False] * (len(units) - 1)
    for unit in units:
        types = [kind for kind, _ in obus(unit.data)]
        assert 2 not in types
        assert (types[0] == 1) is unit.keyframe
        assert 1 not in types[1:]


def test_a_decoder_takes_it() -> None:
    stream = Av1Stream(1)
    decoder = av.CodecContext.create("libdav1d", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    sizes = []
    for number, unit in enumerate([*map(stream.temporal_unit, temporal_units("av1_main.obu")), None]):
        packet = None
        if unit:
            packet = av.Packet(unit.data)
            packet.pts, packet.time_base = number, Fraction(1, 30)
        sizes += [(frame.width, frame.height) for frame in decoder.decode(packet)]
    assert sizes == [(96, 64)] * 9


def test_sizes_are_added_and_what_viewers_need_not_is_dropped() -> None:
    plain, other = Av1Stream(1), Av1Stream(1)
    for unit in temporal_units("av1_main.obu"):
        expected = plain.temporal_unit(unit)
        assert other.temporal_unit(DELIMITER + PADDING + without_last_size(unit)) == expected


def test_the_sequence_header_of_the_record_comes_before_key_frames() -> None:
    units = temporal_units("av1_main.obu")
    whole, bare = Av1Stream(1), Av1Stream(1)
    expected = [whole.temporal_unit(unit) for unit in units]
    assert whole.track is not None
    bare.configure(b"\x81\x00\x0c\x00" + whole.track.extradata)
    assert bare.track == whole.track
    stripped = [b"".join(obu for kind, obu in obus(unit) if kind != 1) for unit in units]
    assert [bare.temporal_unit(unit) for unit in stripped] == expected


def test_a_key_frame_without_a_sequence_header_is_no_start() -> None:
    stream = Av1Stream(1)
    stream.configure(b"\x81\x00\x0c\x00")
    (first, *_) = temporal_units("av1_main.obu")
    assert not stream.temporal_unit(b"".join(obu for kind, obu in obus(first) if kind != 1)).keyframe
    assert stream.track is None


def test_a_unit_without_a_frame_is_nothing_to_send() -> None:
    stream = Av1Stream(1)
    (first, *_) = temporal_units("av1_main.obu")
    header = b"".join(obu for kind, obu in obus(first) if kind == 1)
    unit = stream.temporal_unit(DELIMITER + header)
    assert (unit.data, unit.keyframe, unit.changed) == (b"", False, True)
    second = temporal_units("av1_main.obu")[1]
    assert next(kind for kind, _ in obus(stream.temporal_unit(second).data)) == 1  # it comes with the next frame
    assert next(kind for kind, _ in obus(stream.temporal_unit(second).data)) != 1


def test_a_change_of_size_changes_the_track() -> None:
    stream = Av1Stream(1)
    first, second = temporal_units("av1_main.obu")[0], temporal_units("av1_main10.obu")[0]
    assert [stream.temporal_unit(unit).changed for unit in (first, first, second)] == [True, False, True]
    assert stream.track is not None
    assert stream.track.bit_depth == 10


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x92\x00",  # obu_forbidden_bit
        b"\x32\x05\x00",  # leads out
        b"\x32",  # no size
        b"\x36",  # no extension
        b"\x0a\x01\x00",  # a sequence header that breaks off
        b"\x0a\x01\xe0",  # profile 7
        DELIMITER * (MAX_UNITS + 1),
        b"\x0a\x00",
    ],
)
def test_broken_units_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Av1Stream(1).temporal_unit(data)


@pytest.mark.parametrize("record", [b"", b"\x81\x00\x0c", b"\x01\x00\x0c\x00", b"\x81\x00\x0c\x00\x0a\x05"])
def test_broken_records_are_refused(record: bytes) -> None:
    with pytest.raises(ProtocolError):
        Av1Stream(1).configure(record)
