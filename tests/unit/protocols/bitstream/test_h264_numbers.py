"""Whether a picture follows another is read off their numbers."""

from itertools import pairwise

import pytest

from protocols.bitstream.h26x import NalStream
from protocols.bitstream.h264_numbers import PictureNumbers
from protocols.bitstream.nal import split_annexb
from protocols.media import Codec
from tests.unit.protocols.bitstream.samples import sample
from tests.unit.transcode.media import pictures


def slices_of(options: dict[str, str]) -> tuple[list[bytes], bytes]:
    """The first slice of each picture between two key frames, and the parameter sets."""
    stream, firsts = NalStream(Codec.H264, 1), []
    for packet in pictures(seconds=1, options=options, gop=30)[1]:
        stream.annexb(packet.data)
        firsts.append(next(unit for unit in split_annexb(packet.data) if unit[0] & 0x1F in (1, 5)))
    assert stream.track is not None
    return firsts, stream.track.extradata


@pytest.mark.parametrize("options", [{}, {"bf": "2", "b_strategy": "0"}, {"x264-params": "ref=1:bframes=0"}], ids=str)
def test_no_reference_is_missing(options: dict[str, str]) -> None:
    firsts, sets = slices_of(options)
    numbers = PictureNumbers(sets)
    assert all(numbers.follow(before, after) for before, after in pairwise(firsts))
    for index, (before, skipped, after) in enumerate(zip(firsts, firsts[1:], firsts[2:], strict=False)):
        needed = skipped[0] >> 5 & 3 != 0
        assert numbers.follow(before, after) is not needed, index


def test_what_cannot_be_read_does_not_follow() -> None:
    firsts, sets = slices_of({})
    numbers = PictureNumbers(sets)
    assert not numbers.follow(b"", firsts[1])
    assert not numbers.follow(firsts[0], firsts[1][:2])
    assert not PictureNumbers(b"").follow(firsts[0], firsts[1])
    assert not PictureNumbers(sample("h264_high10.h264")[:4]).follow(firsts[0], firsts[1])
    assert not PictureNumbers(b"no start code").follow(firsts[0], firsts[1])
