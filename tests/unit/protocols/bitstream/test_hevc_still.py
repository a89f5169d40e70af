"""Pictures that show nothing new: a decoder shows what it showed without them, and all that comes after to the bit."""

import random

import numpy as np
import pytest

from protocols.bitstream.h26x import NalStream
from protocols.bitstream.hevc_still import HevcStill
from protocols.bitstream.nal import START
from protocols.media import Codec, EncodedPacket
from tests.unit.transcode.media import MS, pictures, see

ENCODERS = {
    "no B-frames": "bframes=0",
    "long groups": "bframes=0:keyint=250",
    "B-frames that are references": "bframes=3:b-pyramid=1:ref=4",
    "open groups": "bframes=4:open-gop=1:ref=5",
    "small blocks": "bframes=0:ctu=16:min-cu-size=8",
    "no filters": "bframes=0:no-sao=1:no-deblock=1",
    "slices and weights": "bframes=2:slices=2:weightp=1:weightb=1",
    "all references alike": "bframes=0:ref=5:rd=5",
}
SIZES = [(320, 180), (64, 64), (328, 200)]


def coded(options: str, size: tuple[int, int] = (320, 180), seconds: float = 1.2) -> tuple[list[EncodedPacket], HevcStill]:
    """Pictures, the first of which has in front of it what a decoder needs for what is made."""
    options = f"log-level=none:repeat-headers=1:keyint=25:scenecut=0:{options}"
    _, packets = pictures(Codec.HEVC, size=size, seconds=seconds, gop=25, options={"x265-params": options}, noise=20)
    stream = NalStream(Codec.HEVC, 1)
    stream.annexb(packets[0].data)
    assert stream.track is not None
    still = HevcStill(stream.track.extradata)
    packets[0] = packets[0]._replace(data=still.parameter_sets + packets[0].data)
    return packets, still


def with_stills(packets: list[EncodedPacket], still: HevcStill, *, anywhere: bool) -> list[EncodedPacket]:
    chance = random.Random(7)
    made: list[EncodedPacket] = []
    for number, packet in enumerate(packets):
        still.note(packet.data, packet.pts)
        made.append(packet)
        last = max(each.pts for each in packets[: number + 1])
        if anywhere or sum(each.pts <= last for each in packets) == number + 1:  # all are there that are shown before it
            for _ in range(chance.choice((1, 1, 2, 5))):
                unit = still.repeat(last + MS)
                assert unit
                made.append(packet._replace(pts=last + MS, dts=packet.dts + 1, data=unit, keyframe=False))
    assert len(made) > len(packets) + 10
    return made


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_picture_stays_and_whatever_comes_next_is_the_same_to_the_bit(options: str, size: tuple[int, int]) -> None:
    packets, still = coded(options, size)
    plain, shown = see(packets, Codec.HEVC), see(with_stills(packets, still, anywhere=False), Codec.HEVC)
    assert [frame.pts for frame in shown] == [frame.pts for frame in plain]
    assert all(np.array_equal(one.to_ndarray(), other.to_ndarray()) for one, other in zip(plain, shown, strict=True))


def test_between_pictures_that_are_still_to_be_put_in_order_none_is_lost_or_harmed() -> None:
    packets, still = coded(ENCODERS["B-frames that are references"])
    plain = {frame.pts: frame.to_ndarray() for frame in see(packets, Codec.HEVC)}
    shown = {frame.pts: frame.to_ndarray() for frame in see(with_stills(packets, still, anywhere=True), Codec.HEVC)}
    assert shown.keys() == plain.keys()
    assert all(np.array_equal(picture, plain[at]) for at, picture in shown.items())


def test_it_takes_some_bytes() -> None:
    packets, still = coded("bframes=0", (1920, 1080), 0.1)
    still.note(packets[0].data, 0)
    assert 0 < len(still.repeat(1)) < 100


def test_what_is_no_picture_and_what_no_parameter_set_was_there_for_has_none() -> None:
    packets, still = coded("bframes=0", seconds=0.5)
    for data in (b"", START, START + b"\x02\x01", START + b"\x46\x01\x10", b"\0\0\1\x26\x01" + bytes(40), packets[1].data[:8]):
        still.note(data, 0)
        assert not still.repeat(1)
    without = HevcStill(b"")
    without.note(packets[0].data, 0)
    assert not without.repeat(1)
    assert without.parameter_sets == b""
