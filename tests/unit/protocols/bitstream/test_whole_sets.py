"""What looks like a parameter set or SEI and is damaged: it is told from a whole one, and does not come to stay."""

import random
from contextlib import suppress

import pytest

from protocols.bitstream import h264, hevc
from protocols.bitstream.h26x import NalStream
from protocols.bitstream.nal import START, sei_ends
from protocols.errors import ProtocolError
from protocols.media import Codec
from tests.unit.protocols.bitstream.samples import (
    FOLDER,
    H264_PICTURES,
    HEVC_PICTURES,
    access_units,
    nal_type,
    nals,
    parameter_sets,
    sample,
)

NAMES = sorted(path.name for path in FOLDER.glob("*.h26*")) + sorted(path.name for path in FOLDER.glob("*.hevc"))


def is_hevc(name: str) -> bool:
    return name.endswith(".hevc")


def is_whole(name: str, unit: bytes) -> bool:
    syntax = hevc.SYNTAX if is_hevc(name) else h264.SYNTAX
    return syntax.is_whole(unit)


def stream_of(name: str) -> NalStream:
    return NalStream(Codec.HEVC if is_hevc(name) else Codec.H264, 1, damaged=True)


def plain_picture(name: str) -> bytes:
    """An access unit of one slice that is no key frame."""
    wanted = HEVC_PICTURES if is_hevc(name) else H264_PICTURES
    keys = range(16, 24) if is_hevc(name) else (5,)
    units = [nal for nal in nals(sample(name)) if nal_type(nal, hevc=is_hevc(name)) in wanted]
    return next(nal for nal in units if nal_type(nal, hevc=is_hevc(name)) not in keys)


@pytest.mark.parametrize("name", NAMES)
def test_what_real_encoders_send_is_whole(name: str) -> None:
    assert all(is_whole(name, unit) for unit in parameter_sets(name))
    sei = 39 if is_hevc(name) else 6
    assert all(is_whole(name, unit) for unit in nals(sample(name)) if nal_type(unit, hevc=is_hevc(name)) == sei)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_with_the_first_byte_of_a_set_is_not_whole(name: str) -> None:
    header = 2 if is_hevc(name) else 1
    picture = plain_picture(name)
    for unit in parameter_sets(name):
        assert not is_whole(name, unit[:header] + picture[header:])


@pytest.mark.parametrize("name", [name for name in NAMES if not is_hevc(name)])
def test_sets_that_go_on_behind_their_end_are_not_whole(name: str) -> None:
    assert not any(is_whole(name, unit + b"\x80") for unit in parameter_sets(name))


@pytest.mark.parametrize("name", NAMES)
def test_beside_whole_sets_a_damaged_one_is_left_out(name: str) -> None:
    stream, untouched = stream_of(name), stream_of(name)
    header = 2 if is_hevc(name) else 1
    first, *rest = access_units(name)
    assert stream.annexb(first) == untouched.annexb(first)
    for unit in parameter_sets(name):
        with suppress(ProtocolError):  # what has not even a number is refused
            damaged = stream.annexb(START + unit[:header] + plain_picture(name)[header:])
            assert not damaged.data
            assert damaged.flaw
    assert [stream.annexb(unit) for unit in rest] == [untouched.annexb(unit) for unit in rest]
    assert stream.track == untouched.track


def test_an_encoder_whose_own_sets_are_not_whole_may_change_them() -> None:
    name = "h264_main.h264"
    stream = stream_of(name)
    first = next(access_units(name))
    sps, pps = parameter_sets(name)
    stream.annexb(first.replace(pps, pps + b"\x80"))
    assert not stream.annexb(START + pps + b"\x81").flaw
    picture = stream.annexb(first.replace(sps, b"\x09\xf0").replace(pps, b"\x09\xf0"))
    assert picture.keyframe
    assert pps + b"\x81" in picture.data


def test_a_new_set_that_is_whole_is_taken_without_a_key_frame() -> None:
    name = "h264_main.h264"
    stream = stream_of(name)
    stream.annexb(next(access_units(name)))
    known = parameter_sets(name)[1]
    bits = (
        int.from_bytes(known[1:]) & ~(1 << 8 * len(known) - 9) | 0b010 << 8 * len(known) - 9
    )  # its id 0 is ue(v) 1, and 1 is 010
    pps = known[:1] + (bits << 6).to_bytes(len(known)).rstrip(b"\x00")
    assert h264.SYNTAX.is_whole(pps)
    assert not stream.annexb(START + pps).flaw
    assert pps in stream.annexb(START + plain_picture(name)).data


def test_sei_ends_where_its_messages_do() -> None:
    assert sei_ends(b"\x05\x03abc\x80")
    assert sei_ends(b"\x05\x03abc\x06\x00\x80")
    assert sei_ends(b"\xff\x01\xff\x01" + bytes(256) + b"\x80")
    for broken in (
        b"",
        b"\x05",
        b"\xff" * 9,
        b"\x05\x03ab\x80",
        b"\x05\x03abcd\x80",
        b"\x05\x03abc",
        b"\x01\x00" * 40 + b"\x80",
    ):
        assert not sei_ends(broken)


def test_nothing_of_any_bytes_is_raised() -> None:
    chance = random.Random(1)
    for _ in range(5000):
        data = chance.randbytes(chance.randrange(60))
        h264.SYNTAX.is_whole(bytes([chance.choice((0x67, 0x68, 0x06))]) + data)
        hevc.SYNTAX.is_whole(bytes([chance.choice((0x40, 0x42, 0x44, 0x4E)), 1]) + data)
