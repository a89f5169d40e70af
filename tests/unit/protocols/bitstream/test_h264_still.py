"""Pictures that show the last again: what a decoder makes of them, and of all that comes after."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from protocols.bitstream.h26x import NalStream
from protocols.bitstream.h264_still import H264Still
from protocols.bitstream.nal import START
from protocols.media import Codec, EncodedPacket
from tests.unit.transcode.media import pictures, see

ENCODERS = {
    "baseline": {"profile": "baseline"},
    "arithmetic coding": {"profile": "main", "preset": "medium", "bf": "0"},
    "weights": {"preset": "medium", "bf": "0", "x264-params": "weightp=2"},
    "8x8 transform, many references": {"preset": "slow", "bf": "0", "refs": "4"},
    "without deblocking": {"x264-params": "no-deblock=1"},
    "slices": {"x264-params": "slices=4:cabac=1"},
    "intra refresh": {"x264-params": "intra-refresh=1"},
}
SIZES = [(320, 180), (64, 64), (640, 368), (1280, 720), (16, 16)]


def sets(packets: list[EncodedPacket]) -> bytes:
    stream = NalStream(Codec.H264, 1)
    stream.annexb(packets[0].data)
    assert stream.track is not None
    return stream.track.extradata


def repeated(parameter_sets: bytes, access_unit: bytes) -> bytes:
    """What shows this one again, where it is the only one."""
    still = H264Still(parameter_sets)
    still.note(access_unit, 0)
    return still.repeat(1)


def with_stills(packets: list[EncodedPacket], often: Callable[[], int]) -> tuple[list[EncodedPacket], list[bool]]:
    """Each packet with some that repeat it behind it; whether each is one of those."""
    still = H264Still(sets(packets))
    made: list[EncodedPacket] = []
    repeated: list[bool] = []
    for packet in packets:
        still.note(packet.data, packet.pts)
        unit = still.repeat(packet.pts + 1)
        assert unit
        for number in range(1 + often()):
            time = len(made) * 33_000_000
            made.append(packet._replace(pts=time, dts=time, data=unit if number else packet.data, keyframe=not number))
            repeated.append(number > 0)
    return made, repeated


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_picture_stands_and_whatever_comes_next_is_the_same_to_the_bit(
    options: dict[str, str], size: tuple[int, int]
) -> None:
    _, packets = pictures(size=size, seconds=2.0, gop=25, options=options, noise=20)
    chance = random.Random(7)
    made, repeated = with_stills(packets, lambda: chance.choice((0, 0, 1, 5)))
    plain = [frame.to_ndarray() for frame in see(packets)]
    shown = [frame.to_ndarray() for frame in see(made)]
    assert len(shown) == len(made)
    source, wanted = iter(plain), plain[0]
    for frame, again in zip(shown, repeated, strict=True):
        wanted = wanted if again else next(source)
        assert np.array_equal(frame, wanted)


@pytest.mark.parametrize(
    "options", [{"b-pyramid": "normal"}, {"b-pyramid": "none", "refs": "4"}, {"b-pyramid": "strict", "refs": "2"}], ids=str
)
def test_behind_reordered_pictures_it_is_the_one_shown_last_that_stands(options: dict[str, str]) -> None:
    _, packets = pictures(seconds=2.0, gop=25, options={"preset": "medium", "bf": "3"} | options, noise=20)
    still = H264Still(sets(packets))
    made: list[EncodedPacket] = []
    shown_last: dict[int, int] = {}  # pts of what stands, by that of the one that repeats it
    for number, packet in enumerate(packets):
        still.note(packet.data, packet.pts)
        made.append(packet)
        last = max(each.pts for each in packets[: number + 1])
        if sum(each.pts <= last for each in packets) == number + 1:  # all are there that are shown before it
            for again in (1, 2):
                shown_last[last + again] = last
                made.append(packet._replace(pts=last + again, data=still.repeat(last + again), keyframe=False))
    assert len(shown_last) > 20
    plain = {frame.pts: frame.to_ndarray() for frame in see(packets)}
    shown = see(made)
    assert [frame.pts for frame in shown] == sorted(packet.pts for packet in made)
    for frame in shown:
        assert frame.pts is not None
        assert np.array_equal(frame.to_ndarray(), plain[shown_last.get(frame.pts, frame.pts)])


def test_behind_a_picture_that_nothing_refers_to_the_reference_before_it_stands() -> None:
    _, packets = pictures(seconds=1.0, options={"preset": "medium", "bf": "0", "nal-hrd": "none"})
    still = H264Still(sets(packets))
    for packet in packets[:9]:
        still.note(packet.data, packet.pts)
    reference = see(packets[:9])[-1].to_ndarray()
    at = packets[9].data.rfind(b"\0\0\1") + 3
    unreferenced = packets[9].data[:at] + bytes((packets[9].data[at] & 0x1F,)) + packets[9].data[at + 1 :]
    last = packets[9]._replace(data=unreferenced)
    still.note(last.data, last.pts)
    again = last._replace(pts=last.pts + 1, dts=last.dts + 1, data=still.repeat(last.pts + 1))
    *_, shown = see([*packets[:9], last, again])
    assert np.array_equal(shown.to_ndarray(), reference)


def test_it_takes_a_few_bytes() -> None:
    _, packets = pictures(size=(1920, 1080), seconds=0.1, options={"preset": "medium", "bf": "0"})
    unit = repeated(sets(packets), packets[0].data)
    assert 0 < len(unit) < 100


def test_what_no_picture_can_refer_to_and_what_is_no_picture_is_not_repeated() -> None:
    _, packets = pictures(seconds=1.0, options={"preset": "medium", "bf": "2"})
    unreferenced = [
        packet for packet in packets if not packet.keyframe and packet.data[packet.data.find(b"\0\0\1") + 3] & 0x60 == 0
    ]
    assert unreferenced
    assert not any(repeated(sets(packets), packet.data) for packet in unreferenced)
    for data in (b"", START, START + b"\x41", START + b"\x09\x30", b"\0\0\1\x65" + bytes(40), packets[0].data[:60]):
        repeated(sets(packets), data)
    assert not repeated(b"", packets[0].data)
    _, fields = pictures(seconds=0.5, options={"preset": "medium", "bf": "0"}, interlaced=True)
    assert not repeated(sets(fields), fields[0].data)
