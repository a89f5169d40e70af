"""H.264 and HEVC access units from real encoders, in every framing, and the facts in their parameter sets."""

from contextlib import suppress
from dataclasses import replace
from fractions import Fraction

import av
import pytest

from protocols.bitstream.h26x import MAX_SET_BYTES, MAX_SETS, NalStream
from protocols.bitstream.unit import MAX_BYTES, MAX_UNITS
from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from tests.unit.protocols.bitstream.samples import (
    FOLDER,
    ByLength,
    access_units,
    avcc,
    hvcc,
    length_prefixed,
    nal_type,
    nals,
    parameter_sets,
    sample,
)

H264 = Track(1, Codec.H264, width=96, height=64, frame_rate=25.0, profile="High", level=10, reorder=2)
HEVC = Track(1, Codec.HEVC, width=96, height=64, frame_rate=25.0, profile="Main", level=30, reorder=2)

FACTS = {  # file -> (facts, access units and which are key frames)
    "h264_baseline.h264": (replace(H264, profile="Constrained Baseline", reorder=0), "K...K...K"),
    "h264_main.h264": (replace(H264, profile="Main", frame_rate=29.97, reorder=0), "K...K...K"),
    "h264_high_b2.h264": (replace(H264, frame_rate=30.0), "K...K...K"),
    "h264_high_b3.h264": (replace(H264, frame_rate=30.0), "K...K...K"),
    "h264_1080p.h264": (replace(H264, width=1920, height=1080, frame_rate=60.0, level=42, reorder=0), "K.."),
    "h264_high10.h264": (replace(H264, profile="High 10", bit_depth=10), "K...K...K"),
    "h264_high422.h264": (replace(H264, profile="High 4:2:2", bit_depth=10, chroma="4:2:2"), "K...K...K"),
    "h264_interlaced.h264": (replace(H264, level=21, interlaced=True), "K...K...K"),
    "h264_opengop.h264": (
        replace(H264, level=13, open_gop=True),
        "K...K...K...",
    ),  # recovery points; HRD in the VUI; delimiters
    "h264_intrarefresh.h264": (replace(H264, open_gop=True), "K....K......"),  # a round of five frames
    "hevc_b0.hevc": (replace(HEVC, reorder=0), "K...K...K"),
    "hevc_b3.hevc": (HEVC, "KK...K..."),  # an IDR, then CRA pictures
    "hevc_1080p.hevc": (replace(HEVC, width=1920, height=1080, frame_rate=30.0, level=120, reorder=0), "K."),
    "hevc_main10.hevc": (replace(HEVC, profile="Main 10", bit_depth=10), "K.."),
    "hevc_422.hevc": (replace(HEVC, profile="Range Extensions", bit_depth=10, chroma="4:2:2"), "K.."),
}


def codec_of(name: str) -> Codec:
    return Codec.HEVC if name.endswith(".hevc") else Codec.H264


def record(name: str) -> bytes:
    sets = parameter_sets(name)
    sps, pps = ([nal for nal in sets if nal[0] & 31 == kind] for kind in (7, 8))
    return hvcc(sets) if name.endswith(".hevc") else avcc(sps, pps)


def decoded(codec: Codec, units: list[bytes]) -> list[tuple[int, int]]:
    decoder = av.CodecContext.create(codec.value, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    packets = [av.Packet(unit) for unit in units]
    for number, packet in enumerate(packets):
        packet.pts = packet.dts = number
        packet.time_base = Fraction(1, 25)
    return [(frame.width, frame.height) for packet in [*packets, None] for frame in decoder.decode(packet)]


@pytest.mark.parametrize("name", FACTS)
def test_facts_and_key_frames_of_real_encoders(name: str) -> None:
    facts, keys = FACTS[name]
    stream = NalStream(codec_of(name), 1)
    units = [stream.annexb(unit) for unit in access_units(name)]
    assert stream.track is not None
    assert replace(stream.track, extradata=b"") == facts
    assert "".join("K" if unit.keyframe else "." for unit in units) == keys
    changes = [0, keys.index("K", 1)] if facts.open_gop else [0]  # the first recovery point that is no IDR shows it
    assert [number for number, unit in enumerate(units) if unit.changed] == changes


@pytest.mark.parametrize("name", FACTS)
def test_output_is_a_byte_stream_in_the_one_form(name: str) -> None:
    hevc = codec_of(name) is Codec.HEVC
    sets, dropped = ({32, 33, 34}, {35, 38}) if hevc else ({7, 8}, {9, 12})
    stream = NalStream(codec_of(name), 1)
    for unit in map(stream.annexb, access_units(name)):
        parts = unit.data.split(b"\x00\x00\x00\x01")
        assert parts[0] == b""
        types = [nal_type(part, hevc=hevc) for part in parts[1:]]
        assert not dropped & set(types)
        assert (set(types[: len(sets)]) == sets) is unit.keyframe  # all of them, first, and each once
        assert not sets & set(types[len(sets) :])
        assert all(not part.endswith(b"\x00") for part in parts[1:])
    assert stream.track is not None
    assert {nal_type(nal, hevc=hevc) for nal in nals(stream.track.extradata)} == sets


@pytest.mark.parametrize("name", FACTS)
def test_a_decoder_takes_all_of_it_from_any_key_frame(name: str) -> None:
    facts, _ = FACTS[name]
    stream = NalStream(codec_of(name), 1)
    units = [stream.annexb(unit) for unit in access_units(name)]
    original = decoded(facts.codec, list(access_units(name)))
    assert decoded(facts.codec, [unit.data for unit in units]) == original
    assert set(original) == {(facts.width, facts.height)}
    assert len(original) == len(units)
    starts = [i for i, unit in enumerate(units) if unit.keyframe]
    if name == "h264_intrarefresh.h264":
        starts = starts[:1]  # from the others on a picture is whole only after a round, for which this file is too short
    for index in starts:
        assert decoded(facts.codec, [units[index].data]) == [(facts.width, facts.height)]


@pytest.mark.parametrize("name", FACTS)
def test_length_prefixed_gives_the_same_as_annexb(name: str) -> None:
    by_length, by_start = ByLength(codec_of(name), 1), NalStream(codec_of(name), 1)
    by_length.configure(record(name))
    assert by_length.track is not None
    assert replace(by_length.track, extradata=b"") == replace(FACTS[name][0], open_gop=False)  # no record tells
    for unit in access_units(name):
        expected = by_start.annexb(unit)
        assert by_length.length_prefixed(length_prefixed(unit)) == expected
    assert by_length.track == by_start.track


def test_parameter_sets_only_in_the_record_come_before_each_key_frame() -> None:
    name = "h264_main.h264"
    stream, whole = NalStream(Codec.H264, 1), NalStream(Codec.H264, 1)
    stream.configure(record(name))
    for unit in access_units(name):
        bare = b"".join(b"\x00\x00\x01" + nal for nal in nals(unit) if nal[0] & 31 not in (7, 8))
        assert stream.annexb(bare) == whole.annexb(unit)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_length_sizes(size: int) -> None:
    stream = ByLength(Codec.H264, 1)
    stream.configure(avcc([], [], size))
    slice_ = b"\x41\x9a\x80"
    assert stream.length_prefixed(len(slice_).to_bytes(size, "big") + slice_).data == b"\x00\x00\x00\x01" + slice_


def test_key_frames_without_their_parameter_sets_are_no_start() -> None:
    stream = NalStream(Codec.H264, 1)
    idr = next(nal for nal in nals(sample("h264_main.h264")) if nal[0] & 31 == 5)
    unit = stream.annexb(b"\x00\x00\x01" + idr)
    assert not unit.keyframe
    assert stream.track is None
    sps, pps = parameter_sets("h264_main.h264")
    assert not stream.annexb(b"\x00\x00\x01" + sps + b"\x00\x00\x01" + idr).keyframe
    assert stream.annexb(b"\x00\x00\x01" + pps + b"\x00\x00\x01" + idr).keyframe


def test_parameter_sets_alone_are_nothing_to_send_and_come_with_the_next_picture() -> None:
    stream = NalStream(Codec.H264, 1)
    sps, pps = parameter_sets("h264_main.h264")
    unit = stream.annexb(b"\x00\x00\x01" + sps + b"\x00\x00\x00\x01" + pps)
    assert (unit.data, unit.keyframe, unit.changed) == (b"", False, True)
    slice_ = b"\x41\x9a\x80"
    picture = stream.annexb(b"\x00\x00\x01" + slice_)
    assert nals(picture.data) == [sps, pps, slice_]
    assert nals(stream.annexb(b"\x00\x00\x01" + slice_).data) == [slice_]


def test_a_new_size_in_band_changes_the_track_with_its_key_frame() -> None:
    stream = NalStream(Codec.H264, 7)
    small = [stream.annexb(unit) for unit in access_units("h264_main.h264")]
    large = [stream.annexb(unit) for unit in access_units("h264_1080p.h264")]
    assert [unit.changed for unit in small + large] == [True] + [False] * 8 + [True, False, False]
    assert stream.track is not None
    assert (stream.track.id, stream.track.width, stream.track.height) == (7, 1920, 1080)
    assert len(decoded(Codec.H264, [unit.data for unit in small + large])) == 12
    assert parameter_sets("h264_main.h264")[0] not in large[0].data  # the same ids: the latest wins


def test_a_new_record_replaces_what_was_known_and_an_equal_one_changes_nothing() -> None:
    stream = NalStream(Codec.H264, 1)
    stream.configure(record("h264_main.h264"))
    (first, *_) = access_units("h264_main.h264")
    stream.annexb(first)
    known = stream.track
    stream.configure(record("h264_main.h264"))
    assert stream.track is known
    stream.configure(record("h264_1080p.h264"))
    assert stream.track is not None
    assert stream.track.height == 1080
    (unit, *_) = access_units("h264_1080p.h264")
    assert stream.annexb(unit).changed


def test_a_new_record_may_keep_a_set_or_have_none() -> None:
    sps, pps = parameter_sets("h264_main.h264")
    (first, *_) = access_units("h264_main.h264")
    stream = NalStream(Codec.H264, 1)
    stream.configure(avcc([sps], [pps]))
    other_pps = pps + b"\x80"
    stream.configure(avcc([sps], [other_pps]))
    assert stream.track is not None
    assert nals(stream.track.extradata) == [sps, other_pps]
    stream.configure(avcc([], []))
    slice_ = b"\x41\x9a\x80"
    assert nals(stream.annexb(b"\x00\x00\x01" + slice_).data) == [slice_]
    assert stream.annexb(first).keyframe  # whose sets are in band


def test_zeros_after_a_set_in_the_record_are_no_other_set() -> None:
    sps, pps = parameter_sets("h264_main.h264")
    (first, *_) = access_units("h264_main.h264")
    stream = NalStream(Codec.H264, 1)
    stream.configure(avcc([sps + bytes(2)], [pps + bytes(1)]))
    known = stream.track
    stream.annexb(first)
    assert stream.track is known


def test_of_several_sps_the_one_that_the_key_frame_uses_gives_the_facts() -> None:
    stream = NalStream(Codec.H264, 1)
    unused = bytearray(parameter_sets("h264_1080p.h264")[0])
    assert unused[4] & 0x80  # seq_parameter_set_id is ue(v) 0, a single bit; make it 010, number 1
    bits = int.from_bytes(unused[4:]) & ~(1 << 8 * len(unused[4:]) - 1)
    bits = (0b010 << 8 * len(unused[4:]) - 1 | bits) << 6
    other = bytes(unused[:4]) + bits.to_bytes(len(unused) - 3)
    (first, *_) = access_units("h264_main.h264")
    unit = stream.annexb(first + b"\x00\x00\x01" + other.rstrip(b"\x00"))
    assert stream.track is not None
    assert stream.track.height == 64
    assert unit.keyframe
    assert len([nal for nal in nals(unit.data) if nal[0] & 31 == 7]) == 2
    again = stream.annexb(b"\x00\x00\x01" + other.rstrip(b"\x00") + b"\xff" + b"\x00\x00\x01\x41\x9a\x80")
    assert again.data
    assert stream.track.height == 64


def test_other_layers_of_hevc_are_dropped() -> None:
    stream, whole = NalStream(Codec.HEVC, 1), NalStream(Codec.HEVC, 1)
    for unit in access_units("hevc_b0.hevc"):
        second = b"".join(b"\x00\x00\x01" + bytes((nal[0], nal[1] | 8)) + nal[2:] for nal in nals(unit))
        assert stream.annexb(unit + second) == whole.annexb(unit)


def test_a_start_code_inside_a_length_prefixed_unit_is_looked_into() -> None:
    stream = ByLength(Codec.H264, 1)
    stream.configure(avcc([], []))
    hidden = b"\x41\x9a\x80\x00\x00\x00\x01\x09\xf0\x00\x00\x01\x41\x9a\x81"
    unit = stream.length_prefixed(len(hidden).to_bytes(4, "big") + hidden)
    assert nals(unit.data) == [b"\x41\x9a\x80", b"\x41\x9a\x81"]


def test_an_unreadable_vui_costs_only_its_own_facts() -> None:
    sps, pps = parameter_sets("h264_high_b2.h264")
    stream = NalStream(Codec.H264, 1)
    stream.configure(avcc([sps[:14]], [pps]))
    assert stream.track is not None
    assert (stream.track.width, stream.track.height, stream.track.frame_rate, stream.track.reorder) == (96, 64, 0.0, None)


def h264_sps(profile: int, constraints: int, poc_type: int) -> bytes:
    """16 x 16, without VUI (H.264 §7.3.2.1.1); 1 is ue(v) 0."""
    high = "0101100" if profile == 100 else ""  # 4:2:0, 8 bit, no lossless mode, no scaling matrix
    poc = {0: "11", 2: "011"}[poc_type]
    bits = "1" + high + "1" + poc + "01001111001"
    bits += "0" * (-len(bits) % 8)
    return bytes((0x67, profile, constraints, 30)) + int(bits, 2).to_bytes(len(bits) // 8)


@pytest.mark.parametrize(
    ("profile", "constraints", "poc_type", "reorder"),
    [(66, 0, 0, 0), (77, 0, 2, 0), (77, 0, 0, None), (77, 0x10, 0, None), (100, 0x10, 0, 0), (100, 0, 0, None)],
)
def test_reordering_where_the_vui_does_not_say(profile: int, constraints: int, poc_type: int, reorder: int | None) -> None:
    stream = NalStream(Codec.H264, 1)
    stream.configure(avcc([h264_sps(profile, constraints, poc_type)], []))
    assert stream.track is not None
    assert (stream.track.width, stream.track.height, stream.track.reorder) == (16, 16, reorder)


def test_an_hevc_profile_said_by_compatibility_flags_alone() -> None:
    vps, sps, pps = parameter_sets("hevc_main10.hevc")
    stream = NalStream(Codec.HEVC, 1)
    stream.configure(hvcc([vps, sps[:3] + bytes((sps[3] & 0xE0,)) + sps[4:], pps]))
    assert stream.track is not None
    assert stream.track.profile == "Main 10"


BROKEN_UNITS = {
    "nothing": b"",
    "no start code": b"\x41\x9a\x80",
    "bytes before the start code": b"\x41\x00\x00\x01\x41\x9a\x80",
    "an empty unit": b"\x00\x00\x01\x00\x00\x01\x41\x9a\x80",
    "an empty last unit": b"\x00\x00\x01\x41\x9a\x80\x00\x00\x01",
    "forbidden_zero_bit": b"\x00\x00\x01\xc1\x9a\x80",
    "too many units": b"\x00\x00\x01\x41" * (MAX_UNITS + 1),
    "too large": bytes(MAX_BYTES) + b"\x01",
    "an SPS that breaks off": b"\x00\x00\x01\x67\x42",
    "an SPS of no size": b"\x00\x00\x01\x67\x42\xc0\x1e" + int("111111111110001001111010", 2).to_bytes(3),
    "too large parameter sets": b"\x00\x00\x01\x68"
    + b"\xff" * (MAX_SET_BYTES - 3)
    + b"\x00\x00\x01\x67"
    + sample("h264_main.h264")[5:30],
}


@pytest.mark.parametrize("data", BROKEN_UNITS.values(), ids=BROKEN_UNITS)
def test_broken_access_units_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        NalStream(Codec.H264, 1).annexb(data)


def test_too_many_parameter_sets_are_refused() -> None:
    def pps(number: int) -> bytes:
        code = number + 1
        bits = f"{'0' * (code.bit_length() - 1)}{code:b}1".ljust(32, "1")
        return b"\x00\x00\x01\x68" + int(bits, 2).to_bytes(4, "big")

    stream = NalStream(Codec.H264, 1)
    stream.annexb(b"".join(map(pps, range(MAX_SETS))))
    stream.annexb(pps(3) + b"\xff")  # replaces one
    with pytest.raises(ProtocolError):
        stream.annexb(pps(MAX_SETS))


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x05\x41\x9a\x80",
        b"\xff\xff\xff\xff\x41",
        b"\x00\x00\x00\x03\x41\x9a\x80\x00",
        b"\x00\x00\x00\x03\x41\x9a\x80\x00\x00\x00\x00",
    ],
)
def test_broken_lengths_are_refused(data: bytes) -> None:
    stream = ByLength(Codec.H264, 1)
    stream.configure(avcc([], []))
    with pytest.raises(ProtocolError):
        stream.length_prefixed(data)


@pytest.mark.parametrize(("name", "codec"), [("h264_main.h264", Codec.H264), ("hevc_b0.hevc", Codec.HEVC)])
def test_broken_records_are_refused(name: str, codec: Codec) -> None:
    whole = record(name)
    for data in (b"", whole[:-1], whole[:9], b"\x07" + whole[1:]):
        with pytest.raises(ProtocolError):
            NalStream(codec, 1).configure(data)
    with pytest.raises(ProtocolError):
        NalStream(Codec.H264, 1).configure(avcc([], [], 3))
    with pytest.raises(ProtocolError):
        NalStream(Codec.H264, 1).configure(avcc([b""], []))


@pytest.mark.parametrize(("name", "codec"), [("h264_main.h264", Codec.H264), ("hevc_b0.hevc", Codec.HEVC)])
def test_a_record_that_cannot_be_read_changes_nothing(name: str, codec: Codec) -> None:
    stream, whole = NalStream(codec, 1), record(name)
    stream.configure(whole)
    before = stream.track
    assert before is not None
    size = stream.length_size
    for end in range(len(whole)):
        with suppress(ProtocolError):
            stream.configure(whole[:end])
            stream.configure(whole)  # it was a shorter one: of fewer parameter sets
        assert stream.track == before
    assert stream.length_size == size


def test_every_sample_is_covered() -> None:
    assert {p.name for p in FOLDER.iterdir() if p.suffix in (".h264", ".hevc")} == FACTS.keys()
